"""FAISS and torch, each with its own OpenMP, in one process: `python -m faults.openmp FIRST SCENES`."""

from __future__ import annotations

import importlib
import multiprocessing
import sys

FIRST, THEN = ("faiss", "torch") if "faiss-first" in sys.argv else ("torch", "faiss")
importlib.import_module(FIRST)
importlib.import_module(THEN)

import faiss  # noqa: E402
import torch  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from lightning_al import functional as F  # noqa: E402
from lightning_al.functional.clustering import diverse_mini_batch  # noqa: E402
from lightning_al.functional.k_center import k_center_greedy  # noqa: E402

MANY = torch.randn(3000, 64)
POINTS = torch.randn(500, 100, generator=torch.Generator().manual_seed(0))
LARGE = torch.randn(40_000, 16, generator=torch.Generator().manual_seed(3))
PROBS = LARGE[:, :4].softmax(1)
SCORES = PROBS.amin(1)
WEIGHTS = torch.rand(500, generator=torch.Generator().manual_seed(1))


def by_torch() -> None:
    """Enough for all threads."""
    (MANY @ MANY.T).sum()


def by_both() -> None:
    """Likewise, and FAISS by itself."""
    by_torch()
    faiss.knn(MANY.numpy(), MANY[:200].numpy(), 1)


def picks() -> list[int]:
    """What this package makes of both."""
    generator = torch.Generator().manual_seed(2)
    batch = diverse_mini_batch(POINTS, WEIGHTS, 40, beta=12, backend="faiss", generator=generator)
    found = batch.tolist() + k_center_greedy(POINTS, 5, POINTS[:100] + 1, backend="faiss").tolist()
    # So many rows are shared among threads in the smallest of steps.
    every = {"generator": generator, "return_scores": False}
    found += F.k_center_greedy(LARGE, 3, LARGE[:20] + 1).tolist()
    found += F.kmeans_plus_plus(LARGE, 3, **every).tolist() + F.badge(PROBS, LARGE, 3, **every).tolist()
    found += F.diverse_mini_batch(LARGE, SCORES, 3, **every).tolist()
    found += F.top_k(SCORES, 3).tolist() + F.power_sample(SCORES, 3, **every).tolist()
    return found + F.batch_bald(PROBS[:, None].expand(-1, 2, -1), 2, num_joint_samples=10, **every).tolist()


class InWorker(Dataset):
    """What a worker of a loader finds."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> list[int]:
        by_torch()
        return picks()


def in_turns(wanted: list[int]) -> None:
    for _ in range(10):
        by_both()
    for _ in range(2):
        by_both()
        assert picks() == wanted
    assert faiss.omp_get_max_threads() == torch.get_num_threads() == 2


def in_a_worker(wanted: list[int]) -> None:
    loader = DataLoader(InWorker(), batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert [[int(x) for x in found] for found in loader] == [wanted, wanted]


def after_a_fork(wanted: list[int]) -> None:
    # Nothing but this package's own functions: torch's and FAISS's would wait for ever.
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert [job.get() for job in [pool.apply_async(picks) for _ in range(3)]] == [wanted] * 3
    assert picks() == wanted


if __name__ == "__main__":
    torch.set_num_threads(2)
    faiss.omp_set_num_threads(2)
    by_both()
    found = picks()
    for scene in sys.argv[2:]:
        {"in_turns": in_turns, "in_a_worker": in_a_worker, "after_a_fork": after_a_fork}[scene](found)
    print("done")
