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


@pytest.mark.parametrize("rule", [two_agree, None], ids=["a rule", "newest"])
@pytest.mark.parametrize(
    ("by", "users"),
    [(1, {1: "Ada L."}), (1, ADA), ({"id": 1, "email": ADA[1]}, None)],
    ids=["another name", "an address", "an address in the file"],
)
def test_an_account_that_is_named_twice_is_one_annotator(tmp_path, rule, by, users):
    make(tmp_path / "run", names=PETS)
    book = Book(tmp_path / "run", **({} if rule is None else {"resolve": rule}))
    first, again = export(book, tmp_path / "a.json"), export(book, tmp_path / "b.json", by=by)
    import_export(book, first, users={1: "Ada"})
    report = import_export(book, again, users=users)
    assert (report.taken, report.known, report.refused) == (0, 1, [])
    assert [answer.who for answer in book.answers(7)] == ["Ada"]
    assert labels(book) == ({} if rule else {7: 1})
    notes = (
        [] if users is None else [f"account 1 is 'Ada' on record, and stays so; `users` says {users[1]!r}"]
    )
    assert report.notes == notes


def test_two_addresses_of_one_number_are_refused_by_name(book, tmp_path):
    """As accounts of two servers are: their answers are neither one person's nor told apart later."""
    import_export(book, export(book, tmp_path / "a.json", by={"id": 1, "email": ADA[1]}))
    bob = {"id": 1, "email": "bob@example.org"}
    path = export(book, tmp_path / "b.json", by=bob, label="cat", at=SECOND)
    before = content(book)
    report = import_export(book, path)
    assert (report.taken, content(book)[0]) == (0, before[0])
    assert "account 1 is 'ada@example.org' on record and 'bob@example.org' here" in report.refused[0]
    assert import_export(book, path, users=ADA).taken == 1, "whoever says that they are one is believed"
    assert {answer.who for answer in book.answers(7)} == {ADA[1]}


def test_two_names_of_one_account_in_a_file_are_one(book, tmp_path):
    path = export(book, tmp_path / "a.json", by={"id": 1, "email": ADA[1]}, more=[{"id": 1, "email": "Ada"}])
    assert import_export(book, path).refused == []
    assert len(book.answers(7)) == 1


def test_all_users_are_recorded_also_those_who_do_not_answer_this_time(tmp_path):
    book = make(tmp_path / "run", names=PETS)
    import_export(book, export(book, tmp_path / "a.json"))
    import_export(book, export(book, tmp_path / "b.json", by=3), users={1: "Ada", 3: "Cem"})
    assert book.annotators == {"user 1": "Ada", "user 3": "Cem"}
    (tmp_path / "c.csv").write_text("index,label,who\n7,cat,Ada\n")
    with pytest.raises(ValueError, match=r"sample 7 is labelled .* already"):
        import_answers(book, tmp_path / "c.csv")
    with pytest.raises(ValueError, match=r"`users` cannot be used, for account 4: .*no person gave"):
        import_export(book, tmp_path / "b.json", users={4: "dataset"})


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


def test_outer_spaces_of_a_name_make_no_other_person(tmp_path):
    book = make(tmp_path / "run", names=PETS)
    path = export(book, tmp_path / "a.json")
    import_answers(book, path, who="Ada ")
    assert book.state.who == {7: "Ada"}
    assert import_answers(book, path, users={1: " Ada"}).known == 1
    assert import_answers(book, path, who="Ada").known == 1


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


@pytest.mark.parametrize("label", ["dog", None], ids=["label", "skip"])
def test_what_was_taken_back_comes_again_by_overwrite_alone(tmp_path, label):
    book = make(tmp_path / "run", names=PETS)
    path = export(book, tmp_path / "a.json", label=label)
    import_answers(book, path)
    book.undo([7])
    found = import_answers(book, path)
    assert (found.new + found.skipped, found.known, found.taken_back) == (0, 0, 1)
    assert "1 taken back here before, which only `overwrite` brings back" in str(found)
    assert "1 were taken back here before" in str(import_export(book, path))
    found = import_answers(book, path, overwrite=True)
    assert (found.new + found.skipped, found.known, found.taken_back) == (1, 0, 0)
    found = import_answers(book, path)
    assert (found.known, found.taken_back) == (1, 0), "it stands again"


def test_an_answer_that_stands_was_not_taken_back(book, tmp_path):
    import_export(book, export(book, tmp_path / "a.json"), users=ADA)
    both = export(book, tmp_path / "b.json", more=[2])
    import_export(book, both)
    book.undo([7])
    report = import_export(book, both)
    assert (report.taken, report.known, report.taken_back) == (0, 1, 1)
    assert import_export(book, both, overwrite=True).taken == 1
    assert labels(book) == {7: 1}


def test_a_label_whose_annotation_is_gone_is_a_note_with_advice_for_everyone(tmp_path):
    book = make(tmp_path / "run", names=PETS)
    tasks = json.loads(export(book, tmp_path / "a.json").read_text())
    import_export(book, tmp_path / "a.json")
    tasks[0]["annotations"] = []
    (tmp_path / "b.json").write_text(json.dumps(tasks))
    found = import_answers(book, tmp_path / "b.json")
    assert (found.problems, len(found.notes)) == ([], 1)
    assert "not taken over" not in str(found)
    assert "If it is to go: `undo`, or in Python `unlabel`." in str(found)
    report = import_export(book, tmp_path / "b.json")
    assert str(report).startswith(
        "0 answers taken over, 3 samples wait. To look at:\n  sample 7: the annotation"
    )


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
