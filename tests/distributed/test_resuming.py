"""A training that is stopped, and begun again from its checkpoint, by ranks that have no disk in common."""

import pytest
import torch.distributed.fsdp

from distributed.launch import launch

OLD = not hasattr(torch.distributed.fsdp, "fully_shard")
pytestmark = pytest.mark.distributed


def found(folder, *arguments, apart):
    ended = launch("resuming.py", folder, *arguments, ranks=2, apart=apart)
    assert ended.status == 0, ended.said[-4000:]
    return [ended.notes(rank)["found"] for rank in (0, 1)]


def test_rank_0s_checkpoint_is_gone_on_from_by_all(tmp_path):
    first, second = found(tmp_path, "stop", "file", apart=True)
    assert first == second
    assert first["error"] == "ArithmeticError: stopped"
    assert [epoch[:2] for epoch in first["seen"]] == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1]]
    again, other = found(tmp_path, "go", "file", apart=True)
    assert again == other
    assert again["error"] is None
    assert [epoch[:2] for epoch in again["seen"]] == [[1, 1], [1, 2]]
    assert again["seen"][0] == first["seen"][4], "it begins with the weights of the checkpoint"
    assert again["labeled"] == first["labeled"] == 20
    assert not list(tmp_path.glob("rank_1/**/*.ckpt"))


@pytest.mark.skipif(OLD, reason="`fully_shard` is not public, and for GPUs, before torch 2.6")
def test_a_checkpoint_in_parts_that_one_rank_does_not_see_is_refused_by_all(tmp_path):
    first, _ = found(tmp_path / "rank_0", "stop", "parts", apart=False)
    assert first["error"] == "ArithmeticError: stopped"
    for one in found(tmp_path, "go", "parts", apart=True):
        assert one["seen"] == []
        assert one["error"].startswith('RuntimeError: `resume="checkpoint"` would go on from ')
        assert "rank 1 sees 0 of its files and rank 0 4; every process needs them all" in one["error"]
    again, _ = found(tmp_path / "rank_0", "go", "parts", apart=False)
    assert again["error"] is None
    assert [epoch[:2] for epoch in again["seen"]] == [[1, 1], [1, 2]]
