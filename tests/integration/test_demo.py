"""The demo, run as a reader runs it, at a tiny size."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_al import Ledger

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"
STRATEGIES = ["Random", "Margin", "Entropy", "LeastConfidence", "HyperplaneDistance"]


def run_demo(folder, *options):
    return subprocess.run(
        [sys.executable, str(DEMO), "--out", str(folder), *options],
        cwd=folder.parent, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
        capture_output=True, text=True, encoding="utf-8", timeout=600,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder after a run over the remains of an earlier one, and what it said."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    leftover = folder / "state" / "Margin-0" / "leftover"
    leftover.mkdir(parents=True)
    (folder / "state" / "made_by_the_demo").touch()
    (folder / "mine.txt").write_text("kept")
    done = run_demo(folder, "--seeds", "1", "--rounds", "2")
    assert done.returncode == 0, done.stderr
    assert not leftover.exists()
    assert (folder / "mine.txt").read_text() == "kept"
    return folder, done


@pytest.fixture(scope="module")
def rows(finished):
    with (finished[0] / "rounds.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_has_every_round_of_every_run(rows):
    assert [(row["strategy"], row["seed"], row["round"], row["labeled"], row["asked"]) for row in rows] == [
        (strategy, "0", str(number), str(10 + 10 * number), "10" if number < 2 else "0")
        for strategy in STRATEGIES
        for number in range(3)
    ]
    assert all(0.1 < float(row["test_acc"]) < 1 for row in rows)


def test_strategies_of_a_seed_begin_with_the_same_set_and_weights(finished, rows):
    folder, _ = finished
    assert len({row["test_acc"] for row in rows if row["round"] == "0"}) == 1
    assert len({row["test_acc"] for row in rows if row["round"] == "2"}) > 1
    ledgers = [Ledger(folder / "state" / f"{name}-0" / "ledger.sqlite3") for name in STRATEGIES]
    initial = [[e.sample for _, e in ledger.events() if e.round == 0] for ledger in ledgers]
    asked = [[e.sample for _, e in ledger.events() if e.round == 1] for ledger in ledgers]
    assert all(other == initial[0] for other in initial[1:])
    assert len({tuple(samples) for samples in asked}) == len(STRATEGIES)


def test_first_line_tells_every_strategys_outcome(finished, rows):
    first = next(line for line in finished[1].stdout.splitlines() if line)
    assert first.startswith(
        "Labels to 90 % / 95 % test accuracy, median of 1 seed [seeds that never got there]:"
    )
    said = dict(re.findall(r"(\w+) (> 30 \[1\]|\d+ \[0\]) / ", first))
    assert list(said) == STRATEGIES
    for strategy, count in said.items():
        accuracy = [float(row["test_acc"]) for row in rows if row["strategy"] == strategy]
        reached = [10 * (r + 1) for r in range(2) if min(accuracy[r : r + 2]) >= 0.9]
        assert count == (f"{reached[0]} [0]" if reached else "> 30 [1]")


def test_terminal_shows_a_bar_the_paths_and_how_to_go_on_and_no_noise(finished):
    folder, done = finished
    assert "15/15" in done.stderr
    assert "5 of 5 runs done" in done.stderr
    for name in ("learning_curves.png", "class_balance.png", "rounds.csv"):
        assert str(folder / name) in done.stdout
    assert "fit_rounds(model" in done.stdout
    noise = "GPU|TPU|Trainer.fit|Restoring|Seed set|asked 10|UserWarning|FutureWarning|Traceback|LeafSpec"
    assert not re.search(noise, done.stdout + done.stderr)


def test_figures_are_drawn(finished):
    # Margin's blue: of its line, and paler of its bars.
    for name, blue in (("learning_curves.png", (0, 114, 178)), ("class_balance.png", (38, 135, 189))):
        with Image.open(finished[0] / name) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        assert pixels.shape[1] > 1500
        assert (abs(pixels - blue).max(axis=2) <= 3).sum() > 500, name


@pytest.fixture
def demo(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the demo sets it where it is not
    monkeypatch.syspath_prepend(str(DEMO.parent))
    import demo

    return demo


def test_lines_for_a_script_of_ones_own_run(finished, demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [line.removeprefix("    ") for line in demo.OWN_SCRIPT.splitlines() if line.startswith("    ")]
    assert all(line in finished[1].stdout for line in lines)
    script = "\n".join(lines)
    for long, short in (
        ("max_epochs=20", "max_epochs=2, logger=False, accelerator='cpu'"),
        ("rounds=11", "rounds=1"),
    ):
        assert long in script
        script = script.replace(long, short)
    monkeypatch.setattr(demo, "STEPS", 2)
    train_set, test_set = demo.split(0)
    names = {"train_set": train_set, "test_set": test_set, "model": demo.Digits()}
    exec(script, names)
    assert names["history"].column("labeled") == [10, 20]


def test_a_folder_that_is_not_the_demos_is_left_alone(demo, tmp_path):
    precious = tmp_path / "state" / "precious"
    precious.mkdir(parents=True)
    with pytest.raises(SystemExit, match="not made by this demo"):
        demo.fresh_folder(tmp_path)
    assert precious.exists()
