import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from lightning_al.data.batches import Blocks, TrainBatches

ROWS, SIZES, WORLDS = st.integers(1, 60), st.integers(1, 9), st.integers(1, 4)


def on_all_ranks(rows, size, world, epoch=0, **options):
    found = []
    for rank in range(world):
        batches = TrainBatches(rows, size, seed=3, rank=rank, world_size=world, **options)
        batches.set_epoch(epoch)
        found.append(list(batches))
        assert len(found[-1]) == len(batches)
    return found


@given(rows=ROWS, size=SIZES, world=WORLDS)
def test_every_row_once_an_epoch(rows, size, world):
    rows = max(rows, world)
    found = on_all_ranks(rows, size, world)
    drawn = sorted(row for rank in found for batch in rank for row in batch)
    padding = -rows % world
    assert sorted(set(drawn)) == list(range(rows))
    assert len(drawn) == rows + padding
    assert [[len(b) for b in rank] for rank in found] == [[len(b) for b in found[0]]] * world


@given(rows=ROWS, size=st.integers(2, 9), world=WORLDS)
def test_no_batch_of_one_sample_where_there_are_more(rows, size, world):
    rows = max(rows, 2 * world)
    for rank in on_all_ranks(rows, size, world):
        assert all(2 <= len(batch) <= size + 1 for batch in rank)


@given(rows=st.integers(2, 60), size=SIZES, world=WORLDS, steps=st.integers(1, 12))
def test_a_fixed_number_of_steps(rows, size, world, steps):
    rows = max(rows, world)
    found = on_all_ranks(rows, size, world, steps=steps)
    assert [len(rank) for rank in found] == [steps] * world
    stream = [row for step in zip(*found, strict=True) for batch in step for row in batch]
    # One permutation after another: no row a second time before each was drawn once.
    for start in range(0, len(stream) - rows + 1, rows):
        assert sorted(stream[start : start + rows]) == list(range(rows))
    share = max(2, -(-rows // world))
    assert {len(batch) for rank in found for batch in rank} == {min(size, share, rows)}


@given(rows=ROWS, size=SIZES, world=WORLDS)
def test_drop_last_leaves_full_batches_unless_there_is_only_one(rows, size, world):
    rows = max(rows, world)
    share = -(-rows // world)
    for rank in on_all_ranks(rows, size, world, drop_last=True):
        sizes = [len(batch) for batch in rank]
        assert sizes == ([size] * (share // size) or [share])


@pytest.mark.parametrize("steps", [None, 3])
def test_the_order_follows_seed_and_epoch_and_nothing_else(steps):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = on_all_ranks(20, 4, 1, steps=steps)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert on_all_ranks(20, 4, 1, steps=steps) == first
    assert on_all_ranks(20, 4, 1, epoch=1, steps=steps) != first
    assert list(TrainBatches(20, 4, seed=4, steps=steps)) != first[0]


@pytest.mark.parametrize("steps", [None, 3])
def test_nothing_labelled_gives_no_batch(steps):
    batches = TrainBatches(0, 4, seed=0, steps=steps)
    assert len(batches) == 0
    assert list(batches) == []


@given(total=st.integers(0, 40), size=SIZES)
def test_blocks_hold_every_position_in_order(total, size):
    positions = torch.arange(total) * 3
    blocks = Blocks(positions, size)
    found = list(blocks)
    assert [p for block in found for p in block] == positions.tolist()
    assert len(found) == len(blocks)
    assert all(len(block) == size for block in found[:-1])
