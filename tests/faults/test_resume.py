"""A run that failed anywhere and was started again ends as one that was never disturbed."""

import pytest
from integration.small import queries

import lightning_al.callbacks.active_learning as callback_file
from faults.runs import Slowed, known, run, seeded
from lightning_al import History, Ledger
from lightning_al.data.labelling import Labelling


class PulledPlugError(Exception):
    pass


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder)
    return known(folder)


class Plug:
    """Fails once, at the given call, before or after what it stands before."""

    def __init__(self, call, *, before, counts=lambda *args, **kwargs: True):
        self.call, self.before, self.counts = call, before, counts

    def __call__(self, function):
        def wrapped(*args, **kwargs):
            if not self.counts(*args, **kwargs):
                return function(*args, **kwargs)
            self.call -= 1
            if self.call == 0 and self.before:
                raise PulledPlugError
            result = function(*args, **kwargs)
            if self.call == 0:
                raise PulledPlugError
            return result

        return wrapped


def of_kind(kind):
    return lambda ledger, events, **options: any(event.kind == kind for event in events)


def measurements(ledger, events, *, round_row=None, **options):
    return not events and round_row is not None


PLACES = {
    "in training": (Slowed, "training_step", 18, True),
    "after the last step": (Slowed, "configure_optimizers", 2, False),
    "after training, before scoring": (callback_file, "choose", 2, True),
    "in scoring": (Slowed, "active_step", 9, True),
    "after selecting": (callback_file, "choose", 2, False),
    "before the query is written": (Ledger, "append", 2, True, of_kind("asked")),
    "after the query is written": (Ledger, "append", 2, False, of_kind("asked")),
    "between query and labels": (Labelling, "label", 2, True),
    "before the labels are written": (Ledger, "append", 3, True, of_kind("labeled")),
    "after the labels are written": (Ledger, "append", 3, False, of_kind("labeled")),
    "in the test": (Slowed, "test_step", 8, True),
    "before the measurements are written": (Ledger, "append", 2, True, measurements),
    "after the measurements are written": (Ledger, "append", 2, False, measurements),
    "before the history is written": (History, "write_csv", 2, True),
    "after the history is written": (History, "write_csv", 2, False),
    "while the ledger is made": (Ledger, "create", 1, False),
    "at a backup": (Ledger, "backup", 2, False),
}


def fail_once(monkeypatch, place, state_dir, *, call=None, **options):
    owner, name, usual, before, *counts = PLACES[place]
    plug = Plug(call or usual, before=before, **({"counts": counts[0]} if counts else {}))
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, plug(getattr(owner, name)))
        with pytest.raises(PulledPlugError):
            run(state_dir, **options)
    assert plug.call == 0


@pytest.mark.parametrize("place", PLACES)
def test_it_ends_with_the_same_queries_and_measurements(tmp_path, monkeypatch, undisturbed, place):
    fail_once(monkeypatch, place, tmp_path)
    run(tmp_path)
    assert known(tmp_path) == undisturbed
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 5


def test_failing_again_and_again_changes_nothing(tmp_path, monkeypatch, undisturbed):
    for place in PLACES:
        if place != "while the ledger is made":
            fail_once(monkeypatch, place, tmp_path, call=1)
    run(tmp_path)
    assert known(tmp_path) == undisturbed


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning")
def test_from_a_checkpoint_the_interrupted_round_goes_on_where_it_was(tmp_path, monkeypatch):
    fail_once(monkeypatch, "in training", tmp_path)  # step 18: the second epoch of round 1
    labeled = Ledger(tmp_path / "ledger.sqlite3").last()[0]
    begun = []

    class Watched(Slowed):
        def on_train_epoch_start(self):
            state = self.trainer.datamodule.state
            begun.append((state.last_round, self.current_epoch))

    def module(seed):
        made = Watched()
        made.load_state_dict(seeded(seed).state_dict())
        return made

    run(tmp_path, resume="checkpoint", module=module)
    assert begun[:2] == [(1, 1), (1, 2)]
    assert begun[2:] == [(r, e) for r in (2, 3) for e in range(3)]
    assert labeled == 20 + 8  # 12 labelled; 8 asked and labelled
    assert {r: len(q) for r, q in queries(tmp_path).items()} == {1: 8, 2: 8, 3: 8}


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning")
@pytest.mark.parametrize("left", [0, 100, 0.5, 0.99])
def test_a_checkpoint_that_was_being_written_is_passed_over(tmp_path, monkeypatch, left):
    fail_once(monkeypatch, "in training", tmp_path, call=22)  # the third epoch of round 1
    files = sorted((tmp_path / "round_1").iterdir(), key=lambda path: path.stat().st_mtime)
    content = files[1].read_bytes()
    files[1].write_bytes(content[: int(left * len(content)) if left < 1 else left])
    epochs = []
    monkeypatch.setattr(Slowed, "on_train_epoch_start", lambda self: epochs.append(self.current_epoch))
    run(tmp_path, resume="checkpoint")
    assert [path.name for path in files] == ["epoch=0.ckpt", "epoch=1.ckpt"]
    assert epochs == [1, 2] + [0, 1, 2] * 2
    assert {r: len(q) for r, q in queries(tmp_path).items()} == {1: 8, 2: 8, 3: 8}


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning")
def test_from_a_checkpoint_a_round_that_had_ended_training_is_begun_anew(tmp_path, monkeypatch, undisturbed):
    fail_once(monkeypatch, "after training, before scoring", tmp_path)
    run(tmp_path, resume="checkpoint")
    assert known(tmp_path) == undisturbed


def test_checkpoints_of_an_interrupted_attempt_are_put_aside(tmp_path, monkeypatch):
    fail_once(monkeypatch, "in training", tmp_path)
    run(tmp_path)
    assert [p.name for p in sorted((tmp_path / "round_1.interrupted1").iterdir())] == ["epoch=0.ckpt"]
    assert len(list((tmp_path / "round_1").iterdir())) == 3
