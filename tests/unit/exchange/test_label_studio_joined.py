"""A ledger and a project, against answers that were recorded from a real server."""

import pytest

from lightning_al.exchange.label_studio import (
    LabelStudioError,
    pull_answers,
    read_export,
)
from lightning_al.ledger import LedgerError
from tests.label_studio.joined import Joined, events
from tests.label_studio.server import TOKEN
from tests.unit.exchange.fake_label_studio import FakeLabelStudio


@pytest.fixture
def peer():
    fake = FakeLabelStudio().start()
    yield fake
    fake.stop()


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
        assert "sample 5 is labelled 0 already, not pos" in report.problems[0]
        assert pull_answers(data.book, studio, overwrite=True).taken == 1


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
