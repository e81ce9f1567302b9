"""Random sequences of everything that changes labels: ledger, data module and a plain model always agree."""

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch.utils.data import TensorDataset

from lightning_al import ActiveDataModule
from lightning_al.data.targets import decode

SIZE = 8
DATA = TensorDataset(torch.arange(SIZE).float()[:, None], torch.arange(SIZE) % 3)
SAMPLES = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=4, unique=True)
CLASSES = st.integers(0, 4)


def oracle(indices):
    """Knows the even samples only."""
    return [None if i % 2 else int(i) % 5 for i in indices]


class Model:
    """What should be the case, in plain Python."""

    def __init__(self, asked):
        self.status = dict.fromkeys(range(SIZE), "pool")
        self.value, self.place, self.last_round, self.clock = {}, {}, 0, 0
        self.enter(asked, "asked", 0)

    def of(self, status):
        found = [i for i in range(SIZE) if self.status[i] == status]
        return sorted(found, key=self.place.__getitem__) if status in ("labeled", "asked") else found

    def enter(self, indices, status, number):
        for rank, i in enumerate(indices):
            self.status[i] = status
            self.place[i] = (number, rank if status == "asked" else 99, self.tick())

    def tick(self):
        self.clock += 1
        return self.clock

    def label(self, i, value):
        if self.status[i] == "asked":
            number, rank, _ = self.place[i]
            self.place[i] = (number, rank, self.tick())
        elif self.status[i] != "labeled":
            self.place[i] = (self.last_round, 99, self.tick())
        self.status[i], self.value[i] = "labeled", value

    def ask(self, indices):
        fresh = not self.of("labeled") and not self.of("asked") and self.last_round == 0
        self.last_round = number = 0 if fresh else self.last_round + 1
        self.enter(indices, "asked", number)
        for i, value in zip(self.of("asked"), oracle(self.of("asked")), strict=True):
            if value is not None:
                self.label(i, value)
        return number

    def drop(self, i, status):
        self.status[i] = status
        self.value.pop(i, None)
        self.place[i] = (-1, 99, self.tick())


class Labels(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.written = False

    def module(self):
        return ActiveDataModule(DATA, initial=[6, 1, 3], oracle=oracle, state_dir=self.folder / "run")

    @initialize()
    def begin(self):
        self.data, self.other = self.module(), self.module()
        self.model = Model([6, 1, 3])

    def teardown(self):
        shutil.rmtree(self.folder)

    def those(self, indices, *status):
        return [i for i in indices if self.model.status[i] in status]

    def change(self, act, allowed):
        """Run a change that must be refused as a whole unless `allowed`."""
        if allowed:
            act()
            self.written = True
            return True
        before = self.data.ledger.last() if self.written else None
        with pytest.raises(ValueError, match=r"[Ss]ample"):
            act()
        if before is not None:
            assert self.data.ledger.last() == before
        return False

    @rule(indices=SAMPLES, value=CLASSES, overwrite=st.booleans())
    def label(self, indices, value, overwrite):
        allowed = overwrite or not self.those(indices, "labeled")
        values = [(value + i) % 5 for i in indices]
        if self.change(lambda: self.data.label(indices, values, overwrite=overwrite), allowed):
            for i, v in zip(indices, values, strict=True):
                self.model.label(i, v)

    @rule(indices=SAMPLES)
    def label_from_the_data_set(self, indices):
        allowed = not self.those(indices, "labeled")
        if self.change(lambda: self.data.label(torch.tensor(indices)), allowed):
            for i in indices:
                self.model.label(i, i % 3)

    @rule(indices=SAMPLES)
    def unlabel(self, indices):
        if self.change(lambda: self.data.unlabel(indices), not self.those(indices, "pool")):
            for i in indices:
                self.model.drop(i, "pool")

    @rule(indices=SAMPLES)
    def ignore(self, indices):
        allowed = not self.those(indices, "labeled", "ignored")
        if self.change(lambda: self.data.ignore(np.array(indices)), allowed):
            for i in indices:
                self.model.drop(i, "ignored")

    @rule(indices=SAMPLES)
    def ask(self, indices):
        allowed = not self.those(indices, "labeled", "ignored", "asked")
        numbers = []
        if self.change(lambda: numbers.append(self.data.ask(indices)), allowed):
            assert numbers == [self.model.ask(indices)]

    @rule(indices=SAMPLES, value=CLASSES)
    def another_process_writes(self, indices, value):
        free = self.those(indices, "pool", "asked", "ignored")
        if free:
            self.other.label(free, [value] * len(free), who="someone else")
            self.written = True
            for i in free:
                self.model.label(i, value)

    @rule(index=st.integers(0, SIZE - 1))
    def another_process_takes_back(self, index):
        if self.those([index], "labeled", "asked", "ignored"):
            self.other.unlabel([index])
            self.written = True
            self.model.drop(index, "pool")

    @rule()
    def reopen(self):
        self.data = self.module()

    @precondition(lambda self: self.written)
    @rule()
    def back_up_and_restore(self):
        backup = self.data.ledger.backup("now")
        shutil.copy(backup, self.data.ledger.path)

    @invariant()
    def all_agree(self):
        data, model = self.data, self.model
        data.book.current()
        found = {
            "labeled": data.labeled_indices, "asked": data.asked_indices,
            "pool": data.pool_indices, "ignored": data.ignored_indices,
        }  # fmt: skip
        assert {status: rows.tolist() for status, rows in found.items()} == {s: model.of(s) for s in found}
        assert sorted(i for rows in found.values() for i in rows) == list(range(SIZE))
        assert {i: data.state.target(i) for i in found["labeled"].tolist()} == model.value
        assert data.state.last_round == model.last_round
        seen = dict(self.training_sees(data))
        assert seen == model.value
        if self.written:
            self.ledger_agrees()

    def training_sees(self, data):
        view = data.train_dataloader().dataset
        for row in range(len(view)):
            x, y = view[row]
            yield int(x), int(y)

    def ledger_agrees(self):
        data, model = self.data, self.model
        assert data.ledger.verify() == data.ledger.last()[0] == data.state.seq
        with closing(sqlite3.connect(data.ledger.path)) as db:
            rows = db.execute("SELECT sample, status, value, round FROM state").fetchall()
        now = {i: status for i, status in model.status.items() if status != "pool"}
        assert {sample: status for sample, status, _, _ in rows} == now
        assert {s: decode(v) for s, status, v, _ in rows if status == "labeled"} == model.value
        rounds = {s: number for s, status, _, number in rows if status in ("labeled", "asked")}
        assert rounds == {i: model.place[i][0] for i in rounds}
        assert self.module().state.digest() == data.state.digest()


TestLabels = Labels.TestCase
TestLabels.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
