"""Processes that hold a part of the module each: the same queries and weights as one process has."""

import re
import warnings

import pytest
import torch

from distributed import sharded
from distributed.launch import TESTS, launch, run_anew

OLD = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6)
pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(OLD, reason="`fully_shard` is not public, and for GPUs, before torch 2.6"),
]
#: Places of the parameters among the weights that are noted, and of the statistics of BatchNorm.
PARAMETERS, STATISTICS = (0, 1, 2, 5, 6, 7), (3, 4)


def ended(folder, *arguments, ranks=2):
    found = launch("sharded.py", folder, *arguments, ranks=ranks)
    assert found.status == 0, found.said[-4000:]
    return found


@pytest.fixture(scope="module", params=[2, 3])
def same(request, tmp_path_factory):
    world = request.param
    return world, ended(tmp_path_factory.mktemp("same"), "same", str(world), ranks=world)


@pytest.fixture(scope="module")
def queries_of_one(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*passes run one after the other, since")
        return sharded.queries(tmp_path_factory.mktemp("one"), 1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return ended(tmp_path_factory.mktemp("weights"), "weights", "2")


@pytest.fixture(scope="module")
def weights_of_one(tmp_path_factory):
    return sharded.restarts(tmp_path_factory.mktemp("one"), 1)


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    return ended(tmp_path_factory.mktemp("refused"), "refused", "2")


@pytest.mark.parametrize("name", sharded.SAME)
def test_the_same_weights_ask_the_same_as_on_one_process_and_are_left_as_they_were(
    same, queries_of_one, name
):
    world, several = same
    one = queries_of_one[name]
    assert one["left"]
    for rank in range(world):
        found = several.notes(rank)["queries"][name]
        assert found["indices"] == one["indices"]
        assert found["scores"] == pytest.approx(one["scores"], abs=1e-5)
        assert found["left"]


@pytest.mark.parametrize("size", ["0", "1", "W-1", "W", "W+1", "17"])
def test_every_sample_is_scored_once(same, size):
    world, several = same
    size = {"W-1": world - 1, "W": world, "W+1": world + 1}.get(size) or int(size)
    ranks = [several.notes(rank)["once"][str(size)] for rank in range(world)]
    rehearsed = min(size, world * (2 if size == 17 else 1))
    found = [number for rank in ranks for number in rank["seen"]]
    assert sorted(found) == sorted([*range(12, 12 + size), *range(12, 12 + rehearsed)])
    assert all(rank["asked"] == ranks[0]["asked"] for rank in ranks)
    assert all(rank["digest"] == ranks[0]["digest"] for rank in ranks)
    assert len(ranks[0]["asked"]) == min(5, size)


@pytest.mark.parametrize("restart", ["initial", "redraw", "shrink_perturb", "warm", "repeated", "made"])
def test_rounds_begin_with_the_weights_that_they_begin_with_on_one_process(weights, weights_of_one, restart):
    found, one = weights.notes(0)["restarts"], weights_of_one
    assert len(found[restart]) == len(one[restart]) == (4 if restart == "made" else 6)
    begun, done = found[restart][::2], found[restart][1::2]
    assert all(a != b for a, b in zip(begun, done, strict=True)), "it did not train"
    assert begun[0] == one[restart][0]
    if restart in ("initial", "repeated"):
        assert begun[1] == begun[2] == begun[0]
    elif restart in ("redraw", "made"):
        assert begun == one[restart][::2]
    elif restart == "warm":
        assert begun[1:] == done[:-1]
    else:  # sums of weights are linear in them
        for number in (1, 2):
            drawn = one["redraw"][2 * number]
            expected = [0.6 * done[number - 1][k] + 0.01 * drawn[k] for k in PARAMETERS]
            assert [begun[number][k] for k in PARAMETERS] == pytest.approx(expected, abs=1e-4)
            assert [begun[number][k] for k in STATISTICS] == [0.0, 8.0]


def test_all_ranks_go_through_all_rounds_and_a_checkpoint_goes_on(weights):
    for rank in (0, 1):
        assert weights.notes(rank)["restarts"]["labeled"] == [12, 20]
        assert weights.notes(rank)["resumed"]["labeled"] == [12, 20]
    resumed = weights.notes(0)["resumed"]
    assert len(resumed["begun"]) == 1
    assert resumed["went_on"][0] not in (resumed["begun"][0], resumed["went_on"][2])
    assert resumed["went_on"][2] == resumed["begun"][0]


@pytest.mark.parametrize("how", ["best_in_parts", "best_whole"])
def test_the_best_checkpoint_is_scored_and_the_last_weights_are_put_back(weights, how):
    found = weights.notes(0)[how]
    assert found["epochs"][0] != found["epochs"][2]
    assert found["scored"] == [found["epochs"][0]]
    assert found["ended"] == found["epochs"][2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan", r"ValueError: The logits of samples \[\d+, .*\] are NaN or infinite"),
        ("nan_in_passes", r"ValueError: The logits of samples \[\d+, .*\] are NaN or infinite"),
        ("nan_on_embeddings", r"ValueError: The logits of samples \[\d+, .*\] are NaN or infinite"),
        ("summarize", "ArithmeticError: the strategy cannot count"),
    ],
)
def test_what_goes_wrong_on_one_rank_between_passes_ends_all_with_the_message(refused, name, message):
    assert re.match(f"2 steps, {message}", refused.notes(1)[name])
    assert re.match(f"2 steps, RuntimeError: Scoring failed on rank 1: {message}", refused.notes(0)[name])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_dropout", "ValueError: `MCDropout` needs a model that drops something"),
        ("again", "`Again.configure_model` is called before every fit and test"),
        ("other_model", "first/initial_weights.pt, with which this run began"),
        ("other_model", "missing key 'net.1.weight'"),
        ("other_width", "size mismatch for net.0.weight: (8, 4), not (9, 4)"),
        ("alone", "`ModelParallelStrategy` has a module of which nothing is sharded"),
        ("tensors", "which tensor parallelism does not. Use `ModelParallelStrategy(data_parallel_size=2, "),
        ("checkpoints", "MisconfigurationException: Committee(models=['a.ckpt', 'b.ckpt']) needs copies"),
    ],
)
def test_what_cannot_be_done_is_refused_before_training_on_all_ranks(refused, name, words):
    for rank in (0, 1):
        assert refused.notes(rank)[name].startswith("0 steps")
        assert words in refused.notes(rank)[name]


def test_committees_to_be_trained_and_means_to_be_tested_are_refused(refused):
    for rank in (0, 1):
        assert "Committee(size=2) needs copies of the module" in refused.notes(rank)["trained"]
        assert "cannot be tested on a sharded module" in refused.notes(rank)["tested"]


@pytest.mark.parametrize("on", ["0", "1"])
def test_what_goes_wrong_inside_of_a_pass_is_said_and_ends_all(tmp_path, on):
    found = launch("sharded.py", tmp_path, "inside", "2", on)
    assert found.status != 0
    assert f"Scoring failed on rank {on}, in a pass of a sharded module" in found.said
    assert "ArithmeticError: the model cannot count" in found.said


@pytest.mark.parametrize("how", ["as_a_whole", "by_layer"])
def test_the_older_fsdp_trains_asks_and_begins_anew(tmp_path, how):
    check_wrapped(ended(tmp_path, "wrapped", "2", how))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_older_fsdp_does_so_on_gpus(tmp_path):
    world = min(2, torch.cuda.device_count())
    found = run_anew(str(TESTS / "distributed" / "sharded.py"), "wrapped", str(world), folder=tmp_path)
    assert found.status == 0, found.said[-4000:]
    check_wrapped(found)


def check_wrapped(found):
    notes = found.notes(0)
    for name, rounds in notes["wrapped"].items():
        assert rounds["labeled"] == [12, 17, 22]
        begun, done = rounds["weights"][::2], rounds["weights"][1::2]
        assert all(a != b for a, b in zip(begun, done, strict=True)), "it did not train"
        if name == "random":
            assert len({tuple(one) for one in begun}) == 3
        else:
            assert begun[1:] == ([begun[0]] * 2 if name in ("margin", "badge") else done[:2])
    refused = notes["refused_wrapped"]
    for name in ("passes", "redraw", "shrink_perturb"):
        assert refused[name].startswith(
            "0 steps, MisconfigurationException: The Trainer's strategy is `fsdp`, under which there is no "
        )
    assert "The module was wrapped by `fsdp` in an earlier fit" in refused["again"]
    assert "all rounds were given the same one" in refused["same"]
    assert "Leave the test set out" in refused["tested"]
