import errno
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from lightning_al.inference import kept_rows
from lightning_al.inference.kept_rows import KeptRows, Room, bytes_of_row


def parts_of(tensors, size):
    rows = len(next(iter(tensors.values())))
    for start in range(0, rows, size):
        yield {name: value[start : start + size] for name, value in tensors.items()}


@pytest.fixture
def tensors():
    return {
        "embeddings": torch.randn(23, 7),
        "first/score": torch.randn(23).bfloat16(),
        "votes": torch.arange(23),
        "none": torch.empty(23, 0),
    }


@pytest.mark.parametrize("limit", [0, 2**30], ids=["file", "memory"])
@pytest.mark.parametrize("size", [1, 5, 23])
def test_rows_come_back_as_they_were_added(tensors, limit, size, tmp_path):
    kept = KeptRows(23, Room(limit, tmp_path))
    for part in parts_of(tensors, size):
        kept.add(part)
    assert kept.filled == 23
    assert kept.tensors.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(kept.tensors[name], value)
        assert kept.tensors[name].dtype == value.dtype


def test_a_file_leaves_nothing_behind_and_is_no_memory_of_the_process(tensors, tmp_path):
    kept = KeptRows(23, Room(0, tmp_path / "new"))
    for part in parts_of(tensors, 4):
        kept.add(part)
        assert list((tmp_path / "new").iterdir()) == []
    maps = Path("/proc/self/maps")
    if maps.exists():  # Linux
        assert sum(str(tmp_path) in line for line in maps.read_text().splitlines()) == 3
        del kept
        assert str(tmp_path) not in maps.read_text()


def test_any_number_of_them_share_a_folder(tmp_path):
    many = [KeptRows(2, Room(0, tmp_path)) for _ in range(3)]
    for number, kept in enumerate(many):
        kept.add({"score": torch.full((2,), float(number))})
    assert [kept.tensors["score"].tolist() for kept in many] == [[0, 0], [1, 1], [2, 2]]


def test_memory_up_to_the_limit_and_a_file_above(tmp_path):
    like = {"score": torch.zeros(1)}
    file = tmp_path / "folder"
    Room(4000, file).tensors(1000, like)
    assert not file.exists()
    Room(3999, file).tensors(1000, like)
    assert file.exists()
    Room(0, tmp_path / "other").tensors(0, like)  # no rows need no file
    assert not (tmp_path / "other").exists()


def test_a_full_disk_is_known_before_the_pass(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(kept_rows.shutil, "disk_usage", lambda _: usage(100, 0, 4_000))
    kept = KeptRows(1001, Room(0, tmp_path))
    with pytest.raises(OSError, match=r"1001 samples of 4 bytes: score.*0\.0 GB free.*candidates="):
        kept.add({"score": torch.zeros(1)})
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_another_process_fills_meanwhile_is_the_same_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(kept_rows.os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"are to be kept.*No space left on device\. Score a subset"):
        KeptRows(10, Room(0, tmp_path)).add({"score": torch.zeros(1)})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_the_same_error(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match=r"taken/folder: Not a directory.*state_dir"):
        KeptRows(10, Room(0, tmp_path / "taken" / "folder")).add({"score": torch.zeros(1)})


def test_the_bytes_needed_are_told(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(kept_rows, "rank_zero_info", said.append)
    monkeypatch.setattr(kept_rows, "_WORTH_SAYING", 4000)
    KeptRows(1000, Room(10_000, tmp_path)).add({"score": torch.zeros(1)})
    KeptRows(1000, Room(1_000, tmp_path)).add({"score": torch.zeros(1)})
    KeptRows(999, Room(1_000, tmp_path)).add({"score": torch.zeros(1)})
    assert len(said) == 2
    assert "in memory" in said[0]
    assert "1000 samples of 4 bytes (score)" in said[0]
    assert f"in a file in {tmp_path}" in said[1]


@pytest.mark.parametrize(
    ("later", "words"),
    [
        ({"e": torch.zeros(2, 5)}, r"'e' with rows of shape \(5,\).*after rows of shape \(3,\).*pool over"),
        ({"e": torch.zeros(2, 3).long()}, r"'e'.*type torch\.int64, after.*type torch\.float32"),
        ({"e": torch.zeros(2, 3), "f": torch.zeros(2)}, "'f' with rows.*after no rows"),
        ({}, "'e' with no rows, after rows.*the same names"),
    ],
)
def test_rows_unlike_those_before_are_refused(later, words, tmp_path):
    kept = KeptRows(4, Room(folder=tmp_path))
    kept.add({"e": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match=words):
        kept.add(later)


def test_nothing_to_keep(tmp_path):
    kept = KeptRows(3, Room(0, tmp_path))
    kept.add({})
    kept.add({})
    assert kept.tensors == {}


def test_bytes_of_a_row_do_not_need_one():
    assert bytes_of_row({"e": torch.zeros(0, 3, 2), "votes": torch.zeros(0).long()}) == 32
    assert bytes_of_row({}) == 0
