"""What `badge` costs beside loops that bring all distances up to date at every pick.

    python benchmarks/badge.py [--quick] [--pools 101 102 103] [--plot docs/images/badge_cost.png]

Clustered data: 100 clusters in a 20-dimensional space through one random ReLU layer to D = 512 with noise of
full rank, float32; a linear head. One thread, processor time; five seeds, each side by side with our own
loop: products factorised, `<q, q'> <h, h'>`, all distances at every pick, as others do it, in place.
A pick of the loop costs the same each time; its time is that of the line through 10 and 40 picks ("ext").
Where bmdal_reg is installed its k-means++ on the same factors is timed too, in the same way; see INSTALL.
Promised, at 50,000 / 1000: over the seeds a median of 30 times the loop's speed or more and never under 12;
extra memory of at most a quarter of the probabilities' and embeddings' bytes.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_al.functional import badge, rejection

WIDTH, BETWEEN = 512, (10, 40)
INSTALL = "pip install dill psutil && pip install --no-deps bmdal_reg"
HAS_PEER = importlib.util.find_spec("bmdal_reg") is not None


def pool(rows: int, classes: int, kind: str = "clustered", seed: int = 0) -> tuple[Tensor, Tensor]:
    """Probabilities and embeddings."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    if kind == "isotropic":
        embeddings = normal(rows, WIDTH)
    else:
        latent = normal(100, 20)[torch.randint(100, (rows,), generator=generator)] + 0.3 * normal(rows, 20)
        embeddings = (latent @ (normal(20, WIDTH) / 20**0.5)).relu_().add_(normal(rows, WIDTH), alpha=0.05)
    head = 3 * normal(WIDTH, classes) / WIDTH**0.5
    return ((embeddings - embeddings[:1000].mean(0)) @ head).softmax(1), embeddings


def ours(probs: Tensor, embeddings: Tensor, query_size: int, seed: int = 0) -> list[int]:
    """The picks of this package."""
    generator = torch.Generator().manual_seed(seed)
    return badge(probs, embeddings, query_size, generator=generator).tolist()


def loop(probs: Tensor, embeddings: Tensor, query_size: int, seed: int = 0) -> list[int]:
    """All distances at every pick, never a product."""
    generator = torch.Generator().manual_seed(seed)
    residuals = probs.clone()
    residuals[torch.arange(len(probs)), probs.argmax(1)] -= 1
    squares = torch.linalg.vecdot(residuals, residuals) * torch.linalg.vecdot(embeddings, embeddings)
    picks = [int(squares.argmax())]
    nearest = torch.full_like(squares, torch.inf)
    while len(picks) < query_size:
        last = picks[-1]
        distance = (embeddings @ embeddings[last]).mul_(residuals @ residuals[last]).mul_(-2)
        distance.add_(squares).add_(squares[last]).clamp_min_(0)
        torch.minimum(nearest, distance, out=nearest)
        nearest[last] = 0
        sums = nearest.cumsum(0, dtype=torch.float64)
        at = torch.rand(1, generator=generator, dtype=torch.float64) * sums[-1]
        picks.append(min(int(torch.searchsorted(sums, at)), len(probs) - 1))
    return picks


def peers(probs: Tensor, embeddings: Tensor, query_size: int, seed: int = 0) -> list[int]:
    """The k-means++ of bmdal_reg on the same factors."""
    from bmdal_reg.bmdal.feature_data import ListFeatureData, TensorFeatureData
    from bmdal_reg.bmdal.feature_maps import IdentityFeatureMap, ProductFeatureMap
    from bmdal_reg.bmdal.features import Features
    from bmdal_reg.bmdal.selection import KmeansppSelectionMethod

    torch.manual_seed(seed)
    residuals = probs.clone()
    residuals[torch.arange(len(probs)), probs.argmax(1)] -= 1
    maps = ProductFeatureMap(
        [IdentityFeatureMap(n_features=part.shape[1]) for part in (residuals, embeddings)]
    )
    features = Features(maps, ListFeatureData([TensorFeatureData(residuals), TensorFeatureData(embeddings)]))
    method = KmeansppSelectionMethod(features, features[torch.arange(0)], sel_with_train=False)
    return method.select(query_size).tolist()


def cost(select: Callable[..., list[int]], *arguments: Any) -> float:
    """Processor time of one call."""
    begun = time.process_time()
    select(*arguments)
    return time.process_time() - begun


def prolonged(select: Callable[..., list[int]], probs: Tensor, embeddings: Tensor, query_size: int) -> float:
    """Processor time, of the line through two smaller numbers of picks."""
    low, high = (cost(select, probs, embeddings, size) for size in BETWEEN)
    return high + (high - low) / (BETWEEN[1] - BETWEEN[0]) * (query_size - BETWEEN[1])


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """How often weights were made, of how many centres, and how many rows were proposed."""
    found = {"renewals": 0, "centers": 0, "proposals": 0}
    renew, propose = rejection.Draw._renew, rejection.Draw._propose

    def renewing(draw: rejection.Draw) -> None:
        found["renewals"] += 1
        found["centers"] += draw.fresh
        renew(draw)

    def proposing(draw: rejection.Draw, count: int) -> None:
        found["proposals"] += rejection._PROPOSALS
        propose(draw, count)

    rejection.Draw._renew, rejection.Draw._propose = renewing, proposing
    try:
        yield found
    finally:
        rejection.Draw._renew, rejection.Draw._propose = renew, propose


def _resident(field: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def _measure_memory(
    select: Callable[..., list[int]], shape: tuple[int, int, str], query_size: int, pipe: Any
) -> None:
    torch.set_num_threads(1)
    probs, embeddings = pool(*shape)
    select(probs[:500].clone(), embeddings[:500].clone(), 50)  # libraries are loaded by their first use
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)  # what was freed would hide what is needed
    Path("/proc/self/clear_refs").write_text("5")  # the mark starts anew
    before = _resident("VmRSS")
    select(probs, embeddings, query_size)
    pipe.send(_resident("VmHWM") - before)


def extra_memory(select: Callable[..., list[int]], shape: tuple[int, int, str], query_size: int) -> float:
    """Resident high-water mark of one call above what was resident before it, in MB, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_measure_memory, args=(select, shape, query_size, there))
    process.start()
    there.close()
    found = here.recv()
    process.join()
    return float(found)


def compare(rows: int, classes: int, query_size: int, kind: str, seeds: int, which: int = 0) -> None:
    """Print a line of the table; `which` pool, and draws of its own."""
    probs, embeddings = pool(rows, classes, kind, which)
    ours(probs, embeddings, 20)
    seconds, ratios, theirs, counts = [], [], [], []
    for seed in range(10 * which, 10 * which + seeds):
        with counted() as found:
            seconds.append(cost(ours, probs, embeddings, query_size, seed))
        counts.append(found)
        ratios.append(prolonged(loop, probs, embeddings, query_size) / seconds[-1])
        if HAS_PEER:
            theirs.append(prolonged(peers, probs, embeddings, query_size) / seconds[-1])
    memory = extra_memory(ours, (rows, classes, kind), query_size)
    quarter = rows * (classes + WIDTH) / 2**20
    middle = statistics.median
    said = (
        f"{rows:>7} {classes:>4} {query_size:>5} {kind:>10} {middle(seconds):>7.3f} {middle(ratios):>6.0f}x"
    )
    said += f" {min(ratios):>5.0f}x " + (f"{middle(theirs):>6.0f}x" if theirs else f"{'':>7}")
    said += f" {middle(x['renewals'] for x in counts):>6.0f} {middle(x['centers'] for x in counts):>7.0f}"
    said += f" {middle(x['proposals'] for x in counts) / query_size:>9.1f} {memory:>6.0f} {quarter:>8.0f}"
    print(said, flush=True)


def plot(path: str) -> None:
    """Draw the cost against the size of the pool and of the query."""
    from lightning_al.plotting.style import calm, new_figure

    figure = new_figure((9, 3.8))
    left, right = figure.subplots(1, 2)
    sizes, queries = (
        [5000, 10_000, 20_000, 50_000, 100_000, 200_000],
        [20, 50, 100, 200, 500, 1000, 2000, 5000],
    )
    by_size = [both(*pool(rows, 10), 1000) for rows in sizes]
    by_query = [both(*pool(50_000, 10), query_size) for query_size in queries]
    for ax, places, found, label, given in (
        (left, sizes, by_size, "rows in the pool", "1,000 picks"),
        (right, queries, by_query, "picks", "50,000 rows"),
    ):
        for column, name, colour, marker in (
            (1, "all distances at every pick", "#7A7A7A", "s"),
            (0, "badge", "#0072B2", "o"),
        ):
            values = [pair[column] for pair in found]
            ax.loglog(places, values, color=colour, marker=marker, markersize=5, linewidth=1.8)
            ax.annotate(
                name, (places[-2], values[-2]), xytext=(-8, 10), textcoords="offset points", color=colour,
                ha="right", fontsize=9.5,
            )  # fmt: skip
        calm(ax)
        ax.set_xlabel(label)
        ax.set_title(given, loc="left", fontsize=10.5)
    left.set_ylabel("processor seconds, one thread")
    figure.suptitle("Cost of BADGE, D = 512, 10 classes", x=0.01, ha="left", fontsize=12)
    figure.savefig(path)
    print(f"{path}: {by_size} {by_query}")


def both(probs: Tensor, embeddings: Tensor, query_size: int) -> tuple[float, float]:
    """Processor times of `badge` and of the loop, medians of three."""
    ours(probs, embeddings, 20)
    pairs = []
    for seed in range(3):
        slow = prolonged(loop, probs, embeddings, query_size)
        pairs.append((cost(ours, probs, embeddings, query_size, seed), slow))
    fast, slow = (statistics.median(column) for column in zip(*pairs, strict=True))
    return round(fast, 4), round(slow, 4)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5,000 rows, two seeds")
    parser.add_argument("--pools", nargs="+", type=int, metavar="SEED", help="50,000 / 1000 in other pools")
    parser.add_argument("--plot", metavar="FILE", help="only draw the cost against the sizes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.plot:
        plot(options.plot)
        return
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}")
    if not HAS_PEER:
        print(f"bmdal_reg is not installed; for its column: {INSTALL}")
    print(
        "   rows    C picks       kind  ours s    loop  worst   bmdal  made anew, of centres  proposals"
        " a pick, MB, a quarter of the pool"
    )
    if options.quick:
        compare(5000, 10, 100, "clustered", 2)
        return
    if options.pools:
        for classes in (10, 100):
            for which in options.pools:
                compare(50_000, classes, 1000, "clustered", 5, which)
        return
    for rows, classes, query_size, kind in (
        (10_000, 10, 100, "clustered"),
        (50_000, 10, 100, "clustered"),
        (50_000, 10, 1000, "clustered"),
        (50_000, 100, 1000, "clustered"),
        (50_000, 10, 1000, "isotropic"),
    ):
        compare(rows, classes, query_size, kind, 5)


if __name__ == "__main__":
    main()
