"""Every example, run from first line to last at a tiny size; runs go side by side, one thread each."""

import importlib
import math
import re
from pathlib import Path

import pytest
import torch

from .scripts import EXAMPLES, finish, published_files, rows, run, side_by_side, start, started, table, uses


def read_until(process, text):
    """What the process says up to `text`, a character at a time: prompts end without a newline."""
    said = ""
    while not said.endswith(text):
        character = process.stdout.read(1)
        assert character, f"ended before {text!r}:\n{said}"
        said += character
    return said


DROP_IN = ("--budget", "16", "--query-size", "3", "--epochs", "2")
QUERIES = "SELECT round, rank, sample, score FROM events WHERE round > 0 AND kind = 'asked' ORDER BY seq"


def drop_in_killed_after_a_query(folder):
    process = start("drop_in", folder, *DROP_IN)
    read_until(process, "round 1: asked 3")
    process.end()
    return rows(folder, "SELECT count(*) FROM state WHERE status = 'labeled'")[0][0], run(
        "drop_in", folder, *DROP_IN
    )


YOURSELF = ("--initial", "3", "--query-size", "2", "--budget", "4", "--epochs", "1")
PROMPT = "q: stop) "
TYPED = "SELECT kind, sample, value, who FROM events WHERE kind <> 'asked' ORDER BY seq"


def label_yourself_over_three_days(folder):
    """Two answers and the power fails; nonsense, an answer and q; the rest."""
    days = []
    process = start("label_yourself", folder, *YOURSELF)
    for answer in ("7\n", "\n"):
        days.append(read_until(process, PROMPT))
        process.stdin.write(answer)
        process.stdin.flush()
    read_until(process, PROMPT)
    on_disk = rows(folder, TYPED)
    process.end()
    second = finish(start("label_yourself", folder, *YOURSELF), "x\n1\n4\nq\n")
    between = rows(folder, TYPED)
    third = finish(start("label_yourself", folder, *YOURSELF), "0\n")
    return days, on_disk, second, between, third, rows(folder, TYPED)


BAYESIAN = ("--rounds", "1", "--steps", "4", "--passes", "5")


def bayesian_mnist_on_files(folder):
    home = published_files(folder, "mnist")
    return run("bayesian_mnist", folder, *BAYESIAN, "--data-root", home, "--strategy", "BALD")


LEARNING_LOSS = ("--rounds", "1", "--initial", "20", "--steps", "2")


def learning_loss_on_files(folder):
    home = published_files(folder, "fashion_mnist")
    return run("learning_loss", folder, *LEARNING_LOSS, "--data-root", home, "--strategy", "Random")


COMMITTEE = ("--rounds", "1", "--query-size", "4", "--epochs", "2")


def maps_of_a_small_committee(folder):
    """It keeps no state: there is a picture instead."""
    small = ["--picture", str(folder) + ".png", "--members", "3", "--steps", "40", "--side", "19"]
    return finish(started("uncertainty_maps", folder, *small))


def queries_in_pictures(folder):
    """Nothing of it stays but two pictures."""
    pictures = ["--plane", str(folder) + "_plane.png", "--digits", str(folder) + "_digits.png"]
    options = ["--epochs", "1", *pictures]
    return finish(started("diversity", folder, *options))


SIMULATION = ("--rounds", "2", "--query-size", "4", "--epochs", "1")
JOBS = {
    "yourself": label_yourself_over_three_days,
    "killed": drop_in_killed_after_a_query,
    "undisturbed": lambda folder: run("drop_in", folder, *DROP_IN),
    "custom": lambda folder: run("custom_acquisition", folder, *SIMULATION, "--temperature", "3"),
    "existing": lambda folder: run("existing_datamodule", folder, *SIMULATION),
    "svm": lambda folder: run("svm_head", folder, *SIMULATION),
    "bayesian": lambda folder: run("bayesian_mnist", folder, *BAYESIAN),
    "files": bayesian_mnist_on_files,
    "structures": lambda folder: run("committee", folder, *COMMITTEE),
    "bootstrap": lambda folder: run("committee", folder, *COMMITTEE, "--size", "2", "--bootstrap"),
    "losses": lambda folder: run("learning_loss", folder, *LEARNING_LOSS),
    "losses_of_files": learning_loss_on_files,
    "maps": maps_of_a_small_committee,
    "diversity": queries_in_pictures,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, request):
    """All examples at once, each in a folder of its own: futures, and where their ledgers are."""
    with side_by_side(JOBS, tmp_path_factory.mktemp("examples"), request) as found:
        yield found


@uses("undisturbed")
def test_drop_in_spends_its_budget_and_trains_on_every_label(runs):
    said, folder = runs("undisturbed")
    assert re.findall(r"^(\d+) labels: test accuracy 0\.\d+$", said, re.MULTILINE) == ["10", "13", "16"]
    assert "round 2: asked 0, 16 labelled of budget 16; the budget is spent" in said
    assert [(number, rank) for number, rank, _, _ in rows(folder, QUERIES)] == [
        (r, k) for r in (1, 2) for k in range(3)
    ]


@uses("undisturbed", "killed")
def test_drop_in_killed_and_started_again_asks_what_an_undisturbed_run_asks(runs):
    _, undisturbed = runs("undisturbed")
    (labeled, said), killed = runs("killed")
    assert labeled == 16
    assert "resuming round 2, 16 labelled" in said
    assert re.findall(r"^(\d+) labels: ", said, re.MULTILINE) == ["16"]
    assert rows(killed, QUERIES) == rows(undisturbed, QUERIES)


@uses("yourself")
def test_what_was_typed_is_on_disk_before_the_next_digit_is_asked_for(runs):
    (days, on_disk, *_), folder = runs("yourself")
    assert [said.count("[1/3]") + 2 * said.count("[2/3]") for said in days] == [1, 2]
    first, second = [index for (index,) in rows(folder, "SELECT sample FROM events ORDER BY seq LIMIT 2")]
    assert on_disk == [("labeled", first, "7", "you"), ("ignored", second, None, "you")]


@uses("yourself")
def test_labelling_goes_on_with_the_digit_at_which_it_stopped(runs):
    (_, on_disk, second, between, third, after), folder = runs("yourself")
    asked = [
        index for (index,) in rows(folder, "SELECT sample FROM events WHERE kind = 'asked' ORDER BY seq")
    ]
    assert second.count("[1/1]") == 2, "nonsense is asked again; what was answered before is not"
    assert between == [*on_disk, ("labeled", asked[2], "1", "you"), ("labeled", asked[3], "4", "you")]
    assert "Your labels are safe" in second
    assert third.count(PROMPT) == 1
    assert after == [*between, ("labeled", asked[4], "0", "you")]
    assert "the budget is spent" in third


@uses("yourself")
def test_a_digit_is_drawn_eight_lines_high_and_sixteen_columns_wide(runs):
    (days, *_), _ = runs("yourself")
    drawn = days[0].rsplit("[1/3]", 1)[0].rstrip("\n").split("\n")[-8:]
    assert {len(line) for line in drawn} == {16}
    assert set("".join(drawn)) <= set(" ░▒▓█")
    assert "█" in "".join(drawn)


@uses("custom")
def test_a_strategy_of_ones_own_asks_by_its_name_and_parameters(runs):
    said, folder = runs("custom")
    assert table(said) == [(0, 10, 4), (1, 14, 4), (2, 18, 0)]
    asked = rows(folder, "SELECT DISTINCT strategy FROM events WHERE kind = 'asked'")
    assert asked == [("Tempered(temperature=3.0)",)]
    assert (folder / "history.csv").read_text().count("\n") == 4


@uses("existing")
def test_an_existing_datamodule_is_taken_over_with_its_test_loader(runs):
    said, folder = runs("existing")
    assert table(said) == [(0, 10, 4), (1, 14, 4), (2, 18, 0)]
    assert "test_acc" in (folder / "history.csv").read_text()


@uses("svm")
def test_the_svm_head_is_asked_by_its_distance_to_a_boundary(runs):
    said, folder = runs("svm")
    assert table(said) == [(0, 10, 4), (1, 14, 4), (2, 18, 0)]
    scores = rows(folder, "SELECT score FROM events WHERE kind = 'asked' ORDER BY seq")
    assert all(score <= 0 for (score,) in scores)
    # Of a query, the nearest to a boundary comes first.
    assert scores[:4] == sorted(scores[:4], reverse=True)
    low, high = map(float, re.search(r"when asked: ([\d.]+) to ([\d.]+)", said).groups())
    assert 0 <= low < high


@uses("bayesian")
def test_bayesian_mnist_runs_on_small_digits_where_there_is_no_mnist(runs):
    said, folder = runs("bayesian")
    assert table(said) == [(0, 20, 10), (1, 30, 0)]
    asked = rows(folder, "SELECT DISTINCT strategy FROM events WHERE kind = 'asked' AND round > 0")
    assert len(asked) == 1
    assert "VariationRatio" in asked[0][0]
    assert "num_samples=5" in asked[0][0]


@uses("files")
def test_bayesian_mnist_reads_the_published_files_and_begins_with_two_of_every_digit(runs):
    said, folder = runs("files")
    assert table(said) == [(0, 20, 10), (1, 30, 0)]
    initial = rows(folder, "SELECT sample FROM events WHERE kind = 'labeled' AND round = 0")
    # Image i shows the digit i % 10.
    assert sorted(index % 10 for (index,) in initial) == sorted([*range(10)] * 2)
    asked = rows(
        folder, "SELECT DISTINCT strategy, score >= 0 FROM events WHERE kind = 'asked' AND round > 0"
    )
    assert [(strategy[:4], informative) for strategy, informative in asked] == [("BALD", 1)]


def committee_table(said):
    found = re.findall(r"^ *(\d+) +(\d+) +(\d+) +([\d.]+) +([\d.]+)$", said, flags=re.MULTILINE)
    return [(int(a), int(b), int(c), float(d), float(e)) for a, b, c, d, e in found]


@uses("structures")
def test_a_committee_of_three_structures_is_tested_by_the_mean_of_the_members_it_left(runs, monkeypatch):
    said, folder = runs("structures")
    table = committee_table(said)
    assert [row[:3] for row in table] == [(0, 20, 4), (1, 24, 0)]
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example = importlib.import_module("committee")
    x, y = example.load_digits(return_X_y=True)
    x, y = torch.tensor(x[1297:], dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(y[1297:])
    said_by = []
    for place, make in enumerate((example.linear, example.convolutional, example.perceptron)):
        module = make(0)
        module.load_state_dict(torch.load(folder / "round_1" / f"member_{place}.pt")["state_dict"])
        said_by.append(module(x).softmax(1))
    correct = [(probs.argmax(1) == y).float().mean().item() for probs in (sum(said_by), said_by[-1])]
    assert table[1][3:] == pytest.approx(correct, abs=2e-3)


@uses("structures")
def test_a_committee_says_what_it_asked_for_and_where_its_weights_are(runs):
    said, folder = runs("structures")
    first, score = rows(folder, "SELECT sample, score FROM events WHERE round = 1 AND kind = 'asked'")[0]
    assert f"round 1, most wanted: sample {first}, a " in said
    assert 0 < score <= math.log(3)
    assert all(f"weights: {folder / 'round_1' / f'member_{place}.pt'}" in said for place in range(3))


@uses("bootstrap")
def test_a_committee_of_one_structure_on_drawn_labels_asks_by_its_name(runs):
    said, folder = runs("bootstrap")
    assert [row[:3] for row in committee_table(said)] == [(0, 20, 4), (1, 24, 0)]
    asked = rows(folder, "SELECT DISTINCT strategy FROM events WHERE kind = 'asked' AND round > 0")
    assert len(asked) == 1
    assert "posterior=Committee(size=2, bootstrap=True)" in asked[0][0]


@uses("losses", "losses_of_files")
def test_learning_loss_asks_by_predicted_losses_and_tells_how_they_are_ranked(runs):
    for name, strategy in (("losses", "LearningLoss()"), ("losses_of_files", "Random()")):
        said, folder = runs(name)
        table = re.findall(r"^ *(\d+) +(\d+) +(\d+) +([\d.]+) +([\d.]+)$", said, flags=re.MULTILINE)
        assert [tuple(map(int, row[:3])) for row in table] == [(0, 20, 20), (1, 40, 0)]
        assert all(0 < float(ranked) < 1 for *_, ranked in table)
        asked = rows(folder, "SELECT DISTINCT strategy FROM events WHERE kind = 'asked' AND round > 0")
        assert asked == [(strategy,)]
        scores = rows(folder, "SELECT score FROM events WHERE round = 1 AND kind = 'asked' ORDER BY rank")
        if name == "losses":
            assert [score for (score,) in scores] == sorted((score for (score,) in scores), reverse=True)


@uses("maps")
def test_the_maps_split_the_entropy_into_its_two_parts_and_are_drawn(runs):
    said, folder = runs("maps")
    places = re.findall(
        r"^(\w+) {'[^']*': ([\d.]+), '[^']*': ([\d.]+), '[^']*': ([\d.]+)}$", said, re.MULTILINE
    )
    assert [name for name, *_ in places] == ["overlap", "gap", "cluster"]
    for _, total, information, rest in places:
        assert float(total) == pytest.approx(float(information) + float(rest), abs=2e-3)
    # Even 40 steps tell the cluster from the overlap.
    assert float(places[0][1]) > 0.3 > float(places[2][1])
    assert folder.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@uses("diversity")
def test_diverse_queries_hold_fewer_copies_than_the_highest_scores(runs):
    said, folder = runs("diversity")
    differ = {
        name: int(count) for name, count in re.findall(r"^([\w, ]+): (\d+) of 60 images differ$", said, re.M)
    }
    assert set(differ) == {"Random", "Margin", "CoreSet", "Margin, then CoreSet", "DiverseMiniBatch", "BADGE"}
    assert all(differ[name] > differ["Margin"] for name in differ.keys() - {"Margin"})
    for picture in ("plane", "digits"):
        assert Path(f"{folder}_{picture}.png").stat().st_size > 20_000
