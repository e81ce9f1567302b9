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


BOTH = {
    "other_data": r"RuntimeError: The data set differs between processes: rank 0 has .* Give every process",
    "few_labels": "RuntimeError: There are 1 labelled samples for 2 devices",
    "oracle_fails": "ArithmeticError: the oracle cannot count",
    "not_writable": "LedgerError: the disk is full",
    "waiting": "AwaitingLabels: 12 samples wait for their labels",
}


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


@pytest.mark.parametrize("folder", ["nan", "error", "early", "full", "few", "maker", "no", "member nan"])
def test_nothing_was_asked_and_the_ledger_verifies(caught, folder):
    assert queries(caught.folder / folder) == {}
    assert Ledger(caught.folder / folder / "ledger.sqlite3").verify() in (1, 12)


def test_an_error_on_rank_1_ends_the_script_with_the_message(tmp_path):
    ended = launch("failing.py", tmp_path, "nan", limit=180)
    assert ended.status != 0
    assert "Scoring failed on rank 1: ValueError: The logits of samples" in ended.said
    assert queries(tmp_path / "nan") == {}


def test_a_strategy_that_fails_on_rank_1_ends_the_script_with_the_message(tmp_path):
    ended = launch("failing.py", tmp_path, "selection", limit=180)
    assert ended.status != 0
    assert "the strategy cannot count" in ended.said
    assert queries(tmp_path / "broken") == {}


def test_waiting_for_people_ends_all_ranks_with_status_0(tmp_path):
    ended = launch("failing.py", tmp_path, "waiting", limit=180)
    assert ended.status == 0, ended.said[-4000:]
    assert (tmp_path / "people" / "query_0.csv").exists()
    assert "12 samples wait for their labels" in ended.said
    assert "Traceback" not in ended.said
