"""One person is one annotator, by whichever way and under whichever name an answer comes in."""

import json
from collections import Counter

import pytest

from lightning_al.exchange import import_answers, write_query
from lightning_al.exchange.label_studio import Form, LabelStudio, import_export, pull_answers, push_query
from lightning_al.ledger import Book
from lightning_al.ledger.label_values import NoLabel
from tests.label_studio.server import EMAIL, TOKEN
from tests.unit.exchange.fake_label_studio import FakeLabelStudio
from tests.unit.exchange.runs import content, labels, make

PETS = ["cat", "dog", "ox"]
ADA = {1: "ada@example.org"}
FIRST, SECOND = "2026-11-20T10:00:00.123456Z", "2026-11-21T10:00:00.123456Z"


def two_agree(answers):
    (value, count), *_ = Counter(answer.value for answer in answers).most_common(1)
    return value if count >= 2 else None


@pytest.fixture
def book(tmp_path):
    make(tmp_path / "run", names=PETS)
    return Book(tmp_path / "run", resolve=two_agree)


def export(book, path, *, label="dog", by=1, at=FIRST, round_=0, more=()):
    """What Label Studio would export where the first sample is answered."""
    tasks = json.loads(write_query(book, path.with_name("tasks.json")).read_text())
    result = [{"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [label]}}]
    for number, task in enumerate(tasks):
        task |= {"id": number + 1, "annotations": []}
        task["data"]["lal_round"] = round_
    tasks[0]["annotations"] = [
        {"id": 8 + place, "completed_by": who, "updated_at": at, "was_cancelled": label is None,
         "result": [] if label is None else result}
        for place, who in enumerate([by, *more])
    ]  # fmt: skip
    path.write_text(json.dumps(tasks))
    return path


@pytest.mark.parametrize("order", [(ADA, None), (None, ADA)], ids=["name first", "number first"])
@pytest.mark.parametrize("at", [FIRST, SECOND], ids=["same", "changed"])
def test_a_number_and_its_name_are_one_annotator(book, tmp_path, order, at):
    path = export(book, tmp_path / "export.json")
    import_export(book, path, users=order[0])
    later = export(book, path, label="dog" if at == FIRST else "cat", at=at)
    import_export(book, later, users=order[1])
    assert labels(book) == {}, "one person's answer is that of two"
    assert {answer.who for answer in book.answers(7)} == {"ada@example.org"}
    assert len(book.answers(7)) == (1 if at == FIRST else 2)
    import_export(book, export(book, path, by=2, at=SECOND, label="cat" if at == SECOND else "dog"))
    assert labels(book) == {7: 0 if at == SECOND else 1}


@pytest.mark.parametrize("by", [{"id": 1, "email": ADA[1]}, None], ids=["with its e-mail", "gone"])
def test_an_account_is_known_however_the_export_writes_it(book, tmp_path, by):
    import_export(book, export(book, tmp_path / "a.json", by=1), users=ADA if by is None else None)
    report = import_export(book, export(book, tmp_path / "b.json", by=by))
    assert report.taken == 0
    assert [answer.who for answer in book.answers(7)] == [ADA[1]]


def test_answers_of_an_older_ledger_are_known_by_their_time(book, tmp_path):
    path = export(book, tmp_path / "a.json")
    import_export(book, path, users=ADA)
    book.ledger.set_meta(annotators={})  # it remembers nobody
    assert import_export(Book(tmp_path / "run"), path).taken == 0
    assert [answer.who for answer in Book(tmp_path / "run").answers(7)] == [ADA[1]]


def test_a_name_that_a_number_has_stays_and_two_of_one_time_are_two(book, tmp_path):
    path = export(book, tmp_path / "a.json", by={"id": 1, "email": ADA[1]}, more=[{"id": 2, "email": "b@x"}])
    assert import_export(book, path).taken == 2
    assert labels(book) == {7: 1}


def test_a_pull_and_an_export_of_the_same_project(book, tmp_path):
    with_server = FakeLabelStudio().start()
    try:
        studio = LabelStudio(with_server.url, TOKEN)
        studio.create_project("people", Form("choices", labels=tuple(PETS)))
        push_query(book, studio)
        _, page = with_server.call("GET", f"/api/tasks?project={studio.project}&page_size=100")
        number = next(task["id"] for task in page["tasks"] if task["data"]["lal_sample"] == "7")
        result = [{"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": ["dog"]}}]
        with_server.call("POST", f"/api/tasks/{number}/annotations/", {"result": result})
        assert pull_answers(book, studio).taken == 1
        exported = with_server.call("GET", f"/api/projects/{studio.project}/export?exportType=JSON")[1]
    finally:
        with_server.stop()
    path = tmp_path / "export.json"
    path.write_text(json.dumps(exported))
    assert import_export(book, path).taken == 0
    assert [answer.who for answer in book.answers(7)] == [EMAIL]
    assert labels(book) == {}


def test_who_labelled_may_be_said_where_one_person_did(book, tmp_path):
    path = export(book, tmp_path / "a.json")
    assert import_answers(book, path, who="Ada").beside == 1
    assert import_answers(book, path).known == 1
    assert [answer.who for answer in book.answers(7)] == ["Ada"]
    before = content(book)
    with pytest.raises(ValueError, match=r"answers that are on record as by Ada, and `who` says .* 'Ben'"):
        import_answers(book, path, who="Ben")
    two = export(book, path, more=[2])
    with pytest.raises(ValueError, match=r"has 2 annotators \(user 1, user 2\), and `who` says"):
        import_answers(book, two, who="Ada")
    with pytest.raises(ValueError, match="stands for labels that no person gave"):
        import_answers(book, two, who="dataset")
    path.unlink()
    assert content(book)[0] == before[0]


def test_answers_of_a_round_that_nobody_waits_for_are_told_of(book, tmp_path):
    report = import_export(book, export(book, tmp_path / "a.json", round_=3))
    assert (report.given, report.taken) == (0, 0)
    assert report.problems[0].startswith("round 3: 1 answered samples are not in that query now")


def test_who_skips_after_a_label_stands_beside_it_once(tmp_path):
    book = make(tmp_path / "run", names=PETS)
    import_export(book, export(book, tmp_path / "a.json"), users=ADA)
    tasks = json.loads((tmp_path / "a.json").read_text())
    tasks[0]["annotations"].append(
        {"id": 9, "completed_by": 2, "updated_at": SECOND, "was_cancelled": True, "result": []}
    )
    (tmp_path / "a.json").write_text(json.dumps(tasks))
    assert import_export(book, tmp_path / "a.json").taken == 1
    assert import_export(book, tmp_path / "a.json").taken == 0
    assert [(a.who, a.value) for a in book.answers(7)] == [(ADA[1], 1), ("user 2", NoLabel("skip"))]
    book.undo([7])
    assert import_export(book, tmp_path / "a.json").taken == 0, "what was taken back does not come again"


def test_what_is_refused_was_not_known_before(book, tmp_path):
    path = export(book, tmp_path / "a.json", label="horse", by=1, more=[2])
    for _ in range(2):
        found = import_answers(book, path)
        assert (found.new, found.beside, found.known, len(found.problems)) == (0, 0, 0, 2)
    good = export(book, tmp_path / "a.json", label="dog", by=1)
    assert [(found.beside, found.known) for found in (import_answers(book, good) for _ in range(2))] == [
        (1, 0), (0, 1),
    ]  # fmt: skip


def test_a_name_that_would_steer_a_terminal_is_written_out(book, tmp_path):
    path = export(book, tmp_path / "a.json", label="horse", by={"id": 4, "email": "a\x1b[2J\nb"})
    said = str(import_answers(book, path))
    assert "\x1b" not in said
    assert said.count("\n") == 1
    assert r"a\x1b[2J\nb" in said
