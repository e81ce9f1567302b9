"""Two runtimes of OpenMP in one process neither hang nor crash nor change what is found (docs/faiss.md)."""

import os
import sys

import faiss
import pytest
import torch
from distributed.launch import run_anew

from lightning_al.functional import nearest
from lightning_al.functional.clustering import weighted_kmeans

SECONDS = 600


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
@pytest.mark.parametrize(
    ("first", "scenes"),
    [("faiss-first", ["in_a_worker", "in_turns"]), ("torch-first", ["after_a_fork", "in_turns"])],
)
def test_many_threads_of_both_work_in_one_process(tmp_path, first, scenes):
    ended = run_anew("-W", "ignore", "-m", "faults.openmp", first, *scenes, folder=tmp_path, limit=SECONDS)
    assert ended.said.endswith("done\n"), ended.said
    assert ended.status == 0, ended.said


@pytest.mark.parametrize(("of_torch", "of_faiss"), [(1, 2), (2, 1)])
def test_faiss_takes_as_many_threads_as_torch_and_gives_them_back(of_torch, of_faiss, monkeypatch):
    seen, knn = [], faiss.knn

    def watched(*arguments, **keywords):
        seen.append(faiss.omp_get_max_threads())
        return knn(*arguments, **keywords)

    monkeypatch.setattr(faiss, "knn", watched)
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    try:
        torch.set_num_threads(of_torch)
        faiss.omp_set_num_threads(of_faiss)
        # Imported after torch, FAISS may use torch's runtime, which then has one number for both.
        told = torch.get_num_threads(), faiss.omp_get_max_threads()
        weighted_kmeans(torch.randn(100, 4), 10, backend="faiss")
        assert set(seen) == {told[0]}
        assert (torch.get_num_threads(), faiss.omp_get_max_threads()) == told
    finally:
        torch.set_num_threads(before[0])
        faiss.omp_set_num_threads(before[1])


def test_other_systems_than_linux_import_faiss_on_demand_only(monkeypatch):
    points = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    used = []
    monkeypatch.setattr(nearest, "_FAISS_WORTH", 0)
    monkeypatch.setattr(nearest, "_faiss_is_fast", lambda threads: True)
    monkeypatch.setattr(faiss, "knn", lambda *arguments: used.append(arguments))
    monkeypatch.setattr(sys, "platform", "darwin")
    weighted_kmeans(points, 40)
    assert not used
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(TypeError):
        weighted_kmeans(points, 40)
    assert used
