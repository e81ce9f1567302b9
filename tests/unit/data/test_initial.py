import random
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch.utils.data import Dataset, TensorDataset

from lightning_al import ActiveDataModule
from lightning_al.data.fingerprint import fingerprint, is_stochastic
from lightning_al.data.initial import class_of_every_sample, initial_indices, listed_targets
from lightning_al.data.targets import TargetPlace


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        item = self.items[index]
        return item() if callable(item) else item


@given(size=st.integers(1, 30), seed=st.integers(0, 5), data=st.data())
def test_a_number_draws_distinct_samples_by_the_seed_alone(size, seed, data):
    count = data.draw(st.integers(0, size))
    torch.manual_seed(data.draw(st.integers(0, 3)))
    before = torch.get_rng_state()
    found = initial_indices(count, size, seed)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(set(found.tolist())) == count
    assert found.tolist() == initial_indices(count, size, seed).tolist()
    assert found.tolist() == initial_indices(size, size, seed)[:count].tolist()


def test_seeds_draw_differently():
    assert len({tuple(initial_indices(5, 100, seed)) for seed in range(10)}) == 10


@given(counts=st.lists(st.integers(1, 8), min_size=1, max_size=5), seed=st.integers(0, 9), data=st.data())
def test_a_balanced_set_is_as_even_as_can_be(counts, seed, data):
    classes = np.repeat(np.arange(len(counts)), counts)
    take = data.draw(st.integers(0, len(classes)))
    drawn = Counter(classes[initial_indices(take, len(classes), seed, classes)].tolist())
    assert sum(drawn.values()) == take
    most = max(drawn.values(), default=0)
    # A class has one fewer than another only if it is used up or the last turn was cut short.
    assert all(drawn[c] >= most - 1 or drawn[c] == counts[c] for c in range(len(counts)))


@pytest.mark.parametrize("kind", ["items", "targets", "labels", "text"])
def test_classes_are_found_where_data_sets_keep_them(kind):
    values = ["b", "a", "b", "c"] if kind == "text" else [4, 2, 4, 9]
    data = Items([(0.0, v) for v in values])
    if kind in ("targets", "labels"):
        setattr(data, kind, torch.tensor(values) if kind == "targets" else np.array(values))
    assert class_of_every_sample(data, TargetPlace(None, (0.0, 1))).tolist() == [1, 0, 1, 2]


class Counted:
    """Reading an item takes its time: how many were read?"""

    def __init__(self, targets, change=lambda target: target):
        self.targets, self.change, self.reads = targets, change, 0

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        self.reads += 1
        return 0.0, self.change(int(self.targets[index]))


def test_a_list_of_targets_saves_reading_the_items(tmp_path):
    samples = Counted(torch.arange(1000) % 3)
    rows = ActiveDataModule(
        samples, unlabeled_set=Items([(0.0, 1)] * 5), oracle="people", state_dir=tmp_path / "run"
    )
    assert len(rows.labeled_indices) == 1000
    rows.ignore([1000])
    assert rows.state.class_counts(rows.labeled_indices) == {0: 334, 1: 333, 2: 333}
    assert samples.reads < 100


def test_a_list_that_items_contradict_is_not_believed(tmp_path):
    samples = Counted(torch.arange(30) % 3, change=lambda target: 2 - target)
    assert listed_targets(samples, TargetPlace(None, (0.0, 1))) is None
    rows = ActiveDataModule(samples, initial=[0, 1], state_dir=tmp_path / "run")
    rows.ignore([5])
    assert [rows.state.target(i) for i in (0, 1)] == [2, 1]


@pytest.mark.parametrize("value", [None, -1, 0.5, [1, 0]])
def test_a_balanced_set_needs_classes(tmp_path, value):
    data = ActiveDataModule(
        Items([(0.0, 1), (0.0, value)]), initial=1, initial_balanced=True, state_dir=tmp_path / "run"
    )
    with pytest.raises(ValueError, match=r"needs the class of every sample.*\[1\].*Give the initial set as"):
        data.ignore([0])
    assert not (tmp_path / "run").exists()


def test_the_data_module_draws_a_balanced_set(tmp_path):
    classes = torch.tensor([0] * 90 + [1] * 5 + [2] * 5)
    data = ActiveDataModule(
        TensorDataset(torch.zeros(100, 1), classes), initial=9, initial_balanced=True, state_dir=tmp_path
    )
    assert Counter(classes[data.labeled_indices].tolist()) == {0: 3, 1: 3, 2: 3}


# ---------------------------------------------------------------- fingerprint

PLACE = TargetPlace(None, (0.0, 1))


class Image:
    def __init__(self, data):
        self.data = data

    def tobytes(self):
        return self.data


@pytest.mark.parametrize(
    "wrap",
    [
        float, str, lambda i: torch.full((2,), i), lambda i: torch.full((2,), i, dtype=torch.bfloat16),
        lambda i: np.full(2, i), lambda i: {"a": i, "b": [i]}, lambda i: (i, None),
        lambda i: Image(bytes([i])),
    ],
)  # fmt: skip
def test_another_data_set_has_another_print(wrap):
    def of(*values):
        return fingerprint(Items([(wrap(v), 0) for v in values]), len(values), PLACE)

    assert of(1, 2, 3) == of(1, 2, 3)
    assert len({of(1, 2, 3), of(1, 2, 4), of(3, 2, 1), of(1, 2)}) == 4


def test_targets_do_not_count():
    one, other = (Items([(1.0, y), (2.0, y)]) for y in (0, 1))
    assert fingerprint(one, 2, PLACE) == fingerprint(other, 2, PLACE)


def test_augmented_items_are_known_by_what_is_augmented_and_leave_the_streams_alone():
    def augmented(shift):
        sources = (torch.rand, np.random.rand, lambda n: random.random() + n)
        return Items([lambda s=s, i=i: (s(2) + i + shift, 0) for i, s in enumerate(sources)])

    torch.manual_seed(0)
    streams = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert is_stochastic(augmented(0), PLACE)
    one, again, other = (fingerprint(augmented(shift), 3, PLACE) for shift in (0, 0, 1))
    assert one == again != other
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(streams[0], after[0])
    assert streams[1:] == after[1:]


def test_a_data_set_with_a_generator_of_its_own_is_known_by_its_length():
    own = np.random.default_rng(0)
    assert fingerprint(Items([lambda: (own.random(2), 0)] * 3), 3, PLACE) == "length"


def test_ids_tell_data_sets_apart():
    data = Items([(1.0, 0)] * 3)
    assert fingerprint(data, 2, PLACE, ["a", "b", "c"]) == fingerprint(data, 2, PLACE, ["a", "b", "d"])
    assert fingerprint(data, 3, PLACE, ["a", "b", "c"]) != fingerprint(data, 3, PLACE, ["a", "b", "d"])
