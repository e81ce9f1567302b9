"""Real checkpoints against the ledger: Lightning's own loading, restricted to weights and plain values."""

import inspect
import shutil

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from integration.small import Net, blobs, margin, quiet
from lightning_al import ActiveDataModule, AwaitingLabels, Ledger, LedgerError

#: Where Lightning has no argument for it, torch's own default of "weights only" is asked for.
RESTRICTED = {"weights_only": True} if "weights_only" in inspect.signature(L.Trainer.fit).parameters else {}
ALL = dict.fromkeys(RESTRICTED, False)


class Renamed(ActiveDataModule):
    """A user's own class, perhaps made since."""


class Watching(Net):
    def on_train_start(self):
        self.began_at = self.trainer.current_epoch, len(self.trainer.datamodule.labeled_indices)


def make(folder, kind=ActiveDataModule):
    return kind(blobs(), initial=12, batch_size=4, state_dir=folder / "run")


def fit(folder, *, kind=ActiveDataModule, epochs=2, path=None):
    saves = ModelCheckpoint(
        folder / "saved", save_last=True, filename="{epoch}", enable_version_counter=False
    )
    trainer = quiet(max_epochs=epochs, callbacks=[saves, margin()], enable_checkpointing=True)
    model, data = Watching(), make(folder, kind)
    trainer.fit(model, datamodule=data, ckpt_path=path, **(RESTRICTED if path else {}))
    return model, data


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A checkpoint of round 0, kept before its query was made and answered."""
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    fit(tmp_path)
    path = tmp_path / "of_round_0.ckpt"
    shutil.copy(tmp_path / "saved" / "last.ckpt", path)
    return path


pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")


def test_the_state_is_of_plain_values(saved):
    state = torch.load(saved, weights_only=True)["ActiveDataModule"]
    assert len(state["labeled"]) == 12
    assert state["round"] == 0


@pytest.mark.parametrize("kind", [ActiveDataModule, Renamed])
def test_an_older_checkpoint_is_outvoted_by_the_ledger(saved, tmp_path, kind):
    said = r"checkpoint is of round 0, the ledger of round 1; training goes on with the 20 labels"
    with pytest.warns(UserWarning, match=said):
        model, data = fit(tmp_path, kind=kind, epochs=4, path=saved)
    assert model.began_at == (2, 20)
    assert len(data.labeled_indices) == 28


@pytest.mark.parametrize("kind", [ActiveDataModule, Renamed])
def test_a_newer_checkpoint_is_an_error_that_names_both(saved, tmp_path, kind):
    backup = tmp_path / "run" / "backups" / "round_0.sqlite3"
    newer = tmp_path / "of_round_1.ckpt"
    fit(tmp_path)
    shutil.copy(tmp_path / "saved" / "last.ckpt", newer)
    shutil.copy(backup, tmp_path / "run" / "ledger.sqlite3")
    before = make(tmp_path).ledger.last()
    with pytest.raises(LedgerError, match=r"round 1 with 20 labels.*ends at round 0 with 12.*put the newer"):
        fit(tmp_path, kind=kind, epochs=4, path=newer)
    assert len(make(tmp_path).labeled_indices) == 12
    assert make(tmp_path).ledger.last() == before


def test_a_checkpoint_of_another_run_lends_its_weights_only(saved, tmp_path):
    shutil.move(tmp_path / "run", tmp_path / "other")
    with pytest.warns(UserWarning, match=r"belongs to run .* its labels are not"):
        model, _ = fit(tmp_path, kind=Renamed, epochs=4, path=saved)
    assert model.began_at == (2, 12)


def test_a_checkpoint_within_a_round_goes_on_without_a_word(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")

    class Stopped(Net):
        def on_train_epoch_start(self):
            if self.current_epoch == 2:
                raise RuntimeError("power is off")

    saves = ModelCheckpoint(tmp_path / "saved", save_last=True, enable_version_counter=False)
    with pytest.raises(RuntimeError, match="power"):
        quiet(max_epochs=4, callbacks=[saves, margin()], enable_checkpointing=True).fit(
            Stopped(), datamodule=make(tmp_path)
        )
    model, data = fit(tmp_path, kind=Renamed, epochs=4, path=tmp_path / "saved" / "last.ckpt")
    assert model.began_at == (2, 12)
    assert len(data.labeled_indices) == 20


# ---------------------------------------------------------------------- while people are awaited


class Chosen:
    """A setting of a class."""


class OfAClass(Net):
    """Its checkpoint has a value that is not read as plain."""

    def __init__(self, of=None):
        super().__init__()
        self.save_hyperparameters({"of": of or Chosen()})


def asked_of_people(folder, kind=ActiveDataModule):
    return kind(blobs(), oracle="people", initial=6, batch_size=4, state_dir=folder, class_names=list("abc"))


def answered(folder, label="a"):
    """What waits, answered; the folder's data module."""
    data = asked_of_people(folder)
    data.open()
    data.label(data.asked_indices, [label] * len(data.asked_indices), who="Ada")
    data.release()
    return data


def fit_once(data, *, epochs, model=Net, path=None, callbacks=()):
    trainer = quiet(max_epochs=epochs, callbacks=[margin(), *callbacks], enable_checkpointing=bool(callbacks))
    trainer.fit(model(), datamodule=data, ckpt_path=path, **ALL)
    return trainer


@pytest.fixture(params=[Net, OfAClass])
def days(tmp_path, request):
    """A ledger as of round 0, while its query is out, and a checkpoint of round 1, whose query is out too."""
    folder = tmp_path / "run"
    fit_once(answered(folder), epochs=2, model=request.param)
    shutil.copytree(folder, tmp_path / "early")
    trainer = fit_once(answered(folder), epochs=2, model=request.param)
    trainer.save_checkpoint(tmp_path / "of_round_2.ckpt")
    return tmp_path


NEWER = r"checkpoint is of round 2 with 14 labels.*early ends at round 1 with 6.*put the newer"


@pytest.mark.parametrize("kind", [ActiveDataModule, Renamed])
def test_nobody_is_asked_again_for_labels_that_a_newer_checkpoint_knows_of(days, kind):
    data = asked_of_people(days / "early", kind)
    before = data.ledger.last()
    with pytest.raises(LedgerError, match=NEWER):
        fit_once(data, epochs=4, path=days / "of_round_2.ckpt")
    assert data.ledger.last() == before
    assert data.ledger.holder() is None
    with pytest.raises(AwaitingLabels):  # without it, the older ledger is as good as any
        fit_once(data, epochs=4)


def test_code_in_a_checkpoint_does_not_run_unless_lightning_would_run_it(tmp_path):
    class Runs:
        def __reduce__(self):
            return (tmp_path / "it_ran").mkdir, ()

    torch.save({"hyper_parameters": Runs(), "ActiveDataModule": {}}, tmp_path / "of_a_stranger.ckpt")
    with pytest.raises(AwaitingLabels):
        quiet(callbacks=[margin()]).fit(
            Net(),
            datamodule=asked_of_people(tmp_path),
            ckpt_path=tmp_path / "of_a_stranger.ckpt",
            **RESTRICTED,
        )
    assert not (tmp_path / "it_ran").exists()


def test_also_where_the_trainer_finds_the_newer_checkpoint_by_itself(days):
    (days / "saved").mkdir()
    shutil.copy(days / "of_round_2.ckpt", days / "saved" / "last.ckpt")
    saves = ModelCheckpoint(days / "saved", save_last=True, enable_version_counter=False)
    with pytest.raises(LedgerError, match=NEWER):
        fit_once(asked_of_people(days / "early"), epochs=4, path="last", callbacks=[saves])


def test_what_waits_is_waited_for_beside_a_checkpoint_that_is_no_newer(days, recwarn):
    with pytest.raises(AwaitingLabels):
        fit_once(asked_of_people(days / "run"), epochs=4, path=days / "of_round_2.ckpt")
    with pytest.raises(AwaitingLabels):
        fit_once(asked_of_people(days / "run"), epochs=4, path=days / "nowhere.ckpt")
    (days / "cut.ckpt").write_bytes((days / "of_round_2.ckpt").read_bytes()[:999])
    with pytest.raises(AwaitingLabels):
        fit_once(asked_of_people(days / "run"), epochs=4, path=days / "cut.ckpt")
    assert not [w for w in recwarn if "ledger" in str(w.message)]


def test_a_ledger_that_is_made_anew_beside_a_checkpoint_says_whose_labels_are_not_there(days):
    with pytest.warns(UserWarning, match=r"belongs to run .* its labels are not"):  # noqa: SIM117
        with pytest.raises(AwaitingLabels):
            fit_once(asked_of_people(days / "empty"), epochs=4, path=days / "of_round_2.ckpt")


def test_a_restored_ledger_that_has_grown_past_the_checkpoint_again_is_no_newer_one(days):
    """Events are counted by both alike; that they are others, only digests tell."""
    fit_once(answered(days / "early", "b"), epochs=2)
    data = answered(days / "early", "b")
    checkpoint = torch.load(days / "of_round_2.ckpt", weights_only=False)
    assert data.ledger.last()[0] > checkpoint["ActiveDataModule"]["events"]
    with pytest.raises(LedgerError, match=r"round 2 with 14 labels.*another event of that number.*put the"):
        fit_once(data, epochs=4, model=OfAClass, path=days / "of_round_2.ckpt")
    del checkpoint["ActiveDataModule"]["digest"]  # as older versions wrote them
    torch.save(checkpoint, days / "older.ckpt")
    with pytest.warns(UserWarning, match="the ledger of round 2"):
        fit_once(data, epochs=4, model=OfAClass, path=days / "older.ckpt")


def test_a_checkpoint_has_the_digest_of_its_last_event(saved, tmp_path):
    kept = torch.load(saved, weights_only=True)["ActiveDataModule"]
    backup = Ledger(tmp_path / "run" / "backups" / "round_0.sqlite3")
    assert (kept["events"], kept["digest"]) == backup.last()
