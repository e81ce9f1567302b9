"""Two processes, and one of them fails: both end, with the message; nothing is half done."""

import re

import pytest
from integration.small import queries

from distributed.launch import launch
from lightning_al import Ledger

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def caught(tmp_path_factory):
    ended = launch("failing.py", tmp_path_factory.mktemp("failing"), "caught", ranks=2)
    assert ended.status == 0, ended.said[-4000:]
    return ended


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    ended = launch("failing.py", tmp_path_factory.mktemp("late"), "late", ranks=2)
    assert ended.status == 0, ended.said[-4000:]
    return ended


BOTH = {
    "few_labels": "RuntimeError: There are 1 labelled samples for 2 devices",
    "oracle_fails": "ArithmeticError: the oracle cannot count",
    "not_writable": "LedgerError: the disk is full",
    "waiting": "AwaitingLabels: 12 samples wait for their labels",
}


SAMPLES = r"60 samples \(fingerprint {}:\w+\)"
GIVE = "All processes make one run: give every process the same."
ROWS = r"\(60, 3\) of type float32 \(rows \w+\)"
SAME = "Give every process the same vectors in the same order."
ORDER = "Give every process the same samples in the same order."
OTHER = {
    "data": f"The data set differs .*: rank 0 has {SAMPLES}, rank 1 has {SAMPLES}. {ORDER}".format(
        "items", "items"
    ),
    "length": rf"The data set differs .*: rank 0 has 60 samples \(.*, rank 1 has 61 samples \(.*{ORDER}",
    "ids": f"The data set differs .*: rank 0 has {SAMPLES}, rank 1 has {SAMPLES}. {ORDER}".format(
        "ids", "ids"
    ),
    "seed": f"`seed` differs between processes: rank 0 has 0, rank 1 has 1. {GIVE}",
    "initial": rf"`initial` differs .*: rank 0 has \[0, .*, 11\], rank 1 has \[0, .*, 12\]. {GIVE}",
    "steps": f"`steps_per_epoch` differs between processes: rank 0 has 3, rank 1 has 4. {GIVE}",
    "strategy": rf"The strategy differs .*: rank 0 has Margin\(.*, rank 1 has Entropy\(.*\). {GIVE}",
    "query_size": f"`query_size` differs between processes: rank 0 has 8, rank 1 has 9. {GIVE}",
    "augmented": f"The data set differs .*: rank 0 has {SAMPLES}, rank 1 has {SAMPLES}. {ORDER}".format(
        "items", "items"
    ),
    "embeddings": rf"`embeddings` differs .*: rank 0 has {ROWS}, rank 1 has {ROWS}. {SAME}",
    "embeddings of a stage": rf"`embeddings` differs .*: rank 0 has {ROWS}, rank 1 has {ROWS}. {SAME}",
    "rounds": f"`rounds` differs between processes: rank 0 has 1, rank 1 has 2. {GIVE}",
    "strategy of rounds": r"The strategy differs between processes: rank 0 has Margin\(",
    "labels": r"Rank 1 was given labels of samples \[\d+\], but rank 0, which alone writes .* rank 0 only.",
}


@pytest.mark.parametrize("name", OTHER)
def test_ranks_that_would_make_different_runs_all_end_before_the_training(caught, name):
    for rank in (0, 1):
        assert re.match(f"RuntimeError: {OTHER[name]}", caught.notes(rank)[f"other {name}"])
        assert caught.notes(rank).get(f"steps of {name}", 0) == 0
        assert (caught.folder / "other" / name).exists() == (name == "labels")


CANNOT = r"ArithmeticError: the strategy cannot count"
FEWER = r"ValueError: `Counts.select` returned 7 positions, 7 of them distinct; needed are 8 distinct ones."


@pytest.mark.parametrize(
    ("name", "failed", "strategy", "message"),
    [
        ("select before on 1", 1, "Counts", CANNOT),
        ("select before on 0", 0, "Counts", CANNOT),
        ("select after on 1", 1, "Counts", CANNOT),
        ("select fewer on 1", 1, "Counts", FEWER),
        ("select two on 1", 1, "TwoStage", CANNOT),
    ],
)
def test_a_selection_that_fails_on_one_rank_fails_on_all(caught, name, failed, strategy, message):
    """Whether the others wait for it in an exchange or have selected."""
    assert re.match(message, caught.notes(failed)[name])
    other = caught.notes(1 - failed)[name]
    assert re.match(f"RuntimeError: `{strategy}.select` failed on rank {failed}: {message}", other)


STEP = r"RuntimeError: `Counts.select` is out of step: rank 0 {}, while rank 1 {}. Every rank must exchange"
FLOATS = r"gathers rows of shape \(n, 2\) and type float32"


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("select once more on 1", "has ended", r"gathers rows of shape \(n\) and type float32"),
        ("select kind", FLOATS, "gathers an object"),
        ("select shape", FLOATS, r"gathers rows of shape \(n, 3\) and type float32"),
        ("select type", r"gathers rows of shape \(n\) and type float32", r"gathers .* and type float64"),
    ],
)
def test_ranks_that_exchange_other_things_or_more_often_are_told(caught, name, first, second):
    for rank in (0, 1):
        assert re.match(STEP.format(first, second), caught.notes(rank)[name])


def test_ranks_that_bring_more_than_is_expected_are_told(caught):
    for rank in (0, 1):
        expected = rf"RuntimeError: the ranks bring \[2, 3\] rows, where rank {rank} expects \[2, 2\]"
        assert re.match(expected, caught.notes(rank)["select counts"])


def test_ranks_that_choose_otherwise_are_told(caught):
    said = [caught.notes(rank)["select otherwise"] for rank in (0, 1)]
    found = re.match(
        r"RuntimeError: `Counts.select` chose otherwise on other ranks: rank 0 has 8 positions, "
        r"\[(\d+, \d+, \d+), ...\], rank 1 8 positions, \[(\d+, \d+, \d+), ...\]; needed are the same",
        said[0],
    )
    assert found.group(1) != found.group(2)
    assert said[0] == said[1]


def test_a_strategy_that_ends_its_process_ends_all(caught):
    assert caught.notes(1)["select exit"] == "SystemExit: the strategy gives up"
    failed = "RuntimeError: `Counts.select` failed on rank 1: SystemExit: the strategy gives up"
    assert caught.notes(0)["select exit"] == failed


KEPT = r"'embeddings' of shape \(n, {}\) and type {}"


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("names", KEPT.format(8, "float32") + r", 'more' of shape \(n, 8\) and type float32"),
        ("shape", KEPT.format(7, "float32")),
        ("type", KEPT.format(8, "float16")),
    ],
)
def test_summaries_that_differ_by_rank_end_all_with_both(caught, what, other):
    both = f"on rank 0 {KEPT.format(8, 'float32')}, on rank 1 {other}; needed are the same"
    for rank in (0, 1):
        assert re.match(f"RuntimeError: `summarize` .*: {both}", caught.notes(rank)[f"keeps {what}"])


@pytest.mark.parametrize(
    ("name", "what", "message"),
    [
        ("slow scoring", "Scoring", "ArithmeticError: the model cannot count"),
        ("slow selection", "`Late.select`", CANNOT),
    ],
)
def test_a_failure_is_known_to_those_that_take_longer_than_processes_wait(late, name, what, message):
    assert late.notes(1)[name] == message
    assert late.notes(0)[name] == f"RuntimeError: {what} failed on rank 1: {message}"
    assert f"\n{what} failed on rank 1: {message}\n" in f"\n{late.said}"


def test_samples_that_one_rank_cannot_read_end_all(caught):
    gone = r"FileNotFoundError: there is no image_\d+.png"
    assert re.match(
        f"RuntimeError: Comparing the processes failed on rank 1: {gone}", caught.notes(0)["other files"]
    )
    assert re.match(gone, caught.notes(1)["other files"])


@pytest.mark.parametrize("name", BOTH)
def test_what_rank_0_finds_wrong_every_rank_is_told(caught, name):
    for rank in (0, 1):
        assert re.match(BOTH[name], caught.notes(rank)[name])


@pytest.mark.parametrize(
    ("name", "failed", "message"),
    [
        ("nan_on_0", 0, r"ValueError: The logits of samples \[\d+, .*\] are NaN or infinite"),
        ("nan_on_1", 1, r"ValueError: The logits of samples \[\d+, .*\] are NaN or infinite"),
        ("exception_on_1", 1, "ArithmeticError: the model cannot count"),
        ("rehearsal_on_1", 1, "ArithmeticError: the model cannot count"),
        ("member_on_1", 1, "ArithmeticError: the model cannot count"),
        ("member_on_0", 0, "ArithmeticError: the model cannot count"),
        ("member_nan_on_1", 1, r"ValueError: The logits of samples \[\d+, .*\] are NaN or infinite"),
        ("maker_on_1", 1, "ArithmeticError: the function cannot count"),
        ("trained_member_on_0", 0, "ArithmeticError: the model cannot count"),
        ("passes_on_1", 1, "ArithmeticError: the model cannot count"),
        ("passes_on_0", 0, "ArithmeticError: the model cannot count"),
    ],
)
def test_what_goes_wrong_on_one_rank_while_scoring_ends_both_with_the_message(caught, name, failed, message):
    assert re.match(message, caught.notes(failed)[name])
    other = caught.notes(1 - failed)[name]
    assert re.match(f"RuntimeError: Scoring failed on rank {failed}: {message}", other)


def test_a_member_that_is_not_finite_in_the_rehearsal_on_one_rank_is_given_time(caught):
    assert [caught.notes(rank).get("member nan early") for rank in (0, 1)] == ["asked 8"] * 2
    assert not any("member_nan_early" in caught.notes(rank) for rank in (0, 1))


def test_a_model_without_dropout_is_refused_on_both_ranks_before_training(caught):
    for rank in (0, 1):
        assert re.match("ValueError: `MCDropout` needs a model that drops", caught.notes(rank)["no_dropout"])


def test_what_goes_wrong_in_the_rehearsal_ends_both_before_the_first_step(caught):
    assert [caught.notes(rank)["steps"] for rank in (0, 1)] == [0, 0]


@pytest.mark.parametrize(
    "folder",
    [
        "nan",
        "error",
        "early",
        "full",
        "few",
        "maker",
        "no",
        "member nan",
        "trained member",
        "passes BALD",
        "passes VoteEntropy",
        "select before 0",
        "select before 1",
        "select after 1",
        "select fewer 1",
        "select once more 1",
        "select two",
        *[f"select {what} 1" for what in ("exit", "otherwise", "kind", "shape", "type", "counts")],
        *[f"keeps {what}" for what in ("names", "shape", "type")],
    ],
)
def test_nothing_was_asked_and_the_ledger_verifies(caught, folder):
    assert queries(caught.folder / folder) == {}
    assert Ledger(caught.folder / folder / "ledger.sqlite3").verify() in (1, 12)


def test_an_error_on_rank_1_ends_the_script_with_the_message(tmp_path):
    ended = launch("failing.py", tmp_path, "nan")
    assert ended.status != 0
    assert "Scoring failed on rank 1: ValueError: The logits of samples" in ended.said
    assert queries(tmp_path / "nan") == {}


def test_a_strategy_that_fails_on_rank_1_ends_the_script_with_the_message(tmp_path):
    ended = launch("failing.py", tmp_path, "selection")
    assert ended.status != 0
    assert "`Counts.select` failed on rank 1: ArithmeticError: the strategy cannot count" in ended.said
    assert queries(tmp_path / "select before 1") == {}


def test_one_that_fails_on_rank_1_while_the_others_are_in_an_exchange_of_its_own_ends_too(tmp_path):
    ended = launch("failing.py", tmp_path, "own", ranks=2)
    assert ended.status != 0
    assert ended.seconds < 200, "a process group waits for half an hour unless it is told otherwise"
    assert "`Counts.select` failed on rank 1: IndexError: list index out of range" in ended.said
    assert queries(tmp_path / "select own 1") == {}


def test_waiting_for_people_ends_all_ranks_with_status_0(tmp_path):
    ended = launch("failing.py", tmp_path, "waiting")
    assert ended.status == 0, ended.said[-4000:]
    assert (tmp_path / "people" / "query_0.csv").exists()
    assert "12 samples wait for their labels" in ended.said
    assert "Traceback" not in ended.said
