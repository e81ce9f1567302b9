"""Real checkpoints against the ledger: Lightning's own loading, restricted to weights and plain values."""

import inspect
import shutil

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from integration.small import Net, blobs, margin, quiet
from lightning_al import ActiveDataModule, LedgerError

#: Where Lightning has no argument for it, torch's own default of "weights only" is asked for.
RESTRICTED = {"weights_only": True} if "weights_only" in inspect.signature(L.Trainer.fit).parameters else {}


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
