"""Features of any shape, of layers that return anything."""

import copy
import pickle
from collections import namedtuple
from dataclasses import dataclass

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from lightning_al import LearningLossOptions
from unit.learning_loss.nets import Net, Own, batch, losses_of, ready


def width(layer, example, **options):
    module = Own(layer, example=example)
    module.learning_loss_options = LearningLossOptions(hidden=3, **options)
    module.configure_model()
    return module.loss_head.branches[0].in_features


@pytest.mark.parametrize(
    ("layer", "shape", "channels", "expected"),
    [
        (nn.Conv2d(3, 5, 3), (2, 3, 8, 9), "auto", 5),
        (nn.Conv3d(1, 4, 1), (2, 1, 3, 3, 3), "auto", 4),
        (nn.Linear(6, 7), (2, 9, 6), "auto", 7),
        (nn.Linear(6, 7), (2, 6), "auto", 7),
        (nn.Sequential(nn.Conv1d(3, 5, 2), nn.BatchNorm1d(5), nn.ReLU()), (2, 3, 9), "auto", 5),
        (nn.Identity(), (2, 3, 9), "auto", 9),
        (nn.Identity(), (2, 3, 9), "first", 3),
        (nn.Identity(), (2, 4, 4, 11), "last", 11),
        (nn.Flatten(0), (2,), "auto", 1),
        (nn.LSTM(6, 7, batch_first=True), (2, 9, 6), "auto", 7),
        (nn.LSTM(6, 7), (9, 2, 6), "auto", 7),
        (nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), (2, 9, 6), "auto", 6),
        (nn.TransformerEncoderLayer(6, 2, 8), (9, 2, 6), "auto", 6),
    ],
)  # fmt: skip
def test_widths_of_maps_sequences_and_vectors(layer, shape, channels, expected):
    assert width(layer, torch.zeros(shape), channels=channels) == expected


def pooled(layer, x, **options):
    module = Own(layer, example=x)
    module.learning_loss_options = LearningLossOptions(**options)
    module.configure_model()
    features = module._learning_loss.features
    with features.listen():
        module(x)
        return features.latest()["layer"][1]


def test_places_and_tokens_are_averaged():
    x = torch.randn(2, 3, 4, 5)
    assert torch.allclose(pooled(nn.Identity(), x), x.mean((2, 3)))
    assert torch.allclose(pooled(nn.Identity(), x, channels="last"), x.mean((1, 2)))
    x = torch.randn(2, 3, 4)
    assert torch.allclose(pooled(nn.Identity(), x), x.mean(1))
    assert torch.allclose(pooled(nn.AvgPool1d(1), x), x.mean(2))
    lstm = nn.LSTM(4, 5)  # (time, batch, features)
    assert torch.allclose(pooled(lstm, x), lstm(x)[0].mean(0))
    assert pooled(nn.Identity(), x.bfloat16()).dtype == torch.float32


Pair = namedtuple("Pair", ["ids", "hidden"])


@dataclass
class Output:
    ids: torch.Tensor
    hidden: torch.Tensor


@dataclass(slots=True)
class Slotted:
    ids: torch.Tensor
    hidden: torch.Tensor


class Owned:
    """Holds what holds it."""

    def __init__(self, hidden):
        self.config = {"owner": self}
        self.hidden = hidden


class Returning(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.weight = nn.Linear(4, 6)
        self.make = make

    def forward(self, x):
        return self.make(torch.arange(len(x)), self.weight(x))


@pytest.mark.parametrize(
    "make",
    [
        lambda ids, h: (ids, h), lambda ids, h: {"ids": ids, "more": [None, (h,)]}, Pair, Output,
        lambda ids, h: (torch.tensor(0.0), h), Slotted, lambda ids, h: Owned(h),
    ],
)  # fmt: skip
def test_a_layer_may_return_a_tuple_a_mapping_or_an_object(make):
    assert width(Returning(make), torch.zeros(2, 4)) == 6


def test_only_means_are_kept_of_a_map():
    module = ready(Own(nn.Conv2d(1, 3, 1), example=torch.zeros(2, 1, 64, 64)))
    (tap,) = module._learning_loss.features._taps.values()
    with module._learning_loss.features.listen(), torch.no_grad():
        module(torch.zeros(2, 1, 64, 64))
        kept = [part for part in tap.passes[0].by_axis if part is not None]
        assert [part.untyped_storage().nbytes() for part in kept] == [2 * 3 * 4]


@pytest.mark.parametrize("shape", [(5, 4), (5, 3, 4), (5,)])
def test_a_later_layer_may_work_in_place(shape):
    module = Own(nn.Identity(), example=torch.zeros(shape), after=nn.ReLU(inplace=True))
    ready(module)
    x = -torch.rand(shape)
    expected = x.mean(1) if x.ndim == 3 else x.clone().reshape(5, -1)
    with module._learning_loss.features.listen():
        module(x)
        assert torch.equal(module._learning_loss.features.for_batch(5)["layer"], expected)


@pytest.mark.parametrize("order", [(False, True), (True, False)])
def test_of_passes_over_as_many_samples_that_with_a_graph_is_used(order):
    module = ready(Net())
    features = module._learning_loss.features
    outputs = {}
    with features.listen():
        for has_graph in order:
            with torch.set_grad_enabled(has_graph):
                outputs[has_graph] = module.net[0](batch(seed=int(has_graph))[0])
                module.net[2](outputs[has_graph])
        found = features.for_batch(6)
        assert torch.equal(found["net.0"], outputs[True])
        module.net(batch()[0])
        with pytest.raises(RuntimeError, match=r"`net.0` ran 3 times on 6 samples"):
            features.for_batch(6)


class Checkpointed(Net):
    reentrant = True

    def forward(self, x):
        return checkpoint(self.net, x.requires_grad_(), use_reentrant=self.reentrant)


def test_features_that_activation_checkpointing_cut_off():
    module = ready(Checkpointed())
    with pytest.warns(UserWarning, match=r"`net.0` .* ran with gradients off.*use_reentrant=False"):
        module.training_step(batch(), 0)
    module.training_step(batch(), 0)  # once is enough
    module.reentrant = False
    assert module.training_step(batch(), 0).requires_grad


@pytest.mark.parametrize("why", ["not reentrant", "detached", "frozen"])
def test_features_that_may_be_cut_off(why):
    module = Checkpointed()
    module.reentrant = why != "not reentrant"
    if why == "detached":
        module.learning_loss_options = LearningLossOptions(detach_after=0)
    if why == "frozen":
        module.learning_loss_layers = ("net.0",)
        module.net[0].requires_grad_(False)
    assert ready(module).training_step(batch(), 0).requires_grad  # and no warning


@pytest.mark.parametrize(
    ("names", "kind"),
    [(None, TypeError), (3, TypeError), ({"net.0": 1}, TypeError), (("",), ValueError), ([1], TypeError)],
)
def test_names_of_layers_that_are_none(names, kind):
    module = Net()
    module.learning_loss_layers = names
    with pytest.raises(
        kind, match=r"`Net.learning_loss_layers` is .*; needed .* names of submodules.*such as"
    ):
        module.configure_model()


def test_why_there_are_no_features():
    module, (x, y) = ready(Net()), batch()
    module(x)
    with pytest.raises(RuntimeError, match=r"nobody listens.*inside of `with module.predicting_loss\(\)"):
        module.predicted_loss(6)
    module.training_step((x, y), 0).backward()
    nothing = "no forward pass went through it within `predicting_loss`"
    with module.predicting_loss(), pytest.raises(RuntimeError, match=nothing):
        module.predicted_loss(6)

    class Twice(Net):
        def training_step(self, batch, batch_idx):
            losses = losses_of(self(x), y)
            return self.learning_loss(losses) + self.learning_loss(2 * losses)

    with pytest.raises(
        RuntimeError, match=r"last pass in this step were used already.*once for each forward"
    ):
        ready(Twice()).training_step(None, 0)


def test_a_fit_says_once_what_it_found(monkeypatch):
    said = []
    monkeypatch.setattr("lightning_al.learning_loss.making.rank_zero_info", said.append)
    module = ready(Net())
    assert not said
    module = Net()
    for _ in range(2):
        trainer = L.Trainer(fast_dev_run=2, accelerator="cpu", enable_progress_bar=False, logger=False)
        trainer.fit(module, DataLoader(TensorDataset(*batch(8)), 4))
    assert said == [
        "Learning Loss, the layers' shapes and widths in a dry run: net.0 (2, 8) -> 8, net.2 (2, 8) -> 8"
    ]


def test_an_output_without_features_is_an_error():
    with pytest.raises(
        TypeError, match=r"`layer` .* gave a tuple, in which there is no tensor.*Name a layer"
    ):
        width(Returning(lambda ids, h: (ids, "text")), torch.zeros(2, 4))


def test_a_copys_features_go_to_the_copy():
    first = ready(Net())
    first.training_step(batch(), 0).backward()
    first.zero_grad()
    with first._learning_loss.features.listen():
        first(batch()[0])  # what was heard has a graph
        second = copy.deepcopy(first)
    third = pickle.loads(pickle.dumps(first))
    for other in (second, third):
        with other.predicting_loss():
            other(batch()[0])
            assert other.predicted_loss(6).shape == (6,)
            assert not first._learning_loss.features.is_listening
        other.training_step(batch(), 0).backward()
    assert all(p.grad is None for p in first.parameters())


def test_nothing_is_kept_after_a_step_and_plain_passes_keep_nothing():
    module = ready(Net())
    taps = list(module._learning_loss.features._taps.values())
    module.training_step(batch(), 0)
    module(batch()[0])
    assert all(tap.passes == [] for tap in taps)
    with pytest.raises(ValueError, match="NaN"):
        module.training_step((torch.full((4, 4), float("nan")), torch.zeros(4, dtype=torch.long)), 0)
    assert all(tap.passes == [] and not tap.is_listening for tap in taps)


@pytest.mark.parametrize("make", [lambda layer: nn.Linear(4, 8), copy.deepcopy], ids=["new", "copy"])
def test_a_layer_replaced_after_the_head_was_made_is_listened_to(make):
    module = ready(Net())
    module.net[0] = make(module.net[0])
    for _ in range(2):
        module.training_step(batch(), 0).backward()
    assert module.net[0].weight.grad.any()
    taps = list(module._learning_loss.features._taps.values())
    assert sum(hook in taps for hook in module.net[0]._forward_hooks.values()) == 1


class Block(nn.Module):
    """A class of one's own: torch compiles no frame of its own containers."""

    def __init__(self, dims):
        super().__init__()
        self.linear, self.norm = nn.Linear(*dims), nn.BatchNorm1d(dims[1])

    def forward(self, x):
        return self.norm(self.linear(x)).relu()


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = Block((4, 8)), Block((8, 8)), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.second(self.first(x)))


class Compiled(Net):
    learning_loss_layers = ("net.first", "net.second.linear")

    def __init__(self):
        super().__init__()
        self.net = Blocks()


def graphs(backend):
    """A backend that counts what it is given."""
    count = []

    def compile_graph(graph, inputs):
        count.append(len(graph.graph.nodes))
        return graph.forward

    return count, (compile_graph if backend == "counted" else backend)


# Dynamo hides this warning of its own, unless warnings are errors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize(
    ("what", "backend"), [("inside", "counted"), ("layer", "counted"), ("wrapped", "aot_eager")]
)
def test_compiled_submodules_are_heard(backend, what):
    torch._dynamo.reset()
    module, plain = Compiled(), Compiled()
    plain.load_state_dict(module.state_dict())
    count, backend = graphs(backend)
    if what == "inside":
        module.net.compile(backend=backend, fullgraph=True)
    elif what == "layer":
        module.net.first.compile(backend=backend, fullgraph=True)
    else:
        module.net = torch.compile(module.net, backend=backend, fullgraph=True)
    ready(module)
    ready(plain).loss_head.load_state_dict(module.loss_head.state_dict())
    for seed in range(3):
        found = []
        for net in (module, plain):
            net.zero_grad()
            loss = net.training_step(batch(seed=seed), 0)
            loss.backward()
            found.append((loss, net.net.first.linear.weight.grad, net.loss_head.branches[0].weight.grad))
        for ours, expected in zip(*found, strict=True):
            assert torch.allclose(ours, expected, atol=1e-6)
    assert bool(count) == (backend != "aot_eager")
    with module.eval().predicting_loss(), torch.no_grad():
        module(batch(5)[0])
        assert module.predicted_loss(5).shape == (5,)
    torch._dynamo.reset()


def test_a_compiled_layer_that_is_not_heard_is_an_error_and_the_advice_helps():
    torch._dynamo.reset()
    module = Compiled()
    module.net.compile(backend="eager", fullgraph=True)
    module(batch()[0])  # compiled before anybody listens
    ready(module)
    with pytest.raises(RuntimeError, match=r"`net.first` .* gave nothing.*compiled.*torch._dynamo.reset\(\)"):
        module.training_step(batch(), 0)
    torch._dynamo.reset()
    for size in (4, 6, 7):
        module.zero_grad()
        module.training_step(batch(size), 0).backward()
        assert module.net.first.linear.weight.grad.any()
    torch._dynamo.reset()
