"""Committees and MC dropout: what is asked in `fit_rounds` is the same however processes are started."""

import warnings

import pytest
import torch.distributed.fsdp
from integration.small import queries

from distributed import passes
from distributed.launch import launch

OLD = not hasattr(torch.distributed.fsdp, "fully_shard")
pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """What one process asks for."""
    folder = tmp_path_factory.mktemp("one")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*passes run one after the other, since")
        for blocks in passes.BLOCKS:
            for name in passes.STRATEGIES:
                passes.rounds(folder, name, blocks)
    return {
        (blocks, name): queries(folder / blocks / name)
        for blocks in passes.BLOCKS
        for name in passes.STRATEGIES
    }


def asked(folder, how, devices, ranks=0):
    ended = launch("passes.py", folder, how, str(devices), ranks=ranks)
    assert ended.status == 0, ended.said[-4000:]
    found = {
        (blocks, name): queries(folder / blocks / name)
        for blocks in passes.BLOCKS
        for name in passes.STRATEGIES
        if (folder / blocks / name / "ledger.sqlite3").exists()
    }
    return found, ended


def test_ways_of_scoring_and_blocks_of_another_size_ask_for_something(one):
    assert all(len(found[1]) == 8 for found in one.values())
    assert len({tuple(found[1]) for (blocks, _), found in one.items() if blocks == "uneven"}) == 4


@pytest.mark.parametrize("devices", [2, 3])
def test_ddp_asks_as_one_process_does(one, tmp_path, devices):
    """Also where all ranks but one have no sample, and where buffers differ by rank."""
    found, _ = asked(tmp_path, "ddp", devices, ranks=devices)
    assert found == one


@pytest.mark.parametrize("how", ["ddp_fork", "ddp_spawn"])
def test_processes_started_anew_ask_as_one_process_does(one, tmp_path, how):
    found, _ = asked(tmp_path, how, 2)
    assert found == {key: one[key] for key in one if key[0] == "uneven"}


@pytest.mark.skipif(OLD, reason="`fully_shard` is not public, and for GPUs, before torch 2.6")
@pytest.mark.parametrize(("devices", "ranks"), [(2, 0), (3, 3)])
def test_sharded_modules_ask_as_one_process_does_and_members_of_one_are_refused(
    one, tmp_path, devices, ranks
):
    """Started by Lightning, and from outside."""
    found, ended = asked(tmp_path, "sharded", devices, ranks)
    assert {key: query for key, query in found.items() if query} == {
        (blocks, name): query for (blocks, name), query in one.items() if name != "committee"
    }
    for rank in range(devices):
        notes = ended.notes(rank)
        assert set(notes) == {"uneven_committee", "empty_committee"}
        assert all(
            text.startswith("MisconfigurationException: Committee(size=3) needs") for text in notes.values()
        )
