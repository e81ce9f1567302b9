import math
import sqlite3
import warnings
from collections import UserDict
from contextlib import closing

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset, default_collate

from lightning_al import ActiveDataModule, AwaitingLabels, LedgerError
from lightning_al.data.checks import check_trainable
from lightning_al.data.snapshot import compare

SIZE = 12
X = torch.arange(SIZE).float()[:, None]
CLASSES = torch.arange(SIZE) % 3


def dataset(size=SIZE):
    return TensorDataset(torch.arange(size).float()[:, None], torch.arange(size) % 3)


class Rows(Dataset):
    """Items of any kind; remembers who asked for what."""

    def __init__(self, items):
        self.items = list(items)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


class Noisy(Rows):
    def __getitem__(self, index):
        x, y = self.items[index]
        return x + torch.rand(1), y


@pytest.fixture
def make(tmp_path):
    def make(train_set=None, **options):
        options = {"initial": [3, 0], "state_dir": tmp_path / "run", **options}
        return ActiveDataModule(dataset() if train_set is None else train_set, **options)

    return make


def trained_on(data):
    """Input and target of every sample that one epoch shows, by input."""
    found = {}
    for batch in data.train_dataloader():
        x, y = (batch["x"], batch["label"]) if isinstance(batch, dict | UserDict) else (batch[0], batch[-1])
        found |= {int(a): int(b) for a, b in zip(x.flatten(), y.flatten(), strict=True)}
    return found


def pool_batches(data):
    indices = data.pool_indices
    return list(data.pool_loader(indices, torch.arange(len(indices))))


# ---------------------------------------------------------------- a life


def test_making_it_writes_nothing(make, tmp_path):
    data = make(initial=4)
    assert len(data.labeled_indices) == 4
    assert len(data.pool_indices) == SIZE - 4
    assert list(tmp_path.iterdir()) == []


def test_labels_ask_ignore_and_back(make):
    data = make()
    assert data.labeled_indices.tolist() == [3, 0]
    assert data.ask([7, 5], strategy="mine", scores=[0.9, 0.5]) == 1
    assert data.labeled_indices.tolist() == [3, 0, 7, 5]
    data.ignore(1)
    data.label([2], [1])
    data.unlabel([3])
    assert data.labeled_indices.tolist() == [0, 7, 5, 2]
    assert data.ignored_indices.tolist() == [1]
    assert data.pool_indices.tolist() == [3, 4, 6, 8, 9, 10, 11]
    again = make()
    for name in ("labeled", "pool", "asked", "ignored"):
        assert getattr(again, f"{name}_indices").tolist() == getattr(data, f"{name}_indices").tolist()


@pytest.mark.parametrize("kind", [list, tuple, set, np.array, torch.tensor, iter])
def test_indices_and_targets_may_be_of_any_kind(make, kind):
    data = make()
    data.label(kind([5, 6]), torch.tensor([2, 1]))
    assert sorted(data.labeled_indices.tolist()) == [0, 3, 5, 6]
    data.label(8, 2)
    data.label(np.int64(9), np.int64(2))
    data.label(torch.tensor(10), torch.tensor(2))
    assert [data.state.target(i) for i in (8, 9, 10)] == [2, 2, 2]
    masks = make(Rows([(x, {"mask": [0, 0]}) for x in X]), state_dir=data.state_dir / "masks")
    masks.label(11, {"mask": [1, 2]})
    assert masks.state.target(11) == {"mask": [1, 2]}


@pytest.mark.parametrize("initial", [np.array([3, 0]), torch.tensor([3, 0]), (3, 0), range(2), np.int64(2)])
def test_the_initial_set_may_be_of_any_kind_and_is_known_again(make, initial):
    data = make(initial=initial)
    data.ignore([11])
    assert len(make(initial=initial).labeled_indices) == 2


def test_a_set_of_labelled_samples_and_a_numpy_zero(make):
    data = make(initial=np.int64(0), unlabeled_set=Rows([(x,) for x in X]), seed=np.int64(1))
    data.ignore([SIZE])
    assert len(data.labeled_indices) == SIZE


def test_without_a_state_dir_a_fresh_folder_is_made_by_the_first_write(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    folders = []
    for _ in range(2):
        data = ActiveDataModule(dataset(), initial=2)
        with pytest.raises(LedgerError, match=r"no state directory yet.*fresh folder.*Pass `state_dir`"):
            _ = data.ledger
        assert data.state_dir is None
        data.ignore(data.pool_indices[:1])
        folders.append(data.state_dir.name)
    assert folders == ["run_0001", "run_0002"]


# ---------------------------------------------------------------- other writers


CHANGES = {
    "label": lambda data: data.label([5], [2]),
    "label from the data set": lambda data: data.label([5]),
    "ask": lambda data: data.ask([5]),
    "ignore": lambda data: data.ignore([5]),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_judged_by_what_is_on_disk_now(make, what):
    """Another process labelled the sample since the last look: its label is not doubled or lost."""
    data = make()
    data.ignore([11])
    make().label([5], [0], who="other")
    events = data.ledger.verify()
    with pytest.raises(ValueError, match=r"Samples \[5\]"):
        CHANGES[what](data)
    assert data.ledger.verify() == events
    assert data.state.target(5) == 0


def test_a_change_back_is_judged_by_what_is_on_disk_now(make):
    data = make()
    data.ignore([11])
    make().unlabel([3])
    with pytest.raises(ValueError, match=r"Samples \[3\] cannot go back to the pool.*in the pool"):
        data.unlabel([3])


# ---------------------------------------------------------------- bad input


def bad(data, before, act, error, words):
    with pytest.raises(error, match=words):
        act(data)
    now = data.ledger.last() if data.ledger.exists() else None
    assert now == before


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (lambda d: d.label([99]), IndexError, r"\[99\].*indices 0 to 11.*Pass places in the data set"),
        (lambda d: d.label([-1]), IndexError, r"\[-1\].*0 to 11"),
        (lambda d: d.label([5, 5]), ValueError, r"\[5\] more than once.*one label.*Remove the doubles"),
        (lambda d: d.label([True] * SIZE), TypeError, r"type bool.*whole numbers.*flatnonzero"),
        (lambda d: d.label([1.0]), TypeError, r"float64"),
        (lambda d: d.label([[1, 2]]), TypeError, r"shape \(1, 2\)"),
        (lambda d: d.label([5, 3], [1, 1]), ValueError, r"\[3\] are labelled already.*overwrite=True"),
        (lambda d: d.label([5, 6], [1]), ValueError, r"2 `indices` came with 1 `targets`.*one each"),
        (lambda d: d.label([5], [None]), ValueError, r"target of sample 5 is None.*no label.*ignore"),
        (lambda d: d.label([5], [math.nan]), ValueError, r"no label"),
        (lambda d: d.label([5, 6], [1, object()]), TypeError, r"type object cannot be kept.*needed are"),
        (lambda d: d.label([5], [1], who="dataset"), ValueError, r"`targets` were given"),
        (lambda d: d.unlabel([3, 5]), ValueError, r"\[5\] cannot go back.*in the pool.*pool_indices"),
        (lambda d: d.unlabel([99]), IndexError, r"0 to 11"),
        (lambda d: d.ignore([5, 3]), ValueError, r"\[3\] cannot be ignored.*labelled"),
        (lambda d: d.ask([3]), ValueError, r"\[3\] cannot be asked for.*labelled"),
        (lambda d: d.ask([5, 5]), ValueError, r"more than once"),
    ],
)
def test_a_change_that_cannot_be_made_is_not_half_made(make, act, error, words, written):
    data = make()
    if written:
        data.ignore([11])
    before = data.ledger.last() if written else None
    bad(data, before, act, error, words)
    assert data.labeled_indices.tolist() == [3, 0]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"train_set": Stream()}, TypeError, r"`train_set` is a Stream.*__getitem__.*Write the stream"),
        ({"query_view": Stream()}, TypeError, r"`query_view` is a Stream"),
        ({"unlabeled_set": Stream()}, TypeError, r"`unlabeled_set` is a Stream"),
        ({"train_set": 5}, TypeError, r"is a int.*needs a data set"),
        ({"train_set": Rows([])}, ValueError, r"`train_set` is empty.*Pass the samples"),
        ({"query_view": dataset(5)}, ValueError, r"`query_view` has 5 samples, `train_set` 12.*same order"),
        ({"initial": 13}, ValueError, r"`initial` is 13, but the data set has 12.*Ask for 0 to 12"),
        ({"initial": -1}, ValueError, r"`initial` is -1"),
        ({"initial": [0, 99]}, IndexError, r"`initial` holds \[99\].*0 to 11"),
        ({"initial": [1, 1]}, ValueError, r"`initial` holds \[1\] more than once"),
        ({"initial": 0.5}, TypeError, r"`initial` is 0.5; needed is how many .* or which"),
        ({"initial": [1], "unlabeled_set": dataset(3)}, ValueError, r"together with `unlabeled_set`.*Leave"),
        ({"oracle": "me"}, ValueError, r"`oracle` is 'me'; needed is \"dataset\", \"people\", or a function"),
        ({"on_existing": "ask"}, ValueError, r"`on_existing` is 'ask'; needed is"),
        ({"ids": ["a"]}, ValueError, r"`ids` has 1 names for 12 samples.*one each"),
        ({"ids": ["a"] * 12}, ValueError, r"`ids` holds 'a' more than once.*one sample"),
        ({"batch_size": 0}, ValueError, r"`batch_size` is 0; it must be at least 1"),
        (
            {"spill_bytes": -1},
            ValueError,
            r"`spill_bytes` is -1; needed is .* bytes, 0 or more.*8 \* 2\*\*30",
        ),
        (
            {"spill_bytes": 1e9},
            TypeError,
            r"`spill_bytes` is 1000000000.0; needed is a whole number of bytes",
        ),
        ({"spill_bytes": True}, TypeError, r"`spill_bytes` is True"),
        ({"drop_last": "no"}, TypeError, r"`drop_last` is 'no'; needed is `True` or `False`"),
        ({"accept_changes": 1}, TypeError, r"`accept_changes` is 1; needed"),
        ({"batch_size": 2.5}, TypeError, r"`batch_size` is 2.5; needed is a whole number"),
        ({"steps_per_epoch": 0}, ValueError, r"`steps_per_epoch` is 0"),
        ({"last_rounds": -1}, ValueError, r"`last_rounds` is -1"),
        ({"pool_batch_size": True}, TypeError, r"`pool_batch_size` is True"),
        ({"initial_balanced": True}, ValueError, r"`initial_balanced=True` draws by class.*number"),
        ({"initial": 3, "initial_balanced": True, "oracle": "people"}, ValueError, r"oracle=\"dataset\""),
        ({"target": "label"}, TypeError, r"`target='label'` is a key"),
    ],
)
def test_arguments_that_do_not_fit(make, tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        make(**options)
    assert list(tmp_path.iterdir()) == []


def test_a_fit_without_a_first_set_names_the_ways_to_one(make):
    with pytest.raises(RuntimeError, match=r"no labelled sample.*`initial=20`.*data.label.*query\(.*commit"):
        make(initial=0).setup("fit")


def test_more_devices_than_labels():
    with pytest.raises(RuntimeError, match=r"2 labelled samples for 3 devices.*one at least.*fewer devices"):
        check_trainable(2, 3)


@pytest.mark.parametrize("own", [None, float("nan"), -1, torch.tensor(-1)])
def test_a_missing_target_names_people(make, tmp_path, own):
    items = [(x, own if i == 5 else 1) for i, x in enumerate(X)]
    data = make(Rows(items))
    data.ignore([11])
    events = data.ledger.last()
    with pytest.raises(ValueError, match=r"no label for samples \[5\].*negative.*oracle=\"people\""):
        data.label([5, 6])
    assert data.ledger.last() == events
    with pytest.raises(ValueError, match=r"oracle=\"people\""):
        make(Rows(items), initial=[5], state_dir=tmp_path / "other").ignore([11])
    assert not (tmp_path / "other" / "ledger.sqlite3").exists()


def test_class_names_are_taken_and_checked(make):
    data = make(class_names=["a", "b", "c"])
    data.label([5, 6], ["c", 1])
    assert [data.state.target(i) for i in (5, 6)] == [2, 1]
    for target, words in (("d", "none of the classes"), (3, "3 `class_names`.*0 to 2"), (-1, "no label")):
        with pytest.raises(ValueError, match=words):
            data.label([7], [target])


# ---------------------------------------------------------------- the same run


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 1}, r"made with seed 0, this run has 1"),
        ({"initial": [3]}, r"made with initial \[3, 0\], this run has \[3\]"),
        ({"initial": 2}, r"made with initial"),
        ({"train_set": TensorDataset(X + 1, CLASSES)}, r"made with fingerprint items:"),
        ({"train_set": dataset(8)}, r"data set of 12 samples, this one has 8"),
        ({"on_existing": "error"}, r"holds a ledger already.*on_existing=\"error\".*Choose another"),
    ],
)
def test_another_run_is_refused(make, options, words):
    make().label([5], [0])
    options = {"train_set": dataset(), **options}
    with pytest.raises(LedgerError, match=words):
        make(**options).label([6], [0])
    assert make().ledger.verify() == 3


def test_corrected_targets_are_the_same_data_set(make):
    make().label([5], [0])
    make(TensorDataset(X, CLASSES.flip(0))).label([6], [0])


def test_a_longer_data_set_with_the_same_beginning_is_accepted(make):
    make().label([5], [0])
    data = make(dataset(SIZE + 6))
    assert len(data.pool_indices) == SIZE + 6 - 3
    data.label([SIZE + 5], [1])
    assert data.labeled_indices.tolist() == [3, 0, 5, SIZE + 5]
    with pytest.raises(LedgerError, match=rf"knows sample {SIZE + 5}.*ends at {SIZE - 1}.*whole data set"):
        _ = make().labeled_indices


def test_labels_follow_ids(make):
    names = [f"s{i}" for i in range(SIZE)]
    data = make(ids=names)
    data.label([5, 7], [2, 1])
    order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(1)).tolist()
    moved = make(TensorDataset(X[order], CLASSES[order]), ids=[names[i] for i in order])
    assert [order[i] for i in moved.labeled_indices] == [3, 0, 5, 7]
    assert trained_on(moved) == {3: 0, 0: 0, 5: 2, 7: 1}
    other = order.index(9)
    moved.label([other], [2])
    assert [order[i] for i in moved.labeled_indices] == [3, 0, 5, 7, 9]
    assert make(ids=names).labeled_indices.tolist() == [3, 0, 5, 7, 9]
    with closing(sqlite3.connect(data.ledger.path)) as db:
        rows = db.execute("SELECT id, status FROM state ORDER BY id").fetchall()
    assert rows == [(f"s{i}", "labeled") for i in (0, 3, 5, 7, 9)]


def test_an_id_that_is_gone_is_named(make):
    make(ids=range(SIZE)).label([5], [2])
    with pytest.raises(LedgerError, match=r"knows sample '3'.*not among.*`ids`.*Use the data set"):
        _ = make(ids=range(10, 10 + SIZE), initial=[3, 0]).labeled_indices


# ---------------------------------------------------------------- training


WRONG = {
    "tuple": lambda i: (X[i], torch.tensor(2)),
    "dict": lambda i: {"x": X[i], "label": torch.tensor(2)},
    "no target": lambda i: (X[i],),
}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("kind", WRONG)
def test_an_unlabelled_set_trains_on_the_ledgers_labels(make, kind, num_workers):
    """Whatever targets it holds itself."""
    own = [
        {"x": X[i], "label": torch.tensor(1)} if kind == "dict" else (X[i], torch.tensor(1)) for i in range(4)
    ]
    data = make(
        Rows(own), initial=0, unlabeled_set=Rows([WRONG[kind](i) for i in range(4, SIZE)]),
        oracle=lambda indices: [0] * len(indices), num_workers=num_workers, batch_size=2,
    )  # fmt: skip
    data.ask([4, 6])
    data.label([7, 8], [0, 3])
    data.label([8], [4], overwrite=True)
    assert trained_on(data) == {0: 1, 1: 1, 2: 1, 3: 1, 4: 0, 6: 0, 7: 0, 8: 4}


def test_steps_and_the_batch_size_of_training(make):
    data = make(initial=6, batch_size=4, steps_per_epoch=5)
    assert [len(x) for x, _ in data.train_dataloader()] == [4] * 5
    data = make(initial=9, batch_size=4)
    assert [len(x) for x, _ in data.train_dataloader()] == [4, 5]
    with pytest.warns(UserWarning, match=r"`drop_last=True` would leave nothing.*2 labels.*turned off"):
        loader = make(batch_size=4, drop_last=True).train_dataloader()
    assert [len(x) for x, _ in loader] == [2]


def test_only_the_newest_rounds_are_trained_on(make):
    data = make(last_rounds=2)
    for indices in ([5], [6], [7]):
        data.ask(indices)
    assert data.training_set().indices.tolist() == [6, 7]
    assert data.training_set().labeled.tolist() == [3, 0, 5, 6, 7]
    with data.as_of(2):
        assert data.training_set().indices.tolist() == [5, 6]
        assert data.training_set().labeled.tolist() == [3, 0, 5, 6]
    assert make().training_set().indices.tolist() == [3, 0, 5, 6, 7]


def test_training_sees_augmented_and_scoring_plain_samples(make):
    data = make(TensorDataset(X + 100, CLASSES), query_view=dataset())
    assert min(trained_on(data)) >= 100
    assert max(int(b[0].max()) for _, b in pool_batches(data)) < 100


def test_an_augmented_pool_is_warned_of(make):
    items = [(x, int(y)) for x, y in zip(X, CLASSES, strict=True)]
    with pytest.warns(UserWarning, match=r"differs when fetched twice.*augmented.*`query_view`"):
        make(Noisy(items)).ignore([11])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(Noisy(items), query_view=Rows(items), state_dir=None).samples.warn_if_stochastic()


# ---------------------------------------------------------------- nothing leaks


KINDS = {
    "tuple": lambda i: (X[i], torch.tensor(77)),
    "dict": lambda i: {"x": X[i], "label": torch.tensor(77)},
    "Hugging Face": lambda i: UserDict(x=X[i], labels=77),
    "two inputs": lambda i: (X[i], X[i], 77),
}


def renaming(items):
    return {
        "x": torch.stack([i["x"] for i in items]),
        "labels": torch.tensor([int(i["label"]) for i in items]),
    }


@pytest.mark.parametrize("collate", [None, "own"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_true_label_is_seen_in_a_pool_batch(make, kind, collate):
    functions = {"dict": renaming, "Hugging Face": lambda items: default_collate([dict(i) for i in items])}
    function = None if collate is None else functions.get(kind, default_collate)
    rows = Rows([KINDS[kind](i) for i in range(SIZE)])
    data = make(rows, collate_fn=function, pool_batch_size=4)
    batches = pool_batches(data)
    assert torch.cat([positions for positions, _ in batches]).tolist() == list(range(SIZE - 2))
    for _, batch in batches:
        parts = list(batch.values()) if isinstance(batch, dict | UserDict) else list(batch)
        assert len(parts) == len(rows[0]) - isinstance(rows[0], dict | UserDict)
        assert not any(isinstance(p, torch.Tensor) and bool((p == 77).any()) for p in parts)
        assert all(isinstance(p, torch.Tensor) or p is None for p in parts)


# ---------------------------------------------------------------- oracles


def test_an_oracle_that_knows_some_is_asked_again_for_the_rest(make):
    known = {5: 2}
    data = make(initial=0, oracle=lambda indices: [known.get(int(i)) for i in indices])
    data.ask([5, 6, 7])
    assert (data.labeled_indices.tolist(), data.asked_indices.tolist()) == ([5], [6, 7])
    known |= {7: 1}
    data.answer()
    assert data.asked_indices.tolist() == [6]
    with pytest.raises(AwaitingLabels, match=r"1 sample waits.*2 are labelled.*oracle.*returned None"):
        data.setup("fit")
    data.release()


def test_an_oracle_of_the_wrong_length(make):
    data = make(initial=0, oracle=lambda indices: [1])
    with pytest.raises(ValueError, match=r"given 2 indices and returned 1 targets.*None for those"):
        data.ask([5, 6])
    assert data.asked_indices.tolist() == [5, 6]  # the query stands


def test_people_choose_the_first_set_too(make):
    data = make(initial=4, oracle="people")
    assert len(data.asked_indices) == 4
    assert len(data.labeled_indices) == 0
    with pytest.raises(AwaitingLabels, match=r"4 samples wait.*query_0.csv"):
        data.setup("fit")
    data.release()


# ---------------------------------------------------------------- checkpoints


def test_a_checkpoint_is_held_against_the_ledger(make):
    data = make()
    data.label([5], [0])
    old = data.state_dict()
    assert all(isinstance(v, str | int | list) for v in old.values())
    compare(old, data.book.state, data.state_dir)
    data.label([6], [0])
    with pytest.warns(UserWarning, match=r"goes on with the 4 labels of the ledger"):
        compare(old, data.book.state, data.state_dir)
    with pytest.raises(LedgerError, match=r"with 5 labels.*ends at round 0 with 4.*put the newer"):
        compare(old | {"events": 99, "labeled": [0] * 5}, data.book.state, data.state_dir)
    with pytest.warns(UserWarning, match=r"belongs to run other.*its labels are not"):
        compare(old | {"run_id": "other"}, data.book.state, data.state_dir)


def test_a_set_without_labels_cannot_be_its_own_oracle(make):
    data = make(initial=0, unlabeled_set=Rows([(x,) for x in X]))
    with pytest.raises(ValueError, match=r"`unlabeled_set` has no labels.*could never.*Pass `oracle="):
        data.ask([SIZE])
    assert not len(data.asked_indices)


@pytest.mark.parametrize("value", [-1, 1.5, "cat"])
def test_a_label_that_is_no_class_is_refused_where_the_data_set_has_classes(make, value):
    data = make()
    with pytest.raises(ValueError, match="target of sample 5 is"):
        data.label([5], [value])
    assert 5 not in data.labeled_indices


def test_making_it_leaves_the_random_streams_alone(make):
    torch.manual_seed(3)
    expected = torch.rand(1)

    class Noisy(Rows):
        def __getitem__(self, index):
            torch.rand(1)
            return super().__getitem__(index)

    torch.manual_seed(3)
    make(Noisy([(x, 0) for x in X]))
    assert torch.equal(torch.rand(1), expected)
