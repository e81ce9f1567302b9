"""What weighted k-means costs and finds beside FAISS and scikit-learn: processor time and inertia.

    python benchmarks/kmeans.py [--quick]

The step of the diverse mini-batch that costs: the `beta * query_size` heaviest rows, D = 512, float32, into
`query_size` clusters. One thread; medians of runs that take turns, each with a seed of its own. Inertia is
weighted, in float64, over scikit-learn's (`n_init=1`, greedy k-means++). FAISS as it comes: 25 iterations at
most, one start, drawn at random. FAISS is a dependency; without scikit-learn its columns stay empty
(`pip install scikit-learn`).
Promised at 10,000 / 1000: no more than 1.5 times FAISS's time, and 1.03 times scikit-learn's inertia.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable

import faiss
import torch
from torch import Tensor

from lightning_al.functional.clustering import diverse_mini_batch, weighted_kmeans

HAS_PEER = importlib.util.find_spec("sklearn") is not None
WIDTH = 512


def clustered(rows: int, seed: int = 0) -> Tensor:
    """100 clusters in 20 dimensions through one random ReLU layer, with noise of full rank."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    inputs = 2 * normal(100, 20)[torch.randint(100, (rows,), generator=generator)] + 0.5 * normal(rows, 20)
    return (inputs @ normal(20, WIDTH) / 20**0.5).relu() + 0.3 * normal(rows, WIDTH)


def isotropic(rows: int, seed: int = 0) -> Tensor:
    """No clusters at all."""
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed))


def ours(points: Tensor, weights: Tensor, k: int, seed: int, backend: str) -> Tensor:
    """The centres of this package."""
    generator = torch.Generator().manual_seed(seed)
    return weighted_kmeans(points, k, weights, backend=backend, generator=generator).centers


def of_faiss(points: Tensor, weights: Tensor, k: int, seed: int) -> Tensor:
    """Those of `faiss.Kmeans`."""
    few = {"min_points_per_centroid": 1, "max_points_per_centroid": len(points)}
    found = faiss.Kmeans(points.shape[1], k, seed=seed + 1, **few)
    found.train(points.numpy(), weights=weights.numpy())
    return torch.from_numpy(found.centroids)


def of_sklearn(points: Tensor, weights: Tensor, k: int, seed: int) -> Tensor:
    """Those of scikit-learn."""
    from sklearn.cluster import KMeans

    found = KMeans(k, n_init=1, random_state=seed).fit(points.numpy(), sample_weight=weights.numpy())
    return torch.from_numpy(found.cluster_centers_)


def inertia(points: Tensor, weights: Tensor, centers: Tensor) -> float:
    """Weight times squared distance to the nearest centre, summed up."""
    nearest = torch.cdist(points, centers.float()).argmin(1)
    squared = (points.double() - centers.double()[nearest]).square().sum(1)
    return float((squared * weights.double()).sum())


def cost(cluster: Callable[..., Tensor], *arguments: object) -> tuple[float, Tensor]:
    """Processor time of one call, and what it found."""
    begun = time.process_time()
    found = cluster(*arguments)
    return time.process_time() - begun, found


def compare(name: str, points: Tensor, k: int, runs: int) -> None:
    """Print a line of the table."""
    weights = torch.rand(len(points), generator=torch.Generator().manual_seed(1))
    peers: dict[str, Callable[[int], tuple[float, Tensor]]] = {
        "faiss": lambda seed: cost(ours, points, weights, k, seed, "faiss"),
        "torch": lambda seed: cost(ours, points, weights, k, seed, "torch"),
        "FAISS": lambda seed: cost(of_faiss, points, weights, k, seed),
    }
    if HAS_PEER:
        peers["sklearn"] = lambda seed: cost(of_sklearn, points, weights, k, seed)
    seconds: dict[str, list[float]] = {peer: [] for peer in peers}
    worth: dict[str, list[float]] = {peer: [] for peer in peers}
    for peer in peers.values():
        peer(99)
    for seed in range(runs):
        for peer, run in peers.items():
            spent, centers = run(seed)
            seconds[peer].append(spent)
            worth[peer].append(inertia(points, weights, centers))
    middle = {peer: statistics.median(times) for peer, times in seconds.items()}
    said = f"{name:<10} {len(points):>6} {k:>5}"
    said += "".join(f" {middle[peer]:>9.3f}" if peer in middle else " " * 10 for peer in (*seconds,))
    ratios = [a / b for a, b in zip(seconds["faiss"], seconds["FAISS"], strict=True)]
    said += f" {statistics.median(ratios):>10.2f}"
    if HAS_PEER:
        # Seed by seed would compare chances: the mean of ours with the mean of theirs.
        mean = {peer: statistics.fmean(values) for peer, values in worth.items()}
        said += f" {mean['faiss'] / mean['sklearn']:>10.4f} {mean['FAISS'] / mean['sklearn']:>10.4f}"
    print(said, flush=True)


def whole(rows: int, query_size: int, runs: int) -> None:
    """Print what the whole selection costs: candidates, clusters, and the points next to the centres."""
    pool, weights = clustered(rows), torch.rand(rows, generator=torch.Generator().manual_seed(1))
    times = []
    for seed in range(runs):
        begun = time.process_time()
        diverse_mini_batch(pool, weights, query_size, generator=torch.Generator().manual_seed(seed))
        times.append(time.process_time() - begun)
    print(f"diverse_mini_batch, {rows} rows, {query_size} chosen: {statistics.median(times):.2f} s")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 / 100 once")
    parser.add_argument("--runs", type=int, default=3)
    quick, runs = (options := parser.parse_args()).quick, options.runs
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    print(
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"faiss {faiss.__version__}"
    )
    if not HAS_PEER:
        print("scikit-learn is not installed; for its columns: pip install scikit-learn")
    print("seconds                   ours by:            FAISS   sklearn  ours with  inertia / sklearn's")
    print("data            N     k     faiss     torch    itself            faiss/FAISS     ours      FAISS")
    compare("clusters", clustered(1000), 100, 1 if quick else 2 * runs)
    if quick:
        return
    compare("clusters", clustered(10_000), 1000, runs)
    compare("isotropic", isotropic(1000), 100, 2 * runs)
    compare("isotropic", isotropic(10_000), 1000, runs)
    whole(50_000, 1000, runs)


if __name__ == "__main__":
    main()
