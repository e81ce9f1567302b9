"""Ctrl-C: whatever is trained, one message, and an exit code that is that of no failure."""

import signal

import pytest
import yaml

from lightning_al.cli import main
from lightning_al.ledger import Book
from tests.unit.cli.test_fit_rounds import CONFIG, PROJECT

SAID = "lightning-al: stopped by Ctrl-C; no label is lost, and the same command goes on.\n"


@pytest.fixture(autouse=True)
def _as_before():
    """Lightning ignores Ctrl-C from the first one on, and whoever runs tests in the background does too."""
    before = signal.getsignal(signal.SIGINT)
    again()
    yield
    signal.signal(signal.SIGINT, before)


def again():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def config(tmp_path):
    def config(where, **settings):
        path = tmp_path / "run.yaml"
        net = {"class_path": f"{PROJECT}.Net", "init_args": {"interrupted_in": where}}
        path.write_text(yaml.safe_dump({**CONFIG, "model": net, **settings}))
        return str(path)

    return config


@pytest.mark.parametrize(("where", "labeled"), [("training", 4), ("scoring", 4)])
def test_rounds_that_are_stopped_go_on(config, tmp_path, capsys, where, labeled):
    folder = str(tmp_path / "run")
    assert main(["fit-rounds", "--config", config(where), "--data.state_dir", folder]) == 130
    said = capsys.readouterr()
    assert (said.out, said.err.endswith(SAID)) == ("", True)
    assert said.err.count("Ctrl-C") == 1
    assert len(Book(folder).state.values) == labeled
    again()
    assert main(["fit-rounds", "--config", config(""), "--data.state_dir", folder]) == 0
    assert capsys.readouterr().out == "2 rounds are finished, the last on 7 labels.\n"


def test_so_does_a_comparison(config, tmp_path, capsys):
    more = {
        "active": None, "strategies": ["lightning_al.acquisition.Margin"], "seeds": 1, "query_size": 3,
        "workers": 0, "state_dir": str(tmp_path / "runs"),
    }  # fmt: skip
    given = {name: value for name, value in {**CONFIG, **more}.items() if value is not None}
    path = tmp_path / "compare.yaml"

    def compare(where):
        net = {"class_path": f"{PROJECT}.Net", "init_args": {"interrupted_in": where}}
        path.write_text(yaml.safe_dump({**given, "model": net}))
        return main(["compare", "--accept_changes", "--config", str(path)])

    assert compare("training") == 130
    said = capsys.readouterr()
    assert (said.out, said.err.endswith(SAID)) == ("", True)
    again()
    assert compare("") == 0


@pytest.mark.parametrize(("command", "said"), [("fit-rounds", SAID), ("compare", SAID), ("status", "")])
def test_also_outside_of_a_training(monkeypatch, capsys, command, said):
    def stop(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_al.cli._run", stop)
    assert main([command, "x"]) == 130
    assert capsys.readouterr().err == said


def test_what_exits_by_itself_was_not_interrupted(monkeypatch, capsys):
    def leave(arguments):
        raise SystemExit(1)

    monkeypatch.setattr("lightning_al.cli._run", leave)
    with pytest.raises(SystemExit, match="1"):
        main(["fit-rounds", "x"])
    assert capsys.readouterr().err == ""
