import math
from collections import UserDict, namedtuple
from dataclasses import dataclass

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from lightning_al.data.targets import MISSING, TargetPlace, blank, conform, is_missing
from lightning_al.ledger.label_values import check_label, decode, encode, parse_label, whole

Pair = namedtuple("Pair", ["image", "label"])
Box = namedtuple("Box", ["corner", "name"])


class Encoding(UserDict):
    """A mapping that is no dict, as Hugging Face's tokenizers return."""


X = torch.zeros(2)
#: Items with a target, the place they need, and where the target is.
ITEMS = {
    "tuple": ((X, 3), None, 1),
    "list": ([X, 3], None, 1),
    "three parts": ((X, X, 3), None, 2),
    "target first": ((3, X, X), 0, 0),
    "target from behind": ((X, 3, X), -2, 1),
    "namedtuple": (Pair(X, 3), None, 1),
    "dict": ({"image": X, "label": 3}, None, "label"),
    "dict with labels": ({"labels": 3, "image": X}, None, "labels"),
    "dict with y": ({"y": 3, "x": X}, None, "y"),
    "dict with a key of its own": ({"x": X, "kind": 3}, "kind", "kind"),
    "Hugging Face": (Encoding(input_ids=X, labels=3), None, "labels"),
}


def same(a, b):
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict | UserDict):
        return set(a) == set(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


# ---------------------------------------------------------------- place


@pytest.mark.parametrize("name", ITEMS)
def test_a_target_is_found_and_replaced_where_it_is(name):
    item, target, key = ITEMS[name]
    place = TargetPlace(target, item)
    assert place.get(item) == 3
    changed = place.put(item, 5)
    assert changed[key] == 5
    assert place.get(changed) == 5
    assert type(changed) is type(item)
    assert same(place.put(changed, 3), item)
    assert place.get(item) == 3  # the item itself stays: data sets may keep their items


@pytest.mark.parametrize("name", ITEMS)
def test_without_collate_a_batch_has_no_target(name):
    item, target, key = ITEMS[name]
    place = TargetPlace(target, item)
    batch = place.collate_hidden([item, place.put(item, 7)], None, 0)
    if isinstance(item, dict | UserDict):
        assert set(batch) == set(item) - {key}
    else:
        assert len(batch) == len(item)
        assert batch[key] is None
    assert not holds(batch, 3)
    assert not holds(batch, 7)


def holds(value, number):
    if isinstance(value, Tensor):
        return bool((value == number).any())
    if isinstance(value, dict | UserDict):
        value = list(value.values())
    return any(holds(v, number) for v in value) if isinstance(value, tuple | list) else value == number


@pytest.mark.parametrize("name", ITEMS)
def test_with_a_collate_function_targets_are_hidden_before_and_after(name):
    item, target, key = ITEMS[name]
    place = TargetPlace(target, item)
    seen = []

    def collate(items):
        seen.extend(items)
        return default_collate([dict(i) if isinstance(i, UserDict) else i for i in items])

    batch = place.collate_hidden([item, place.put(item, 7)], collate, 0)
    assert [place.get(i) for i in seen] == [0, 0]
    if isinstance(item, dict | UserDict):
        assert key not in batch
    else:
        assert len(batch) == len(item)
        assert batch[key] is None


def test_items_without_a_target_get_one_in_a_new_place():
    place = TargetPlace(None, X)
    assert place.get(X) is MISSING
    assert same(place.put(X, 5), (X, 5))
    batch = place.collate_hidden([X, X], None, 0)
    assert batch[0].shape == (2, 2)
    assert batch[1] is None
    place = TargetPlace(None, (X,))
    assert place.get((X,)) is MISSING
    assert same(place.put((X,), 5), (X, 5))
    assert place.collate_hidden([(X,), (X,)], None, 0)[1] is None
    place = TargetPlace(None, {"image": X})
    assert place.get({"image": X}) is MISSING
    assert same(place.put({"image": X}, 5), {"image": X, "label": 5})


def test_an_unlabelled_item_beside_labelled_ones():
    """The further unlabelled set may yield the input alone where the labelled one yields pairs."""
    place = TargetPlace(None, (X, 3))
    assert place.get((X,)) is MISSING
    assert same(place.put((X,), 5), (X, 5))
    assert same(place.put(X, 5), (X, 5))
    batch = place.collate_hidden([(X,), (X, 3)], None, 0)
    assert batch[0].shape == (2, 2)
    assert batch[1] is None
    place = TargetPlace(0, (3, X, X))
    assert same(place.put((X, X), 5), (5, X, X))


def test_a_collator_that_renames_label_to_labels_and_pads():
    place = TargetPlace(None, {"input_ids": [1], "label": 3})

    def collate(items):
        longest = max(len(i["input_ids"]) for i in items)
        ids = [i["input_ids"] + [0] * (longest - len(i["input_ids"])) for i in items]
        return Encoding(input_ids=torch.tensor(ids), labels=torch.tensor([i["label"] for i in items]))

    items = [{"input_ids": [5, 6], "label": 2}, {"input_ids": [7], "label": 1}]
    batch = place.collate_hidden(items, collate, 0)
    assert set(batch) == {"input_ids"}
    assert batch["input_ids"].tolist() == [[5, 6], [7, 0]]


def test_inputs_with_the_name_of_a_target_stay():
    place = TargetPlace("kind", {"y": X, "kind": 3})
    batch = place.collate_hidden([{"y": X, "kind": 3}], default_collate, 0)
    assert set(batch) == {"y"}


def test_a_collator_needs_a_target_where_the_pool_has_none():
    place = TargetPlace(None, (X, torch.tensor([1.0, 2.0])))
    batch = place.collate_hidden([(X,), (X,)], default_collate, torch.tensor([0.0, 0.0]))
    assert batch[1] is None


def test_places_that_are_none_are_refused():
    with pytest.raises(TypeError, match=r"`target=1` is a place in a tuple.*keys \['a', 'b'\].*Pass the key"):
        TargetPlace(1, {"a": 1, "b": 2})
    with pytest.raises(TypeError, match=r"`target='label'` is a key, but an item is a tuple.*place"):
        TargetPlace("label", (X, 3))
    for target in (2, -3):
        with pytest.raises(ValueError, match=rf"`target={target}` is not a place.*2 parts.*0 to 1"):
            TargetPlace(target, (X, 3))


# ---------------------------------------------------------------- blank, conform


NUMBERS = st.integers(-9, 9) | st.floats(-9, 9) | st.booleans() | st.text(max_size=3)
KEYS = st.text(max_size=2)
VALUES = st.recursive(NUMBERS, lambda v: st.lists(v, max_size=3) | st.dictionaries(KEYS, v, max_size=3))


@given(value=VALUES)
def test_a_blank_target_has_the_shape_and_says_nothing(value):
    assert shape(blank(value)) == shape(value)
    assert blank(blank(value)) == blank(value)
    assert not any(leaves(blank(value)))


def shape(value):
    if isinstance(value, dict):
        return {k: shape(v) for k, v in value.items()}
    return [shape(v) for v in value] if isinstance(value, list) else type(value)


def leaves(value):
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]:
        yield from leaves(part) if isinstance(part, dict | list) else [part]


def test_blanks_of_arrays_and_named_tuples():
    assert torch.equal(blank(torch.ones(2, dtype=torch.long)), torch.zeros(2, dtype=torch.long))
    assert blank(np.ones((2, 2), np.uint8)).tolist() == [[0, 0], [0, 0]]
    assert type(blank(np.int64(3))) is np.int64
    assert blank(Box(torch.ones(2), "cat")).name == ""
    assert blank(None, template=torch.tensor([3, 4])).tolist() == [0, 0]
    assert blank(MISSING) == 0


@pytest.mark.parametrize(
    ("like", "value"),
    [
        (torch.tensor(0), 3), (torch.tensor([0.0]), 3), (np.int64(0), 3), (np.zeros(1, np.float32), 3),
        (0.0, 3), (0, 3), (torch.zeros(2), [3, 4]), ("text", "other"),
        ({"a": torch.tensor(0), "b": 0.0}, {"a": 3, "b": 4}), (torch.zeros(1, 1), 2),
    ],
)  # fmt: skip
def test_one_batch_holds_the_data_sets_targets_and_the_ledgers(like, value):
    """With the same type and shape as if the data set had supplied all of it."""
    alone = default_collate([like, like])
    mixed = default_collate([conform(decode(encode(value)), like), like])
    ledgers = default_collate([conform(decode(encode(value)), like)] * 2)
    for batch in (mixed, ledgers):
        assert described(batch) == described(alone)


def described(batch):
    if isinstance(batch, dict):
        return {k: described(v) for k, v in batch.items()}
    return (batch.dtype, batch.shape) if isinstance(batch, Tensor) else type(batch)


# ---------------------------------------------------------------- JSON


@given(value=VALUES | st.none())
def test_plain_targets_survive_the_ledger(value):
    assert decode(encode(value)) == value


@given(array=hnp.arrays(st.sampled_from([np.uint8, np.int64, np.float32, np.float64, np.bool_, ">f4"]),
                        hnp.array_shapes(max_dims=3, max_side=3)))  # fmt: skip
def test_arrays_survive_with_shape_and_type(array):
    for value in (array, torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))):
        back = decode(encode({"mask": value}))["mask"]
        back = np.asarray(back) if isinstance(back, list) else back.numpy()
        assert back.shape == array.shape
        np.testing.assert_array_equal(back, array)


def test_single_numbers_are_numbers():
    values = [np.int64(3), np.float32(0.5), np.bool_(True), torch.tensor(3), np.array(2)]
    assert [decode(encode(v)) for v in values] == [3, 0.5, True, 3, 2]
    assert decode(encode((1, (2, 3)))) == [1, [2, 3]]


def test_what_numpy_holds_besides_numbers():
    assert decode(encode(np.array(["cat", "dog"]))) == ["cat", "dog"]
    assert decode(encode(np.array(["cat", None], dtype=object))) == ["cat", None]
    assert decode(encode(torch.tensor([1.5, 2.0], dtype=torch.bfloat16))).tolist() == [1.5, 2.0]


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", [object()], np.datetime64("2020-01-01")])
def test_what_cannot_be_kept_is_refused(value):
    with pytest.raises(TypeError, match=r"A target of type .* cannot be kept.*needed are.*Give one of these"):
        encode(value)


# ---------------------------------------------------------------- missing, parsed


def test_what_says_no_label():
    missing = [None, MISSING, float("nan"), -1, torch.tensor(-1), torch.tensor(math.nan), np.int64(-100)]
    assert all(is_missing(value) for value in missing)
    there = [0, 3, -0.5, torch.tensor(-0.5), "", torch.tensor([-1.0]), np.float32(2), False]
    assert not any(is_missing(value) for value in there)


@pytest.mark.parametrize(
    ("text", "names", "template", "value"),
    [
        ("cat", ["dog", "cat"], 0, 1), ("0", ["dog", "cat"], 0, 0), ("7", None, 3, 7), ("7", None, "a", "7"),
        ("1.5", None, 0.0, 1.5), ("2", None, torch.tensor([0.0]), 2),
        ("[1, 2]", None, torch.zeros(2), [1, 2]),
        ("cat", None, None, "cat"), ("-1.5", None, torch.tensor(0.5), -1.5), ("null", None, "a", "null"),
    ],
)  # fmt: skip
def test_what_a_person_meant(text, names, template, value):
    assert parse_label(text, names, template) == value


@pytest.mark.parametrize(
    ("text", "names", "template", "why"),
    [
        ("bird", ["dog", "cat"], 0, "none of the classes"), ("2", ["dog", "cat"], 0, "none of the classes"),
        ("cat", None, 3, "no number"), ("-1", None, 3, "no class"), ("1.5", None, 3, "no class"),
        ("1.5", None, torch.tensor(3), "no class"), ("-1", None, torch.tensor(3), "no class"),
        ("1.5", None, np.int64(3), "no class"), ("[1]", None, torch.tensor(3), "no class"),
        ("null", None, 3, "no label"), ("NaN", None, 0.5, "no label"), ("Infinity", None, None, "no label"),
        ("true", None, 3, "no number"), ("cat", None, torch.zeros(2), "no number"),
    ],
)  # fmt: skip
def test_what_nobody_can_have_meant(text, names, template, why):
    with pytest.raises(ValueError, match=why):
        parse_label(text, names, template)


# ---------------------------------------------------------------- items of several kinds


@pytest.mark.parametrize("order", [1, -1])
def test_the_input_alone_beside_pairs(order):
    place = TargetPlace(0, (3, X))
    assert same(place.put(X, 5), (5, X))
    batch = place.collate_hidden([X, (3, X), (X,)][::order], None, 0)
    assert batch[0] is None
    assert batch[1].shape == (3, 2)


@dataclass
class Point:
    x: Tensor
    y: int


@pytest.mark.parametrize("item", [Point(X, 3), object(), None])
def test_an_item_in_which_no_target_can_be_found_is_refused(item):
    words = (
        r"is a \w+, in which a target can be neither found nor hidden; needed is a tuple.*Let `__getitem__`"
    )
    with pytest.raises(TypeError, match=words):
        TargetPlace(None, item)
    with pytest.raises(TypeError, match=words):
        TargetPlace("y", item)
    assert TargetPlace(None, (item,)).get((item,)) is MISSING


@pytest.mark.parametrize(
    "item", [X, X.numpy(), np.float32(1), 1.5, "text", b"bytes", Image.new("RGB", (2, 2)), Encoding(y=1)]
)
def test_items_that_are_plainly_inputs(item):
    TargetPlace(None, item)


def test_one_kind_of_truth():
    assert conform(1, True) is True
    assert check_label(True, None, 3) == 1
    assert check_label(torch.tensor(2.0), None, torch.tensor(3)) == 2


def test_whole_numbers_and_numbers_that_are_names():
    assert [whole(text) for text in ("7", "7.0", "7.", "7.5", ".0", "7.0.0", "x.0")] == [
        "7", "7", "7", "7.5", ".0", "7.0.0", "x.0",
    ]  # fmt: skip
    assert parse_label("1.0", ["10", "1"], 0) == 1  # the name that a spreadsheet wrote as a number
    with pytest.raises(ValueError, match="needed is a name, since names here look like numbers"):
        parse_label("0.0", ["10", "1"], 0)


def test_of_many_classes_a_message_shows_some():
    with pytest.raises(
        ValueError, match=r"'x' is none of the classes \['0', .*'9', \.\.\.\], the 1000 .*0 to 999"
    ):
        parse_label("x", [str(number) for number in range(1000)], 0)
