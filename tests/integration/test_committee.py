"""Committees: trained by `fit_rounds` member by member, or given; asked once a round, tested as one."""

import csv
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from integration.small import CLASSES, FEATURES, Net, Validated, blobs, pool, queries, quiet, weights
from lightning_al import ActiveLearning, Committee, MCDropout, SinglePass, fit_rounds, query
from lightning_al import acquisition as acq
from lightning_al import functional as F
from lightning_al.data.module import TrainView

SIZE = 3


def seeded(seed):
    torch.manual_seed(seed)
    return Net()


def bald(committee=None, **options):
    return ActiveLearning(acq.BALD(committee or Committee(SIZE)), **{"query_size": 8, **options})


def rounds(state_dir, model, active, count=1, make=None, **options):
    return fit_rounds(model, make or (lambda r: quiet()), pool(state_dir, **options), active, rounds=count)


def flat(state):
    return torch.cat([value.flatten().float() for value in state.values()])


def kept(state_dir, number):
    """The members that a round left."""
    files = sorted((state_dir / f"round_{number}").glob("member_*.pt"))
    return [torch.load(file, weights_only=True) for file in files]


class Recorded(Net):
    """Writes down, for every fit, what it began with and what it was shown."""

    fits: list

    def __init__(self):
        super().__init__()
        self.fits = []

    def on_train_start(self):
        self.fits.append({"begin": weights(self), "shown": [], "trainer": self.trainer})

    def training_step(self, batch, batch_idx):
        self.fits[-1]["shown"] += batch[0][:, 0].tolist()
        return super().training_step(batch, batch_idx)

    def on_train_end(self):
        self.fits[-1]["end"] = weights(self)


@pytest.fixture
def recorded(request, tmp_path):
    module = Recorded()
    history = rounds(tmp_path, module, bald(restart=request.param), 1)
    assert len(module.fits) == 2 * SIZE
    return module.fits, history, tmp_path


@pytest.mark.parametrize("recorded", ["initial"], indirect=True)
def test_members_have_weights_orders_and_trainers_of_their_own(recorded):
    fits, _, folder = recorded
    for number in range(2):
        ours = fits[SIZE * number : SIZE * (number + 1)]
        assert len({fit["trainer"] for fit in ours}) == SIZE
        assert len({tuple(fit["shown"]) for fit in ours}) == SIZE
        assert len({tuple(sorted(fit["shown"])) for fit in ours}) == 1  # the same samples
        for a in range(SIZE):
            for b in range(a):
                assert not torch.allclose(ours[a]["begin"], ours[b]["begin"])
        saved = kept(folder, number)
        assert len(saved) == SIZE
        for fit, member in zip(ours, saved, strict=True):
            assert torch.equal(flat(member["state_dict"]), fit["end"])
    for a, b in zip(fits[:SIZE], fits[SIZE:], strict=True):
        assert torch.equal(a["begin"], b["begin"])


@pytest.mark.parametrize("recorded", ["redraw"], indirect=True)
def test_redrawn_members_begin_differently_in_every_round(recorded):
    fits, _, _ = recorded
    assert len({tuple(fit["begin"].tolist()) for fit in fits}) == 2 * SIZE


@pytest.mark.parametrize("recorded", ["warm"], indirect=True)
def test_warm_members_begin_with_their_own_last_weights(recorded):
    fits, _, _ = recorded
    for a, b in zip(fits[:SIZE], fits[SIZE:], strict=True):
        assert torch.equal(b["begin"], a["end"])


@pytest.mark.parametrize("recorded", ["shrink_perturb"], indirect=True)
def test_perturbed_members_begin_near_their_own_shrunken_weights(recorded):
    fits, _, _ = recorded
    last = fits[SIZE:]
    for place, fit in enumerate(last):
        gaps = [(fit["begin"] - 0.6 * old["end"]).abs().max() for old in fits[:SIZE]]
        assert gaps[place] < 0.011
        assert min(gap for other, gap in enumerate(gaps) if other != place) > 0.1


def test_a_function_makes_every_member_from_a_seed_of_its_own(tmp_path):
    seeds = []

    def make(seed):
        seeds.append(seed)
        return seeded(seed)

    rounds(tmp_path, make, bald(), 1)
    assert len(set(seeds[:SIZE])) == SIZE
    assert seeds[:SIZE] == seeds[SIZE:]  # restart="initial"


def test_bootstrap_draws_labels_with_replacement_another_way_for_every_member(tmp_path, monkeypatch):
    views = []
    init = TrainView.__init__

    def spy(self, dataset, indices, *args):
        views.append(list(map(int, indices)))
        init(self, dataset, indices, *args)

    monkeypatch.setattr(TrainView, "__init__", spy)
    data = pool(tmp_path)
    active = bald(Committee(SIZE, bootstrap=True))
    fit_rounds(seeded, lambda r: quiet(), data, active, rounds=1)
    labeled = data.labeled_indices.tolist()
    assert len(views) == 2 * SIZE
    assert all(set(view) <= set(labeled[:12]) and len(view) == 12 for view in views[:SIZE])
    assert all(set(view) <= set(labeled) and len(view) == 20 for view in views[SIZE:])
    assert all(len(set(view)) < len(view) for view in views)
    assert len({tuple(sorted(view)) for view in views}) == 2 * SIZE
    # The measurements are of the labels, not of what was drawn.
    assert data.ledger.rounds()[1]["labeled"] == 20


def by_hand(state_dir, number, x):
    """Logits of the members that a round left, `(K, N, C)`."""
    found = []
    for member in kept(state_dir, number):
        net = Net().eval()
        net.load_state_dict(member["state_dict"])
        with torch.no_grad():
            found.append(net(x))
    return torch.stack(found)


class Scored(acq.BALD):
    """Remembers the scores of the whole pool."""

    def select(self, pool, query_size, *, labeled, generator):
        self._seen.append(pool["score"])
        return super().select(pool, query_size, labeled=labeled, generator=generator)


class ByHand(Net):
    def test_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.log("test_acc", (logits.argmax(1) == y).float().mean())
        self.log("test_nll", nn.functional.cross_entropy(logits, y))


@pytest.mark.parametrize("given", ["module", "function"])
def test_query_and_test_are_those_of_a_committee_made_by_hand(tmp_path, given):
    def make(seed):
        torch.manual_seed(seed)
        return ByHand()

    strategy = Scored(Committee(SIZE))
    strategy._seen = []
    test_set = blobs(27, 1)
    data = pool(tmp_path, test_set=test_set)
    active = ActiveLearning(strategy, query_size=8)
    model = make(0) if given == "module" else make
    history = fit_rounds(model, lambda r: quiet(), data, active, rounds=2)
    assert [len(q) for q in queries(tmp_path).values()] == [8, 8]
    assert len(strategy._seen) == 2  # a query a round, not one a member
    labeled = data.labeled_indices.tolist()
    x, targets = test_set.tensors
    for number in range(3):
        probs = by_hand(tmp_path, number, x).softmax(-1).mean(0)
        row = list(history)[number]
        assert row["test_acc"] == pytest.approx(float((probs.argmax(1) == targets).float().mean()))
        nll = nn.functional.nll_loss(probs.log(), targets)
        assert row["test_nll"] == pytest.approx(float(nll), rel=1e-4)
        if number < 2:
            left = sorted(set(range(60)) - set(labeled[: 12 + 8 * number]))
            scores = F.bald(by_hand(tmp_path, number, blobs().tensors[0][left]).softmax(-1).movedim(0, 1))
            torch.testing.assert_close(strategy._seen[number], scores, atol=1e-6, rtol=1e-4)
            best = [left[i] for i in scores.argsort(descending=True, stable=True)[:8]]
            assert queries(tmp_path)[number + 1] == best


def test_seconds_of_training_are_those_of_all_members(tmp_path):
    history = rounds(tmp_path, seeded, bald(), 1)
    for number, row in enumerate(history):
        parts = [member["train_s"] for member in kept(tmp_path, number)]
        assert row["train_s"] == pytest.approx(sum(parts))
        assert min(parts) > 0


def test_the_history_and_the_logger_hold_one_curve(tmp_path):
    def make(number):
        return quiet(logger=CSVLogger(tmp_path / "logs", flush_logs_every_n_steps=1), log_every_n_steps=1)

    history = rounds(tmp_path / "state", seeded, bald(), 2, make, test_set=blobs(9, 1))
    assert history.column("labeled") == [12, 20, 28]
    assert history.column("asked") == [8, 8, 0]
    files = list((tmp_path / "logs").rglob("metrics.csv"))
    assert len(files) == 1
    with files[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows if row["train_loss"]]
    assert steps == list(range(SIZE * (6 + 10 + 14)))
    assert [int(row["step"]) for row in rows if row["active/asked"]] == [12, 20, 28]
    assert [int(row["step"]) for row in rows if row["active/test_acc"]] == [12, 20, 28]


class Wide(Net):
    """Of another structure and learning rate."""

    def __init__(self, width=16, lr=0.01):
        super().__init__(lr)
        self.net = nn.Sequential(nn.Linear(FEATURES, width), nn.Tanh(), nn.Linear(width, CLASSES))


def make_net(seed):
    return seeded(seed)


def make_wide(seed, width=16):
    torch.manual_seed(seed)
    return Wide(width)


def test_members_of_different_structures(tmp_path):
    committee = Committee(models=[make_net, make_wide, partial(make_wide, width=5)])
    rounds(tmp_path, None, bald(committee), 1, test_set=blobs(9, 1))
    shapes = [len(flat(member["state_dict"])) for member in kept(tmp_path, 1)]
    assert shapes == [len(weights(make(0))) for make in (make_net, make_wide, partial(make_wide, width=5))]
    assert {r: len(q) for r, q in queries(tmp_path).items()} == {1: 8}


class Late(Net):
    """Has its head from `configure_model` on, which asks for the Trainer."""

    def __init__(self):
        super().__init__()
        self.head = None

    def configure_model(self):
        assert self.trainer is not None
        if self.head is None:
            self.head = nn.Linear(CLASSES, CLASSES)

    def forward(self, x):
        return self.head(super().forward(x))


@pytest.mark.parametrize("way", ["module", "function", "functions"])
def test_heads_that_are_made_late_are_part_of_a_member(tmp_path, way):
    model = {"module": Late(), "function": lambda seed: Late(), "functions": None}[way]
    committee = Committee(models=[lambda seed: Late()] * SIZE) if way == "functions" else Committee(SIZE)
    rounds(tmp_path, model, bald(committee), 1, test_set=blobs(9, 1))
    assert all("head.weight" in member["state_dict"] for member in kept(tmp_path, 1))
    heads = {
        tuple(torch.load(file, weights_only=True)["head.weight"].flatten().tolist())
        for file in (tmp_path / "member").glob("*/initial_weights.pt")
    }
    assert len(heads) == SIZE


class Counting(Net):
    """Its training moves a buffer that no layer draws anew."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def training_step(self, batch, batch_idx):
        self.seen += len(batch[0])
        return super().training_step(batch, batch_idx)


def test_no_member_begins_with_what_another_one_counted(tmp_path):
    rounds(tmp_path, Counting(), bald(), 1)
    assert [[float(m["state_dict"]["seen"]) for m in kept(tmp_path, r)] for r in (0, 1)] == [
        [24] * SIZE,
        [40] * SIZE,
    ]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_in_other_precisions(tmp_path, precision):
    def make(number):
        return quiet(precision=precision)

    given = make_net(5)
    for name, model, committee in (
        ("a", make_net(0), Committee(2)),
        ("b", None, Committee(models=[make_net, make_wide])),
        ("c", make_net(0), Committee(models=[given, make_wide(6)])),
    ):
        before = weights(given)
        rounds(tmp_path / name, model, bald(committee), 1, make, test_set=blobs(9, 1))
        assert {r: len(q) for r, q in queries(tmp_path / name).items()} == {1: 8}
        assert given.dtype == torch.float32
        assert torch.equal(weights(given), before)


def test_best_weights_of_every_member_are_scored_and_tested(tmp_path):
    class BestIsFirst(ByHand):
        def on_train_epoch_end(self):
            self.log("worse", float(self.current_epoch))
            ends.setdefault(self.trainer.datamodule.state.last_round, []).append(weights(self))

    ends: dict = {}

    def make(number):
        return quiet(enable_checkpointing=True, callbacks=[ModelCheckpoint(monitor="worse")])

    def model(seed):
        torch.manual_seed(seed)
        return BestIsFirst()

    history = rounds(tmp_path, model, bald(score_with="best"), 1, make, test_set=blobs(27, 1))
    firsts = ends[1][0::2]
    for member, first in zip(kept(tmp_path, 1), firsts, strict=True):
        assert torch.equal(flat(member["state_dict"]), first)
    x, y = blobs(27, 1).tensors
    nll = nn.functional.nll_loss(by_hand(tmp_path, 1, x).softmax(-1).mean(0).log(), y)
    assert history.column("test_nll")[1] == pytest.approx(float(nll), rel=1e-4)
    assert (tmp_path / "round_1" / "member_0").exists()


def test_a_trial_run_leaves_nothing(tmp_path):
    def make(number):
        return quiet(fast_dev_run=True)

    fits = []

    def model(seed):
        fits.append(seed)
        return seeded(seed)

    history = rounds(tmp_path, model, bald(), 1, make, test_set=blobs(9, 1))
    assert len(history) == 0
    assert queries(tmp_path) == {}
    assert not list(tmp_path.rglob("*.pt"))


def test_a_committee_for_the_test_only(tmp_path):
    active = ActiveLearning(acq.Random(), query_size=8, test_posterior=Committee(SIZE))

    def make(seed):
        torch.manual_seed(seed)
        return ByHand()

    history = rounds(tmp_path, make, active, 1, test_set=blobs(27, 1))
    x, y = blobs(27, 1).tensors
    nll = nn.functional.nll_loss(by_hand(tmp_path, 1, x).softmax(-1).mean(0).log(), y)
    assert history.column("test_nll")[1] == pytest.approx(float(nll), rel=1e-4)


def test_one_committee_may_ask_and_be_tested_by_name_and_two_may_not(tmp_path):
    committee = Committee(2)
    rounds(tmp_path, seeded, bald(committee, test_posterior=committee), 1, test_set=blobs(9, 1))
    assert len(queries(tmp_path)[1]) == 8
    with pytest.raises(ValueError, match=r"is another Committee\(size=2\).*one committee.*Leave"):
        bald(committee, test_posterior=Committee(2))
    given = Committee(models=[Net(), Net()])
    assert bald(given, test_posterior=Committee(2)).committee is not None


def test_wrapped_and_mixed_strategies_train_the_committee_too(tmp_path):
    strategy = acq.PowerSampling(acq.BALD(Committee(SIZE)))
    rounds(tmp_path / "a", seeded, ActiveLearning(strategy, query_size=8), 1)
    assert len(kept(tmp_path / "a", 0)) == SIZE
    for first, second in ((0, 1), (1, 0)):  # one process, two runs with committees of their own
        folder = tmp_path / f"b{first}"
        names = (acq.VoteEntropy(Committee(2)), acq.ConsensusKL(Committee(SIZE)))
        rounds(folder, seeded, ActiveLearning(names[first], query_size=8), 1)
        assert len(kept(folder, 0)) == (2, SIZE)[first]
        assert names[second].posterior._members is None


def test_what_cannot_be_scored_is_known_before_the_first_member_is_trained(tmp_path):
    class Wrong(acq.BALD):
        def places(self, outputs):
            raise ArithmeticError("it cannot count")

    active = ActiveLearning(Wrong(Committee(SIZE)), query_size=8)
    with pytest.raises(ArithmeticError):
        rounds(tmp_path, Recorded(), active, 1)
    assert not list(tmp_path.rglob("member_*.pt"))


# ---------------------------------------------------------------------- what is written down


def written(state_dir):
    found = set()
    for event in pool(state_dir).ledger.events():
        if event[1].kind == "asked" and event[1].strategy:
            found.add(event[1].strategy)
    return found


class Maker:
    """An object that makes modules."""

    def __call__(self, seed):
        return make_wide(seed)


@pytest.mark.parametrize("way", ["size", "functions"])
def test_the_strategy_that_is_recorded_is_the_same_in_every_round_and_restart(tmp_path, way):
    def active():
        functions = [make_net, partial(make_wide, width=7), Maker(), partial(Maker(), **{})]
        return bald(Committee(SIZE) if way == "size" else Committee(models=functions))

    model = seeded if way == "size" else None
    rounds(tmp_path, model, active(), 1)
    rounds(tmp_path, model, active(), 2)  # another strategy would be refused
    (text,) = written(tmp_path)
    assert "0x" not in text
    if way == "functions":
        assert "[make_net, partial(make_wide, width=7), Maker, partial(Maker)]" in text


def test_the_strategy_is_recorded_without_weights(tmp_path):
    committees = {
        "modules": Committee(models=[Net(), Wide()]),
        "paths": Committee(models=["a.ckpt", Path("b.ckpt")]),
    }
    assert repr(committees["modules"]) == "Committee(models=[Net, Wide])"
    assert repr(committees["paths"]) == "Committee(models=['a.ckpt', 'b.ckpt'])"


# ---------------------------------------------------------------------- given members


def given_files(folder, count=2):
    members = [make_net(seed) for seed in range(count)]
    paths = []
    for number, member in enumerate(members):
        paths.append(folder / f"given_{number}.ckpt")
        state = member.state_dict()
        torch.save({"state_dict": state} if number else state, paths[-1])
    return members, paths


@pytest.mark.parametrize("kind", ["modules", "paths"])
def test_given_members_answer_a_query_and_are_left_as_they_were(tmp_path, kind):
    members, paths = given_files(tmp_path)
    members[0].net[0].eval()
    modes = [part.training for member in members for part in member.modules()]
    data = pool(tmp_path / "state")
    committee = Committee(models=members if kind == "modules" else paths)
    found = query(make_net(9), data, acq.BALD(committee), 48, trainer=quiet())
    x = blobs().tensors[0][found.indices]
    with torch.no_grad():
        passes = torch.stack([member(x) for member in members], 1)
    torch.testing.assert_close(
        torch.tensor(found.scores).float(), F.bald(passes.softmax(-1)), atol=1e-6, rtol=1e-4
    )
    assert [part.training for member in members for part in member.modules()] == modes
    assert all(member._trainer is None for member in members)


@pytest.mark.parametrize("kind", ["modules", "paths"])
def test_given_members_ask_in_the_drop_in_loop(tmp_path, kind):
    members, paths = given_files(tmp_path)
    committee = Committee(models=members if kind == "modules" else paths)
    data = pool(tmp_path / "state")
    trainer = quiet(callbacks=[bald(committee)])
    for _ in range(2):
        trainer.fit(make_net(9), datamodule=data)
    before = [weights(member) for member in members]
    assert {r: len(q) for r, q in queries(tmp_path / "state").items()} == {1: 8, 2: 8}
    assert all(torch.equal(weights(m), b) for m, b in zip(members, before, strict=True))


def test_plain_modules_may_be_members_and_embeddings_are_the_scored_modules(tmp_path):
    class Both(acq.DenseAcquisition):
        needs = ("embeddings", "probs", "votes")

        def places(self, outputs):
            kept.append((outputs.embeddings, outputs.probs, outputs.votes))
            return outputs.votes.amax(1)

    kept: list = []
    net = make_net(1)
    members = [make_net(2).net, make_net(3).net]
    data = pool(tmp_path, pool_batch_size=48)
    query(net, data, Both(posterior=Committee(models=members)), 4, trainer=quiet())
    ((embeddings, probs, votes),) = kept
    x = blobs().tensors[0][data.pool_indices]
    with torch.no_grad():
        torch.testing.assert_close(embeddings, net.eval().net[:4](x))
        passes = torch.stack([member(x).softmax(-1) for member in members])
    torch.testing.assert_close(probs, passes.mean(0))
    assert torch.equal(votes, nn.functional.one_hot(passes.argmax(-1), CLASSES).sum(0).float())


# ---------------------------------------------------------------------- refused


def test_an_untrained_committee_is_refused_outside_of_fit_rounds(tmp_path):
    module = Recorded()
    data = pool(tmp_path)
    message = r"Committee\(size=3\) has no members yet, and a fit trains only one.*`fit_rounds`.*`MCDropout"
    with pytest.raises(MisconfigurationException, match=message):
        quiet(callbacks=[bald()]).fit(module, datamodule=data)
    assert module.fits == []
    with pytest.raises(ValueError, match=r"has no members yet.*`fit_rounds` trains.*`Committee\(models"):
        query(module, data, acq.BALD(Committee(SIZE)), 4, trainer=quiet())


@pytest.mark.parametrize("posterior", [MCDropout(3), Committee(models=[Net(), Net()]), SinglePass()])
def test_a_test_posterior_is_refused_in_a_plain_loop(tmp_path, posterior):
    module = Recorded()
    active = ActiveLearning(query_size=8, test_posterior=posterior)
    with pytest.raises(
        MisconfigurationException, match=r"`test_posterior=.*`fit_rounds` makes.*Leave it out"
    ):
        quiet(callbacks=[active]).fit(module, datamodule=pool(tmp_path))
    assert module.fits == []


def test_members_that_do_not_fit_are_known_before_training(tmp_path):
    _, paths = given_files(tmp_path)
    torch.save(Wide().state_dict(), paths[1])
    for number, (model_paths, words) in enumerate(
        [
            (
                paths,
                r"(?s)given_1.ckpt do not fit a `Recorded`.*Give checkpoints of the module that is scored",
            ),
            ([paths[0], tmp_path / "none.ckpt"], r"none.ckpt', but there is no such file.*Give paths"),
        ]
    ):
        module = Recorded()
        active = bald(Committee(models=model_paths))
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            quiet(callbacks=[active]).fit(module, datamodule=pool(tmp_path / str(number)))
        assert module.fits == []
    torch.save(torch.zeros(3), paths[1])
    with pytest.raises(ValueError, match=r"given_1.ckpt holds a `Tensor`; needed are.*weights. Save"):
        query(make_net(0), pool(tmp_path / "b"), acq.BALD(Committee(models=paths)), 4, trainer=quiet())


def test_the_model_is_given_once(tmp_path):
    both = bald(Committee(models=[make_net, make_wide]))
    with pytest.raises(ValueError, match=r"`model` is given, but the members of .* Pass `None`"):
        rounds(tmp_path, make_net, both)
    for active in (bald(), ActiveLearning(query_size=8)):
        with pytest.raises(ValueError, match=r"`model` is None, which only a committee.*Pass a module"):
            rounds(tmp_path, None, active)


def test_weights_that_cannot_be_drawn_anew_need_a_function(tmp_path):
    class Scaled(Net):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

    with pytest.raises(ValueError, match=r"cannot draw \['scale'\] anew, nor can a committee.*function from"):
        rounds(tmp_path, Scaled(), bald())
    rounds(tmp_path, lambda seed: Scaled(), bald())


def test_nan_of_one_member_names_the_samples(tmp_path):
    class Broken(Net):
        def forward(self, x):
            logits = super().forward(x)
            return torch.where(x[:, :1] > 2.5, torch.nan, logits)

    data = pool(tmp_path)
    bad = [int(i) for i in data.pool_indices if blobs().tensors[0][i, 0] > 2.5]
    assert bad
    with pytest.raises(ValueError, match=rf"The logits of samples \[{bad[0]}\b.*NaN or infinite"):
        query(Net(), data, acq.BALD(Committee(models=[Net(), Broken()])), 4, trainer=quiet())


def test_validation_and_callbacks_run_for_every_member(tmp_path):
    stopped = []

    class Watch(L.Callback):
        def on_train_end(self, trainer, module):
            stopped.append(trainer.current_epoch)

    class Both(Validated):
        pass

    rounds(
        tmp_path, lambda seed: Both(), bald(), 1, lambda r: quiet(callbacks=[Watch()]), val_set=blobs(9, 2)
    )
    assert stopped == [2] * 2 * SIZE


class Keeping(Net):
    """Keeps its last loss, and the graph behind it."""

    def training_step(self, batch, batch_idx):
        self.losses = {"last": [super().training_step(batch, batch_idx)]}
        return self.losses["last"][0]


def test_what_a_training_step_left_behind_is_no_obstacle(tmp_path):
    rounds(tmp_path, Keeping(), bald(), 1, test_set=blobs(9, 1))
    assert len(queries(tmp_path)[1]) == 8


def test_a_function_that_always_gives_the_same_module_is_refused(tmp_path):
    module = Net()
    for model, committee in (
        (lambda seed: module, Committee(2)),
        (None, Committee(models=[lambda seed: module] * 2)),
    ):
        with pytest.raises(ValueError, match=r"returned the same module twice.*Make a fresh one"):
            rounds(tmp_path / str(model is None), model, bald(committee))


# ---------------------------------------------------------------------- what members have in common


class OnBackbone(Net):
    """A head of its own on features that it is given."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.net = backbone, nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.net(self.backbone(x))


def backbone():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU())


@pytest.mark.parametrize("way", ["function", "functions", "another between", "another object"])
def test_a_common_backbone_that_learns_is_refused(tmp_path, way):
    common = backbone()

    def make(seed):
        module = OnBackbone(common)
        if way == "another object":  # over the same memory
            module.backbone = backbone()
            module.backbone[0].weight = nn.Parameter(common[0].weight.data)
        return module

    makers = [make, make_net, make] if way == "another between" else [make] * SIZE
    model, committee = (make, Committee(SIZE)) if way == "function" else (None, Committee(models=makers))
    words = r"shares \['backbone.0.weight'.*with an earlier one.*Make them anew.*must be frozen"
    with pytest.raises(ValueError, match=words):
        rounds(tmp_path, model, bald(committee))


def test_a_common_backbone_that_is_frozen_is_not_changed_by_scoring(tmp_path):
    """Its weights do not learn, but BatchNorm counts in it: every member has its own numbers."""
    common = backbone().requires_grad_(False)
    begun = {name: value.clone() for name, value in common.state_dict().items()}
    scored: dict = {}

    class Watched(OnBackbone):
        def on_train_end(self):
            scored["trained"] = {name: value.clone() for name, value in self.state_dict().items()}

        def on_test_start(self):
            scored["tested"] = {name: value.clone() for name, value in self.state_dict().items()}

    def make(seed):
        torch.manual_seed(seed)
        return Watched(common)

    rounds(tmp_path, make, bald(), 1, test_set=blobs(9, 1))
    for number in range(2):
        members = [member["state_dict"] for member in kept(tmp_path, number)]
        assert len({float(m["backbone.1.running_mean"].sum()) for m in members}) == SIZE
        counts = {int(m["backbone.1.num_batches_tracked"]) for m in members}
        assert counts == {(6, 10)[number]}  # none goes on from another one's
        assert all(torch.equal(m["backbone.0.weight"], begun["0.weight"]) for m in members)
    for name, value in scored["trained"].items():
        torch.testing.assert_close(scored["tested"][name], value)
        torch.testing.assert_close(members[-1][name], value)


def test_frozen_weights_of_a_given_module_are_not_drawn_anew_in_silence(tmp_path):
    module = OnBackbone(backbone().requires_grad_(False))
    before = weights(module)
    words = r"weights \['backbone.0.weight'.*are frozen.*`fit_rounds\(lambda seed: \.\.\., \.\.\.\)`"
    for number, active in enumerate((bald(), ActiveLearning(query_size=8, restart="redraw"))):
        with pytest.raises(ValueError, match=words):
            rounds(tmp_path / str(number), module, active)
        assert torch.equal(weights(module), before)
    rounds(tmp_path / "perturbed", module, ActiveLearning(query_size=8, restart="shrink_perturb"))
    assert torch.equal(weights(module.backbone), weights(backbone()))


def test_it_is_said_that_the_weights_of_a_given_module_are_drawn_anew(tmp_path, caplog):
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        for number, model in enumerate((seeded, make_net(0))):
            rounds(tmp_path / str(number), model, bald(Committee(2)))
            said = [text for text in caplog.messages if "drawn anew for each member" in text]
            assert len(said) == number
    assert "pass a function from a seed to a module for pre-trained ones" in said[0]


def test_what_cannot_make_a_module_from_a_seed_is_refused(tmp_path):
    for active in (bald(), ActiveLearning(query_size=8)):
        with pytest.raises(
            TypeError, match=r"is the class `Net`; needed.*Write `lambda seed: Net\(\.\.\.\)`"
        ):
            rounds(tmp_path, Net, active)
        with pytest.raises(TypeError, match=r"`backbone\(\)` takes no seed.*from a seed to a module"):
            rounds(tmp_path, backbone, active)
        with pytest.raises(TypeError, match=r"The model is 'net'; needed is a module or a function"):
            rounds(tmp_path, "net", active)

    def broken(seed):
        raise TypeError("inside of it")

    with pytest.raises(TypeError, match="inside of it"):
        rounds(tmp_path, broken, bald())
    assert not list(tmp_path.rglob("*.pt"))


class Counted(Net):
    """Its forward counts in place, and keeps the last size in a new tensor."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.last = torch.tensor(float(len(x)))
        return super().forward(x)


def test_buffers_of_given_members_are_left_as_found(tmp_path):
    members = [Counted(), Counted()]
    scored = Counted()
    committee = Committee(models=members)
    query(scored, pool(tmp_path / "a"), acq.TwoStage(acq.BALD(committee), acq.HyperplaneDistance(), 20), 4,
          trainer=quiet())  # fmt: skip
    rounds(tmp_path / "b", Net(), bald(committee, test_posterior=committee), 1, test_set=blobs(9, 1))
    for module in (*members, scored):
        assert (float(module.calls), float(module.last)) == (0, 0)


def test_one_pass_as_test_posterior_is_a_plain_test(tmp_path):
    """The way out for a `test_step` that does not call `self(x)`."""

    class Around(ByHand):
        def test_step(self, batch, batch_idx):
            x, y = batch
            self.log("test_nll", nn.functional.cross_entropy(self.net(x), y))

    def make(seed):
        torch.manual_seed(seed)
        return Around()

    active = bald(test_posterior=SinglePass())
    history = rounds(tmp_path, make, active, 1, test_set=blobs(27, 1))
    x, y = blobs(27, 1).tensors
    last = nn.functional.cross_entropy(by_hand(tmp_path, 1, x)[-1], y)
    assert history.column("test_nll")[1] == pytest.approx(float(last), rel=1e-4)


@pytest.mark.parametrize("strategy", [acq.Margin(), acq.Random(), acq.VoteEntropy(Committee(2))], ids=repr)
def test_a_mean_that_cannot_be_tested_is_known_before_training(tmp_path, strategy):
    module = Recorded()
    active = ActiveLearning(strategy, query_size=8, test_posterior=MCDropout(3))
    with pytest.raises(ValueError, match=r"`MCDropout` needs a model that drops something"):
        rounds(tmp_path, module, active, test_set=blobs(9, 1))
    assert all(fit["shown"] == [] for fit in module.fits)
    rounds(tmp_path / "no test", module, active)  # nothing is tested


def test_what_only_a_test_calls_for_is_not_asked_of_a_strategy_that_needs_nothing(tmp_path):
    class Unusual(ByHand):
        def forward(self, x, times):
            return times * self.net(nn.functional.dropout(x))

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[0], 2), batch[1])

        def test_step(self, batch, batch_idx):
            self.log("test_acc", (self(batch[0], 2).argmax(1) == batch[1]).float().mean())

    active = ActiveLearning(acq.Random(), query_size=8, test_posterior=MCDropout(3))
    history = rounds(tmp_path, Unusual(), active, test_set=blobs(9, 1))
    assert len(history.column("test_acc")) == 2
