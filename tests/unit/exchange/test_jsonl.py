import json

import pytest

from lightning_al.exchange import collect, import_answers, read_jsonl, write_jsonl
from tests.unit.exchange.runs import content, labels, make

NAN = float("nan")


@pytest.fixture
def book(tmp_path):
    shown = {0: {"path": "img/7.png", "size": NAN, "text": "Grüße\u2028\ud800"}}
    return make(tmp_path / "run", shown=shown, scores=[0.75, NAN, None, 0.25])


def write(path, *rows):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_a_query_goes_out_in_its_order_one_object_a_line(book, tmp_path):
    path = write_jsonl(book, tmp_path / "query.jsonl")
    lines = path.read_text("utf-8").rstrip("\n").split("\n")
    rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert [(row["index"], row["rank"], row["score"]) for row in rows] == [
        (7, 0, 0.75), (5, 1, None), (9, 2, None), (1, 3, 0.25),
    ]  # fmt: skip
    assert rows[0] == {
        "index": 7, "run": book.state.run_id, "round": 0, "rank": 0, "score": 0.75, "strategy": "Margin()",
        "shown": {"path": "img/7.png", "size": "nan", "text": "Grüße\u2028\ud800"},
        "label": None, "skip": False, "unsure": False, "who": None, "at": None,
    }  # fmt: skip
    assert import_answers(book, path).new == 0


def test_answers_of_every_kind(book, tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        {"index": 7, "label": "dog", "who": "Ada", "at": "2026-11-01T10:00:00Z"},
        "",
        {"index": 5, "label": None, "skip": True},
        {"index": "9", "unsure": True},
        {"index": 1.0, "label": 3},
        {"index": 2, "label": None, "skip": False, "more": {"of": "another"}},
    )
    found = import_answers(book, path, who="Bob")
    assert (found.new, found.skipped, found.unsure, found.known) == (2, 1, 1, 0)
    assert labels(book) == {7: 1, 1: 3}
    events = {e.sample: e for _, e in book.ledger.events() if e.kind != "asked"}
    assert (events[7].who, events[7].said) == ("Ada", "2026-11-01T10:00:00.000000+00:00")
    assert [events[i].who for i in (5, 9, 1)] == ["Bob"] * 3
    again = import_answers(book, path, who="Bob")
    assert (again.new, again.known) == (0, 4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1, 2]", "needed is an object"),
        ("{'index': 7}", "Expecting property name"),
        ('{"index": 7, "label": 1', "delimiter"),
        ('{"label": "cat"}', "has neither `index` nor `id`"),
        ('{"index": 7, "label": "bird"}', "'bird' is none of the classes"),
        ('{"index": 7, "label": true}', "True is no class"),
        ('{"index": 7, "label": NaN}', "NaN is no number"),
        ('{"index": 7, "label": 1e999}', "1e999 is no number"),
        ('{"index": 7, "label": -1}', "no label"),
        ('{"index": 7, "label": 1.5}', "none of the classes"),
        (f'{{"index": 7, "label": 1{"0" * 400}}}', "64 bits"),
        (f'{{"index": 7, "label": {"[" * 5000}{"]" * 5000}}}', "nested too deeply"),
        ('{"index": true, "label": 1}', "`index` is True"),
        ('{"index": [7], "label": 1}', r"`index` is \[7\]"),
        ('{"index": 7.5, "label": 1}', "no sample '7.5'"),
        ('{"index": -1, "label": 1}', "no sample '-1'"),
        ('{"index": 12, "label": 1}', "no sample '12'"),
        ('{"index": 7, "index": 5, "label": 1}', "'index' is there twice"),
        ('{"index": 7, "skip": "no"}', "`skip` is 'no'"),
        ('{"index": 7, "unsure": 0}', "`unsure` is 0"),
        ('{"index": 7, "label": 1, "who": 5}', "`who` is 5"),
        ('{"index": 7, "label": 1, "who": "dataset"}', "'dataset', which stands for labels"),
        ('{"index": 7, "label": 1, "who": "resolve"}', "no person gave"),
        ('{"index": 7, "label": 1, "who": "a\\nb"}', "letters that can be shown"),
        (r'{"index": 7, "label": 1, "who": "\ud800"}', "letters that can be shown"),
        ('{"index": 7, "label": 1, "at": "soon"}', "'soon' is no time"),
        ('{"index": 7, "label": 1, "who": "Ada", "at": "9998-01-01"}', "yet to come"),
        ('{"index": 7, "label": 1, "who": "Ada", "at": "0001-01-01T00:00+14:00"}', "no time in UTC"),
    ],
)  # fmt: skip
def test_what_is_refused_and_where(book, tmp_path, line, message):
    before = content(book)
    path = write(tmp_path / "a.jsonl", {"index": 5, "label": "cat", "who": "Ada"}, "", line)
    with pytest.raises(ValueError, match=rf"(?s)no label was taken over:.*line 3: .*{message}"):
        import_answers(book, path)
    assert content(book) == before
    assert book.ledger.verify() == 4


@pytest.mark.parametrize(
    ("kind", "label", "message"),
    [
        ("text", r'"\ud800"', "half of a character"),
        ("text", r'"a\u0000b"', "NUL"),
        ("text", "5", "no text"),
        ("number", '"five"', "no number"),
        ("number", "[1]", "no number"),
        ("number", "false", "no class or number"),
        ("number", "9223372036854775808", "64 bits"),
        ("json", "[" * 40 + "]" * 40, "nested in one another"),
        ("json", '{"__array__": "AAAA", "dtype": "|O", "shape": [1]}', "none of numbers"),
        ("json", '{"__array__": "AAAAAA==", "dtype": "<i4", "shape": [1000000000]}', "has 4 bytes"),
        ("json", '{"__array__": "?", "dtype": "<i4", "shape": [1]}', "cannot be read"),
        ("json", '[{"__array__": 3}]', "needs its bytes"),
        ("array", '"text"', "no number"),
    ],
)
def test_labels_that_would_break_whoever_reads_them(tmp_path, kind, label, message):
    book = make(tmp_path / "run", kind=kind)
    path = write(tmp_path / "a.jsonl", f'{{"index": 7, "label": {label}}}')
    with pytest.raises(ValueError, match=rf"line 1: .*{message}"):
        import_answers(book, path)
    assert labels(book) == {}


@pytest.mark.parametrize("name", ["label", "round", "more"])
def test_a_number_of_many_digits_is_refused_without_advice_on_python(book, tmp_path, name):
    path = write(tmp_path / "a.jsonl", f'{{"index": 7, "{name}": {"9" * 5000}, "unsure": true}}')
    with pytest.raises(ValueError, match=r"line 1: 9{20}\.\.\. is a number of 5,000 digits") as caught:
        import_answers(book, path)
    assert "sys." not in str(caught.value)


def test_an_array_comes_back_as_an_array(tmp_path):
    book = make(tmp_path / "run", kind="array")
    array = {"__array__": "AQAAAAIAAAA=", "dtype": "<i4", "shape": [2, 1]}
    import_answers(book, write(tmp_path / "a.jsonl", {"index": 7, "label": array}))
    assert labels(book)[7].tolist() == [[1], [2]]


def test_text_that_means_a_number_where_targets_are_numbers(tmp_path):
    book = make(tmp_path / "run", kind="number")
    import_answers(
        book, write(tmp_path / "a.jsonl", {"index": 7, "label": "-1.5"}, {"index": 5, "label": -0.0})
    )
    assert labels(book) == {7: -1.5, 5: 0.0}


@pytest.mark.parametrize("text", ["", "\n \n", '{"index": 7}\n'])
def test_a_file_without_answers(book, tmp_path, text):
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    if not text.strip():
        assert read_jsonl(path) == []
        return
    with pytest.raises(ValueError, match="no line with `label`, `skip` or `unsure`"):
        read_jsonl(path)


@pytest.mark.parametrize("name", ["lable", "labels", "Label", "skipped", "not_sure"])
def test_a_misspelt_answer_is_not_passed_over(tmp_path, name):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"index": 5, "label": "cat"}}\n{{"index": 7, "{name}": "cat", "note": "?"}}\n')
    with pytest.raises(
        ValueError, match=f"line 2: has `{name}` and no answer; needed is `(label|skip|unsure)`"
    ):
        read_jsonl(path)


@pytest.mark.parametrize("name", ["Skip", " unsure", "Who", "LABEL"])
def test_what_answers_beside_an_empty_label_is_not_passed_over(tmp_path, name):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"index": 7, "label": null, "skip": false, "who": null, "{name}": true}}\n')
    right = name.strip().lower()
    with pytest.raises(ValueError, match=f"line 1: has `{name}`, which is not read; needed is `{right}`"):
        read_jsonl(path)


def test_a_name_in_capitals_beside_one_that_says_something_is_another(book, tmp_path):
    rows = [
        {"index": 7, "label": "cat", "who": "Ada", "Who": "x", "Label": "y"},
        {"index": 5, "label": None, "skip": True, "Skip": False, "unsure": False},
    ]
    found = import_answers(book, write(tmp_path / "a.jsonl", *rows))
    assert (found.new, found.skipped, book.state.who[7]) == (1, 1, "Ada")


@pytest.mark.parametrize("doubt", ["skip", "unsure"])
def test_a_line_with_a_label_and_a_doubt_is_refused(book, tmp_path, doubt):
    path = write(tmp_path / "a.jsonl", {"index": 7, "label": "cat", doubt: True})
    with pytest.raises(ValueError, match=f"line 1: it has the label 'cat' and `{doubt}`; needed is one"):
        collect(book, read_jsonl(path), path)
