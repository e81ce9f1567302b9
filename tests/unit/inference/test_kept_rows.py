from collections import namedtuple
from pathlib import Path

import pytest
import torch

from lightning_al.inference import kept_rows
from lightning_al.inference.kept_rows import KeptRows


def parts_of(tensors, size):
    rows = len(next(iter(tensors.values())))
    for start in range(0, rows, size):
        yield {name: value[start : start + size] for name, value in tensors.items()}


@pytest.fixture
def tensors():
    return {"embeddings": torch.randn(23, 7), "first/score": torch.randn(23), "votes": torch.arange(23)}


@pytest.mark.parametrize("limit", [0, 2**30], ids=["file", "memory"])
@pytest.mark.parametrize("size", [1, 5, 23])
def test_rows_come_back_as_they_were_added(tensors, limit, size, tmp_path):
    kept = KeptRows(23, limit=limit, folder=tmp_path)
    for part in parts_of(tensors, size):
        kept.add(part)
    assert kept.filled == 23
    assert kept.tensors.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(kept.tensors[name], value)
        assert kept.tensors[name].dtype == value.dtype


def test_a_file_leaves_nothing_behind_and_is_no_memory_of_the_process(tensors, tmp_path):
    kept = KeptRows(23, limit=0, folder=tmp_path / "new")
    for part in parts_of(tensors, 4):
        kept.add(part)
    assert list((tmp_path / "new").iterdir()) == []
    maps = Path("/proc/self/maps")
    if maps.exists():  # Linux
        assert sum(str(tmp_path) in line for line in maps.read_text().splitlines()) == 3


def test_what_a_killed_process_left_is_replaced(tensors, tmp_path):
    (tmp_path / "scoring_0_votes.tmp").write_bytes(b"old" * 1000)
    kept = KeptRows(23, limit=0, folder=tmp_path)
    for part in parts_of(tensors, 4):
        kept.add(part)
    assert torch.equal(kept.tensors["votes"], tensors["votes"])
    assert list(tmp_path.iterdir()) == []


def test_ranks_that_share_a_folder_do_not_share_a_file(tmp_path):
    both = [KeptRows(2, limit=0, folder=tmp_path, rank=rank) for rank in (0, 1)]
    for rank, kept in enumerate(both):
        kept.add({"score": torch.full((2,), float(rank))})
    assert [kept.tensors["score"].tolist() for kept in both] == [[0, 0], [1, 1]]


def test_a_full_disk_is_known_before_the_pass(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(kept_rows.shutil, "disk_usage", lambda _: usage(100, 0, 4_000))
    kept = KeptRows(1001, limit=0, folder=tmp_path)
    with pytest.raises(OSError, match=r"0\.0 GB free.*candidates="):
        kept.add({"score": torch.zeros(1)})
    assert list(tmp_path.iterdir()) == []


def test_the_bytes_needed_are_told(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(kept_rows, "rank_zero_info", said.append)
    monkeypatch.setattr(kept_rows, "_WORTH_SAYING", 4000)
    KeptRows(1000, limit=10_000, folder=tmp_path).add({"score": torch.zeros(1)})
    KeptRows(1000, limit=1_000, folder=tmp_path).add({"score": torch.zeros(1)})
    KeptRows(999, limit=1_000, folder=tmp_path).add({"score": torch.zeros(1)})
    assert len(said) == 2
    assert "in memory" in said[0]
    assert "1000 samples of 4 bytes" in said[0]
    assert f"in a file in {tmp_path}" in said[1]


def test_rows_of_another_shape_are_refused(tmp_path):
    kept = KeptRows(4, limit=2**30, folder=tmp_path)
    kept.add({"e": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match=r"shape \(5,\), after rows of shape \(3,\).*pool over"):
        kept.add({"e": torch.zeros(2, 5)})


def test_nothing_to_keep(tmp_path):
    kept = KeptRows(3, limit=0, folder=tmp_path)
    kept.add({})
    assert kept.tensors == {}
