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
from lightning_al.ledger.label_values import decode

SIZE, GROWN = 8, 11
SAMPLES = st.runner().flatmap(
    lambda run: st.lists(st.integers(0, run.model.size - 1), min_size=1, max_size=4, unique=True)
)
CLASSES = st.integers(0, 4)


def oracle(samples):
    """Knows the even samples only."""
    return [None if i % 2 else int(i) % 5 for i in samples]


class Model:
    """What should be the case, in plain Python."""

    def __init__(self, asked):
        self.size = SIZE
        self.status = dict.fromkeys(range(GROWN), "pool")
        self.value, self.place, self.last_round, self.clock = {}, {}, 0, 0
        self.unsure, self.before = {}, {i: [] for i in range(GROWN)}
        self.enter(asked, "asked", 0)

    def of(self, status):
        found = [i for i in range(self.size) if self.status[i] == status]
        return sorted(found, key=self.place.__getitem__) if status in ("labeled", "asked") else found

    def enter(self, indices, status, number):
        for rank, i in enumerate(indices):
            self.changes(i)
            self.status[i] = status
            self.place[i] = (number, rank if status == "asked" else 99, self.tick())

    def tick(self):
        self.clock += 1
        return self.clock

    def how(self, i):
        return self.status[i], self.value.get(i), self.place.get(i), self.unsure.get(i)

    def changes(self, i):
        self.before[i].append(self.how(i))

    def undo(self, i):
        before = self.before[i][-1]
        self.changes(i)
        self.status[i], *rest = before
        for kept, value in zip((self.value, self.place, self.unsure), rest, strict=True):
            kept.pop(i, None)
            if value is not None:
                kept[i] = value

    def doubt(self, i, who):
        if who not in self.unsure.get(i, []):
            self.changes(i)
            self.unsure[i] = [*self.unsure.get(i, []), who]

    def label(self, i, value):
        self.changes(i)
        self.unsure.pop(i, None)
        if self.status[i] == "asked":  # a late answer counts for the round that first sees it
            self.place[i] = (self.last_round, self.place[i][1], self.tick())
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
        self.changes(i)
        self.unsure.pop(i, None)
        self.status[i] = status
        self.value.pop(i, None)
        self.place[i] = (-1, 99, self.tick())


class Opened:
    """A data module whose samples are in an order of its own; speaks of samples, not of places."""

    def __init__(self, folder, order, ids):
        self.order, self.place = order, {sample: place for place, sample in enumerate(order)}
        samples = torch.tensor(order)
        self.data = ActiveDataModule(
            TensorDataset(samples.float()[:, None], samples % 3),
            initial=[6, 1, 3], oracle=self.oracle, state_dir=folder / "run",
            ids=[ids[i] for i in order] if ids else None,
        )  # fmt: skip

    def oracle(self, places):
        return oracle(self.samples(places))

    def samples(self, places):
        return [self.order[place] for place in places]

    def places(self, samples):
        return [self.place[sample] for sample in samples]


class Labels(RuleBasedStateMachine):
    ids = None

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.written = False

    def open(self, order):
        return Opened(self.folder, order, self.ids)

    @initialize()
    def begin(self):
        self.now, self.other = self.open(list(range(SIZE))), self.open(list(range(SIZE)))
        self.model = Model([6, 1, 3])

    @property
    def data(self):
        return self.now.data

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
        if self.change(
            lambda: self.data.label(self.now.places(indices), values, overwrite=overwrite), allowed
        ):
            for i, v in zip(indices, values, strict=True):
                self.model.label(i, v)

    @rule(indices=SAMPLES)
    def label_from_the_data_set(self, indices):
        allowed = not self.those(indices, "labeled")
        if self.change(lambda: self.data.label(torch.tensor(self.now.places(indices))), allowed):
            for i in indices:
                self.model.label(i, i % 3)

    @rule(indices=SAMPLES)
    def unlabel(self, indices):
        if self.change(lambda: self.data.unlabel(self.now.places(indices)), not self.those(indices, "pool")):
            for i in indices:
                self.model.drop(i, "pool")

    @rule(indices=SAMPLES)
    def undo(self, indices):
        allowed = all(self.model.before[i] for i in indices)
        if self.change(lambda: self.data.undo(self.now.places(indices), who="Eve"), allowed):
            for i in indices:
                self.model.undo(i)

    @rule(indices=SAMPLES, who=st.sampled_from(["Ada", "Ben"]))
    def doubt(self, indices, who):
        allowed = not self.those(indices, "labeled", "ignored", "pool")
        if self.change(lambda: self.data.unsure(self.now.places(indices), who=who), allowed):
            for i in indices:
                self.model.doubt(i, who)

    @rule(indices=SAMPLES)
    def ignore(self, indices):
        allowed = not self.those(indices, "labeled", "ignored")
        if self.change(lambda: self.data.ignore(np.array(self.now.places(indices))), allowed):
            for i in indices:
                self.model.drop(i, "ignored")

    @rule(indices=SAMPLES)
    def ask(self, indices):
        allowed = not self.those(indices, "labeled", "ignored", "asked")
        numbers = []
        if self.change(lambda: numbers.append(self.data.ask(self.now.places(indices))), allowed):
            assert numbers == [self.model.ask(indices)]

    @rule(indices=SAMPLES, value=CLASSES)
    def another_process_writes(self, indices, value):
        free = self.those(indices, "pool", "asked", "ignored")
        if free:
            self.other.data.label(self.other.places(free), [value] * len(free), who="someone else")
            self.written = True
            for i in free:
                self.model.label(i, value)

    @rule(index=st.integers(0, SIZE - 1))
    def another_process_takes_back(self, index):
        if self.those([index], "labeled", "asked", "ignored"):
            self.other.data.unlabel(self.other.places([index]))
            self.written = True
            self.model.drop(index, "pool")

    @rule()
    def reopen(self):
        self.now = self.open(self.now.order)

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
        names = {status: self.now.samples(rows) for status, rows in found.items()}
        for status in ("pool", "ignored"):
            assert (np.diff(found[status]) > 0).all()
            names[status].sort()
        assert names == {status: model.of(status) for status in found}
        assert sorted(i for rows in names.values() for i in rows) == sorted(self.now.order)
        assert {self.now.order[i]: data.state.target(i) for i in found["labeled"]} == model.value
        assert data.state.last_round == model.last_round
        assert {self.now.order[i]: who for i, who in data.state.unsure.items()} == model.unsure
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
            rows = db.execute("SELECT sample, id, status, value, round, rank FROM state").fetchall()
        if self.ids:
            rows = [(self.ids.index(name), *rest) for _, name, *rest in rows]
        else:
            rows = [(sample, *rest) for sample, _, *rest in rows]
        now = {i: status for i, status in model.status.items() if status != "pool"}
        assert {sample: status for sample, status, *_ in rows} == now
        assert {s: decode(v) for s, status, v, *_ in rows if status == "labeled"} == model.value
        asked = {s: (number, rank) for s, status, _, number, rank in rows if status in ("labeled", "asked")}
        places = {i: model.place[i][:2] for i in asked}
        assert asked == {i: (number, None if rank == 99 else rank) for i, (number, rank) in places.items()}
        assert self.open(self.now.order).data.state.digest() == data.state.digest()


class MovedLabels(Labels):
    """The same with ids, while the data set changes its order and grows; labels follow ids."""

    ids = tuple(str(GROWN - 1 - i) for i in range(GROWN))  # like places, but never a sample's own

    @precondition(lambda self: self.written)
    @rule(random=st.randoms(use_true_random=False), other=st.booleans())
    def reopen_in_another_order(self, random, other):
        order = random.sample(self.now.order, len(self.now.order))
        if other:
            self.other = self.open(order)
        else:
            self.now = self.open(order)

    @precondition(lambda self: self.written)
    @rule()
    def reopen_in_the_first_order(self):
        self.now = self.open(list(range(self.model.size)))

    @precondition(lambda self: self.written and self.model.size < GROWN)
    @rule(random=st.randoms(use_true_random=False), everywhere=st.booleans())
    def reopen_grown(self, random, everywhere):
        size = self.model.size + 1
        tail = list(range(SIZE, size))
        first = [i for i in self.now.order if i < SIZE]
        order = first + random.sample(tail, len(tail))
        if everywhere:
            order = random.sample(order, len(order))
        self.now, self.other, self.model.size = self.open(order), self.open(order), size


TestLabels = Labels.TestCase
TestLabels.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestMovedLabels = MovedLabels.TestCase
TestMovedLabels.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
