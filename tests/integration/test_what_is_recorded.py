"""What a fit records: what it trained on, once, and nothing when it only tries."""

import sqlite3

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from integration.small import Net, blobs, margin, pool, queries, quiet
from lightning_al import ActiveDataModule, History, LedgerError, fit_rounds


def rounds(data, active, number=3, **options):
    return fit_rounds(Net(), lambda r: quiet(max_epochs=1, **options), data, active, rounds=number)


@pytest.mark.parametrize("oracle", ["dataset", lambda indices: [0] * len(indices)])
def test_fast_dev_run_asks_for_nothing(tmp_path, oracle):
    data = pool(tmp_path, initial=0, oracle=oracle)
    data.label(range(12), [0, 1, 2] * 4)
    trainer = quiet(fast_dev_run=True, callbacks=[margin()])
    trainer.fit(Net(), datamodule=data)
    assert len(data.labeled_indices) == 12
    assert queries(tmp_path) == {}
    assert len(History.of(data)) == 0
    assert not (tmp_path / "initial_weights.pt").exists()
    assert "strategy" not in data.ledger.meta()


def test_fast_dev_run_of_rounds_leaves_all_to_the_real_run(tmp_path):
    assert len(rounds(pool(tmp_path), margin(), fast_dev_run=True)) == 0
    assert rounds(pool(tmp_path), margin()).column("labeled") == [12, 20, 28, 36]


def test_two_of_them_in_one_trainer_are_refused(tmp_path):
    data = pool(tmp_path)
    trainer = quiet(callbacks=[margin(query_size=5), margin(query_size=7)])
    with pytest.raises(MisconfigurationException, match=r"two `ActiveLearning`.*both ask.*Keep one"):
        trainer.fit(Net(), datamodule=data)
    assert len(data.labeled_indices) == 12


class LabelsMeanwhile(Callback):
    """A person who answers while the training runs."""

    def on_train_epoch_start(self, trainer, pl_module):
        data = trainer.datamodule
        data.label(data.pool_indices[:1], [0], who="Ann")


def test_labels_given_during_the_last_fit_are_trained_on_when_called_again(tmp_path):
    history = rounds(pool(tmp_path), margin(budget=20), callbacks=[LabelsMeanwhile()])
    assert history.column("labeled")[0] == 12  # what the training saw, not what was there at its end
    data = pool(tmp_path)
    spent = len(data.labeled_indices)
    assert rounds(data, margin(budget=20)).column("labeled")[-1] == spent


@pytest.mark.parametrize("change", ["corrected", "exchanged"])
def test_corrections_after_the_last_round_are_trained_on(tmp_path, change):
    rounds(pool(tmp_path), margin(budget=20))
    data = pool(tmp_path)
    first, other = int(data.labeled_indices[0]), int(data.pool_indices[0])
    if change == "corrected":
        data.label([first], [(data.state.target(first) + 1) % 3], overwrite=True)
    else:
        data.unlabel([first])
        data.label([other])
    trained = []

    class Count(Callback):
        def on_train_start(self, trainer, pl_module):
            trained.append(trainer.datamodule.training.indices.tolist())

    rounds(data, margin(budget=20), callbacks=[Count()])
    assert len(trained) == 1
    assert (first in trained[0]) == (change == "corrected")
    rounds(pool(tmp_path), margin(budget=20), callbacks=[Count()])
    assert len(trained) == 1  # and not once more


def test_labels_of_older_rounds_count_as_spent(tmp_path):
    history = rounds(pool(tmp_path, last_rounds=1), margin(), number=2)
    assert history.column("labeled") == [12, 20, 28]


def test_a_ledger_that_vanishes_is_not_replaced(tmp_path):
    data = pool(tmp_path)
    trainer = quiet(callbacks=[margin()])
    trainer.fit(Net(), datamodule=data)
    data.ledger.path.unlink()
    with pytest.raises(LedgerError, match=r"is gone since this run began.*Put it back.*backups"):
        trainer.fit(Net(), datamodule=data)
    with pytest.raises(LedgerError, match="is gone"):
        data.label(data.pool_indices[:1])
    assert not data.ledger.path.exists()


def test_a_state_directory_stays_where_it_was_when_the_script_moves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    data = pool("run")
    data.label([50, 51])
    monkeypatch.chdir(tmp_path / "elsewhere")
    data.label([52])
    assert len(pool(tmp_path / "run").labeled_indices) == len(data.labeled_indices)
    assert not list((tmp_path / "elsewhere").iterdir())


class Own(ActiveDataModule):
    def val_dataloader(self):
        return torch.utils.data.DataLoader(blobs(6), 3)


def test_a_subclass_may_have_loaders_of_its_own(tmp_path):
    seen = []

    class Validated(Net):
        def validation_step(self, batch, batch_idx):
            seen.append(len(batch[0]))

    options = {"initial": 12, "batch_size": 4}
    data = Own(blobs(), state_dir=tmp_path / "a", **options)
    quiet(max_epochs=1, num_sanity_val_steps=0).fit(Validated(), datamodule=data)
    assert seen == [3, 3]
    data = ActiveDataModule(blobs(), state_dir=tmp_path / "b", **options)
    data.val_set = blobs(8)
    quiet(max_epochs=1, num_sanity_val_steps=0).fit(Validated(), datamodule=data)
    assert seen == [3, 3, 4, 4]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_run_that_began_from_a_checkpoint_restarts_from_its_weights(tmp_path):
    checkpoint = ModelCheckpoint(dirpath=tmp_path / "first", save_last=True)
    quiet(max_epochs=1, enable_checkpointing=True, callbacks=[checkpoint]).fit(
        Net(), datamodule=pool(tmp_path / "before")
    )
    saved = torch.load(checkpoint.last_model_path, weights_only=False)["state_dict"]
    starts = []

    class Start(Callback):
        def on_train_start(self, trainer, pl_module):
            starts.append({k: v.clone() for k, v in pl_module.state_dict().items()})

    trainer = quiet(max_epochs=2, callbacks=[Start(), margin()])
    data, model = pool(tmp_path / "run"), Net()
    with pytest.warns(UserWarning, match="belongs to run"):
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint.last_model_path)
    trainer.fit(model, datamodule=data)
    for start in starts:
        assert all(torch.equal(start[name], saved[name]) for name in saved)


def test_samples_prepared_otherwise_are_accepted_on_request(tmp_path):
    pool(tmp_path).label([50], [1])
    x, y = blobs().tensors
    scaled = torch.utils.data.TensorDataset(x * 2, y)
    options = {"initial": 12, "state_dir": tmp_path}
    with pytest.raises(LedgerError, match=r"made with fingerprint.*accept_changes=True"):
        _ = ActiveDataModule(scaled, **options).labeled_indices
    data = ActiveDataModule(scaled, accept_changes=True, **options)
    assert data.state.target(50) == 1
    data.label([51])
    assert len(ActiveDataModule(scaled, **options).labeled_indices) == 14  # asked for once only


def test_ids_may_be_added_later(tmp_path):
    pool(tmp_path).label([50], [1])
    named = pool(tmp_path, ids=[f"s{i}" for i in range(60)], accept_changes=True)
    named.label([51], [2])
    order = list(range(60))
    order[51], order[52] = 52, 51
    x, y = blobs().tensors
    moved = ActiveDataModule(
        torch.utils.data.TensorDataset(x[order], y[order]), initial=12, state_dir=tmp_path,
        ids=[f"s{i}" for i in order],
    )  # fmt: skip
    assert (moved.state.target(50), moved.state.target(52)) == (1, 2)


def test_labels_follow_ids_there_and_back_again(tmp_path):
    """Order A, then reversed, then A: every event was written under an index of its own time."""
    x, y = blobs().tensors
    names = [f"s{i}" for i in range(60)]

    def module(order):
        rows = torch.utils.data.TensorDataset(x[order], y[order])
        return ActiveDataModule(rows, initial=0, state_dir=tmp_path, ids=[names[i] for i in order])

    forth, back = list(range(60)), list(range(59, -1, -1))
    module(forth).label([0], [0])
    module(back).label([back.index(58)], [2])
    data = module(forth)
    assert {int(i): data.state.target(i) for i in data.labeled_indices} == {0: 0, 58: 2}


def test_labels_follow_ids_of_a_grown_and_permuted_end(tmp_path):
    x, y = blobs().tensors
    names = [f"s{i}" for i in range(60)]

    def module(order):
        rows = torch.utils.data.TensorDataset(x[order], y[order])
        return ActiveDataModule(rows, initial=[1], state_dir=tmp_path, ids=[names[i] for i in order])

    module(list(range(40))).label([5], [0])
    module(list(range(60))).label([45], [1])
    end = [*range(40), *range(59, 39, -1)]
    data = module(end)
    assert {end[i] for i in data.labeled_indices.tolist()} == {1, 5, 45}


def ordered(state_dir, order, *, named=True, **options):
    x, y = blobs().tensors
    names = [f"s{i}" for i in order] if named else None
    rows = torch.utils.data.TensorDataset(x[order], y[order])
    return ActiveDataModule(rows, initial=[1], state_dir=state_dir, ids=names, **options)


def test_labels_from_before_the_ids_follow_them_too(tmp_path):
    forth, back = list(range(60)), list(range(59, -1, -1))
    data = ordered(tmp_path, forth, named=False)
    data.label([5, 6], [0, 2], who="Ann")
    data.ask([7, 8], strategy="Margin()", scores=[0.5, 0.25])
    data.ignore([9])
    named = ordered(tmp_path, forth, accept_changes=True)
    named.open()
    named.release()
    assert len(named.asked_indices) == 0  # the oracle answered
    moved = ordered(tmp_path, back)
    found = {back[i]: moved.state.target(i) for i in moved.labeled_indices.tolist()}
    assert found == {1: 1, 5: 0, 6: 2, 7: 1, 8: 2}
    assert [back[i] for i in moved.ignored_indices] == [9]
    moved.unlabel([back.index(6)])
    with sqlite3.connect(moved.ledger.path) as db:
        seen = db.execute("SELECT id, status, who, strategy, score FROM state ORDER BY id").fetchall()
    assert seen == [
        ("s1", "labeled", "dataset", None, None),
        ("s5", "labeled", "Ann", None, None),
        ("s7", "labeled", "dataset", "Margin()", 0.5),
        ("s8", "labeled", "dataset", "Margin()", 0.25),
        ("s9", "ignored", None, None, None),
    ]
    moved.ledger.verify()


@pytest.mark.parametrize("accept", [False, True])
def test_ids_cannot_be_left_out_again(tmp_path, accept):
    ordered(tmp_path, list(range(60))).label([5], [0])
    with pytest.raises(LedgerError, match=r"knows its samples by id|made with fingerprint ids:"):
        _ = ordered(tmp_path, list(range(60)), named=False, accept_changes=accept).labeled_indices


def test_a_dry_run_needs_no_best_checkpoint(tmp_path):
    class Validated(Net):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", torch.nn.functional.cross_entropy(self(batch[0]), batch[1]))

    data = pool(tmp_path, val_set=blobs(8))
    best = ModelCheckpoint(dirpath=tmp_path / "best", monitor="val_loss")
    trainer = quiet(fast_dev_run=True, enable_checkpointing=True, callbacks=[best, margin(score_with="best")])
    trainer.fit(Validated(), datamodule=data)
    assert queries(tmp_path) == {}


def test_scoring_leaves_what_a_forward_counts_as_it_was(tmp_path):
    class Counting(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    counted = []
    for asks in (True, False):
        model = Counting()
        callbacks = [margin()] if asks else []
        quiet(max_epochs=1, callbacks=callbacks).fit(model, datamodule=pool(tmp_path / str(asks)))
        counted.append(float(model.calls))
    assert counted[0] == counted[1]
