"""A ledger and a project, against answers that were recorded from a real server."""

import pytest

from lightning_al.exchange.label_studio import (
    Form,
    LabelStudioError,
    export_tasks,
    form_for,
    pull_answers,
    read_export,
)
from lightning_al.ledger import Book, Event, Ledger, LedgerError
from tests.label_studio.joined import Joined, events
from tests.label_studio.server import TOKEN


@pytest.fixture
def second(peer):
    return peer.second_token()


class TestAgainstRecordedAnswers(Joined):
    def test_no_token_gets_into_the_state_directory(self, peer, data, studio):
        self.annotate(peer, studio, 5, "pos")
        self.annotate(peer, studio, 7, "other")
        pull_answers(data.book, studio)
        for file in data.state_dir.rglob("*"):
            assert file.is_dir() or TOKEN.encode() not in file.read_bytes()

    def test_a_pull_that_breaks_takes_nothing_over(self, peer, data, studio, monkeypatch):
        monkeypatch.setattr("lightning_al.exchange.label_studio.project._PAGE", 1)
        monkeypatch.setattr("lightning_al.exchange.label_studio.connection._PAUSES", (0, 0))
        for index in (7, 5, 9):
            self.annotate(peer, studio, index, "pos")
        peer.fail("GET", r"/api/tasks\?", "pass")
        peer.fail("GET", r"/api/tasks\?", "break before", times=3)
        with pytest.raises(LabelStudioError):
            pull_answers(data.book, studio)
        assert events(data.book, 7) == []
        assert pull_answers(data.book, studio).taken == 3

    def test_a_ledger_that_a_run_holds_takes_nothing_over(self, peer, data, studio, make, monkeypatch):
        self.annotate(peer, studio, 5, "pos")
        other = make()
        other.book.attach()
        monkeypatch.setattr("lightning_al.ledger.ledger.may_live", lambda *owner: True)
        data.book.ledger.claim()
        try:
            with pytest.raises(LedgerError):
                pull_answers(other.book, studio)
        finally:
            data.book.ledger.release()
        assert pull_answers(other.book, studio).taken == 1

    def test_answers_to_what_the_data_set_labelled_are_told_of(self, peer, data, studio):
        self.annotate(peer, studio, 5, "pos")
        data.label([5], ["neg"], who="oracle")
        report = pull_answers(data.book, studio)
        assert report.taken == 0
        assert "sample 5 is labelled neg already, not pos" in report.problems[0]
        assert pull_answers(data.book, studio, overwrite=True).taken == 1


def test_a_picture_that_lies_here_goes_into_no_file(tmp_path):
    asked = [Event("asked", 4, round=0, rank=0)]
    meta = {"size": 9, "class_names": ["a", "b"], "label_kind": "class"}
    Ledger(tmp_path / "ledger.sqlite3").create(meta, asked, shown={0: {"image": "a.png"}})
    book = Book(tmp_path)
    with pytest.raises(ValueError, match=r"Sample 4 shows a\.png; needed in a file is an address"):
        export_tasks(book, tmp_path / "tasks.json", form_for(book))
    assert not (tmp_path / "tasks.json").exists()


@pytest.mark.parametrize(
    ("meta", "form"),
    [
        ({"label_kind": "class", "class_names": ["a", "b"]}, Form("choices", labels=("a", "b"))),
        ({"label_kind": "text", "class_names": ["a", "b"]}, Form("choices", labels=("a", "b"))),
        ({"label_kind": "number"}, Form("number")),
        ({"label_kind": "text"}, Form("text")),
    ],
)
def test_a_new_project_asks_for_what_a_label_is(tmp_path, meta, form):
    Ledger(tmp_path / "ledger.sqlite3").create({"size": 9} | meta, [])
    assert form_for(Book(tmp_path)) == form


@pytest.mark.parametrize("kind", ["class", "array", "json", None])
def test_what_cannot_be_asked_for_is_said(tmp_path, kind):
    Ledger(tmp_path / "ledger.sqlite3").create({"size": 9, "label_kind": kind}, [])
    with pytest.raises(ValueError, match="needed are classes, numbers or text to ask for"):
        form_for(Book(tmp_path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[1]", "is no list of tasks"),
        ('[{"id": 1, "label": "pos"}]', "not JSON-MIN or CSV"),
    ],
)
def test_a_file_that_is_no_export_is_refused(tmp_path, text, said):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_export(tmp_path / "file.json")
    with pytest.raises(ValueError, match="cannot be read"):
        read_export(tmp_path / "none.json")
