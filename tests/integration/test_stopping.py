"""When the rounds end before their number is reached: before the query, on record, and for good."""

import math

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from sklearn.metrics import cohen_kappa_score
from torch import nn
from torch.utils.data import TensorDataset

from integration.small import Net, Validated, blobs, margin, pool, queries, quiet, weights
from lightning_al import (
    ActiveDataModule,
    ActiveLearning,
    Committee,
    History,
    MCDropout,
    Plateau,
    StablePredictions,
    TargetMetric,
    fit_rounds,
)
from lightning_al import acquisition as acq
from lightning_al.stopping import StopCriterion

TIMES = ("train_s", "score_s", "select_s")


class Counted(Validated):
    """Its metric is the number of labels, for which nobody has to wait; the test's is another one."""

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.log("count", float(len(self.trainer.datamodule.labeled_indices)))

    def test_step(self, batch, batch_idx):
        super().test_step(batch, batch_idx)
        self.log("count", 1e6)


def data_in(folder, **options):
    return pool(folder, **{"val_set": blobs(9, 2), **options})


def run(folder, stop, *, model=None, rounds=4, data=None, active=None, **options):
    data = data_in(folder) if data is None else data
    torch.manual_seed(0)
    return fit_rounds(
        model or seeded, lambda r: quiet(**options), data, active or margin(), rounds=rounds, stop=stop
    )


def seeded(seed):
    torch.manual_seed(seed)
    return Counted()


def untimed(history):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in history]


# ------------------------------------------------------------------ a target


@pytest.mark.parametrize("test_set", [None, blobs(9, 1)], ids=["untested", "tested"])
def test_it_stops_before_the_query_and_says_why(tmp_path, test_set, caplog):
    caplog.set_level("INFO")
    data = data_in(tmp_path, test_set=test_set)
    history = run(tmp_path, TargetMetric("count", 25), data=data)
    assert history.column("labeled") == [12, 20, 28]
    assert history.column("asked") == [8, 8, 0]
    assert history.column("stop_count") == [12, 20, 28]
    assert history.column("stopped") == ["", "", "TargetMetric: count is 28, of 25 to reach"]
    assert {number: len(asked) for number, asked in queries(tmp_path).items()} == {1: 8, 2: 8}
    assert len(data.asked_indices) == 0
    assert "round 2: asked 0, 28 labelled; stopped by TargetMetric: count is 28" in caplog.text
    assert History.of(data).column("stopped") == history.column("stopped")
    if test_set is not None:  # what the test says under the same name decides nothing
        assert history.column("count") == [1e6] * 3


@pytest.mark.parametrize("test_set", [None, blobs(9, 1)], ids=["untested", "tested"])
def test_called_again_it_does_nothing_and_with_a_higher_target_it_goes_on(tmp_path, test_set, monkeypatch):
    first = run(tmp_path / "a", TargetMetric("count", 25), data=data_in(tmp_path / "a", test_set=test_set))
    with monkeypatch.context() as patch:
        patch.setattr("lightning.Trainer.fit", lambda *_, **__: pytest.fail("trained again"))
        for stop in (TargetMetric("count", 25), [TargetMetric("count", 28), Plateau("val_loss")]):
            again = run(tmp_path / "a", stop, data=data_in(tmp_path / "a", test_set=test_set))
            assert list(again) == list(first)
    on = run(tmp_path / "a", TargetMetric("count", 40), data=data_in(tmp_path / "a", test_set=test_set))
    whole = run(tmp_path / "b", TargetMetric("count", 40), data=data_in(tmp_path / "b", test_set=test_set))
    assert untimed(on) == untimed(whole)
    assert queries(tmp_path / "a") == queries(tmp_path / "b")
    assert on.column("labeled") == [12, 20, 28, 36, 44]
    free = run(tmp_path / "a", None, data=data_in(tmp_path / "a", test_set=test_set), rounds=5)
    assert free.column("labeled") == [12, 20, 28, 36, 44, 52]
    assert free.column("stopped")[:5] == [""] * 5


def test_a_metric_at_its_target_but_for_float32_is_there():
    nine_of_ten = float(torch.tensor(0.9))
    assert nine_of_ten < 0.9
    assert TargetMetric("acc", 0.9).decide([{"stop_acc": nine_of_ten}])
    assert not TargetMetric("acc", 0.9).decide([{"stop_acc": 0.8999}])
    one_of_ten = float(torch.tensor(0.1))
    assert one_of_ten > 0.1
    assert TargetMetric("loss", 0.1).decide([{"stop_loss": one_of_ten}])


def test_less_is_better(tmp_path):
    history = run(tmp_path, TargetMetric("count", 1, higher_is_better=False), rounds=1)
    assert history.column("stopped") == ["", ""]
    history = run(tmp_path / "b", TargetMetric("count", 15, higher_is_better=False), rounds=1)
    assert history.column("asked") == [0]


def test_a_criterion_that_comes_later_is_asked_of_the_newest_round(tmp_path):
    run(tmp_path, None, rounds=2)
    history = run(tmp_path, TargetMetric("count", 20), rounds=4)
    assert history.column("labeled") == [12, 20, 28]
    assert history.column("asked") == [8, 8, 0]
    assert history.column("stopped")[2].startswith("TargetMetric")


class KilledError(BaseException):
    """Nothing after it is done."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_about_the_decision_it_decides_the_same(tmp_path, when, monkeypatch):
    """Before the record the round is trained again; after it, it is only tested."""
    whole = run(tmp_path / "b", TargetMetric("count", 20), data=data_in(tmp_path / "b", test_set=blobs(9, 1)))
    data = data_in(tmp_path / "a", test_set=blobs(9, 1))
    record = data.record_round

    def killed(row):
        if when == "after":
            record(row)
        if row.get("stopped"):
            raise KilledError

    monkeypatch.setattr(data, "record_round", killed)
    with pytest.raises(KilledError):
        run(tmp_path / "a", TargetMetric("count", 20), data=data)
    for _ in range(2):
        history = run(
            tmp_path / "a", TargetMetric("count", 20), data=data_in(tmp_path / "a", test_set=blobs(9, 1))
        )
        assert untimed(history) == untimed(whole)
        assert queries(tmp_path / "a") == queries(tmp_path / "b")


def test_what_is_on_record_decides_though_the_training_comes_out_otherwise(tmp_path, monkeypatch):
    """As on a GPU: stopped, killed before the test, and trained once more with a lower metric."""

    class Lower(Counted):
        def validation_step(self, batch, batch_idx):
            Validated.validation_step(self, batch, batch_idx)
            self.log("count", 0.0)

    test = {"test_set": blobs(9, 1)}
    with monkeypatch.context() as patch:
        patch.setattr("lightning.Trainer.test", lambda *_, **__: (_ for _ in ()).throw(KilledError()))
        with pytest.raises(KilledError):
            run(tmp_path, TargetMetric("count", 10), data=data_in(tmp_path, **test))
    history = run(tmp_path, TargetMetric("count", 10), model=Lower(), data=data_in(tmp_path, **test))
    assert history.column("stop_count") == [12]
    assert history.column("asked") == [0]
    assert queries(tmp_path) == {}


def test_corrected_labels_are_trained_on_and_judged_anew(tmp_path):
    class Zeros(Counted):
        def validation_step(self, batch, batch_idx):
            Validated.validation_step(self, batch, batch_idx)
            state = self.trainer.datamodule.state
            self.log("count", float(state.class_counts(state.labeled_up_to()).get(0, 0)))

    data = data_in(tmp_path)
    stop = TargetMetric("count", 1)
    assert run(tmp_path, stop, model=Zeros(), data=data).column("asked") == [0]
    data.label(data.labeled_indices, [1] * 12, overwrite=True)
    history = run(tmp_path, stop, model=Zeros(), data=data, rounds=1)
    assert history.column("asked")[0] == 8


def test_the_best_checkpoint_is_judged_by_its_own_score(tmp_path):
    class Sinking(Counted):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            self.log("sinks", 1.0 - self.current_epoch)

    def make(number):
        checkpoint = ModelCheckpoint(monitor="sinks", mode="max")
        return quiet(max_epochs=3, callbacks=[checkpoint], enable_checkpointing=True)

    for score_with, value in (("best", 1.0), ("last", -1.0)):
        data, active = data_in(tmp_path / score_with), margin(score_with=score_with)
        stop = TargetMetric("sinks", 0.5)
        history = fit_rounds(Sinking(), make, data, active, rounds=1, stop=stop)
        assert history.column("stop_sinks")[0] == value
        assert len(history) == (1 if score_with == "best" else 2)


# ------------------------------------------------------------------ what cannot be judged


def test_a_metric_that_is_never_logged_is_an_error_in_the_first_round(tmp_path):
    with pytest.raises(MisconfigurationException, match=(
        r"by `val_acc`, which the fit of round 0 did not log; it logged `count`, .*`val_loss`. "
        r"Log it in `validation_step` with `self.log\('val_acc', ...\)`, or name one of these.$"
    )):  # fmt: skip
        run(tmp_path, TargetMetric("val_acc", 0.9))
    assert queries(tmp_path) == {}
    with pytest.raises(MisconfigurationException, match=r"no validation data: pass `val_set`"):
        run(tmp_path / "b", Plateau("val_loss"), data=pool(tmp_path / "b"), model=Net())
    with pytest.raises(MisconfigurationException, match="did not log"):
        run(tmp_path / "c", TargetMetric("val_acc", 0.9), fast_dev_run=True)


@pytest.mark.parametrize("name", ["test_acc", "test/acc", "Test loss", "test"])
@pytest.mark.parametrize("make", [lambda name: TargetMetric(name, 0.9), Plateau])
def test_a_metric_of_the_test_is_refused(name, make):
    with pytest.raises(ValueError, match=r"of the test: labels that decide.*`validation_step`"):
        make(name)


class Own(StopCriterion):
    columns = ("asked",)

    def measure(self, ended):
        return {"asked": 1.0}

    def decide(self, rows):
        return None


@pytest.mark.parametrize(("metric", "good"), [("val_loss", 0.2), ("val_error", 0.2), ("val_acc", 0.8)])
def test_which_way_is_better_a_metrics_name_says(metric, good):
    rows = [{f"stop_{metric}": value} for value in (0.5, 1 - good)]
    assert TargetMetric(metric, good).decide(rows) is None
    assert Plateau(metric, 1).decide(rows) is not None
    rows = [{f"stop_{metric}": value} for value in (0.5, good)]
    assert TargetMetric(metric, good).decide(rows) is not None
    assert Plateau(metric, 1).decide(rows) is None
    assert Plateau(metric, 1, higher_is_better=good < 0.5).decide(rows) is not None


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: TargetMetric("val_acc", math.nan), ValueError, "`target` is nan"),
        (lambda: TargetMetric("val_acc", "high"), ValueError, "`target` is 'high'"),
        (lambda: TargetMetric("val_acc", 1, higher_is_better="no"), TypeError, "`higher_is_better` is 'no'"),
        (lambda: TargetMetric(None, 1), ValueError, "`metric` is None"),
        (lambda: Plateau("val_acc", rounds=0), ValueError, "`rounds`"),
        (lambda: Plateau("val_acc", min_delta=-1), ValueError, "`min_delta` is -1"),
        (lambda: StablePredictions(1.5), ValueError, "`agreement` is 1.5"),
        (lambda: StablePredictions(samples=0), ValueError, "`samples`"),
        (lambda: run("x", "val_acc"), TypeError, "`stop` is 'val_acc'; needed is a criterion"),
        (lambda: run("x", [Plateau("a"), 3]), TypeError, "`stop` is .*needed is a criterion"),
        (lambda: run("x", Own()), ValueError, r"`Own.columns` has \['asked'\]"),
    ],
)
def test_arguments_that_are_none(make, error, words):
    with pytest.raises(error, match=words):
        make()


# ------------------------------------------------------------------ a plateau


def rows_of(values, name="stop_m"):
    return [{"round": i, name: value} for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "stops"),
    [
        ([0.5, 0.6, 0.6], False),
        ([0.5, 0.6, 0.6, 0.6], True),
        ([0.5, 0.6, 0.61], False),
        ([0.5, 0.6], False),
        ([0.6, 0.5, 0.5], True),
        ([0.6, 0.5, 0.7], False),
        ([0.6, 0.6, math.nan], True),
        ([math.nan] * 4, False),
        ([math.nan, 0.1, 0.1], False),
        ([0.5, 0.505, 0.5095], True),
        ([0.0, 0.009, 0.018], False),
    ],
)
def test_a_plateau_is_no_better_value_in_some_rounds(values, stops):
    criterion = Plateau("m", rounds=2, min_delta=0.0098)
    assert (criterion.decide(rows_of(values)) is not None) == stops
    lower = Plateau("m", 2, min_delta=0.0098, higher_is_better=False)
    assert (lower.decide(rows_of([-value for value in values])) is not None) == stops


def test_rounds_that_a_plateau_did_not_see_do_not_count():
    rows = rows_of([0.9, 0.5, 0.5, 0.5])
    del rows[1]["stop_m"]
    assert Plateau("m", rounds=2).decide(rows) is None
    assert Plateau("m", rounds=1).decide(rows) is not None
    assert Plateau("m", rounds=1).decide([*rows, {"round": 4}]) is None


def test_any_of_several_ends_the_rounds(tmp_path):
    class Flat(Counted):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            self.log("flat", 0.5)

    stop = [TargetMetric("count", 44), Plateau("flat", rounds=2)]
    history = run(tmp_path, stop, model=Flat())
    assert history.column("labeled") == [12, 20, 28]
    assert history.column("stopped")[-1] == "Plateau: flat is no better than 0.5 since 2 rounds"
    assert {"stop_count", "stop_flat"} <= set(history.columns)


def test_loggers_have_what_was_measured_once(tmp_path):
    logger = CSVLogger(tmp_path / "logs")
    run(tmp_path, TargetMetric("count", 20), logger=logger)
    text = next((tmp_path / "logs").rglob("metrics.csv")).read_text()
    header, *lines = (line.split(",") for line in text.splitlines())
    values = [line[header.index("active/stop_count")] for line in lines]
    assert [float(value) for value in values if value] == [12, 20]


# ------------------------------------------------------------------ stable predictions


class Watched(Counted):
    """Keeps the weights that each round ended with."""

    def on_train_end(self):
        KEPT.append({name: value.clone() for name, value in self.state_dict().items()})


KEPT: list[dict[str, torch.Tensor]] = []


def predicted(state, indices, size=60):
    module = Net()
    module.load_state_dict(state)
    with torch.no_grad():
        return module.eval()(blobs(size).tensors[0][indices]).argmax(1).numpy()


def test_the_agreement_is_cohens_kappa_of_consecutive_rounds_on_one_set(tmp_path):
    KEPT.clear()
    criterion, data = StablePredictions(1.0, samples=40), data_in(tmp_path)
    history = run(tmp_path, criterion, model=Watched(), data=data, rounds=3)
    indices = criterion.stop_set(data)
    assert len(set(indices.tolist())) == 40
    assert set(indices.tolist()) & set(data.labeled_indices.tolist())
    assert set(indices.tolist()) & set(data.pool_indices.tolist())
    found = history.column("stop_agreement")
    assert math.isnan(found[0])
    for number in (1, 2, 3):
        pair = [predicted(KEPT[n], indices) for n in (number - 1, number)]
        assert found[number] == pytest.approx(cohen_kappa_score(*pair), abs=1e-6)
    assert [file.name for file in sorted((tmp_path / "stop_set").iterdir())] == [
        f"round_{number}.npz" for number in range(4)
    ]


def test_stable_predictions_stop_and_stay_stopped(tmp_path, monkeypatch):
    """Weights that do not move predict the same."""

    def still(seed):
        torch.manual_seed(0)
        module = Counted()
        module.lr = 0.0
        return module

    history = run(tmp_path, StablePredictions(0.99, samples=30), model=still)
    assert history.column("labeled") == [12, 20, 28]
    assert history.column("stop_agreement")[1:] == [1, 1]
    assert history.column("stopped")[-1] == (
        "StablePredictions: predictions agree by 1, of 0.99, over 2 rounds"
    )
    monkeypatch.setattr("lightning.Trainer.fit", lambda *_, **__: pytest.fail("trained again"))
    again = run(tmp_path, StablePredictions(0.99, samples=30), model=still)
    assert untimed(again)[1:] == untimed(history)[1:]


def test_one_class_alone_is_no_agreement(tmp_path):
    class Constant(Counted):
        def forward(self, x):
            return 0 * super().forward(x) + torch.tensor([9.0, 0.0, 0.0])

    history = run(tmp_path, StablePredictions(0.5, rounds=1), model=Constant(), rounds=2)
    assert all(math.isnan(value) for value in history.column("stop_agreement"))
    assert history.column("asked") == [8, 8, 0]


def test_looking_at_predictions_leaves_the_run_as_it_is(tmp_path):
    class Moving(Counted):
        def __init__(self):
            super().__init__()
            self.net[3].p = 0.3

    runs = []
    for name, stop in (("a", None), ("b", StablePredictions(1.0, samples=7))):
        torch.manual_seed(0)
        module = Moving()
        run(tmp_path / name, stop, model=module, rounds=2)
        runs.append((queries(tmp_path / name), weights(module)))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])


def test_ignored_samples_and_a_lost_file_are_left_out(tmp_path):
    data, criterion = data_in(tmp_path), StablePredictions(1.0, samples=60, rounds=1)
    run(tmp_path, criterion, data=data, rounds=1)
    data.ignore(data.pool_indices[:5])
    assert len(criterion.stop_set(data)) == 55
    history = run(tmp_path, criterion, data=data, rounds=2)
    assert not math.isnan(history.column("stop_agreement")[2])
    (tmp_path / "stop_set" / "round_2.npz").unlink()
    history = run(tmp_path, criterion, data=data, rounds=3)
    assert math.isnan(history.column("stop_agreement")[3])


def test_predictions_are_those_that_are_tested(tmp_path, monkeypatch):
    seen = []
    from lightning_al.stopping import base

    def watched(one, *args, **options):
        seen.append(one.posterior)
        return summarize(one, *args, **options)

    summarize = base.summarize_samples
    monkeypatch.setattr(base, "summarize_samples", watched)
    committee, passes = Committee(2), MCDropout(3)
    for name, active in (
        ("single", margin()),
        ("asked by passes", ActiveLearning(acq.BALD(passes), query_size=8)),
        ("tested by passes", margin(test_posterior=passes)),
        ("committee", ActiveLearning(acq.BALD(committee), query_size=8)),
    ):
        data = data_in(tmp_path / name)
        model = lambda seed: Counted_with_dropout(seed)  # noqa: E731
        run(tmp_path / name, StablePredictions(samples=9), model=model, data=data, active=active, rounds=1)
    kinds = [type(one).__name__ for one in seen]
    assert kinds == ["SinglePass"] * 4 + ["MCDropout"] * 2 + ["Committee"] * 2


def Counted_with_dropout(seed):
    torch.manual_seed(seed)
    module = Counted()
    module.net[3].p = 0.3
    return module


class Dense(Counted):
    def forward(self, x):
        return super().forward(x)[:, :, None].expand(-1, -1, 4)

    def training_step(self, batch, batch_idx):
        pytest.fail("it was trained")

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", 1.0)


def test_outputs_that_are_no_class_are_refused_before_the_training(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(\d+, 4, 3\); that predictions are stable.*`Plateau`"):
        run(tmp_path, StablePredictions(), model=Dense())
    active = ActiveLearning(acq.PredictiveVariance(MCDropout(3)), query_size=8)
    with pytest.raises(MisconfigurationException, match="the strategy is one for numbers"):
        run(tmp_path / "b", StablePredictions(), model=Counted_with_dropout, active=active)


class Untrained(Net):
    """Of as many outputs as it is told."""

    def __init__(self, outputs):
        super().__init__()
        self.net[-1] = nn.Linear(8, outputs)

    def training_step(self, batch, batch_idx):
        pytest.fail("it was trained")


class Trained(Untrained):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.binary_cross_entropy_with_logits(self(x).reshape(y.shape), y.float())


@pytest.mark.parametrize(
    ("outputs", "kind", "words"),
    [
        (1, "numbers", r"but the labels are numbers, such as -?\d.*Stop by a metric, such as `Plateau`"),
        (3, "several", r"several labels, such as \[.*Ask by a strategy with `multilabel=True`, or stop by a"),
        (1, "two classes", None),
        (3, "one of three", None),
    ],
)
def test_labels_that_are_no_class_are_refused_before_the_training(tmp_path, outputs, kind, words):
    """A number that was read as a logit would soon be stable."""
    x, y = blobs().tensors
    target = {
        "numbers": x.sum(1), "several": (x[:, :3] > 0).long(), "two classes": (y % 2).float(),
        "one of three": nn.functional.one_hot(y, 3),
    }[kind]  # fmt: skip
    data = ActiveDataModule(TensorDataset(x, target), initial=12, batch_size=4, state_dir=tmp_path)
    active = ActiveLearning(acq.Random(), query_size=8)
    if words is None:
        history = run(tmp_path, StablePredictions(), model=Trained(outputs), data=data, active=active)
        assert "stop_agreement" in history.columns
        return
    with pytest.raises(MisconfigurationException, match=words):
        run(tmp_path, StablePredictions(), model=Untrained(outputs), data=data, active=active)
    assert queries(tmp_path) == {}


def test_several_labels_that_the_strategy_reads_as_such_are_stable_or_not(tmp_path):
    x, _ = blobs().tensors
    data = ActiveDataModule(
        TensorDataset(x, (x[:, :3] > 0).long()), initial=12, batch_size=4, state_dir=tmp_path
    )
    active = ActiveLearning(acq.Margin(multilabel=True), query_size=8)
    history = run(tmp_path, StablePredictions(), model=Trained(3), data=data, active=active, rounds=1)
    assert not math.isnan(history.column("stop_agreement")[1])


def test_a_dry_run_writes_nothing(tmp_path):
    run(tmp_path, [StablePredictions(), TargetMetric("count", 1)], fast_dev_run=True)
    assert not (tmp_path / "stop_set").exists()
    assert queries(tmp_path) == {}


def test_the_stop_set_is_the_same_whatever_is_labeled(tmp_path):
    data, criterion = data_in(tmp_path), StablePredictions(samples=25)
    before = criterion.stop_set(data)
    data.label(data.pool_indices[:9])
    assert np.array_equal(criterion.stop_set(data), before)
    other = data_in(tmp_path / "b", seed=3)
    assert not np.array_equal(criterion.stop_set(other), before)
