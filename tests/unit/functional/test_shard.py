import hypothesis.strategies as st
import torch
from hypothesis import given

from lightning_al.functional import Shard


@given(total=st.integers(0, 40), block_size=st.integers(1, 9), world_size=st.integers(1, 5))
def test_blocks_hold_every_position_once_and_whole_blocks(total, block_size, world_size):
    shards = [Shard.blocks(total, block_size, rank=rank, world_size=world_size) for rank in range(world_size)]
    positions = torch.cat([shard.positions for shard in shards])
    assert sorted(positions.tolist()) == list(range(total))
    whole = list(torch.split(torch.arange(total), block_size)) if total else []
    for rank, shard in enumerate(shards):
        mine = list(torch.split(shard.positions, block_size)) if len(shard.positions) else []
        # The same batches whatever the number of ranks: a batch's float32 outputs are the same numbers.
        assert [b.tolist() for b in mine] == [b.tolist() for b in whole[rank::world_size]]


def test_a_process_alone_gathers_what_it_has():
    shard = Shard.whole(3)
    rows = torch.rand(3, 2)
    assert shard.gather(rows) is rows
    assert shard.gather_objects("x") == ["x"]
    assert shard.world_size == 1
