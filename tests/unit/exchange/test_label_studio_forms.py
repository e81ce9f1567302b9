"""What goes out and comes in, without any server: tasks, what is asked, what annotations say."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_al.exchange.label_studio import Annotation, Form, Key, Task, newest_of_each, read
from lightning_al.exchange.label_studio.tasks import is_address, key_of, medium_of
from tests.unit.exchange.fake_label_studio import RECORDED, parsed

KEY = Key("4f0c", 3, "17")
LABELS = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1, unique=True
).filter(lambda names: all(name.strip() and not name.startswith("$") for name in names))
PLAIN = st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none())


@given(LABELS, st.sampled_from(["image", "text"]))
def test_any_classes_survive_the_configuration(labels, medium):
    form = Form("choices", medium, tuple(labels))
    assert Form.read({"id": 1, "parsed_label_config": parsed(form.as_xml())}) == form
    for label in labels:
        assert form.value(form.result(label)) == label


def test_the_recorded_project_is_read():
    form = Form.read(RECORDED["project made"]["answer"])
    assert form == Form("choices", "text", ("neg", "pos"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "choices"},
        {"kind": "choices", "labels": ("a", "a")},
        {"kind": "choices", "labels": ("a", " ")},
        {"kind": "choices", "labels": ("$text",)},
        {"kind": "number", "labels": ("a",)},
        {"kind": "boxes"},
        {"kind": "number", "medium": "video"},
    ],
)
def test_what_cannot_be_asked_is_refused(wrong):
    with pytest.raises(ValueError, match="needed are"):
        Form(**wrong)


def test_a_project_without_a_question_for_a_label_is_refused():
    boxes = {
        "box": {
            "type": "RectangleLabels",
            "to_name": ["image"],
            "inputs": [{"type": "Image", "value": "image"}],
        }
    }
    for parsed_config in (boxes, {}, None):
        with pytest.raises(ValueError, match=r"asks 0 questions.*needed is one"):
            Form.read({"id": 1, "title": "t", "parsed_label_config": parsed_config})


def test_a_project_that_asks_for_a_number_is_none_for_classes():
    Form("number").check(None)
    with pytest.raises(ValueError, match=r"asks for a number \('label'\); needed is a choice of the classes"):
        Form("number").check(["a"])


@pytest.mark.parametrize("value", [True, float("nan"), float("inf"), "3", None, [1, 2]])
def test_what_is_no_number_is_no_answer(value):
    result = [{"from_name": "label", "type": "number", "value": {"number": value}}]
    with pytest.raises(ValueError, match=r"no number|answers where one is needed"):
        Form("number").value(result)


@pytest.mark.parametrize("result", [None, [], "text", 3, {}, [None], [[]], [{"from_name": "label"}],
                                    [{"from_name": "label", "value": None}],
                                    [{"from_name": "label", "value": {"choices": []}}],
                                    [{"from_name": "label", "value": {"choices": [""]}}],
                                    [{"from_name": "label", "value": {"choices": [3]}}],
                                    [{"from_name": "label", "value": {"choices": ["a"]}}] * 2])  # fmt: skip
def test_nothing_that_is_no_answer_is_taken_for_one(result):
    with pytest.raises(ValueError, match=r"answer|no text"):
        Form("choices", labels=("a", "b")).value(result)


NAMED = st.sampled_from(["from_name", "value", "choices", "label", "type"])
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner) | st.dictionaries(NAMED, inner | st.just("label")), max_leaves=12
)


@given(JSON)
def test_whatever_is_said_is_an_answer_or_a_problem_and_never_an_error(result):
    task = {"id": 1, "data": {"lal_run": "4f0c", "lal_round": 3, "lal_sample": "17"}, "annotations": [
        {"id": 2, "result": result, "was_cancelled": False, "completed_by": 1,
         "updated_at": "2026-11-22T09:00:00Z"}]}  # fmt: skip
    (annotation,) = read([task], Form("choices", labels=("a", "b")))[KEY]
    assert (annotation.problem is None) == isinstance(annotation.value, str)


@given(st.dictionaries(st.text(), PLAIN), st.floats(0, 1) | st.none(), st.text())
def test_any_columns_become_a_task_that_json_can_hold(shown, score, sample):
    task = Task(Key("4f0c", 3, sample), shown, rank=2, score=score)
    made = json.loads(json.dumps(task.as_json(Form("number")), allow_nan=False))
    assert key_of(made["data"]) == task.key
    assert isinstance(made["data"]["text"], str)
    assert made["data"]["text"]
    assert ("predictions" in made) == (score is not None)


@pytest.mark.parametrize(
    ("shown", "seen"),
    [
        ({"image": "anything"}, ("image", "anything")),
        ({"text": "http://example.org/a.png"}, ("text", "http://example.org/a.png")),
        ({"a": "words", "b": "scan.JPEG"}, ("image", "scan.JPEG")),
        ({"a": "words", "b": "https://example.org/scan?n=1"}, ("image", "https://example.org/scan?n=1")),
        ({"a": "see https://example.org"}, ("text", "see https://example.org")),
        ({"a": "Note: it is data: 3"}, ("text", "Note: it is data: 3")),
        ({"a": "http://example.org is nice"}, ("text", "http://example.org is nice")),
        ({"n": 3, "a": "  ", "b": "words"}, ("text", "words")),
        ({"n": 3}, None),
        ({}, None),
    ],
)
def test_what_is_looked_at_is_found(shown, seen):
    assert medium_of(shown) == seen


def test_the_column_that_a_project_shows_is_taken_before_all_others():
    form = Form("number", "text", field="comment")
    assert Task(KEY, {"text": "a", "comment": "b"}).look(form) == "b"
    assert Task(KEY, {"text": "a"}).as_json(form)["data"]["comment"] == "a"
    assert Task(KEY, {"width": 3, "height": 4}).look(form) == "width: 3\nheight: 4"
    assert Task(KEY).look(form) == "sample 17"
    assert Task(KEY, {"url": "https://example.org/x"}).look(form) == "https://example.org/x"
    picture = Form("number", "image", field="scan")
    assert Task(KEY, {"image": "a.png", "scan": "b.png"}).look(picture) == "b.png"
    assert Task(KEY, {"words": "none"}).look(picture) is None


def test_no_column_takes_the_place_of_our_key():
    shown = {"text": "t", "lal_run": "other", "lal_sample": "5"}
    assert key_of(Task(KEY, shown).as_json(Form("number"))["data"]) == KEY


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ("https://example.org/a", True),
        ("s3://bucket/a.png", True),
        ("/data/upload/1/a.png", True),
        ("/data/local-files/?d=a.png", True),
        ("data:image/png;base64,AAAA", True),
        ("file:///home/a.png", False),
        ("/home/a.png", False),
        ("a.png", False),
        ("C:\\scans\\a.png", False),
    ],
)
def test_what_is_an_address_and_what_a_file_here(value, is_one):
    assert is_address(value) == is_one


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"lal_run": "r", "lal_round": "3", "lal_sample": 5}, Key("r", 3, "5")),
        ({"lal_run": "r", "lal_round": 3}, None),
        ({"lal_run": "r", "lal_round": True, "lal_sample": "5"}, None),
        ({"lal_run": 1, "lal_round": 3, "lal_sample": "5"}, None),
        ({}, None),
        (None, None),
        ("text", None),
    ],
)
def test_whose_a_task_is(data, key):
    assert key_of(data) == key


def test_who_annotates_twice_counts_once_and_who_is_gone_each_time():
    def said(number, who, second):
        return Annotation(KEY, 1, number, who, datetime(2026, 11, 22, 9, 0, second, tzinfo=UTC), "a")

    given_ = [said(1, "ada", 5), said(2, "bob", 3), said(3, "ada", 4), said(4, None, 1), said(5, None, 2)]
    assert [each.id for each in newest_of_each(given_)] == [4, 5, 2, 1]


def test_annotators_of_other_editions_are_read_too():
    task = {"id": 1, "data": {"lal_run": "4f0c", "lal_round": 3, "lal_sample": "17"}}
    by = [{"email": "ada@example.org", "id": 3}, {"id": 3}, 3, 4, None]
    annotations = [
        {
            "id": n,
            "result": None,
            "was_cancelled": True,
            "completed_by": who,
            "created_at": "2026-11-22T11:00:00+02:00",
        }
        for n, who in enumerate(by)
    ]
    found = read([task | {"annotations": annotations}], Form("number"), {3: "ada@example.org"})[KEY]
    assert [each.who for each in found] == ["ada@example.org"] * 3 + ["user 4", None]
    assert found[0].at == datetime(2026, 11, 22, 9, tzinfo=UTC)
    assert found[4].place == "task 1, annotation 4 by an account that is gone"


def test_it_needs_neither_torch_nor_anything_else_that_is_heavy():
    code = (
        "import sys, lightning_al.exchange.label_studio\n"
        "print(*{'torch', 'lightning', 'requests', 'pandas', 'label_studio_sdk'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == []
