"""Whatever a user has comes back as it was, by every format."""

import csv
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_al.exchange import (
    Imported,
    format_of,
    import_answers,
    kept_beside,
    read_answers,
    write_query,
)
from lightning_al.ledger import Book
from tests.unit.exchange.runs import content, labels, make

#: All of Unicode but halves of characters and NUL, which no file of text holds well.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
ODD = st.sampled_from(
    ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx", "'=1", "''=1", "'", "00123", "7.0", "1e5", "NaN", "null",
     "true", 'a"b', "a,b;c\td", "a\r\nb", " x ", "\uff1d1", "\u2028", "\ufeff", "-1.50",
     "[1]", "{}", "label", "inf"]
)  # fmt: skip
#: What programs write for nothing is no text of anybody's in a table.
SAID = (TEXTS | ODD).filter(lambda text: text.strip().lower() not in ("nan", "-") and bool(text.strip()))
QUICK = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def fill(path, answers):
    """Write answers into an exported file, from the name of a sample."""
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        key = "id" if "id" in rows[0] else "index"
        for row, answer in zip(rows, answers, strict=True):
            row["label"] = answer
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return [row[key] for row in rows]
    rows = [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]
    for row, answer in zip(rows, answers, strict=True):
        row["label"] = answer
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return [row.get("id", row["index"]) for row in rows]


def told_apart(names):
    """Names of samples of which none can be taken for another by what spreadsheets do."""
    return len({name.strip() for name in names}) == len(names) and all(name.strip() for name in names)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@given(
    ids=st.lists(TEXTS | ODD, min_size=4, max_size=4, unique=True).filter(told_apart),
    answers=st.lists(SAID, min_size=4, max_size=4),
    shown=st.dictionaries(TEXTS | ODD, TEXTS | ODD | st.integers() | st.floats(), max_size=3),
)
@QUICK
def test_names_and_text(suffix, ids, answers, shown):
    with tempfile.TemporaryDirectory() as place:
        book = make(Path(place) / "run", kind="text", ids=ids, size=4, asked=(2, 0, 3, 1), shown={0: shown})
        path = write_query(book, Path(place) / f"query{suffix}")
        fill(path, answers)
        assert import_answers(book, path).new == 4
        kept = [
            answer.strip() if suffix == ".csv" else answer for answer in answers
        ]  # blanks mean nothing there
        assert labels(book) == dict(zip((2, 0, 3, 1), kept, strict=True))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@given(numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1),
                        min_size=4, max_size=4))  # fmt: skip
@QUICK
def test_numbers(suffix, numbers):
    with tempfile.TemporaryDirectory() as place:
        book = make(Path(place) / "run", kind="number")
        path = write_query(book, Path(place) / f"query{suffix}")
        fill(path, [repr(n) for n in numbers] if suffix == ".csv" else numbers)
        assert import_answers(book, path).new == 4
        found = labels(book)
        assert [(type(found[i]), repr(found[i])) for i in (7, 5, 9, 1)] == [
            (type(n), repr(n)) for n in numbers
        ]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@given(names=st.lists(TEXTS | ODD, min_size=2, max_size=6, unique=True).filter(told_apart), data=st.data())
@QUICK
def test_class_names_that_look_like_numbers(suffix, names, data):
    chosen = data.draw(st.lists(st.sampled_from(range(len(names))), min_size=4, max_size=4))
    with tempfile.TemporaryDirectory() as place:
        book = make(Path(place) / "run", names=names)
        path = write_query(book, Path(place) / f"query{suffix}")
        fill(path, [names[place] for place in chosen])
        import_answers(book, path)
        assert [labels(book)[index] for index in (7, 5, 9, 1)] == chosen


def studio_export(book, results, *, email="ada@example.org", at="2026-11-20T10:00:00Z"):
    """What Label Studio would export of the tasks that were sent to it."""
    tasks = json.loads((book.folder / "tasks.json").read_text("utf-8"))
    return [
        {
            "id": 100 + place, **task,
            "annotations": [
                {"id": 900 + place, "completed_by": {"id": 1, "email": email}, "result": result,
                 "created_at": at, "updated_at": at, "was_cancelled": result == []}
            ],
        }
        for place, (task, result) in enumerate(zip(tasks, results, strict=True))
    ]  # fmt: skip


def chosen(*values, kind="choices", name="label"):
    return [{"from_name": name, "to_name": "text", "type": kind, "value": {kind: list(values)}}]


def test_label_studio_both_ways(tmp_path):
    book = make(tmp_path / "run", shown={0: {"text": "=a"}}, scores=[0.9, 0.5, 0.1, 0.05])
    path = write_query(book, book.folder / "tasks.json")
    tasks = json.loads(path.read_text())
    assert [(t["data"]["lal_sample"], t["predictions"][0]["score"]) for t in tasks] == [
        ("7", 0.9), ("5", 0.5), ("9", 0.1), ("1", 0.05)
    ]  # fmt: skip
    answers = studio_export(book, [chosen("10"), chosen("=sum", name="other"), [], chosen("bird")])
    answers[1]["annotations"][0]["result"] += chosen("007")
    path.write_text(json.dumps(answers))
    found = import_answers(book, path)
    assert (found.new, found.skipped) == (2, 1)
    assert [p.split(": ")[0] for p in found.problems] == [
        "task 103, annotation 903 by ada@example.org, sample 1"
    ]
    assert labels(book) == {7: 2, 5: 4}
    assert import_answers(book, path).known >= 3


@given(answers=st.lists((TEXTS | ODD).filter(str.strip), min_size=4, max_size=4))
@QUICK
def test_text_from_label_studio(answers):
    with tempfile.TemporaryDirectory() as place:
        book = make(Path(place) / "run", kind="text")
        path = write_query(book, book.folder / "tasks.json")
        path.write_text(json.dumps(studio_export(book, [chosen(a, kind="textarea") for a in answers])))
        tasks = json.loads(path.read_text())
        for task, answer in zip(tasks, answers, strict=True):
            task["annotations"][0]["result"][0]["value"] = {"text": [answer]}
        path.write_text(json.dumps(tasks))
        assert import_answers(book, path).new == 4
        assert labels(book) == dict(zip((7, 5, 9, 1), answers, strict=True))


def with_annotation(**values):
    return lambda tasks: [{**t, "annotations": [{**t["annotations"][0], **values}]} for t in tasks]


@pytest.mark.parametrize(
    "change",
    [
        lambda tasks: {"tasks": tasks},
        lambda tasks: [{**task, "id": True} for task in tasks],
        lambda tasks: [{**task, "annotations": [3]} for task in tasks],
        lambda tasks: [{**task, "data": {**task["data"], "lal_run": "another"}} for task in tasks],
        lambda tasks: [{**task, "data": None} for task in tasks],
        with_annotation(id="x"), with_annotation(completed_by=[1]),
        with_annotation(completed_by={"email": 5}), with_annotation(updated_at=5),
        with_annotation(updated_at="0001-01-01T00:00:00+14:00"), with_annotation(was_cancelled="no"),
    ],
)  # fmt: skip
def test_an_export_that_no_server_wrote(tmp_path, change):
    book = make(tmp_path / "run")
    path = write_query(book, book.folder / "tasks.json")
    path.write_text(json.dumps(change(studio_export(book, [chosen("cat")] * 4))))
    before = content(book)
    with pytest.raises(ValueError, match=r"Export the project again|no task of run"):
        import_answers(book, path)
    assert content(book) == before


def test_two_questions_need_to_be_told_apart(tmp_path):
    book = make(tmp_path / "run")
    path = write_query(book, book.folder / "tasks.json")
    answers = studio_export(book, [chosen("cat", name="a"), chosen("cat", name="b"), [], []])
    path.write_text(json.dumps(answers))
    with pytest.raises(ValueError, match="answers 2 questions"):
        import_answers(book, path)


def test_which_format_a_file_is(tmp_path):
    assert [format_of(f"x{e}") for e in (".csv", ".JSONL", ".json", ".txt")] == [
        "csv",
        "jsonl",
        "label-studio",
        "csv",
    ]
    with pytest.raises(ValueError, match=r"format is 'xml'; needed is one of csv, jsonl, label-studio"):
        format_of("x.csv", "xml")
    book = make(tmp_path / "run")
    assert write_query(book).name == "query_0.csv"
    assert write_query(book, format="jsonl").name == "query_0.jsonl"
    assert write_query(book, format="label-studio").name == "query_0.json"
    with pytest.raises(ValueError, match="Read it with `import_answers`"):
        read_answers(tmp_path / "run" / "query_0.json")


def test_an_older_file_is_kept_beside_the_new_one(tmp_path):
    book = make(tmp_path / "run")
    path = tmp_path / "mine.jsonl"
    path.write_text('{"index": 2, "label": null, "note": "mine"}')
    mine = path.read_text()
    write_query(book, path)
    write_query(book, path)
    assert (tmp_path / "mine.old1.jsonl").read_text() == mine
    assert (tmp_path / "mine.old2.jsonl").read_text() == path.read_text()
    assert kept_beside(book, path) == {tmp_path / "mine.old1.jsonl", tmp_path / "mine.old2.jsonl"}


# ---------------------------------------------------------------- what is not put aside

TORN = {
    "quote": lambda text: text.replace(",,\r\n", ',"cat,\r\n', 1).encode(),
    "header": lambda text: text.replace("label", "Label").replace(",,\r\n", ",cat,\r\n", 1).encode(),
    "UTF-16": lambda text: text.replace(",,\r\n", ",cat,\r\n", 1).encode("utf-16"),
    "workbook": lambda text: b"PK\x03\x04" + bytes(200),
}


@pytest.mark.parametrize("how", TORN)
@pytest.mark.parametrize("name", ["query_0.csv", "../mine.csv"])
def test_a_file_that_cannot_be_read_is_not_put_aside_by_an_export(tmp_path, how, name):
    book = make(tmp_path / "run")
    path = write_query(book, book.folder / name)
    path.write_bytes(TORN[how](path.read_bytes().decode()))
    before = path.read_bytes(), content(book)
    with pytest.raises(
        ValueError, match="is there already and may hold answers, which cannot be read"
    ) as error:
        write_query(book, path)
    assert "export the query again" not in str(error.value)
    assert (path.read_bytes(), content(book)) == before
    path.write_bytes(b"\xef\xbb\xbf \n")
    write_query(book, path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("over_answers", [False, True])
def test_answers_of_a_run_whose_ledger_is_lost_are_not_put_aside_and_can_be_read(
    tmp_path, suffix, over_answers
):
    lost = make(tmp_path / "lost")
    path = tmp_path / f"query{suffix}"
    write_query(lost, path)
    fill(path, ["cat", "dog", "", ""])
    rescued = path.read_bytes()
    book = make(tmp_path / "run", asked=(5, 7, 3))
    with pytest.raises(
        ValueError, match=r"holds 2 answers of another run, .*--of-other-run.*Else move"
    ) as error:
        write_query(book, path, over_answers=over_answers)
    assert str(path) in str(error.value)
    assert lost.state.run_id in str(error.value)
    assert path.read_bytes() == rescued
    with pytest.raises(ValueError, match="it is of run"):
        import_answers(book, path)
    for expected in ((2, 0), (0, 2)):
        found = import_answers(book, path, other_run=True)
        assert (found.new, found.known, found.notes) == (*expected, [])
    assert labels(book) == {7: 0, 5: 1}
    assert len(read_answers(write_query(book, path, over_answers=over_answers))) == 1


def test_answers_of_another_run_to_what_nobody_asked_for_here_are_told_of_and_stay(tmp_path):
    lost = make(tmp_path / "lost")
    path = write_query(lost, tmp_path / "query.csv")
    fill(path, ["cat", "dog", "", ""])
    book = make(tmp_path / "run", asked=(7, 3))
    found = import_answers(book, path, other_run=True)
    assert found.new == 1
    assert "1 answers of another run are of samples not asked for here: passed over" in str(found)
    with pytest.raises(ValueError, match="holds 1 answers of another run"):
        write_query(book, path, over_answers=True)


def test_a_file_of_another_run_that_nobody_filled_in_is_put_aside(tmp_path):
    path = write_query(make(tmp_path / "lost"), tmp_path / "query.csv")
    write_query(make(tmp_path / "run"), path, over_answers=True)
    assert (tmp_path / "query.old1.csv").exists()


# ---------------------------------------------------------------- where to, and in what form


@pytest.mark.parametrize("name", ["q.xlsx", "q.ODS", "q.parquet"])
def test_no_table_is_written_under_the_name_of_another_format(tmp_path, name):
    book = make(tmp_path / "run")
    with pytest.raises(ValueError, match=r"needed is a name that ends in \.csv, \.jsonl, \.json"):
        write_query(book, tmp_path / name)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json"])
def test_no_folder_is_made_for_a_query(tmp_path, suffix):
    book = make(tmp_path / "run")
    with pytest.raises(ValueError, match="none is no folder; needed is one to write the query to"):
        write_query(book, tmp_path / "none" / f"q{suffix}")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("start", [b"PK\x03\x04\x14\x00", b"\xd0\xcf\x11\xe0\xa1\xb1"])
@pytest.mark.parametrize("name", ["a.xlsx", "a.csv"])
def test_a_workbook_is_named_as_one(tmp_path, start, name):
    book = make(tmp_path / "run")
    (tmp_path / name).write_bytes(start + bytes(range(256)))
    with pytest.raises(ValueError, match=r'a workbook, as of Excel, .*needed is "CSV UTF-8"'):
        import_answers(book, tmp_path / name)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_named(tmp_path, encoding):
    book = make(tmp_path / "run")
    (tmp_path / "a.csv").write_text("index,label\n7,cat\n", encoding=encoding)
    with pytest.raises(ValueError, match=r"another encoding than UTF-8 \(UTF-16, by its look\)"):
        import_answers(book, tmp_path / "a.csv")


@pytest.mark.parametrize("change", [{"lal_sample": "7.0"}, {"lal_sample": 7.0}, {"lal_round": "0.0"}])
@pytest.mark.parametrize("ids", [None, [f"s{i}" for i in range(12)]])
def test_a_task_whose_sample_cannot_be_told_is_named(tmp_path, change, ids):
    book = make(tmp_path / "run", ids=ids)
    path = write_query(book, book.folder / "tasks.json")
    tasks = studio_export(book, [chosen("cat")] * 4)
    tasks[0]["data"] |= change
    path.write_text(json.dumps(tasks))
    found = import_answers(book, path)
    assert (found.new, len(found.problems)) == (3, 1)
    assert found.problems[0].startswith("task 100: there is no sample ")


def test_tasks_that_were_made_before_the_samples_had_names(tmp_path):
    ids = [f"s{i}" for i in range(11)] + ["5"]  # which is a sample's name by now
    book = make(tmp_path / "run")
    path = write_query(book, book.folder / "tasks.json")
    path.write_text(json.dumps(studio_export(book, [chosen("cat")] * 4)))
    book.ledger.set_names(ids, {"names": "ids:x"})
    named = Book(book.folder)
    found = import_answers(named, path)
    assert (found.new, len(found.problems)) == (3, 1)
    assert labels(named) == {7: 0, 9: 0, 1: 0}


def test_what_somebody_chose_in_label_studio_is_no_programs_word_for_nothing(tmp_path):
    book = make(tmp_path / "run", kind="text")
    path = write_query(book, book.folder / "tasks.json")
    answers = [chosen(choice) for choice in ("None", "N/A", "-", "NA")]
    path.write_text(json.dumps(studio_export(book, answers)))
    assert import_answers(book, path).new == 4
    assert labels(book) == {7: "None", 5: "N/A", 9: "-", 1: "NA"}


def test_options_that_are_for_other_formats_are_refused(tmp_path):
    book = make(tmp_path / "run")
    with pytest.raises(ValueError, match="leave `users` out"):
        import_answers(book, tmp_path / "a.csv", users={1: "Ada"})
    with pytest.raises(ValueError, match=r"needed is a table or JSON lines\. Leave it out"):
        import_answers(book, tmp_path / "a.json", other_run=True)


def test_what_an_import_says():
    found = Imported(new=1200, corrected=1, beside=2, problems=["task 3: no"])
    assert str(found) == (
        "1,200 new labels, 1 corrected, 0 skipped, 0 unsure, 0 already known, "
        "2 kept beside the label or until a rule decides; 1 not taken over:\n  task 3: no"
    )


def test_a_corrected_and_an_unchanged_answer_are_counted(tmp_path):
    book = make(tmp_path / "run")
    path = tmp_path / "a.csv"
    path.write_text("index,label,who\n7,cat,Ada\n5,dog,Ada\n")
    assert import_answers(book, path).new == 2
    path.write_text("index,label,who\n7,dog,Ada\n5,dog,Ada\n")
    with pytest.raises(ValueError, match="line 2: sample 7 is labelled cat already, not dog"):
        import_answers(Book(book.folder), path)
    found = import_answers(Book(book.folder), path, overwrite=True)
    assert (found.corrected, found.known) == (1, 1)
    assert labels(book) == {7: 1, 5: 1}


def test_a_doubt_and_a_label_of_one_sample_are_the_same_read_once_or_again(tmp_path):
    """Number 33327 of the hostile files: what stood before the label was written down by a second reading."""
    book = make(tmp_path / "run")
    path = tmp_path / "a.csv"
    path.write_text("index,label,skip,who\n3,,?,Bob\n3,dog,,Ada\n4,,x,Bob\n4,cat,,Ada\n")
    assert import_answers(book, path).new == 2
    count = book.ledger.verify()
    assert import_answers(Book(book.folder), path).known == 4
    assert book.ledger.verify() == count
    assert labels(book) == {3: 1, 4: 0}


def test_one_annotator_says_one_thing_of_a_sample(tmp_path):
    """Number 25977: it was accepted, and refused when it was read again."""
    book = make(tmp_path / "run")
    path = tmp_path / "a.csv"
    path.write_text("index,label,skip,who\n3,,?,Ada\n3,dog,,Ada\n")
    with pytest.raises(ValueError, match="line 2: sample 3 is there twice"):
        import_answers(book, path)
