"""A number falls on the row on which it falls where one process holds all weights."""

import pytest
import torch

from lightning_al.functional import Shard, kmeans_plus_plus
from lightning_al.functional.runs import Runs
from unit.ranks import counting, on_ranks

WEIGHTS = torch.randint(0, 5, (97,), generator=torch.Generator().manual_seed(0)) * 2**40
TARGETS = (torch.rand(500, generator=torch.Generator().manual_seed(1)) * int(WEIGHTS.sum())).long()
EXPECTED = torch.searchsorted(WEIGHTS.cumsum(0), TARGETS, right=True)


def found(shard, weights=WEIGHTS, targets=TARGETS):
    runs = Runs(shard, weights.device)
    for scale in (3, 1):  # weights may be spread again
        runs.spread(weights[shard.positions] * scale)
    assert runs.total == weights.sum()
    owner, mine, rows = runs.rows_at(targets)
    return owner, mine, shard.positions[rows]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("block_size", [1, 4, 40, 200])
def test_numbers_fall_on_the_rows_of_all_ranks(world_size, block_size):
    told = on_ranks(world_size, 97, block_size, found)
    positions = torch.full_like(TARGETS, -1)
    for rank, (owner, mine, here) in enumerate(told):
        assert torch.equal(owner, told[0][0])
        assert torch.equal(mine, (owner == rank).nonzero().squeeze(1))
        positions[mine] = here
    assert torch.equal(positions, EXPECTED)


def test_edges_belong_to_the_row_that_they_begin():
    weights = torch.tensor([0, 3, 0, 0, 2, 0])
    targets = torch.tensor([0, 2, 3, 4])
    for parts in on_ranks(2, 6, 2, lambda shard: found(shard, weights, targets)):
        assert parts[0].tolist() == [
            0,
            0,
            0,
            0,
        ]  # the middle block is rank 1's
    assert found(Shard.whole(6), weights, targets)[2].tolist() == [1, 1, 4, 4]


@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_what_ranks_tell_each_other_does_not_grow_with_the_pool(spread):
    def numbers_told(total):
        generator = torch.Generator().manual_seed(2)
        rows = torch.randn(total, 16, generator=generator)
        rows[::50] *= spread
        told = []

        def work(shard):
            shard = counting(shard, told)
            return kmeans_plus_plus(
                rows[shard.positions], 200, generator=torch.Generator().manual_seed(3), shard=shard
            )

        first, second = on_ranks(2, total, total // 4, work)
        assert torch.equal(first, second)
        return sum(told), len(told) / 2

    small, _ = numbers_told(4_000)
    large, exchanges = numbers_told(64_000)
    assert large < 1.5 * small
    assert exchanges < 0.2 * 200
