"""MC dropout: what drops, that masks are a function of what they are for, and that nothing is done twice."""

import copy
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.overrides import handle_torch_function, has_torch_function_unary

from lightning_al import MCDropout
from lightning_al.inference.look import Known
from lightning_al.inference.posteriors import Draw

WIDTH, CLASSES = 8, 3


class Plain(nn.Module):
    """Convolutions, BatchNorm, a skip connection, a function where a layer could be."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.maps, self.head = nn.Dropout2d(0.3), nn.Linear(4 * 36, CLASSES)
        self.trunk_runs = 0

    def forward(self, x):
        h = functional.relu(self.norm(self.conv(x)))
        self.trunk_runs += 1
        h = h + self.maps(h)
        h = functional.dropout(h.flatten(1), 0.4, training=self.training)
        return self.head(h)


class Sequence(nn.Module):
    """Tokens through `encoder`, pooled."""

    def __init__(self, encoder, width=WIDTH, *, time_first=False) -> None:
        super().__init__()
        self.encoder, self.head, self.time_first = encoder, nn.Linear(width, CLASSES), time_first

    def forward(self, x):
        x = x.transpose(0, 1) if self.time_first else x
        h = self.encoder(x)
        h = h[0] if isinstance(h, tuple) else h
        return self.head(h.mean(0 if self.time_first else 1))


class SelfAttention(nn.Module):
    """`nn.MultiheadAttention` on one input, with or without its weights."""

    def __init__(self, *, batch_first, need_weights) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, dropout=0.3, batch_first=batch_first)
        self.need_weights = need_weights

    def forward(self, x):
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


class Packed(nn.Module):
    """An LSTM over sequences of different lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, WIDTH, 3, dropout=0.4, batch_first=True, bidirectional=True, proj_size=3)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        lengths = (x[:, 0, 0].abs() * 10).long() % 3 + 3  # of the sample, not of its place
        out, _ = self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        padded, _ = pad_packed_sequence(out, batch_first=True, total_length=5)
        return self.head(padded.sum(1))


def layer(**options):
    return nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.3, **options)


def stacked(*layers):
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), *layers, nn.Linear(WIDTH, CLASSES))


TOKENS, VECTORS, IMAGES = (5, WIDTH), (WIDTH,), (2, 6, 6)


def one_by_one(model, count, consistent):
    posterior = MCDropout(count, consistent)
    posterior._known[model] = Known(vmaps=False)
    return posterior


MODELS = {
    "dropout": (lambda: stacked(nn.Dropout(0.3)), VECTORS),
    "dropout_in_place": (lambda: stacked(nn.Dropout(0.3, inplace=True), nn.ReLU(inplace=True)), VECTORS),
    "alpha_dropout": (lambda: stacked(nn.SELU(), nn.AlphaDropout(0.3)), VECTORS),
    "twice": (lambda: stacked(nn.Dropout(0.3), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Dropout(0.5)), VECTORS),
    "images": (Plain, IMAGES),
    "channels": (lambda: nn.Sequential(nn.Dropout1d(0.3), nn.Flatten(), nn.Linear(40, CLASSES)), TOKENS),
    "feature_alpha": (
        lambda: nn.Sequential(nn.FeatureAlphaDropout(0.3), nn.Flatten(), nn.Linear(72, CLASSES)),
        IMAGES,
    ),
    "attention": (lambda: Sequence(SelfAttention(batch_first=True, need_weights=False)), TOKENS),
    "attention_weights": (lambda: Sequence(SelfAttention(batch_first=True, need_weights=True)), TOKENS),
    "attention_time_first": (
        lambda: Sequence(SelfAttention(batch_first=False, need_weights=True), time_first=True),
        TOKENS,
    ),
    "encoder_layer": (lambda: Sequence(layer(batch_first=True)), TOKENS),
    "encoder_time_first": (
        lambda: Sequence(nn.TransformerEncoder(layer(), 2, enable_nested_tensor=False), time_first=True),
        TOKENS,
    ),
    "lstm": (lambda: Sequence(nn.LSTM(WIDTH, 6, 2, dropout=0.4, batch_first=True), 6), TOKENS),
    "lstm_time_first": (lambda: Sequence(nn.LSTM(WIDTH, 6, 2, dropout=0.4), 6, time_first=True), TOKENS),
    "gru_two_ways": (
        lambda: Sequence(nn.GRU(WIDTH, 6, 2, dropout=0.4, batch_first=True, bidirectional=True), 12),
        TOKENS,
    ),
    "packed": (Packed, TOKENS),
}


def made(name, size=6):
    torch.manual_seed(0)
    make, shape = MODELS[name]
    return make().eval(), torch.randn(size, *shape)


def run(model, x, posterior=None, *, seed=1, positions=None, consistent=True):
    posterior = posterior or MCDropout(7, consistent)
    positions = torch.arange(len(x)) if positions is None else positions
    with torch.no_grad():
        return torch.cat(
            list(posterior.passes(lambda module, batch: module(batch), model, x, Draw(seed, positions)))
        )


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["consistent", "independent"])
def consistent(request):
    return request.param


@pytest.mark.filterwarnings("ignore:MCDropout on")
class TestEveryKindOfDropout:
    """Of layers, functions, attention and recurrent layers."""

    def test_passes_differ_and_are_drawn_again_the_same(self, name, consistent):
        model, x = made(name)
        first, again = run(model, x, consistent=consistent), run(model, x, consistent=consistent)
        other = run(model, x, consistent=consistent, seed=2)
        assert torch.equal(first, again)
        assert first.std(0).min() > 0
        assert not torch.allclose(first, other)
        assert len(first[:, 0, 0].unique()) > 1

    def test_neither_batch_nor_order_nor_company_changes_a_sample(self, name, consistent):
        model, x = made(name)
        order = torch.tensor([4, 0, 5, 2, 1, 3])
        whole = run(model, x, consistent=consistent)
        shuffled = run(model, x[order], consistent=consistent, positions=order)
        halves = [
            run(model, part, consistent=consistent, positions=at)
            for part, at in zip(x.split([4, 2]), order.sort().values.split([4, 2]), strict=True)
        ]
        torch.testing.assert_close(shuffled, whole[:, order], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(torch.cat(halves, 1), whole, atol=1e-5, rtol=1e-5)

    def test_one_after_the_other_and_together_are_the_same(self, name, consistent):
        model, x = made(name)
        alone = one_by_one(model, 7, consistent)
        torch.testing.assert_close(
            run(model, x, alone), run(model, x, consistent=consistent), atol=1e-5, rtol=1e-5
        )

    def test_the_law_is_that_of_torch_in_training_mode(self, name, consistent):
        model, x = made(name)
        mine = run(model, x, MCDropout(350, consistent))
        for part in model.modules():
            if not isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.training = True
        with torch.no_grad():
            torchs = model(torch.cat([x] * 350)).unflatten(0, (350, len(x)))  # torch drops by row
        error = (mine.std(0) ** 2 + torchs.std(0) ** 2).div(350).sqrt()
        assert ((mine.mean(0) - torchs.mean(0)).abs() < 5 * error).all()
        assert ((mine.std(0) / torchs.std(0)).log().abs() < 0.25).all()

    def test_same_masks_for_all_only_if_consistent(self, name, consistent):
        model, x = made(name)
        x[1:] = x[0]
        passes = run(model, x, consistent=consistent)
        spread = (passes - passes[:, :1]).abs().max()
        assert (spread < 1e-5) == consistent

    def test_the_module_is_left_as_it_was(self, name, consistent):
        model, x = made(name)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        rng = torch.get_rng_state()
        plain = model(x)
        run(model, x, consistent=consistent)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert not any(part.training for part in model.modules())
        assert not any("forward" in vars(part) for part in model.modules())
        assert torch.equal(rng, torch.get_rng_state())
        torch.testing.assert_close(model(x), plain)


COMPUTED: list[int] = []


def trunk(x: torch.Tensor) -> torch.Tensor:
    """Notes that it was computed; to torch's modes, one function like its own."""
    if has_torch_function_unary(x):
        return handle_torch_function(trunk, (x,), x)
    COMPUTED.append(len(x))
    return 2 * x


class Headed(nn.Module):
    """An expensive beginning, then whatever."""

    def __init__(self, tail) -> None:
        super().__init__()
        self.tail = tail

    def forward(self, x):
        return self.tail(trunk(x))


class InPlace(nn.Module):
    """Changes after the dropout what came before it."""

    def forward(self, h):
        dropped = functional.dropout(h, 0.5, self.training)
        h.mul_(2)
        return h + dropped


class Branching(nn.Module):
    """Looks at the values after the dropout: `torch.vmap` cannot."""

    def forward(self, h):
        h = functional.dropout(h, 0.5, self.training)
        return h * 2 if h.sum().item() > 0 else h


class Guarded(nn.Module):
    """Hides its dropout in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(WIDTH)

    def forward(self, h):
        h = self.norm(h)
        return functional.scaled_dot_product_attention(
            h[:, None], h[:, None], h[:, None], dropout_p=0.5 if self.training else 0.0
        )[:, 0]


class TestTheBeginning:
    """What lies before the first dropout is computed once a batch."""

    @pytest.mark.parametrize("vmaps", [True, False])
    def test_is_computed_once(self, vmaps):
        model, x = (
            Headed(nn.Sequential(nn.Dropout(), nn.Linear(WIDTH, CLASSES))).eval(),
            torch.randn(6, WIDTH),
        )
        posterior = MCDropout(50) if vmaps else one_by_one(model, 50, True)
        run(model, x, posterior)  # the first batch is looked at before
        COMPUTED.clear()
        run(model, x, posterior)
        assert COMPUTED == [6]

    def test_is_computed_once_where_passes_come_in_pieces(self, monkeypatch):
        monkeypatch.setattr("lightning_al.inference.mc_dropout._TOGETHER", {"cpu": 4 * 6 * WIDTH})
        model, x = Headed(nn.Dropout()).eval(), torch.randn(6, WIDTH)
        posterior = MCDropout(10)
        run(model, x, posterior)  # the first batch is looked at before
        COMPUTED.clear()
        draw = Draw(0, torch.arange(6))
        pieces = list(posterior.passes(lambda module, batch: module(batch), model, x, draw))
        assert [len(piece) for piece in pieces] == [1, 4, 4, 1]
        assert COMPUTED == [6]

    @pytest.mark.parametrize("vmaps", [True, False])
    def test_is_computed_once_where_the_dropout_is_in_place(self, vmaps):
        tail = nn.Sequential(nn.Dropout(inplace=True), nn.ReLU(inplace=True), nn.Linear(WIDTH, CLASSES))
        model, x = Headed(tail).eval(), torch.randn(6, WIDTH)
        posterior = MCDropout(20) if vmaps else one_by_one(model, 20, True)
        run(model, x, posterior)
        COMPUTED.clear()
        passes = run(model, x, posterior)
        assert COMPUTED == [6]
        plain = Headed(nn.Sequential(nn.Dropout(), nn.ReLU(), tail[2])).eval()
        torch.testing.assert_close(passes, run(plain, x, MCDropout(20)))

    @pytest.mark.parametrize("vmaps", [True, False])
    @pytest.mark.parametrize("inference_mode", [False, True])
    def test_that_is_changed_later_is_put_back(self, vmaps, inference_mode):
        model, x = Headed(InPlace()).eval(), torch.randn(6, WIDTH)
        posterior = MCDropout(30) if vmaps else one_by_one(model, 30, True)
        COMPUTED.clear()
        with torch.inference_mode(inference_mode):
            passes = run(model, x, posterior)
        assert COMPUTED.count(6) <= 2  # of all samples; a few of them are looked at before
        assert len(COMPUTED) <= 5
        # Kept or dropped: 4x and twice 2x, or 4x.
        ratio = passes / x
        assert ((ratio - 4).abs() < 1e-5).logical_or((ratio - 8).abs() < 1e-5).all()

    def test_holds_only_what_is_still_needed(self):
        alive = []

        class Deep(nn.Module):
            def forward(self, x):
                made = []
                for _ in range(5):
                    x = x + 1
                    made.append(weakref.ref(x))
                x = functional.dropout(x, 0.5)
                alive.append(sum(ref() is not None for ref in made))
                return x

        run(Deep().eval(), torch.randn(6, WIDTH), MCDropout(1))
        assert alive[-1] == 1


class TestWhatVmapCannot:
    """Is run pass by pass, with the same masks."""

    def test_is_said_once_and_gives_the_same(self):
        model, x = Headed(Branching()).eval(), torch.randn(6, WIDTH)
        posterior = MCDropout(9)
        with pytest.warns(UserWarning, match="one after the other, since `torch.vmap` failed") as said:
            passes, _ = (run(model, x, posterior) for _ in range(2))
        assert len(said) == 1
        assert passes.shape == (9, 6, WIDTH)
        factors = (passes / (2 * x)).unique().round(decimals=4).unique()
        assert set(factors.tolist()) <= {0.0, 2.0, 4.0}

    def test_is_noticed_where_it_would_give_other_numbers(self, monkeypatch):
        model, x = made("dropout")
        posterior = MCDropout(9)
        real = torch.vmap
        monkeypatch.setattr(torch, "vmap", lambda f, **o: lambda n: real(f, **o)(n) + 1)
        with pytest.warns(UserWarning, match="gives other numbers"):
            passes = run(model, x, posterior)
        monkeypatch.undo()
        torch.testing.assert_close(passes, run(model, x, MCDropout(9)))


class TestNoDropout:
    """Is an error, not a posterior of one point."""

    @pytest.mark.parametrize("model", [nn.Linear(WIDTH, CLASSES), nn.Sequential(nn.Dropout(0.0)), Guarded()])
    def test_is_refused(self, model):
        with pytest.raises(ValueError, match=r"drops something.*met no dropout.*Add `nn.Dropout`"):
            run(model.eval(), torch.randn(6, WIDTH))

    @pytest.mark.parametrize("which", ["1", Guarded])
    def test_dropout_hidden_in_eval_mode_can_be_named(self, which):
        model = nn.Sequential(nn.BatchNorm1d(WIDTH), Guarded()).eval()
        before = model[1].norm.running_mean.clone()
        passes = run(model, torch.randn(6, WIDTH), MCDropout(7, train=(which,)))
        assert passes.std(0).max() > 0
        assert not any(part.training for part in model.modules())
        assert torch.equal(model[1].norm.running_mean, before)

    def test_unknown_names_are_refused(self):
        model = nn.Sequential(nn.Dropout()).eval()
        with pytest.raises(ValueError, match=r"names \['attn'\].*does not have"):
            run(model, torch.randn(6, WIDTH), MCDropout(train=("attn",)))

    @pytest.mark.parametrize("count", [0, -1, 1.5, True, "20"])
    def test_there_must_be_passes(self, count):
        with pytest.raises((ValueError, TypeError), match="num_samples"):
            MCDropout(count)


class Between(nn.Module):
    """Attention between the samples of a batch."""

    def forward(self, x):
        return functional.dropout((x @ x.T).softmax(-1), 0.5) @ x


def test_a_mask_for_all_needs_to_know_where_the_samples_are():
    model = Between().eval()
    with pytest.raises(ValueError, match=r"shape \(6, 6\).*along no axis.*consistent=False"):
        run(model, torch.randn(6, WIDTH))
    with pytest.warns(UserWarning, match="depend on the size and order of batches"):
        assert run(model, torch.randn(6, WIDTH), consistent=False).std(0).max() > 0


class Wherever(nn.Module):
    """Dropout where the shape does not tell which axis holds the samples."""

    def __init__(self, where) -> None:
        super().__init__()
        self.where, self.position = where, nn.Parameter(torch.ones(1, 5, WIDTH))
        self.lstm = nn.LSTM(WIDTH, 3)

    def forward(self, x):  # (B, 5, WIDTH)
        batch = len(x)
        if self.where == "time_first":
            return functional.dropout(x.transpose(0, 1), 0.5).sum(0)
        if self.where == "flattened_time_first":
            flat = functional.dropout(x.transpose(0, 1).reshape(-1, WIDTH), 0.5)
            return flat.reshape(-1, batch, WIDTH).sum(0)
        if self.where == "two_views":
            return functional.dropout(torch.cat([x, 2 * x]), 0.5).unflatten(0, (2, batch)).sum((0, 2))
        if self.where == "channels_and_lstm":
            maps = functional.dropout1d(x, 0.5)
            return self.lstm(maps.transpose(0, 1))[0].sum(0)
        if self.where == "position":
            return (x + functional.dropout(self.position, 0.5)).sum(1)
        if self.where == "weights":
            return x.sum(1) @ functional.dropout(self.position[0], 0.5).T
        return self.depth(x).sum(1)

    @staticmethod
    def depth(x):
        """Stochastic depth."""
        return x * x.new_empty(len(x), 1, 1).bernoulli_(0.5) / 0.5


WHERE = [
    "time_first",
    "flattened_time_first",
    "two_views",
    "channels_and_lstm",
    "position",
    "weights",
    "depth",
]


@pytest.mark.filterwarnings("ignore:MCDropout on `Wherever`. passes run one after the other")
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("size", [4, 5, 10])
def test_the_samples_are_found_wherever_they_are(where, size, consistent):
    torch.manual_seed(0)
    model = Wherever(where).eval()
    x = torch.randn(size, 5, WIDTH)
    posterior = MCDropout(7, consistent)
    whole = run(model, x, posterior)
    assert whole.std(0).max() > 0
    parts = [run(model, part, posterior, positions=at) for part, at in halves(x)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)
    other = MCDropout(7, consistent)  # which first sees another size
    parts = [run(model, part, other, positions=at) for part, at in halves(x)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)
    same = run(model, x[:1].expand(size, -1, -1), posterior)
    differ = not consistent and where not in ("position", "weights")
    assert (
        (same - same[:, :1]).abs().max().item() > 1e-5
        if differ
        else torch.allclose(same, same[:, :1], atol=1e-5)
    )


def halves(x):
    return zip(x.split([3, len(x) - 3]), torch.arange(len(x)).split([3, len(x) - 3]), strict=True)


class Noisy(nn.Module):
    """Draws random numbers that are no dropout."""

    def forward(self, x):
        return functional.dropout(x, 0.5) + torch.randn_like(x)


def test_other_random_numbers_are_refused_or_said():
    model, x = Noisy().eval(), torch.randn(6, WIDTH)
    with pytest.raises(
        ValueError, match=r"draws random numbers by \['randn_like'\].*Leave them out in eval mode"
    ):
        run(model, x)
    with pytest.warns(UserWarning, match="depend on the size and order of batches"):
        run(model, x, consistent=False)


class Notes(nn.Module):
    """Keeps what it computed, as attention often does."""

    def forward(self, x):
        self.seen = functional.dropout(x, 0.5)
        return self.seen


def test_nothing_of_many_passes_stays_on_the_module():
    model = Notes().eval()
    run(model, torch.randn(6, WIDTH))
    assert not hasattr(model, "seen")
    model(torch.randn(6, WIDTH))
    before = model.seen
    run(model, torch.randn(6, WIDTH))
    assert model.seen is before
    copy.deepcopy(model)


class LastStep(nn.LSTM):
    """A subclass with a forward of its own."""

    def forward(self, x):
        return super().forward(x)[0][:, -1]


@pytest.mark.parametrize("kind", ["subclass", "weight_norm"])
@pytest.mark.filterwarnings("ignore:MCDropout on")
def test_recurrent_layers_of_other_making(kind):
    torch.manual_seed(0)
    plain = nn.LSTM(WIDTH, 3, 2, dropout=0.5, batch_first=True).eval()
    x = torch.randn(6, 5, WIDTH)
    expected = run(Sequence(plain, 3), x)
    if kind == "subclass":
        model = LastStep(WIDTH, 3, 2, dropout=0.5, batch_first=True).eval()
        model.load_state_dict(plain.state_dict())
        assert run(model, x).std(0).max() > 0
        return
    normed = nn.utils.parametrizations.weight_norm(copy.deepcopy(plain), "weight_hh_l1").eval()
    found = run(Sequence(normed, 3), x)
    assert found.std(0).max() > 0
    assert found.shape == expected.shape


def test_layers_of_an_lstm_leave_what_lies_before_them_alone():
    model = Headed(Sequence(nn.LSTM(WIDTH, 3, 2, dropout=0.5, batch_first=True), 3)).eval()
    posterior, x = one_by_one(model, 9, True), torch.randn(6, 5, WIDTH)
    run(model, x, posterior)
    COMPUTED.clear()
    run(model, x, posterior)
    assert COMPUTED == [6]


@pytest.mark.parametrize("name", ["twice", "encoder_layer", "images"])
def test_mixed_precision_gives_nearly_the_same_and_says_that_it_takes_longer(name, monkeypatch):
    model, x = made(name)
    plain, said = run(model, x), []
    monkeypatch.setattr("lightning_al.inference.mc_dropout.rank_zero_info", said.append)
    posterior = MCDropout(7)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = run(model, x, posterior)
        run(model, x, posterior)
    assert len(said) == 1
    assert "passes run one after the other under mixed precision" in said[0]
    assert (mixed - plain).abs().max() < 0.05 * plain.abs().max()
    assert (mixed.std(0) / plain.std(0) - 1).abs().max() < 0.2


def test_attention_as_written_out_is_torchs():
    from lightning_al.inference.dropout import Dropping

    q, k, v = torch.randn(3, 2, 4, 5, 8).unbind()
    shared = torch.randn(2, 2, 5, 8)
    mask = torch.rand(5, 5) > 0.3
    mask |= torch.eye(5, dtype=torch.bool)
    ours = Dropping(torch.tensor(0), 2, None)
    ours._drop = lambda weights, *_, **__: weights
    cases = [{}, {"is_causal": True}, {"attn_mask": mask}, {"attn_mask": torch.randn(5, 5)}, {"scale": 0.3}]
    for options in cases:
        torch.testing.assert_close(
            ours._attention(q, k, v, **options), functional.scaled_dot_product_attention(q, k, v, **options)
        )
    torch.testing.assert_close(
        ours._attention(q, shared, shared, enable_gqa=True),
        functional.scaled_dot_product_attention(q, shared, shared, enable_gqa=True),
    )


def test_compiled_parts_drop_too():
    torch.manual_seed(0)
    net = stacked(nn.Dropout(0.3)).eval()
    x = torch.randn(6, WIDTH)
    compiled = nn.Sequential(torch.compile(net, backend="eager"))
    compiled(x)
    torch.testing.assert_close(run(compiled, x), run(nn.Sequential(net), x))


def test_passes_under_mixed_precision_are_those_one_by_one():
    """`torch.vmap` leaves autocasting out: together they would be computed in float32."""
    layer, x = nn.Linear(WIDTH, CLASSES), torch.randn(6, WIDTH)
    model = nn.Sequential(nn.Dropout(0.5), layer).eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert torch.vmap(lambda n: layer(x * n))(torch.ones(3)).dtype == torch.float32
        assert layer(x).dtype == torch.bfloat16
        passes = run(model, x, MCDropout(5))
        alone = run(model, x, one_by_one(model, 5, True))
    assert passes.dtype == torch.bfloat16
    assert torch.equal(passes, alone)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"num_samples": 0}, ValueError, "`num_samples` is 0; it must be at least 1"),
        ({"num_samples": 1.5}, TypeError, "`num_samples` is 1.5; needed is a whole number, 1 or more"),
        ({"num_samples": True}, TypeError, "`num_samples` is True; needed is a whole number"),
        ({"consistent": "no"}, TypeError, "`consistent` is 'no'; needed is `True` or `False`. Pass one"),
        ({"train": (nn.Dropout(),)}, TypeError, r"`train` holds Dropout.*needed are names.*Pass them"),
        ({"train": 3}, TypeError, "`train` holds 3; needed are names of submodules or classes"),
        ({"train": [dict]}, TypeError, "`train` holds <class 'dict'>; needed are names"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        MCDropout(**arguments)


def test_one_part_may_be_named_without_a_tuple():
    assert MCDropout(train="net.0").train == ("net.0",)
    assert MCDropout(train=nn.Dropout).train == MCDropout(train=[nn.Dropout]).train == (nn.Dropout,)
    with pytest.raises(ValueError, match=r"names \['drop'\].*does not have"):
        run(nn.Sequential(nn.Dropout()).eval(), torch.randn(6, WIDTH), MCDropout(train="drop"))
