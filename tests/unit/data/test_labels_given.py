"""What `label` and an oracle may give, and how it goes into the ledger."""

import random

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset, default_collate

from lightning_al import ActiveDataModule
from lightning_al.ledger import Book

SIZE = 12
X = torch.arange(SIZE).float()[:, None]
CLASSES = torch.arange(SIZE) % 3
NAMES = ["cat", "dog", "cow"]


class Rows(Dataset):
    def __init__(self, items):
        self.items = list(items)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Augmented(Rows):
    """Draws from every global stream."""

    def __getitem__(self, index):
        random.random()
        np.random.rand()  # noqa: NPY002
        torch.rand(1)
        return super().__getitem__(index)


@pytest.fixture
def make(tmp_path):
    def make(train_set=None, **options):
        options = {"initial": [3, 0], "state_dir": tmp_path / "run", **options}
        return ActiveDataModule(TensorDataset(X, CLASSES) if train_set is None else train_set, **options)

    return make


# ---------------------------------------------------------------- oracles


def test_an_oracle_may_return_a_mapping_from_indices(make):
    known = {7: 2, 5: 1, 8: 0}
    data = make(initial=0, oracle=lambda indices: known)
    data.ask([5, 6, 7])
    assert {i: data.state.target(i) for i in data.labeled_indices.tolist()} == {5: 1, 7: 2}
    assert data.asked_indices.tolist() == [6]


@pytest.mark.parametrize(
    "answer", [(2, 1), np.array([2, 1]), torch.tensor([2, 1]), pd.Series([2, 1], index=[8, 9])]
)
def test_an_oracle_may_return_any_row_of_targets(make, answer):
    data = make(initial=0, oracle=lambda indices: answer)
    data.ask([5, 6])
    assert [data.state.target(i) for i in (5, 6)] == [2, 1]


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (None, TypeError, "returned a NoneType; needed is a list.*Return None in the place"),
        (5, TypeError, "returned a int"),
        ("ab", TypeError, "returned a str"),
        ({1, 2}, TypeError, "returned a set"),
        (torch.tensor(3), TypeError, "returned a Tensor"),
        (pd.DataFrame({"a": [1, 2], "b": [3, 4]}), TypeError, "returned a DataFrame"),
        (
            {"boxes": 1, "labels": 2},
            ValueError,
            r"keys \['boxes', 'labels'\]; needed are the indices.*Return",
        ),
    ],
)
def test_what_is_no_row_of_targets_is_refused_and_the_query_stands(make, answer, error, words):
    data = make(initial=0, oracle=lambda indices: answer)
    with pytest.raises(error, match=words):
        data.ask([5, 6])
    assert data.asked_indices.tolist() == [5, 6]
    assert not len(data.labeled_indices)


# ---------------------------------------------------------------- classes


@pytest.mark.parametrize("target", [1.5, torch.tensor(7), np.int64(3), [1, 2], torch.tensor([1]), {"a": 1}])
@pytest.mark.parametrize("template", ["classes", "none"])
def test_with_class_names_a_label_is_one_of_the_classes(make, target, template):
    data = make(TensorDataset(X) if template == "none" else None, class_names=NAMES, oracle="people")
    with pytest.raises(
        ValueError, match=r"target of sample 5 is .*none of the classes.*a number from 0 to 2"
    ):
        data.label([5], [target])
    data.label([5, 6, 7], [torch.tensor(2), 1.0, "cat"])
    assert [data.state.values[i] for i in (5, 6, 7)] == ["2", "1", "0"]


@pytest.mark.parametrize("target", [[1, 2], torch.tensor([1, 2]), {"a": 1}, None, 1.5, "dog"])
def test_where_the_data_set_has_classes_a_label_is_one(make, target):
    data = make()
    with pytest.raises(ValueError, match="target of sample 5 is"):
        data.label([5], [target])
    data.label([5], [2.0])
    assert data.state.values[5] == "2"


def test_where_the_data_set_has_text_a_class_is_stored_by_its_name(make):
    rows = Rows([(x, NAMES[y]) for x, y in zip(X, CLASSES, strict=True)])
    data = make(rows, class_names=NAMES)
    data.label([5, 6], [1, "cow"])
    (batch,) = data.train_dataloader()
    assert sorted(batch[1]) == ["cat", "cat", "cow", "dog"]
    with pytest.raises(ValueError, match="none of the classes"):
        data.label([7], ["bird"])
    with pytest.raises(ValueError, match=r"1 is no text, as the other targets are"):
        make(rows, state_dir=data.state_dir.parent / "unnamed").label([5], [1])


@pytest.mark.parametrize(
    "own", [torch.zeros(2, 2, dtype=torch.long), [0, 0, 0], {"boxes": torch.zeros(1, 4)}]
)
def test_class_names_of_masks_and_boxes_leave_the_labels_alone(make, own):
    data = make(Rows([(x, own) for x in X]), class_names=NAMES)
    data.label([5], [own])
    assert 5 in data.labeled_indices


@pytest.mark.parametrize("target", [True, np.True_, torch.tensor(True), np.array(False)])
@pytest.mark.parametrize("template", ["classes", "numbers", "names"])
def test_true_and_false_are_no_classes_and_no_numbers(make, target, template):
    rows = {"classes": None, "numbers": TensorDataset(X, X[:, 0]), "names": TensorDataset(X)}[template]
    data = make(rows, class_names=NAMES if template == "names" else None, oracle="people")
    with pytest.raises(ValueError, match=r"target of sample 5 is .*(True|False).*, but other targets are cl"):
        data.label([5], [target])
    assert 5 not in data.labeled_indices


@pytest.mark.parametrize("own", [CLASSES > 0, (CLASSES > 0).numpy(), (CLASSES > 0).tolist()])
@pytest.mark.parametrize("names", [None, ["no", "yes"]])
def test_where_the_data_set_has_true_and_false_a_label_is_one(make, own, names):
    data = make(Rows(zip(X, own, strict=True)), class_names=names)
    data.label([5])
    data.label([4, 6, 7], [True, torch.tensor(False), np.True_])
    assert [bool(data.state.target(i)) for i in (3, 5, 4, 6, 7)] == [False, True, True, False, True]
    (batch,) = data.train_dataloader()
    assert batch[1].dtype == torch.bool


def test_labels_without_targets_or_names_may_be_true_and_false(make):
    data = make(TensorDataset(X), oracle="people")
    data.label([3, 0], [True, False])
    assert [data.state.target(i) for i in (3, 0)] == [True, False]


def test_a_name_of_nobody_is_none(make):
    data = make()
    with pytest.raises(ValueError, match="annotator's name is ''"):
        data.label([5], [1], who="")
    data.label([5], [1])
    assert data.state.who[5] == "user"


@pytest.mark.parametrize("target", ["cat", [1.0, 2.0]])
def test_where_the_data_set_has_numbers_a_label_is_one(make, target):
    data = make(TensorDataset(X, X[:, 0]))
    with pytest.raises(ValueError, match=r"target of sample 5 is .* is no number, as the other targets are"):
        data.label([5], [target])
    data.label([5], [2])
    assert data.state.target(5) == 2


@pytest.mark.parametrize(("first", "other", "words"), [(1.0, "x", "no number"), ("x", 2, "no text")])
def test_without_targets_or_names_the_first_label_fixes_the_kind(make, first, other, words):
    data = make(TensorDataset(X), oracle="people")
    with pytest.raises(ValueError, match=words):
        data.label([3, 0], [first, other])
    assert not len(data.labeled_indices)
    data.label([3], [first])
    with pytest.raises(ValueError, match=words):
        data.label([0], [other])
    data.label([3], [other], overwrite=True)  # the only label there is may have been the mistake
    assert data.state.target(3) == other


# ---------------------------------------------------------------- the data set's own targets


def streams():
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def seed():
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)


@pytest.mark.parametrize("options", [{}, {"initial": 4, "initial_balanced": True}])
def test_reading_targets_leaves_the_random_streams_alone(make, options):
    seed()
    expected = streams()
    rows = [(x, int(y)) for x, y in zip(X, CLASSES, strict=True)]
    data = make(Augmented(rows), **options)
    data.ignore(data.pool_indices[-1:])
    seed()
    data.label(data.pool_indices[:2])
    assert streams() == expected
    seed()
    data.samples.initial(4, 0, balanced=True)
    assert streams() == expected


def test_targets_are_the_training_sets_where_the_query_view_has_none(make):
    data = make(query_view=Rows([(x,) for x in X]))
    data.label([5, 7])
    assert [data.state.target(i) for i in (3, 0, 5, 7)] == [0, 0, 2, 1]


def test_bare_inputs_and_pairs_share_a_pool_batch(make):
    data = make(initial=0, unlabeled_set=Rows(X), oracle="people")
    data.unlabel([0])
    indices = data.pool_indices
    assert indices[0] == 0
    ((_, batch),) = data.pool_loader(indices, torch.arange(len(indices)))
    assert torch.equal(batch[0], torch.cat([X[:1], X]))
    assert batch[1] is None
    own = make(initial=0, unlabeled_set=Rows(X), oracle="people", collate_fn=default_collate)
    ((_, batch),) = own.pool_loader(indices, torch.arange(len(indices)))
    assert torch.equal(batch[0], torch.cat([X[:1], X]))
    assert batch[1] is None


# ---------------------------------------------------------------- targets that are arrays

SEVERAL = torch.eye(4)[torch.arange(SIZE) % 4]  # one of four labels, or several, of each


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([1, 0, 1], r"its shape is \(3,\), and that of the other targets \(4\)"),
        (torch.ones(7), r"its shape is \(7,\), and that of the other targets \(4\)"),
        ([[1, 0, 1, 0]], r"its shape is \(1, 4\), and that of the other targets \(4\)"),
        (1, r"its shape is \(\), and that|no array"),
        ({"a": 1}, r"other things than numbers; needed are numbers of shape \(4\)"),
        (["x", "y", "z", "w"], r"other things than numbers"),
        ([[1, 0], [1]], r"rows differ in length"),
    ],
)
def test_an_array_of_another_shape_makes_no_batch_and_is_no_label(tmp_path, target, message):
    data = ActiveDataModule(
        TensorDataset(X, SEVERAL), oracle="people", initial=[1, 2], state_dir=tmp_path, batch_size=2
    )
    data.open()
    with pytest.raises(ValueError, match=f"The target of sample 1 is(.|\\n)*({message})"):
        data.label([1], [target])
    with pytest.raises(ValueError, match=message):
        Book(tmp_path).label([1], [target], who="Ada")
    data.label([1, 2], [[0, 1, 1, 0], torch.tensor([1, 0, 0, 0])])
    (_, targets), = data.train_dataloader()  # fmt: skip
    assert sorted(targets.tolist()) == [[0, 1, 1, 0], [1, 0, 0, 0]]


def test_where_batches_are_made_by_a_function_only_the_axes_must_be_as_many(tmp_path):
    data = ActiveDataModule(
        TensorDataset(X, SEVERAL), oracle="people", initial=[1], state_dir=tmp_path, collate_fn=list
    )
    data.open()
    with pytest.raises(ValueError, match=r"its shape is \(1, 4\), and that of the other targets \(any\)"):
        Book(tmp_path).label([1], [[[1, 0, 1, 0]]], who="Ada")
    data.label([1], [[1, 0, 1]])
