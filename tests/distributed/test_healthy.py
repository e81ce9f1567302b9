"""Two, three and four processes: the same queries, every sample scored once, the same state on all."""

import pytest
from integration.small import queries

from distributed.launch import launch
from distributed.scenes import STRATEGIES, frozen_queries, rounds, truth
from lightning_al import Ledger

pytestmark = pytest.mark.distributed
TIMES = ("train_s", "score_s", "select_s")


def untimed(rows):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    ended = launch("healthy.py", tmp_path_factory.mktemp("two"), "2", "everything")
    assert ended.status == 0, ended.said[-4000:]
    return ended


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    ended = launch("healthy.py", tmp_path_factory.mktemp("three"), "3", ranks=3)
    assert ended.status == 0, ended.said[-4000:]
    return ended


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    ended = launch("healthy.py", tmp_path_factory.mktemp("four"), "4", ranks=4)
    assert ended.status == 0, ended.said[-4000:]
    return ended


@pytest.fixture(scope="module")
def anew(tmp_path_factory):
    ended = launch("anew.py", tmp_path_factory.mktemp("anew"))
    assert ended.status == 0, ended.said[-4000:]
    return ended


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return frozen_queries(tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_weights_ask_the_same_on_1_2_3_and_4_processes(one, two, three, four, strategy):
    """Also of a pool of one block, where all ranks but one have no sample."""
    asked = one[strategy]
    assert len(set(asked["indices"])) == 20
    assert len(set(asked["few"])) == 5
    for ended, ranks in ((two, 2), (three, 3), (four, 4)):
        assert ended.notes(0)["world_size"] == ranks
        for rank in range(ranks):
            found = ended.notes(rank)["frozen"][strategy]
            for what in ("indices", "few"):
                assert found[what] == asked[what]
            for what in ("scores", "few_scores"):
                assert found[what] == pytest.approx(asked[what], abs=1e-6)


def test_what_is_kept_of_a_pool_in_a_file_gives_the_same_query(one, two, three, four):
    there = [name for name in one if name.endswith("_in_a_file")]
    assert len(there) == 7
    for found in (one, two.notes(1)["frozen"], three.notes(2)["frozen"], four.notes(3)["frozen"]):
        for name in there:
            assert found[name] == found[name.removesuffix("_in_a_file")]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 101])
def test_every_sample_is_scored_once_and_batch_norm_does_not_hang(two, size):
    ranks = [two.notes(rank)["scored"][str(size)] for rank in (0, 1)]
    assert sorted(ranks[0]["seen"] + ranks[1]["seen"]) == list(range(12, 12 + size))
    assert ranks[0]["asked"] == ranks[1]["asked"]
    assert len(ranks[0]["asked"]) == min(5, size)
    assert ranks[0]["digest"] == ranks[1]["digest"]
    if size == 101:
        assert min(len(r["seen"]) for r in ranks) > 40


def test_wrong_targets_of_an_unlabeled_set_train_on_the_ledgers(two):
    seen = {int(i): y for rank in (0, 1) for i, y in two.notes(rank)["seen"].items()}
    assert len(seen) == 28
    assert list(seen.values()) == truth(list(seen))
    assert two.notes(0)["wrong_digest"] == two.notes(1)["wrong_digest"]
    assert len(two.notes(1)["seen"]) < 28


def test_rounds_have_one_history_and_a_finished_run_asks_nothing_new(two):
    first, second = two.notes(0), two.notes(1)
    assert [row["labeled"] for row in first["rounds"]] == [12, 20, 28]
    assert untimed(first["rounds"]) == untimed(second["rounds"])
    assert first["again"] == first["rounds"]
    assert first["more"] == second["more"] == 4
    assert {r: len(q) for r, q in queries(two.folder / "rounds").items()} == {1: 8, 2: 8, 3: 8}


def test_an_oracle_that_answers_between_rounds_is_heard_by_all_ranks(two):
    assert two.notes(0)["sometimes"] == two.notes(1)["sometimes"] == [60, 68, 76]


def test_waiting_for_people_ends_the_rounds_of_all_ranks(two):
    assert [two.notes(rank)["people"] for rank in (0, 1)] == [1, 1]
    assert len((two.folder / "people" / "query_1.csv").read_text().splitlines()) == 1 + 8


def test_the_best_checkpoint_is_scored_on_all_ranks_and_the_last_weights_put_back(two):
    first, second = (two.notes(rank)["best"] for rank in (0, 1))
    assert first == second
    now, ended, scored, _ = first
    assert now == ended
    assert scored != ended


def test_all_ranks_stop_by_what_rank_0_logged_and_find_the_same_of_labels_and_predictions(two):
    first, second = two.notes(0)["stopped"], two.notes(1)["stopped"]
    assert untimed(first)[1:] == untimed(second)[1:]  # the first has an agreement that is not known yet
    assert [row["labeled"] for row in first] == [12, 20]
    assert [row["asked"] for row in first] == [8, 0]
    assert first[1]["stopped"] == "TargetMetric: mine is 20, of 20 to reach"
    assert 0 <= first[1]["stop_agreement"] < 1
    assert 0 < first[1]["balance_p"] <= 1
    assert len(list((two.folder / "stopped" / "stop_set").iterdir())) == 2


def test_ledgers_verify(two):
    ledgers = list(two.folder.rglob("ledger.sqlite3"))
    assert len(ledgers) == 1 + 5 + 8
    assert all(Ledger(path).verify() > 0 for path in ledgers)


@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_spawn"])
def test_strategies_that_start_processes_anew_ask_as_ddp_does(two, anew, strategy):
    ddp = queries(two.folder / "rounds")
    assert queries(anew.folder / strategy) == {1: ddp[1], 2: ddp[2]}
    rows = anew.notes(0)[strategy]
    assert [row["labeled"] for row in rows] == [12, 20, 28]
    assert [row["asked"] for row in rows] == [8, 8, 0]
    assert [row["score_s"] > 0 for row in rows] == [True, True, False]


def test_one_process_trains_and_asks_for_as_many(tmp_path, two):
    rows = rounds(tmp_path, test=True)
    assert [row["labeled"] for row in rows] == [row["labeled"] for row in two.notes(0)["rounds"]]


def test_a_committee_is_trained_asked_and_tested_by_all_ranks(two):
    first, second = (two.notes(rank)["committee"] for rank in (0, 1))
    assert [(row["labeled"], row["asked"]) for row in first] == [(12, 8), (20, 0)]
    assert untimed(first) == untimed(second)
    assert len(queries(two.folder / "committee")[1]) == 8
    assert len(list((two.folder / "committee" / "round_1").glob("member_*.pt"))) == 2


def test_sums_kept_of_one_block_at_a_time_give_the_same_query(one):
    assert one["committee_by_blocks"] == one["committee"]


def test_the_mean_of_many_passes_is_tested_by_all_ranks(two):
    first, second = (two.notes(rank)["tested"] for rank in (0, 1))
    assert first == second
    assert all(0 <= value <= 1 for value in first)


@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_spawn"])
def test_members_trained_in_processes_started_anew_ask_as_with_ddp(two, anew, strategy):
    folder = anew.folder / f"{strategy}_committee"
    assert queries(folder) == queries(two.folder / "committee")
    assert len(list((folder / "round_0").glob("member_*.pt"))) == 2


def test_a_committee_is_tested_as_with_ddp_in_processes_started_anew(two, anew):
    rows, ddp = anew.notes(0)["committee"], two.notes(0)["committee"]
    assert [row["asked"] for row in rows] == [8, 0]
    assert [row["test_acc"] for row in rows] == pytest.approx([row["test_acc"] for row in ddp])
