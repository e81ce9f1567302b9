"""A committee's round that failed anywhere goes on inside the committee, and ends as if undisturbed."""

import os
import signal
from multiprocessing import get_context

import pytest
import torch
from integration.small import Validated, blobs, pool, queries, quiet
from lightning.pytorch.callbacks import ModelCheckpoint

import lightning_al.callbacks.active_learning as callback_file
from faults.test_resume import Plug, PulledPlugError
from lightning_al import ActiveLearning, Committee, History, Ledger, fit_rounds
from lightning_al import acquisition as acq
from lightning_al.callbacks.seat import Seat
from lightning_al.callbacks.weights import StoredWeights

SIZE = 3
TIMES = ("train_s", "score_s", "select_s")


class Late(Validated):
    """Makes a part of itself late, counts, and writes down which member was trained how often."""

    begun: list
    end_at: int | None = None

    def __init__(self):
        super().__init__(dropout=0.2)
        self.register_buffer("seen", torch.zeros(()))
        self.head = None

    def configure_model(self):
        if self.head is None:
            self.head = torch.nn.Linear(3, 3)

    def forward(self, x):
        return self.head(super().forward(x))

    def on_train_start(self):
        Late.begun.append(self.trainer.datamodule.state.last_round)
        if Late.end_at == len(Late.begun):
            os.kill(os.getpid(), signal.SIGKILL)

    def training_step(self, batch, batch_idx):
        self.seen += 1
        return super().training_step(batch, batch_idx)

    def test_step(self, batch, batch_idx):
        super().test_step(batch, batch_idx)


def run(state_dir, *, restart="initial", resume="restart", bootstrap=True, rounds=2):
    def trainer(number):
        checkpoint = ModelCheckpoint(save_top_k=-1, filename="{epoch}")
        return quiet(enable_checkpointing=True, callbacks=[checkpoint])

    Late.begun = []
    torch.manual_seed(len(str(state_dir)))  # a process begins with generators of its own
    torch.rand(torch.randint(9, (1,)).item())
    data = pool(state_dir, test_set=blobs(21, 1), val_set=blobs(6, 2))
    committee = Committee(SIZE, bootstrap=bootstrap)
    active = ActiveLearning(acq.BALD(committee), query_size=8, restart=restart)
    return fit_rounds(Late(), trainer, data, active, rounds=rounds, resume=resume)


def known(state_dir):
    rows = Ledger(state_dir / "ledger.sqlite3").rounds()
    return queries(state_dir), [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    found = {}
    for restart in ("initial", "warm"):
        folder = tmp_path_factory.mktemp("undisturbed")
        run(folder, restart=restart)
        found[restart] = known(folder)
    return found


#: Where it fails; how many members are trained after that, of 9 in all.
PLACES = {
    "in the second member of round 0": (Late, "training_step", 9, True, 8),
    "in the second member of round 1": (Late, "training_step", 3 * 6 + 15, True, 5),
    "before a member is kept": (Seat, "keep", 5, True, 5),
    "after a member was kept": (Seat, "keep", 5, False, 4),
    "after the last member was kept": (Seat, "keep", 6, False, 4),
    "before a member's next weights are kept": (StoredWeights, "end", 5, True, 5),
    "after a member's next weights were kept": (StoredWeights, "end", 5, False, 5),
    "before the query": (callback_file, "choose", 2, True, 4),
    "after the query": (callback_file, "choose", 2, False, 4),
    "in the test": (Late, "test_step", 8, True, 4),
    "before the history is written": (History, "write_csv", 2, True, 3),
}


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning")
@pytest.mark.parametrize("place", PLACES)
def test_members_that_are_done_stay_and_the_end_is_the_same(tmp_path, monkeypatch, undisturbed, place):
    owner, name, call, before, left = PLACES[place]
    restart = "warm" if "next weights" in place else "initial"
    plug = Plug(call, before=before)
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, plug(getattr(owner, name)))
        with pytest.raises(PulledPlugError):
            run(tmp_path, restart=restart)
    run(tmp_path, restart=restart)
    assert known(tmp_path) == undisturbed[restart]
    assert len(Late.begun) == left


def killed(state_dir, member):
    os.setsid()
    Late.end_at = member
    run(state_dir)


@pytest.mark.parametrize(("member", "left"), [(2, 8), (6, 4)])
def test_after_kill_9_too(tmp_path, undisturbed, member, left):
    process = get_context("fork").Process(target=killed, args=(tmp_path, member))
    process.start()
    process.join(600)
    assert process.exitcode == -signal.SIGKILL
    run(tmp_path)
    assert known(tmp_path) == undisturbed["initial"]
    assert len(Late.begun) == left


def interrupted(monkeypatch, state_dir, call, **options):
    plug = Plug(call, before=True)
    with monkeypatch.context() as patched:
        patched.setattr(Late, "training_step", plug(Late.training_step))
        with pytest.raises(PulledPlugError):
            run(state_dir, **options)


def test_members_who_know_other_labels_are_trained_again(tmp_path, monkeypatch):
    interrupted(monkeypatch, tmp_path, 3 * 6 + 15)  # in the second member of round 1
    data = pool(tmp_path, test_set=blobs(21, 1), val_set=blobs(6, 2))
    data.open()
    first = int(data.labeled_indices[0])
    data.label([first], [(int(blobs().tensors[1][first]) + 1) % 3], overwrite=True)
    run(tmp_path)
    assert Late.begun == [1] * SIZE + [2] * SIZE


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning")
def test_from_a_checkpoint_the_interrupted_member_goes_on_where_it_was(tmp_path, monkeypatch):
    epochs = []

    def noted(self):
        epochs.append(self.current_epoch)

    interrupted(monkeypatch, tmp_path, 3 * 6 + 10 + 8)  # the second epoch of the second member of round 1
    monkeypatch.setattr(Late, "on_train_epoch_start", noted)
    run(tmp_path, resume="checkpoint")
    assert epochs == [1] + [0, 1] * (1 + SIZE)
    assert {r: len(q) for r, q in queries(tmp_path).items()} == {1: 8, 2: 8}


def test_more_rounds_later_train_only_the_member_who_asks(tmp_path, undisturbed):
    run(tmp_path, rounds=1)
    run(tmp_path)
    assert known(tmp_path) == undisturbed["initial"]
    assert Late.begun == [1] + [2] * SIZE
