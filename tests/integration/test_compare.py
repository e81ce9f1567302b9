"""Small comparisons, whole: the same beginnings, killed and gone on with, side by side and failing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_al import ActiveDataModule, Committee, Comparison, Ledger, MCDropout, compare
from lightning_al import acquisition as acq
from lightning_al.comparing import FailedRunsError
from lightning_al.ledger.book import Book
from lightning_al.ledger.state import LABELED

from .small import Net, Validated, blobs, queries, quiet

STRATEGIES = [acq.Margin(), acq.BADGE()]


def make_data(seed, state_dir, **options):
    settings = {"initial": 6, "batch_size": 4, "test_set": blobs(30, seed=9), "seed": seed, **options}
    return ActiveDataModule(blobs(60, seed=seed), state_dir=state_dir, **settings)


def run(state_dir, strategies=STRATEGIES, *, make_model=lambda seed: Net(), make_trainer=None, data=make_data,
        **options):  # fmt: skip
    settings = {"query_size": 4, "rounds": 2, "seeds": 2, "workers": 2, "progress": False, **options}
    trainer = make_trainer or (lambda number: quiet(max_epochs=1))
    return compare(strategies, make_model, trainer, data, state_dir=state_dir, **settings)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    state_dir = tmp_path_factory.mktemp("compared")
    return state_dir, run(state_dir)


def table(comparison, *without):
    """What does not depend on the clock."""
    return [
        {k: v for k, v in row.items() if not k.endswith("_s") and k not in without and v == v}
        for row in comparison.rows
    ]


def folders(state_dir):
    return sorted(path.parent for path in Path(state_dir).glob("*/seed_*/ledger.sqlite3"))


# ---------------------------------------------------------------------- the table


def test_every_run_has_a_row_a_round_and_random_is_among_them(done):
    state_dir, comparison = done
    assert comparison.strategies == ["Random", "Margin", "BADGE"]
    assert {(r["strategy"], r["seed"], r["round"], r["labeled"]) for r in comparison.rows} == {
        (name, seed, number, 6 + 4 * number)
        for name in comparison.strategies for seed in (0, 1) for number in (0, 1, 2)
    }  # fmt: skip
    assert len(comparison.rows) == 18
    assert [str(f.relative_to(state_dir)) for f in folders(state_dir)] == [
        f"{name}/seed_{seed}" for name in ("BADGE", "Margin", "Random") for seed in (0, 1)
    ]
    for row in comparison.rows:
        assert 0 <= row["test_acc"] <= 1
        assert row["round_s"] > row["train_s"] + row["test_s"] + row["score_s"] + row["select_s"] > 0


def test_strategies_begin_with_the_same_labels_and_weights(done):
    state_dir, _ = done
    for seed in (0, 1):
        initial, weights = [], []
        for name in ("Random", "Margin", "BADGE"):
            folder = state_dir / name / f"seed_{seed}"
            state = Book(folder).state
            labeled = state.indices(LABELED)
            initial.append(labeled[state.round[labeled] == 0].tolist())
            weights.append(torch.load(folder / "initial_weights.pt"))
        assert initial[0] == initial[1] == initial[2]
        for key in weights[0]:
            assert torch.equal(weights[0][key], weights[1][key])
            assert torch.equal(weights[0][key], weights[2][key])
    assert queries(state_dir / "Random" / "seed_0") != queries(state_dir / "Margin" / "seed_0")
    assert queries(state_dir / "Random" / "seed_0") != queries(state_dir / "Random" / "seed_1")


def test_weights_before_the_first_step_are_bitwise_the_same(tmp_path):
    seen = tmp_path / "seen"
    seen.mkdir()

    class Watched(Net):
        def on_train_start(self):
            data = self.trainer.datamodule
            name = f"{data.state_dir.parent.name}-{data.seed}-{data.round}.pt"
            torch.save(self.state_dict(), seen / name)

    run(tmp_path / "runs", make_model=lambda seed: Watched())
    first = {path.name: torch.load(path) for path in seen.iterdir()}
    assert len(first) == 18
    for name, state in first.items():
        seed = name.split("-")[1]
        for key, value in state.items():
            assert torch.equal(value, first[f"Random-{seed}-0.pt"][key]), name
    assert not torch.equal(first["Random-0-0.pt"]["net.0.weight"], first["Random-1-0.pt"]["net.0.weight"])


def test_entropies_are_of_the_labels_that_came(done):
    state_dir, comparison = done
    counts = comparison.class_counts()["Margin"]
    assert counts.shape == (2, 3, 3)
    assert counts.sum(2).tolist() == [[6, 4, 4]] * 2
    book = Book(state_dir / "Margin" / "seed_1")
    asked = queries(state_dir / "Margin" / "seed_1")[1]
    classes = [blobs(60, seed=1).tensors[1][index].item() for index in asked]
    assert counts[1, 1].tolist() == np.bincount(classes, minlength=3).tolist()
    row = next(r for r in comparison.rows if (r["strategy"], r["seed"], r["round"]) == ("Margin", 1, 1))
    shares = np.bincount(classes, minlength=3) / len(classes)
    assert row["query_entropy"] == pytest.approx(-sum(p * np.log(p) for p in shares if p))
    assert row["query_entropy"] == row["acquired_entropy"]
    assert book.ledger.verify() > 0


def test_validation_labels_are_told_of(tmp_path, done):
    assert "Validation: none" in str(done[1])
    found = run(
        tmp_path, [acq.Random()], make_model=lambda seed: Validated(), seeds=1,
        data=lambda seed, folder: make_data(seed, folder, val_set=blobs(21, seed=5)),
    )  # fmt: skip
    assert "Validation: 21 further labels were used by every run, and are NOT counted above." in str(found)


# ---------------------------------------------------------------------- going on


def test_what_has_ended_costs_nothing_and_more_is_only_what_is_missing(tmp_path, done, monkeypatch):
    state_dir, _ = done
    before = {path: path.stat().st_mtime_ns for path in state_dir.rglob("*") if path.is_file()}
    again = run(state_dir, workers=0, data=lambda *_: pytest.fail("a run was made again"))
    assert table(again) == table(done[1])
    after = {path: path.stat().st_mtime_ns for path in state_dir.rglob("*") if path.is_file()}
    assert {p for p in after if after[p] != before.get(p)} <= {state_dir / "comparison.json"}

    part = tmp_path / "part"
    run(part, [acq.Margin()], rounds=1, seeds=1)
    made = []

    def data(seed, folder):
        made.append(Path(folder).relative_to(part).as_posix())
        return make_data(seed, folder)

    more = run(part, rounds=2, seeds=2, workers=0, data=data)
    assert table(more) == table(done[1])
    made.clear()
    fewer = run(part, [acq.Margin()], rounds=1, seeds=[1], workers=0, data=data)
    assert not made
    assert [r["round"] for r in fewer.rows] == [0, 1, 0, 1]
    assert {r["seed"] for r in fewer.rows} == {1}
    assert table(Comparison.load(part)) == table(done[1])


SCRIPT = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs behind it deaf to it
sys.path.insert(0, {tests!r})
from integration.test_compare import run
run({state_dir!r}, progress=True)
"""


def started(state_dir, source=SCRIPT):
    tests = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", source.format(tests=tests, state_dir=str(state_dir))],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def children_of(pid):
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_ended_anywhere_no_process_is_left_and_the_table_is_the_same(tmp_path, done, how):
    script = started(tmp_path)
    try:
        until(lambda: any((f / "times.jsonl").exists() for f in folders(tmp_path)))
        children = children_of(script.pid)
        assert children
        os.kill(script.pid, how)
        said = script.communicate(timeout=600)[1]
        until(lambda: not any(map(is_alive, children)), 300)
    finally:
        script.kill()
    assert script.returncode != 0
    assert ("KeyboardInterrupt" in said) == (how == signal.SIGINT)
    assert table(run(tmp_path)) == table(done[1])
    for folder in folders(tmp_path):
        Ledger(folder / "ledger.sqlite3").verify()


# ---------------------------------------------------------------------- what fails


def test_a_run_that_fails_is_told_of_and_the_others_go_on(tmp_path, done):
    class Broken(Net):
        def training_step(self, batch, batch_idx):
            data = self.trainer.datamodule
            print("this is in the log")
            if data.state_dir.parent.name == "Margin" and data.seed == 1 and data.round == 1:
                raise ZeroDivisionError("a fault in the model")
            return super().training_step(batch, batch_idx)

    with pytest.raises(
        FailedRunsError, match=r"Margin, seed 1:\nTraceback(.|\n)*a fault in the model"
    ) as found:
        run(tmp_path, make_model=lambda seed: Broken())
    (failure,) = found.value.failures
    assert (failure.strategy, failure.seed) == ("Margin", 1)
    log = (tmp_path / "Margin" / "seed_1" / "log.txt").read_text()
    assert "this is in the log" in log
    assert "a fault in the model" in log
    partial = found.value.comparison
    assert len(partial.ended) == 5
    assert "NOT WHOLE: 1 of 6 runs have not ended and are left out; 1 failed." in str(partial)
    assert table(run(tmp_path)) == table(done[1])


def test_a_process_that_is_killed_is_told_of(tmp_path):
    class Killed(Net):
        def on_train_start(self):
            if self.trainer.datamodule.seed == 1:
                os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(
        FailedRunsError, match=r"Random, seed 1:\nIts process was ended by signal 9, .*: perhaps"
    ):
        run(tmp_path, [acq.Random()], make_model=lambda seed: Killed())


def test_a_process_that_ends_well_before_its_run_is_told_of(tmp_path):
    class Leaving(Net):
        def on_train_start(self):
            os._exit(0)

    with pytest.raises(FailedRunsError, match=r"was ended by exit code 0, before the run was\."):
        run(tmp_path, [acq.Random()], make_model=lambda seed: Leaving(), seeds=1)


def test_failures_alike_are_shown_once(tmp_path):
    def make_model(seed):
        raise RuntimeError("no such model")

    with pytest.raises(FailedRunsError) as found:
        run(tmp_path, make_model=make_model)
    assert str(found.value).startswith("6 run(s) failed.")
    assert str(found.value).count("Traceback") == 1
    assert "The same in 5 more: Margin seed 0" in str(found.value)


def test_in_this_process_a_failure_is_told_of_too(tmp_path):
    def make_model(seed):
        raise RuntimeError("no such model")

    torch.manual_seed(3)
    before = torch.get_rng_state()
    with pytest.raises(FailedRunsError, match="2 run"):
        run(tmp_path, [acq.Random()], make_model=make_model, workers=0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda seed, folder: blobs(), "returned a TensorDataset; needed is an `ActiveDataModule`"),
        (lambda seed, folder: make_data(0, folder), "seed 0, so other seeds would repeat the same run"),
        (lambda seed, folder: make_data(1, folder), "seed 1, so other seeds would repeat the same run"),
        (lambda seed, folder: make_data(7, folder), "seed 7, so other seeds would repeat the same run"),
        (lambda seed, folder: make_data(seed, "elsewhere"), "where runs would meet"),
        (lambda seed, folder: make_data(seed, None), "where runs would meet"),
        (lambda seed, folder: make_data(seed, folder, test_set=None), "without test data"),
        (lambda seed, folder: make_data(seed, folder, oracle="people"), "data whose labels are known"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_data_that_cannot_be_compared_by_end_all_before_any_is_trained(tmp_path, data, message, workers):
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        run(tmp_path, data=data, workers=workers)
    assert "Traceback" not in str(refused.value)
    assert not folders(tmp_path)
    assert table(run(tmp_path, [acq.Random()], seeds=1, rounds=1))  # whatever was asked for before


def test_one_call_of_make_data_too_many_and_none_where_nothing_is_left_to_show(tmp_path):
    made = []

    def data(seed, folder):
        made.append((seed, Path(folder).is_relative_to(tmp_path)))
        return make_data(seed, folder)

    small = {"strategies": [acq.Random()], "rounds": 1, "workers": 0, "data": data}
    run(tmp_path, **small)
    assert made == [(1, False), (0, True), (1, True)]
    made.clear()
    run(tmp_path, **{**small, "rounds": 2})  # both have begun
    run(tmp_path, **{**small, "rounds": 2, "seeds": 3})  # one is left
    assert made == [(0, True), (1, True), (2, True)]


def test_what_make_data_raises_for_another_seed_is_of_its_own_run(tmp_path):
    def data(seed, folder):
        if seed == 1:
            raise FileNotFoundError("no such fold")
        return make_data(seed, folder)

    with pytest.raises(FailedRunsError, match="Random, seed 1:\nTraceback") as found:
        run(tmp_path, [acq.Random()], data=data, rounds=1)
    assert len(found.value.comparison.ended) == 1


def test_a_trainer_that_records_nothing_or_is_several(tmp_path):
    with pytest.raises(ValueError, match="`fast_dev_run`, of which no round is recorded"):
        run(
            tmp_path, [acq.Random()], make_trainer=lambda number: quiet(fast_dev_run=True), seeds=1, workers=0
        )
    with pytest.raises(ValueError, match=r"of 2 processes(.|\n)*Use `devices=1`"):
        run(
            tmp_path, [acq.Random()], seeds=1, workers=0,
            make_trainer=lambda number: quiet(devices=2, strategy="ddp_spawn"),
        )  # fmt: skip


def test_beginnings_that_differ_are_an_error_however_late(tmp_path):
    def by_strategy(seed, folder):
        return make_data(seed, folder, initial=6 + 3 * (Path(folder).parent.name == "Margin"))

    with pytest.raises(
        ValueError, match=r"initial sets of (6 and 9|9 and 6) samples, which .* place 6 on"
    ) as refused:
        run(tmp_path / "labels", data=by_strategy, seeds=1)
    wrong = tmp_path / "labels" / "Margin" / "seed_0"
    assert str(wrong) in str(refused.value)
    shutil.rmtree(wrong)  # as it says
    assert len(run(tmp_path / "labels", seeds=1).ended) == 3
    run(tmp_path / "weights", [acq.Random()], seeds=1)
    with pytest.raises(ValueError, match=r"began with different weights.*Let `make_model` draw"):
        run(tmp_path / "weights", make_model=lambda seed: Net(batch_norm=True), seeds=1, accept_changes=True)
    run(tmp_path / "order", [acq.Random()], seeds=1)
    first = initial_of(tmp_path / "order")
    with pytest.raises(
        ValueError, match=r"initial sets of 6 and 6 samples, which .* place 4 on: \[\d+, \d+\]"
    ):
        run(
            tmp_path / "order", seeds=1,
            data=lambda seed, folder: make_data(seed, folder, initial=[*first[:4], *first[:3:-1]]),
        )  # fmt: skip
    run(tmp_path / "samples", [acq.Random()], seeds=1)
    with pytest.raises(ValueError, match="60 samples and 30, not the same ones"):
        run(
            tmp_path / "samples", seeds=1,
            data=lambda seed, folder: ActiveDataModule(
                blobs(30), test_set=blobs(30), initial=6, batch_size=4, seed=seed, state_dir=folder
            ),
        )  # fmt: skip


def initial_of(state_dir):
    state = Book(state_dir / "Random" / "seed_0").state
    labeled = state.indices(LABELED)
    return labeled[state.round[labeled] == 0].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps_per_epoch": 3}, "began with steps_per_epoch = (3 and .* = None|None and .* = 3);"),
        ({"batch_size": 3}, "began with (batch_size = . and batch_size = .|. and . batches an epoch);"),
        ({"test_set": blobs(29, seed=9)}, "began with (30 and 29|29 and 30) test samples;"),
        ({"val_set": blobs(29, seed=9)}, "began with (15 and 29|29 and 15) validation samples;"),
    ],
)
def test_a_training_or_test_of_one_strategys_own_is_an_error(tmp_path, options, message):
    def by_strategy(seed, folder):
        own = options if Path(folder).parent.name == "Margin" else {}
        return make_data(seed, folder, **{"val_set": blobs(15), **own})

    with pytest.raises(ValueError, match=rf"With seed 0, .* {message} needed are the same"):
        run(
            tmp_path, [acq.Margin()], data=by_strategy, make_model=lambda seed: Validated(), seeds=1, rounds=1
        )


# ---------------------------------------------------------------------- trained otherwise later


def slower(seed):
    return Net(lr=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"make_model": slower, "seeds": 2}, r"optimizer\.lr = \[0\.05\], now \[0\.01\];"),
        ({"make_model": slower, "strategies": [acq.Margin()]}, r"optimizer\.lr = \[0\.05\], now \[0\.01\];"),
        ({"make_model": slower, "rounds": 2}, r"optimizer\.lr = \[0\.05\], now \[0\.01\];"),
        (
            {"make_model": lambda seed: Net(dropout=0.5), "seeds": 2},
            "module = 67 parameters in layers .*, now 67 parameters in layers",
        ),
        ({"make_trainer": lambda number: quiet(max_epochs=2), "seeds": 2}, "max_epochs = 1, now 2;"),
        (
            {"data": lambda s, f: make_data(s, f, steps_per_epoch=2, batch_size=2), "rounds": 2},
            "batch_size = 4, now 2; steps_per_epoch = None, now 2;",
        ),
        ({"data": lambda s, f: make_data(s, f, test_set=blobs(9)), "rounds": 2}, "test = 30, now 9;"),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_trained_otherwise_is_not_added(tmp_path, options, message, workers):
    run(tmp_path, [acq.Random()], seeds=1, rounds=1)
    before = Ledger(tmp_path / "Random" / "seed_0" / "ledger.sqlite3").rounds()
    wanted = {"strategies": [acq.Random()], "seeds": 1, "rounds": 1, "workers": workers, **options}
    with pytest.raises(ValueError, match=f"were trained with {message}.*`accept_changes=True`"):
        run(tmp_path, **wanted)
    assert Ledger(tmp_path / "Random" / "seed_0" / "ledger.sqlite3").rounds() == before
    assert all(len(Ledger(f / "ledger.sqlite3").rounds()) < 3 for f in folders(tmp_path))


def test_changes_that_are_accepted_are_told_of(tmp_path):
    small = {"strategies": [acq.Random()], "rounds": 1}
    assert "NOT ALIKE" not in str(run(tmp_path, seeds=1, **small))
    mixed = run(tmp_path, seeds=2, make_model=slower, accept_changes=True, **small)
    said = "NOT ALIKE: not all rounds of all runs were trained with the same optimizer.lr."
    assert said in str(mixed)
    assert said in str(Comparison.load(tmp_path))


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"make_model": slower}, "optimizer.lr"),
        ({"made_with": {"aug": "b"}}, "aug"),
        ({"data": lambda s, f: make_data(s, f, test_set=blobs(9))}, "number of test samples"),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_changes_that_are_accepted_between_rounds_are_told_of(tmp_path, options, names, workers):
    small = {"strategies": [acq.Margin()], "seeds": 1, "workers": workers, "made_with": {"aug": "a"}}
    assert "NOT ALIKE" not in str(run(tmp_path, rounds=2, **small))
    mixed = run(tmp_path, rounds=3, accept_changes=True, **{**small, **options})
    said = f"NOT ALIKE: not all rounds of all runs were trained with the same {names}."
    for comparison in (mixed, Comparison.load(tmp_path), run(tmp_path, rounds=3, **{**small, **options})):
        assert said in str(comparison)
    assert "NOT ALIKE" not in str(Comparison.load(tmp_path, rounds=1))  # the third is trained again, to ask


def test_a_round_that_is_done_again_keeps_what_was_accepted_for_it(tmp_path):
    class Stopped(Net):
        def on_train_epoch_end(self):
            raise RuntimeError("stopped before the round ended")

    small = {"strategies": [acq.Random()], "seeds": 1, "workers": 0}
    run(tmp_path, rounds=1, **small)
    with pytest.raises(FailedRunsError, match="stopped before"):
        run(tmp_path, rounds=2, make_model=lambda seed: Stopped(lr=0.01), accept_changes=True, **small)
    assert "with the same optimizer.lr." in str(run(tmp_path, rounds=2, make_model=slower, **small))


@pytest.mark.parametrize("other", [{"aug": "b"}, {}, None])
def test_runs_that_are_said_to_be_made_otherwise_are_told_of_from_then_on(tmp_path, other):
    small = {"seeds": 1, "rounds": 1}
    run(tmp_path, [acq.Random()], made_with={"aug": "a"}, **small)
    said = "NOT ALIKE: not all rounds of all runs were trained with the same aug."
    assert said in str(run(tmp_path, [acq.Margin()], made_with=other, accept_changes=True, **small))
    assert said in str(run(tmp_path, [acq.BADGE()], made_with=other, **small))
    assert said in str(Comparison.load(tmp_path))


def test_rounds_that_differ_from_one_another_are_no_change(tmp_path):
    def growing(number):
        return quiet(max_epochs=1 + number)

    small = {"strategies": [acq.Random()], "make_trainer": growing}
    run(tmp_path, seeds=1, rounds=1, **small)
    more = run(tmp_path, seeds=2, rounds=2, **small)
    assert len(more.rows) == 6
    assert "NOT ALIKE" not in str(more)
    longer = run(tmp_path, seeds=2, rounds=3, accept_changes=True, **small)  # where nothing is to accept
    assert "NOT ALIKE" not in str(longer)


def later_longer(number):
    return quiet(max_epochs=1 if number < 2 else 2)


class RateByRound(Net):
    def configure_optimizers(self):
        self.lr = 0.05 if self.trainer.datamodule.round < 2 else 0.01
        return super().configure_optimizers()


@pytest.mark.parametrize("accept", [False, True])
@pytest.mark.parametrize("plan", [{"make_trainer": later_longer}, {"make_model": lambda seed: RateByRound()}])
def test_a_plan_may_differ_in_rounds_that_no_run_has_reached(tmp_path, plan, accept):
    small = {"workers": 0, "accept_changes": accept, **plan}
    run(tmp_path, [acq.Margin()], seeds=1, rounds=1, **small)
    longer = run(tmp_path, seeds=2, rounds=3, **small)  # one goes on, and others are new
    assert len(longer.ended) == 6
    assert "NOT ALIKE" not in str(longer)


def stopped_at(number, lr=0.05):
    """Before that round's training: none is done again by the run that goes on."""

    class Stopped(Net):
        def setup(self, stage):
            if self.trainer.datamodule.round == number:
                raise RuntimeError("stopped between rounds")

    return lambda seed: Stopped(lr=lr)


@pytest.mark.parametrize("accept", [False, True])
def test_a_plan_may_differ_in_the_round_that_a_run_was_ended_before(tmp_path, accept):
    small = {
        "strategies": [acq.Random()],
        "make_trainer": later_longer,
        "workers": 0,
        "accept_changes": accept,
    }
    with pytest.raises(FailedRunsError, match="stopped between"):
        run(tmp_path, seeds=1, rounds=3, make_model=stopped_at(2), **small)
    assert "NOT ALIKE" not in str(run(tmp_path, seeds=2, rounds=3, **small))


def test_the_plan_of_other_runs_is_that_of_one_that_goes_on(tmp_path):
    """Its optimizer does not show before the round, so that only these tell a plan from a change."""
    small = {"strategies": [acq.Random()], "workers": 0, "rounds": 3}

    class Stopped(RateByRound):
        def setup(self, stage):
            if self.trainer.datamodule.round == 2 and self.trainer.datamodule.seed == 0:
                raise RuntimeError("stopped between rounds")

    with pytest.raises(FailedRunsError, match="stopped between"):
        run(tmp_path, seeds=2, make_model=lambda seed: Stopped(), **small)
    assert "NOT ALIKE" not in str(run(tmp_path, seeds=2, make_model=lambda seed: RateByRound(), **small))


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"make_model": slower}, "optimizer.lr"),
        ({"make_trainer": lambda _: quiet(max_epochs=2)}, "max_epochs"),
    ],
)
def test_a_change_in_the_round_that_a_run_was_ended_before_is_none_of_the_plan(tmp_path, changed, name):
    small = {"strategies": [acq.Random()], "seeds": 1, "rounds": 3, "workers": 0}
    with pytest.raises(FailedRunsError, match="stopped between"):
        run(tmp_path, make_model=stopped_at(2), **small)
    with pytest.raises(ValueError, match=f"were trained with {name} = "):
        run(tmp_path, **small, **changed)
    said = f"with the same {name}."
    assert said in str(run(tmp_path, **small, **changed, accept_changes=True))
    assert said in str(Comparison.load(tmp_path))


def test_what_the_caller_says_they_are_made_with_is_held_against_later_calls(tmp_path):
    small = {"strategies": [acq.Random()], "seeds": 1, "rounds": 1}
    run(tmp_path, made_with={"flips": True, "lr": (1, 2), "decay": float("nan")}, **small)
    again = {"workers": 0, "data": lambda *_: pytest.fail("a run was made again"), **small}
    same = {"flips": True, "lr": [1, 2], "decay": float("nan")}
    for more in ({}, {"other": 3}, {"other": 3}):
        run(tmp_path, made_with={**same, **more}, **again)
    same["other"] = 3
    before = (tmp_path / "comparison.json").read_text()
    with pytest.raises(ValueError, match=r"made with flips = True, now False; all .*`accept_changes=True`"):
        run(tmp_path, made_with={**same, "flips": False}, **again)
    for said in (None, {}):
        with pytest.raises(
            ValueError, match=r"made with flips = True, now not named, lr = \[1, 2\], now not"
        ):
            run(tmp_path, made_with=said, **again)
    assert (tmp_path / "comparison.json").read_text() == before
    run(tmp_path, made_with={"flips": False}, accept_changes=True, **again)  # none is made with it
    run(tmp_path, accept_changes=True, **again)
    assert json.loads((tmp_path / "comparison.json").read_text())["made_with"]["flips"] is True
    run(tmp_path, made_with=same, **again)


@pytest.mark.parametrize("other", [{"lr": 0.2, "decay": float("nan")}, {}])
@pytest.mark.parametrize("workers", [0, 2])
def test_another_setting_is_on_record_as_soon_as_a_run_is_made_with_it(tmp_path, other, workers):
    small = {"strategies": [acq.Random()], "rounds": 1, "workers": workers}
    run(tmp_path, seeds=1, made_with={"lr": 0.1, "decay": float("nan")}, **small)
    run(tmp_path, seeds=2, made_with=other, accept_changes=True, **small)
    run(tmp_path, seeds=2, made_with=other, **small)
    shown = other.get("lr", "not named")
    with pytest.raises(ValueError, match=f"made with lr = {shown}, now 0.1(,|; all)"):
        run(tmp_path, seeds=2, made_with={"lr": 0.1, "decay": float("nan")}, **small)


def test_another_setting_is_not_on_record_if_no_round_was_made_with_it(tmp_path):
    small = {"strategies": [acq.Random()], "rounds": 1, "workers": 0}
    run(tmp_path, seeds=1, made_with={"lr": 0.1}, **small)
    with pytest.raises(FailedRunsError):
        run(tmp_path, seeds=2, accept_changes=True, make_model=lambda seed: 1 / 0, **small)
    run(tmp_path, seeds=2, made_with={"lr": 0.1}, **small)


@pytest.mark.parametrize("other", [{"aug": "b"}, {}])
def test_runs_that_do_not_say_themselves_what_they_were_made_with_are_of_the_record(tmp_path, other):
    small = {"seeds": 1, "rounds": 1}
    run(tmp_path, [acq.Random()], made_with={"aug": "a"}, **small)
    facts = tmp_path / "Random" / "seed_0" / "run.json"
    known = json.loads(facts.read_text())
    del known["made_with"]
    facts.write_text(json.dumps(known))
    run(tmp_path, [acq.Random()], made_with=other, accept_changes=True, **small)
    mixed = run(tmp_path, [acq.Margin()], made_with=other, accept_changes=True, **small)
    for comparison in (
        mixed,
        Comparison.load(tmp_path),
        run(tmp_path, [acq.BADGE()], made_with=other, **small),
    ):
        assert "trained with the same aug." in str(comparison)


def test_a_comparison_that_never_named_a_setting_may_begin_to(tmp_path):
    small = {"strategies": [acq.Random()], "rounds": 1}
    run(tmp_path, seeds=1, **small)
    run(tmp_path, seeds=1, made_with={}, **small)
    assert "NOT ALIKE" not in str(run(tmp_path, seeds=2, made_with={"flips": True}, **small))


# ---------------------------------------------------------------------- metrics


class Silent(Net):
    def test_step(self, batch, batch_idx):
        pass


class Taken(Net):
    def test_step(self, batch, batch_idx):
        super().test_step(batch, batch_idx)
        self.log("round", 1.0)


@pytest.mark.parametrize(
    ("model", "metric", "message"),
    [
        (Silent, None, "has no test metric, so there is nothing to compare by"),
        (Net, "test_f1", r"`metric` is 'test_f1'; needed is .* has \['test_acc'\]"),
        (Taken, None, "logs 'round', which a column of the table is named"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_metrics_that_cannot_be_compared_by_end_all_after_round_0(tmp_path, model, metric, message, workers):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, make_model=lambda seed: model(), metric=metric, workers=workers)
    assert len(folders(tmp_path)) == 1
    ledger = Ledger(folders(tmp_path)[0] / "ledger.sqlite3")
    assert len(ledger.rounds()) <= 2
    ledger.verify()


def test_the_metric_that_is_named_is_the_one_meant(tmp_path):
    class Two(Net):
        def test_step(self, batch, batch_idx):
            super().test_step(batch, batch_idx)
            self.log("test_wer", 0.5)

    small = {"strategies": [acq.Random()], "seeds": 1, "rounds": 1, "make_model": lambda seed: Two()}
    assert run(tmp_path, **small).metric == "test_acc"
    assert run(tmp_path, metric="test_wer", **small).metric == "test_wer"
    assert Comparison.load(tmp_path).metric == "test_wer"
    assert run(tmp_path, **{**small, "seeds": 2}).metric == "test_wer"
    with pytest.raises(ValueError, match="`metric` is 'test_wer'; needed is"):  # of new runs too
        run(tmp_path, **{**small, "seeds": 3, "make_model": lambda seed: Net()})
    with pytest.raises(ValueError, match="`metric` is 'test_f1'; needed is"):
        run(tmp_path, metric="test_f1", **small)
    assert Comparison.load(tmp_path).metric == "test_acc"  # what was refused is not kept
    assert run(tmp_path, **small).metric == "test_acc"


def test_without_a_name_the_metric_is_an_accuracy_by_a_whole_word():
    row = {"strategy": "Random", "seed": 0, "round": 0, "labeled": 4, "accumulated_loss": 0.5, "test_f1": 0.5}
    assert Comparison.of_rows([row]).metric == "accumulated_loss"  # the first
    for name in ("test_acc", "valAcc", "MulticlassAccuracy"):
        assert Comparison.of_rows([{**row, name: 0.5}]).metric == name


def test_seeds_with_the_same_weights_are_warned_of(tmp_path):
    def fixed(seed):
        torch.manual_seed(0)
        return Net()

    with pytest.warns(UserWarning, match="The seeds . and . began with the same weights"):
        run(tmp_path, [acq.Random()], make_model=fixed, rounds=1)


@pytest.mark.parametrize("text", ["{", '{"strategies": {}}', '{"other": 1}'])
def test_settings_that_cannot_be_read_are_one_message_and_the_runs_are_whole(tmp_path, done, text):
    run(tmp_path, [acq.Random()], seeds=1, rounds=1)
    (tmp_path / "comparison.json").write_text(text)
    for call in (lambda: Comparison.load(tmp_path), lambda: run(tmp_path)):
        with pytest.raises(
            ValueError, match=r"comparison\.json cannot be read .*: remove this one, and call"
        ):
            call()
    (tmp_path / "comparison.json").unlink()
    assert table(run(tmp_path)) == table(done[1])


# ---------------------------------------------------------------------- without forks


def make_model(seed):
    return Net()


def make_trainer(number):
    return quiet(max_epochs=1)


@pytest.mark.slow
def test_without_forks_runs_are_the_same(tmp_path, done, monkeypatch):
    monkeypatch.setattr("lightning_al.comparing.processes.sys.platform", "darwin")
    found = run(tmp_path, [acq.Margin()], make_model=make_model, make_trainer=make_trainer, seeds=1)
    assert table(found) == [row for row in table(done[1]) if row["strategy"] != "BADGE" and not row["seed"]]


def test_without_forks_closures_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_al.comparing.processes.sys.platform", "darwin")
    with pytest.raises(TypeError, match=r"this is not Linux.*needed are functions of a module.*`workers=0`"):
        run(tmp_path)
    assert run(tmp_path, [acq.Random()], seeds=1, rounds=1, workers=0).rows


# ---------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query_size": 5}, "query_size = 4, now 5"),
        ({"candidates": 20}, "candidates = None, now 20"),
        ({"restart": "redraw"}, "restart = 'initial', now 'redraw'"),
        ({"test_posterior": MCDropout(3)}, r"test_posterior = 'SinglePass.*', now 'MCDropout"),
        ({"strategies": {"Margin": acq.Entropy()}}, r"strategies\['Margin'\] = .Margin.*, now .Entropy"),
        ({"strategies": {"chance": acq.Random()}}, "baseline = 'Random', now 'chance'"),
    ],
)
def test_other_settings_than_the_runs_were_made_with_are_named(done, options, message):
    before = (done[0] / "comparison.json").read_text()
    with pytest.raises(ValueError, match=f"were made with {message}.*another `state_dir`"):
        run(done[0], **options)
    assert (done[0] / "comparison.json").read_text() == before


def test_what_never_ran_may_be_changed(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="returned a NoneType"):
        run(tmp_path / "a", data=lambda *_: None, query_size=9)
    assert run(tmp_path / "a", [acq.Random()], seeds=1).rows
    assert json.loads((tmp_path / "a" / "comparison.json").read_text())["common"]["query_size"] == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"strategies": []}, ValueError, "a mapping from names to strategies"),
        ({"strategies": acq.Margin()}, ValueError, "a mapping from names to strategies"),
        ({"strategies": "Margin"}, ValueError, "`strategies` is 'Margin'; needed is a mapping"),
        ({"strategies": [acq.Margin]}, TypeError, r"Call it: `Margin\(\)`"),
        ({"strategies": [acq.Margin(), acq.Margin()]}, ValueError, "a name of its own for each"),
        ({"strategies": {"a": acq.Margin(), "A": acq.BADGE()}}, ValueError, "also in lower case"),
        ({"strategies": {"Random": acq.Margin()}}, ValueError, "named 'Random' is another one"),
        ({"make_model": Net()}, TypeError, r"Write `lambda seed: Net\(\)`"),
        ({"make_model": Net}, TypeError, "is the class `.*Net`"),
        ({"make_trainer": quiet()}, TypeError, "a function from the number of a round to a Trainer"),
        ({"data": 3}, TypeError, "`make_data` is 3"),
        (
            {"data": lambda seed: None},
            TypeError,
            r"`make_data` takes `\(seed\)`.* Write `def make_data\(seed, s",
        ),
        (
            {"make_trainer": lambda: None},
            TypeError,
            r"`make_trainer` takes `\(\)`; .*`make_trainer\(round\)`",
        ),
        ({"metric": 3}, TypeError, "`metric` is 3; needed is the name"),
        ({"seeds": 0}, ValueError, "how many, 1 or more, or different whole numbers"),
        ({"seeds": [1, 1]}, ValueError, "different whole numbers"),
        ({"seeds": [0.5]}, ValueError, "different whole numbers"),
        ({"seeds": [2**63]}, ValueError, "different whole numbers of 64 bits"),
        ({"seeds": True}, ValueError, "different whole numbers"),
        ({"workers": -1}, ValueError, "how many runs go side by side"),
        ({"made_with": {"lr": object()}}, ValueError, "`made_with` is .*numbers and texts by name"),
        ({"made_with": ["lr"]}, ValueError, "`made_with` is .*numbers and texts by name"),
        ({"accept_changes": "yes"}, TypeError, "`accept_changes` is 'yes'"),
        ({"rounds": 0}, ValueError, "`rounds` is 0"),
        ({"query_size": 0}, ValueError, "`query_size` is 0"),
        ({"restart": "never"}, ValueError, "`restart` is 'never'"),
    ],
)
def test_wrong_arguments_are_one_message_and_nothing_is_written(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path / "runs", **options)
    assert not (tmp_path / "runs").exists()


def test_strategies_of_one_class_are_named_by_what_they_were_made_with(tmp_path):
    found = run(tmp_path, [acq.PowerSampling(acq.Margin(), beta=b) for b in (1.0, 4.0)], seeds=1, rounds=1)
    assert [name.count("beta") for name in found.strategies] == [0, 1, 1]
    assert len(folders(tmp_path)) == 3


@pytest.mark.parametrize("state_dir", [None, 3])
def test_a_folder_that_is_none_is_one_message(state_dir):
    with pytest.raises(TypeError, match=f"`state_dir` is {state_dir}; needed is the folder of all runs"):
        run(state_dir)


def test_a_file_is_no_folder_of_runs(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file', which is a file; needed is a folder"):
        run(tmp_path / "file")


def test_fewer_rounds_than_were_asked_for_may_be_looked_at(tmp_path, done):
    shutil.copytree(done[0], tmp_path / "more")
    path = tmp_path / "more" / "comparison.json"
    path.write_text(path.read_text().replace('"rounds": 2', '"rounds": 3'))
    assert not Comparison.load(tmp_path / "more").ended
    assert table(Comparison.load(tmp_path / "more", rounds=2)) == table(done[1])
    assert len(Comparison.load(done[0], rounds=1).rows) == 12
    with pytest.raises(ValueError, match="`rounds` is 0"):
        Comparison.load(done[0], rounds=0)


def test_a_folder_without_a_comparison_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no comparison"):
        Comparison.load(tmp_path)


def test_a_pool_that_is_used_up_ends_a_run(tmp_path):
    def data(seed, folder):
        return ActiveDataModule(
            blobs(12), test_set=blobs(30), initial=6, batch_size=4, seed=seed, state_dir=folder
        )

    found = run(tmp_path, [acq.Random()], data=data, rounds=5, seeds=1)
    assert [row["labeled"] for row in found.rows] == [6, 10, 12]
    assert len(found.ended) == 1
    run(tmp_path, [acq.Random()], data=lambda *_: pytest.fail("made again"), rounds=6, seeds=1, workers=0)


@pytest.mark.filterwarnings("ignore:Starting from v1.9.0:UserWarning")
def test_default_loggers_write_to_the_runs_own_folders(tmp_path):
    run(tmp_path, [acq.Random()], seeds=2, rounds=1, make_trainer=lambda n: quiet(max_epochs=1, logger=True))
    for seed in (0, 1):
        assert list((tmp_path / "Random" / f"seed_{seed}").glob("lightning_logs/version_0/*"))
    assert not Path("lightning_logs").exists()


def test_unseeded_draws_of_make_data_are_the_same_for_all_strategies(tmp_path):
    def data(seed, folder):
        chosen = torch.utils.data.Subset(blobs(60), torch.randperm(60)[:40].tolist())
        return ActiveDataModule(
            chosen, test_set=blobs(30), initial=6, batch_size=4, seed=seed, state_dir=folder
        )

    run(tmp_path, data=data, seeds=1)  # else the check of the beginnings fails


def test_progress_counts_the_rounds_of_all_runs(tmp_path, capsys):
    run(tmp_path, [acq.Random()], progress=True)
    said = capsys.readouterr().err
    assert "2 of 2 runs done" in said
    assert "6/6" in said


def test_committees_are_alike_with_those_that_are_none(tmp_path):
    def other(seed):
        return Net(lr=0.01, batch_norm=True)

    strategies = {
        "one kind": acq.BALD(Committee(2)),
        "two kinds": acq.VoteEntropy(Committee(models=[lambda seed: Net(), other])),
    }
    found = run(tmp_path, strategies, seeds=1, rounds=1)
    assert len(found.ended) == 3
    assert "NOT ALIKE" not in str(found)
    first = {row["strategy"]: row["test_acc"] for row in found.rows if row["round"] == 0}
    states = [
        torch.load(next(tmp_path.glob(f"{place}/initial_weights.pt")))
        for place in ("Random/seed_0", "one_kind-*/seed_0/member/1")
    ]
    torch.testing.assert_close(*states, atol=0, rtol=0)
    assert first["one kind"] == first["Random"]  # the member that is tested is trained as if alone
    more = run(tmp_path, strategies, seeds=1, rounds=2)  # which are held against the rounds before
    assert [len(runs[0]) for runs in more.histories().values()] == [3, 3, 3]
