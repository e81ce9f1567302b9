import pickle
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_al.inference.given_embeddings import GivenEmbeddings


@pytest.fixture
def array():
    return np.random.default_rng(0).normal(size=(30, 4)).astype(np.float16)


def forms(array, folder):
    np.save(folder / "e.npy", array)
    array.tofile(folder / "e.bin")
    yield array
    yield torch.from_numpy(array)
    yield folder / "e.npy"
    yield str(folder / "e.npy")
    yield np.load(folder / "e.npy", mmap_mode="r")
    yield np.memmap(folder / "e.bin", "float16", "r", shape=array.shape)


def test_every_form_gives_the_same_vectors(array, tmp_path):
    where = torch.tensor([7, 0, 29, 3])
    for form in forms(array, tmp_path):
        given = GivenEmbeddings(form)
        assert len(given) == 30
        assert torch.equal(given.of(where).given()[0], torch.from_numpy(array)[where])
        again = pickle.loads(pickle.dumps(given))
        assert torch.equal(again.tensor, given.tensor)


def test_a_mapped_file_goes_to_other_processes_as_its_path(tmp_path):
    np.save(tmp_path / "e.npy", np.zeros((100_000, 8), np.float32))
    for form in (tmp_path / "e.npy", np.load(tmp_path / "e.npy", mmap_mode="r")):
        assert len(pickle.dumps(GivenEmbeddings(form))) < 1000


def test_a_part_of_a_mapped_file_stays_that_part(tmp_path):
    np.save(tmp_path / "e.npy", np.arange(20, dtype=np.float32).reshape(10, 2))
    part = np.load(tmp_path / "e.npy", mmap_mode="r")[5:]
    given = pickle.loads(pickle.dumps(GivenEmbeddings(part)))
    assert given.tensor[0].tolist() == [10, 11]


def test_changes_that_are_in_memory_only_count(tmp_path):
    np.save(tmp_path / "e.npy", np.zeros((4, 2), np.float32))
    changed = np.load(tmp_path / "e.npy", mmap_mode="c")
    changed += 7
    given = pickle.loads(pickle.dumps(GivenEmbeddings(changed)))
    assert given.tensor.unique().tolist() == [7]


def test_the_home_folder_may_be_abbreviated(array, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    np.save(tmp_path / "e.npy", array)
    for form in ("~/e.npy", Path("~/e.npy")):
        given = GivenEmbeddings(form)
        assert given.source == tmp_path / "e.npy"
        assert len(given) == 30
    with pytest.raises(ValueError, match=r"no `\.npy` file"):
        GivenEmbeddings("~nobody-of-that-name/e.npy")


def test_a_file_that_is_no_array_is_named_and_nothing_unsafe_is_advised(array, tmp_path):
    np.save(tmp_path / "e.npy", array)
    whole = (tmp_path / "e.npy").read_bytes()
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "text.npy").write_text("1 2 3")
    (tmp_path / "short.npy").write_bytes(whole[:-10])
    (tmp_path / "begun.npy").write_bytes(whole[:20])
    (tmp_path / "header.npy").write_bytes(whole[:30] + bytes(10) + whole[40:])
    np.save(tmp_path / "objects.npy", np.array([{}, None]), allow_pickle=True)
    np.save(tmp_path / "long.npy", np.zeros(1, [("a" * 20_000, "f4")]))  # a header that NumPy thinks unsafe
    with (tmp_path / "several.npy").open("wb") as file:
        np.savez(file, array)
    for name, why in {
        "empty": "it is empty",
        "text": "it does not begin as one does",
        "several": "it does not begin as one does",
        **dict.fromkeys(["short", "begun", "header", "objects", "long"], "it is cut off or damaged"),
    }.items():
        with pytest.raises(ValueError, match=rf"{name}\.npy', whose .*: {why}.*numpy\.save") as caught:
            GivenEmbeddings(tmp_path / f"{name}.npy")
        assert "pickle" not in "".join(traceback.format_exception(caught.value))


def test_a_mapped_file_without_a_header_may_have_any_name(array, tmp_path):
    array.tofile(tmp_path / "raw.npy")
    given = GivenEmbeddings(np.memmap(tmp_path / "raw.npy", "float16", "r", shape=array.shape))
    assert torch.equal(given.tensor, torch.from_numpy(array))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (np.zeros((3, 2), ">f4"), TypeError, r"'>f4' and strides.*byte order.*ascontiguousarray"),
        (np.zeros((3, 2))[::-1], TypeError, r"strides \(-16, 8\).*first row first"),
        (np.array([["a"]]), TypeError, r"'<U1'.*floating-point"),
        ("nowhere.npy", ValueError, r"nowhere\.npy.*no `\.npy` file.*numpy\.save"),
        ([[1.0, 2.0]], TypeError, "`list`; needed is one vector for every sample"),
        (np.zeros((3, 2), np.int64), TypeError, r"type int64.*floating-point.*`embeddings\.astype\("),
        (torch.zeros(3, 2, dtype=torch.long), TypeError, r"torch\.int64.*floating-point.*\.float\(\)`"),
        (np.zeros((3, 2), np.complex64), TypeError, r"complex64.*real and imaginary"),
        (np.zeros(3), ValueError, r"shape \(3,\).*one vector a sample"),
        (np.zeros((3, 0)), ValueError, r"shape \(3, 0\).*D > 0"),
        (torch.zeros(3, 2, 2), ValueError, r"shape \(3, 2, 2\).*Pool over"),
        (torch.zeros(3, 2).to_sparse(), TypeError, r"layout torch\.sparse_coo.*`embeddings\.to_dense\(\)`"),
        (torch.zeros(3, 2, device="meta"), TypeError, r"on the meta device.*another device"),
        (np.ma.masked_less(np.eye(3), 1), TypeError, r"masked array.*`embeddings\.filled\(value\)`"),
    ],
)
def test_bad_input(source, error, message):
    with pytest.raises(error, match=message):
        GivenEmbeddings(source)


def test_one_row_for_every_sample():
    given = GivenEmbeddings(np.zeros((3, 2)))
    given.check(3)
    with pytest.raises(ValueError, match="3 rows, but the data set 4 samples"):
        given.check(4)
