"""The code on the page about Label Studio is run, against answers that were recorded from a real server."""

import doctest
import re
from pathlib import Path

import pytest

from lightning_al.ledger import Event, Ledger
from tests.label_studio.scenarios import chosen
from tests.label_studio.server import TOKEN
from tests.unit.exchange.fake_label_studio import FakeLabelStudio

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PAGE = Path(__file__).parents[3] / "docs" / "label_studio.md"


@pytest.fixture
def fake():
    fake = FakeLabelStudio().start()
    yield fake
    fake.stop()


def answer_everything(fake):
    for number, answer in zip(fake.tasks, ["good", "bad", "other"], strict=False):
        fake.call("POST", f"/api/tasks/{number}/annotations/", {"result": chosen(answer)})


def test_the_code_of_the_page_runs_and_prints_what_it_shows(fake, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABEL_STUDIO_URL", fake.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    (tmp_path / "runs" / "people").mkdir(parents=True)
    meta = {"size": 9, "class_names": ["bad", "good"], "label_kind": "class"}
    asked = [Event("asked", index, round=0, rank=rank) for rank, index in enumerate([4, 2, 7])]
    Ledger(tmp_path / "runs" / "people" / "ledger.sqlite3").create(meta, asked)
    (tmp_path / "project-1.json").write_text("[]")
    fences = [
        fence for fence in FENCE.finditer(PAGE.read_text(encoding="utf-8")) if fence[1] in ("py", "text")
    ]
    assert [fence[1] for fence in fences] == ["py", "text"] * 3
    names = {}
    for code, shown in zip(fences[::2], fences[1::2], strict=True):
        exec(compile(code[2], str(PAGE), "exec"), names)
        said = capsys.readouterr().out
        assert doctest.OutputChecker().check_output(shown[2], said, OPTIONS), said
        if not re.search("annotation", said):
            answer_everything(fake)
