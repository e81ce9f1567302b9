"""`lightning-al push` and `pull`, against answers that were recorded from a real server."""

import pytest

from lightning_al.cli import main
from tests.label_studio.scenarios import chosen
from tests.label_studio.server import EMAIL, TOKEN
from tests.unit.exchange.runs import labels, make


@pytest.fixture
def book(tmp_path):
    return make(tmp_path / "run", names=["neg", "pos"], shown={n: {"text": f"text {n}"} for n in range(4)})


@pytest.fixture
def run(capsys):
    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert TOKEN not in said.out + said.err
        return code, said.out, said.err

    return run


def annotate(peer, project, sample, value):
    _, page = peer.call("GET", f"/api/tasks?project={project}&fields=all&page_size=100")
    (number,) = (t["id"] for t in page["tasks"] if t["data"]["lal_sample"] == sample)
    assert peer.call("POST", f"/api/tasks/{number}/annotations/", {"result": chosen(value)})[0] == 201


@pytest.mark.parametrize("by", ["variable", "file"])
def test_out_and_in(peer, book, run, tmp_path, monkeypatch, by):
    server = ["--url", peer.url]
    if by == "variable":
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    else:
        monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
        file = tmp_path / "token"
        file.touch(mode=0o600)
        file.write_text(f"{TOKEN}\n")
        server += ["--token-file", file]
    code, said, err = run("push", book.folder, *server, "--create", "my project")
    assert (code, err) == (0, "")
    project = said.split()[1]
    assert said == (
        f"Project {project} is made; from now on: --project {project}\n4 samples sent, 0 were there.\n"
    )
    server += ["--project", project]
    assert run("push", book.folder, *server)[1] == "0 samples sent, 4 were there.\n"
    annotate(peer, project, "7", "pos")
    assert run("pull", book.folder, *server)[1].startswith("1 answers taken over, 3 samples wait.")
    assert labels(book) == {7: 1}
    whose = [event.who for _, event in book.ledger.events() if event.kind == "labeled"]
    assert whose == [EMAIL]


def test_who_an_account_is_may_be_said(peer, book, run, tmp_path, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    book.name_annotators({"user 1": "before@example.org"})
    project = run("push", book.folder, "--url", peer.url, "--create", "my project")[1].split()[1]
    server = ["--url", peer.url, "--project", project]
    annotate(peer, project, "7", "pos")
    assert "give `users` (in the shell `--users FILE`)" in run("pull", book.folder, *server)[1]
    users = tmp_path / "users.json"
    users.write_text('{"1": "before@example.org"}')
    assert run("pull", book.folder, *server, "--users", users)[1].startswith("1 answers taken over")
    users.write_text('["Ada"]')
    code, _, err = run("pull", book.folder, *server, "--users", users)
    assert (code, labels(book)) == (1, {7: 1})
    assert "is another kind of JSON; needed is one object from the numbers of accounts to names" in err


def test_a_token_that_others_may_read_is_told_of(peer, book, run, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    _, _, err = run("push", book.folder, "--url", peer.url, "--create", "project", "--token-file", file)
    assert "others may read" in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "is given; needed is its number"),
        ([], "Give `--project 5`, in Python `project=5`; or make one, by `push --create TITLE`"),
        (["--url", ""], "Set LABEL_STUDIO_URL, or give `--url`"),
        (["--project", "5", "--create", "x"], "`--project` and `--create` are both given"),
        (["--token-file", "/nowhere"], "The token file /nowhere cannot be read"),
        (["--project", "5", "--url", "http://127.0.0.1:9"], "Needed is a Label Studio server"),
    ],
)
def test_what_is_refused_in_one_message(peer, book, run, monkeypatch, more, message):
    monkeypatch.setattr("lightning_al.exchange.label_studio.connection._PAUSES", ())
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    code, out, err = run("push", book.folder, "--url", peer.url, *more)
    assert (code, out) == (1, "")
    assert err.startswith("lightning-al: error: ")
    assert message in err


def test_a_token_is_never_an_argument(book, capsys):
    with pytest.raises(SystemExit) as end:
        main(["pull", str(book.folder), "--project", "5", "--token", TOKEN])
    assert end.value.code == 2
