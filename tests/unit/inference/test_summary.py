"""A pool, and the smaller pools made of it: which rows these hold, and where."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_al.functional import Shard
from lightning_al.inference import Summary, kept_rows, summary
from lightning_al.inference.kept_rows import Room
from unit.ranks import on_ranks

SIZE = 50
ROWS = torch.randn(SIZE, 3, generator=torch.Generator().manual_seed(0))
VOTES = torch.arange(SIZE) % 7


def held(shard, room=None):
    tensors = {"rows": ROWS[shard.positions], "votes": VOTES[shard.positions]}
    return Summary(tensors, replace(shard, samples=shard.positions + 1000), room)


def files_in(folder):
    """Mapped ones; they have no name in the folder."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("what is mapped is known on Linux only")
    return sum(str(folder) in line for line in maps.read_text().splitlines())


@pytest.fixture
def small_pieces(monkeypatch):
    """Rows are copied three at a time."""
    monkeypatch.setattr(summary, "_COPIED_BYTES", 2 * (3 * 4 + 8))


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("limit", [0, 2**30], ids=["file", "memory"])
@pytest.mark.parametrize(
    "positions", [[], [0], [49], [3, 4, 8, 20, 21, 22, 40, 41], list(range(SIZE))], ids=len
)
def test_a_smaller_pool_has_the_rows_of_its_positions(limit, positions, tmp_path):
    positions = torch.tensor(positions, dtype=torch.long)
    part = held(Shard.whole(SIZE), Room(limit, tmp_path)).of_positions(positions)
    assert torch.equal(part["rows"], ROWS[positions])
    assert torch.equal(part["votes"], VOTES[positions])
    assert torch.equal(part.indices, positions + 1000)
    assert torch.equal(part.shard.positions, torch.arange(len(positions)))
    assert part.shard.total == len(positions)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("limit", [0, 2**30], ids=["file", "memory"])
def test_its_rows_lie_in_a_file_if_they_are_more_than_the_limit(limit, tmp_path):
    part = held(Shard.whole(SIZE), Room(limit, tmp_path)).of_positions(torch.arange(0, SIZE, 2))
    assert files_in(tmp_path) == (2 if limit == 0 else 0)
    assert list(tmp_path.iterdir()) == []
    again = part.of_positions(torch.tensor([1, 5]))  # and so do those of one made of it
    assert again["votes"].tolist() == VOTES[[2, 10]].tolist()
    assert files_in(tmp_path) == (4 if limit == 0 else 0)
    del part, again
    assert files_in(tmp_path) == 0


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize(
    "positions", [[2, 3, 4], [0, 9, 17, 18, 30, 31, 32, 49]], ids=["of one rank", "of all"]
)
def test_every_rank_keeps_its_own(world_size, positions, tmp_path):
    positions = torch.tensor(positions)

    def narrowed(shard):
        part = held(shard, Room(0, tmp_path)).of_positions(positions)
        assert len(part["rows"]) == len(part.indices) == len(part.shard.positions)
        return part.gathered(part["rows"]), part.gathered(part.indices), part.shard.total

    for rows, indices, total in on_ranks(world_size, SIZE, 7, narrowed):
        assert torch.equal(rows, ROWS[positions])
        assert torch.equal(indices, positions + 1000)
        assert total == len(positions)


def test_without_room_on_one_rank_all_fail(tmp_path, monkeypatch):
    if not hasattr(os, "posix_fallocate"):
        pytest.skip("room is taken at once where the system can")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(kept_rows.os, "posix_fallocate", full)

    def narrowed(shard):
        room = Room(0 if shard.rank == 1 else 2**30, tmp_path)
        try:
            held(shard, room).of_positions(torch.arange(20))
        except (OSError, RuntimeError) as error:
            return type(error), str(error)

    (other, text), (own, _) = on_ranks(2, SIZE, 7, narrowed)
    assert (own, other) == (OSError, RuntimeError)
    assert "failed on rank 1: OSError" in text
    assert "No space left on device. Score a subset" in text


def test_a_pool_of_no_tensors_is_narrowed_too():
    part = Summary({}, replace(Shard.whole(5), samples=torch.arange(5))).of_positions(torch.tensor([1, 3]))
    assert dict(part) == {}
    assert part.indices.tolist() == [1, 3]


def test_a_part_has_what_begins_alike():
    whole = Summary({"a/b": VOTES, "a/a/b": ROWS, "b": VOTES}, Shard.whole(SIZE), room=Room(7))
    part = whole.part("a/")
    assert list(part) == ["b", "a/b"]
    assert part["a/b"] is ROWS
    assert part.room == Room(7)
