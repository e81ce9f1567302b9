"""What `k_center_greedy` costs beside loops that bring all distances up to date at every pick.

    python benchmarks/k_center.py [--quick] [--plot docs/images/k_center_cost.png]
    python benchmarks/k_center.py --stream 5.1 [--folder FOLDER]

Clustered data: 100 clusters in a 20-dimensional space through one random ReLU layer to D = 512 with noise of
full rank, float32; "digits": ten classes in 64 dimensions. 1,000 labelled rows of the same law. One thread,
processor time; medians of runs that take turns. "gemv" is our own plain loop, a matrix-vector product and
a minimum in place at every pick, which reads the pool as fast as memory allows; its labelled rows are met in
matrix products, as ours are. Where it is "ext" its time is that of the line through two smaller numbers of
picks. "anomalib" is the step of that library (2.7) written out, its labelled distances given to it; bmdal_reg
takes part where it is installed; see INSTALL.
Promised: at 50,000 / 1000 clustered 22 times the plain loop's speed or more, the same set, and extra memory
of at most a quarter of the pool; at 200,000 / 5000 60 times and 50 MB; isotropic data never slower than it.

`--stream` writes a float16 file of so many GB, picks 1,000 rows of it, and deletes it. Promised: at most
1 GB of anonymous memory above the start.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import io
import multiprocessing
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_al.functional import farthest, front, k_center_greedy
from lightning_al.functional.arithmetic import exact_arithmetic
from lightning_al.functional.nearest import nearest
from lightning_al.functional.vectors import Vectors, as_tensor

LABELED, WIDTH = 1000, 512
INSTALL = "pip install dill psutil && pip install --no-deps bmdal_reg"
HAS_PEER = importlib.util.find_spec("bmdal_reg") is not None


def pool(rows: int, kind: str = "clustered", seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows to choose from, and labelled ones."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    total = rows + LABELED
    if kind == "isotropic":
        made = normal(total, WIDTH)
    elif kind == "digits":
        of = torch.randint(10, (total,), generator=generator)
        directions = normal(10, 12, 64)[of]
        made = (16 * torch.rand(10, 64, generator=generator))[of]
        made = (made + torch.einsum("nk,nkd->nd", normal(total, 12), directions) + normal(total, 64)).clamp_(
            0, 16
        )
    else:
        latent, layer, middles = None, normal(20, WIDTH) / 20**0.5, normal(100, 20)
        made = torch.empty(total, WIDTH)
        for part in made.split(20_000):
            latent = middles[torch.randint(100, (len(part),), generator=generator)] + 0.3 * normal(
                len(part), 20
            )
            torch.mm(latent, layer, out=part)
            part.relu_().add_(normal(*part.shape), alpha=0.1)
    return made[:rows], made[rows:]


# ---------------------------------------------------------------------- who chooses


def ours(rows: Tensor, labeled: Tensor, query_size: int, backend: str = "auto") -> list[int]:
    """The picks of this package."""
    return k_center_greedy(rows, query_size, labeled, backend=backend).tolist()


def ours_by_faiss(rows: Tensor, labeled: Tensor, query_size: int) -> list[int]:
    """The same, with FAISS wherever it can be used."""
    return ours(rows, labeled, query_size, "faiss")


def nearest_labeled(rows: Tensor, labeled: Tensor) -> Tensor:
    """Squared distances to the nearest labelled row, by matrix products."""
    with exact_arithmetic():
        return nearest(Vectors((rows,)), Vectors((labeled,)))[0]


def gemv(rows: Tensor, labeled: Tensor, query_size: int) -> list[int]:
    """All distances at every pick: one pass over the pool."""
    nearest = nearest_labeled(rows, labeled)
    squares = torch.cat([part.square().sum(1) for part in rows.split(2048)])
    product, picks = torch.empty_like(squares), []
    for _ in range(query_size):
        last = int(nearest.argmax())
        picks.append(last)
        torch.mv(rows, rows[last], out=product)
        product.mul_(-2).add_(squares).add_(squares[last])
        torch.minimum(nearest, product, out=nearest)
        nearest[last] = -1
    return picks


def anomalib(rows: Tensor, labeled: Tensor, query_size: int) -> list[int]:
    """The step of anomalib's `KCenterGreedy`."""
    nearest, picks = nearest_labeled(rows, labeled).sqrt()[:, None], []
    for _ in range(query_size):
        last = int(nearest.squeeze(1).max(0).indices)
        picks.append(last)
        distances = torch.linalg.norm(rows - rows[last], ord=2, dim=1, keepdim=True)
        nearest = torch.minimum(nearest, distances)
        nearest[last] = 0
    return picks


def bmdal(rows: Tensor, labeled: Tensor, query_size: int) -> list[int]:
    """MaxDist of bmdal_reg, with the training set."""
    vars(np)["Inf"] = np.inf  # which NumPy 2 left out
    from bmdal_reg.bmdal.feature_data import TensorFeatureData
    from bmdal_reg.bmdal.feature_maps import IdentityFeatureMap
    from bmdal_reg.bmdal.features import Features
    from bmdal_reg.bmdal.selection import MaxDistSelectionMethod

    both = (
        Features(IdentityFeatureMap(n_features=part.shape[1]), TensorFeatureData(part))
        for part in (rows, labeled)
    )
    with redirect_stdout(io.StringIO()):
        return MaxDistSelectionMethod(*both, sel_with_train=True).select(query_size).tolist()


# ---------------------------------------------------------------------- what it costs

Select = Callable[[Tensor, Tensor, int], list[int]]


def cost(select: Select, rows: Tensor, labeled: Tensor, query_size: int) -> tuple[float, list[int]]:
    """Processor time of one call, and the picks."""
    begun = time.process_time()
    picks = select(rows, labeled, query_size)
    return time.process_time() - begun, picks


def prolonged(
    select: Select, rows: Tensor, labeled: Tensor, query_size: int, between: tuple[int, int] | None
) -> tuple[float, list[int]]:
    """The same, or of the line through two smaller numbers of picks."""
    if between is None:
        return cost(select, rows, labeled, query_size)
    (low, _), (high, picks) = (cost(select, rows, labeled, size) for size in between)
    return high + (high - low) / (between[1] - between[0]) * (query_size - between[1]), picks


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Distances made in bulk, rows whose distance to labelled rows or picks was made exact, and rounds."""
    found = {"distances": 0, "contested": 0, "rounds": 0}
    changed = []

    def count(owner: Any, method: str, name: str, number: Callable[..., int]) -> None:
        before = getattr(owner, method)

        def counting(*arguments: Any) -> Any:
            found[name] += number(*arguments)
            return before(*arguments)

        changed.append((owner, method, before))
        setattr(owner, method, counting)

    for name in ("near", "nearest"):
        count(farthest, name, "distances", lambda rows, centers, *_: len(rows) * len(centers))
    count(front, "exactly_nearest", "contested", lambda rows, _: len(rows))
    count(farthest.FarthestFirst, "_front", "rounds", lambda *_: 1)
    try:
        yield found
    finally:
        for owner, method, before in changed:
            setattr(owner, method, before)


def _resident(field: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


@contextmanager
def most_anonymous() -> Iterator[list[float]]:
    """The highest anonymous resident memory above the start, in MB, seen every 2 ms."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)  # what was freed would hide what is needed
    before, over = _resident("RssAnon"), threading.Event()
    found = [0.0]

    def watch() -> None:
        while not over.wait(0.002):
            found[0] = max(found[0], _resident("RssAnon") - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def _measure_memory(select: Select, size: int, kind: str, query_size: int, pipe: Any) -> None:
    torch.set_num_threads(1)
    rows, labeled = pool(size, kind)
    # Libraries are loaded, and have their own buffers made, by their first use.
    select(rows[:8000].clone(), labeled.clone(), 50)
    with most_anonymous() as found:
        select(rows, labeled, query_size)
    pipe.send(found[0])


def extra_memory(select: Select, size: int, kind: str, query_size: int) -> float:
    """Most anonymous memory of one call above what was there before it, in MB, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_measure_memory, args=(select, size, kind, query_size, there))
    process.start()
    there.close()
    found = here.recv()
    process.join()
    return float(found)


def compare(size: int, query_size: int, kind: str, runs: int, whole: bool) -> None:
    """Print a line of the table; `whole` runs the plain loop to its end, once."""
    rows, labeled = pool(size, kind)
    ours(rows[:500], labeled[:200], 20)
    between = (10, 40)
    selects: dict[str, Select] = {"ours": ours, "faiss": ours_by_faiss, "gemv": gemv, "anomalib": anomalib}
    if HAS_PEER:
        selects["bmdal"] = bmdal
    seconds: dict[str, list[float]] = {name: [] for name in selects}
    same = True
    for _ in range(runs):
        for name, select in selects.items():
            own = name in ("ours", "faiss")
            full = own or rows.numel() < 2**23 or (whole and name == "gemv")
            spent, found = prolonged(select, rows, labeled, query_size, None if full else between)
            seconds[name].append(spent)
            if name == "ours":
                picks = found
            same &= set(found) == set(picks[: len(found)])
    with counted() as numbers:
        ours(rows, labeled, query_size)
    part = numbers["distances"] / (size * (LABELED + query_size))
    memory = extra_memory(ours, size, kind, query_size)
    middle = {name: statistics.median(found) for name, found in seconds.items()}
    ratios = {name: middle[name] / middle["ours"] for name in selects}
    said = f"{size:>7} {query_size:>5} {kind:>10} {middle['ours']:>7.3f} {middle['faiss']:>7.3f}"
    said += f" {middle['gemv']:>8.2f}{'' if whole else ' ext':4} {ratios['gemv']:>6.1f}x"
    said += f" {ratios['anomalib']:>7.1f}x" + (f" {ratios['bmdal']:>6.1f}x" if HAS_PEER else f"{'':>8}")
    said += f"  {'yes' if same else 'NO':>4} {100 * part:>6.1f} % {numbers['contested']:>9}"
    said += f" {numbers['rounds']:>6} {memory:>6.0f} {rows.numel() / 2**20:>8.0f}"
    print(said, flush=True)


# ---------------------------------------------------------------------- a pool in a file


def write_file(path: Path, rows: int) -> None:
    """Clustered rows in float16, part by part."""
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(rows, WIDTH))
    base, _ = pool(50_000)
    generator = torch.Generator().manual_seed(1)
    for start in range(0, rows, len(base)):
        part = base[: min(len(base), rows - start)]
        file[start : start + len(part)] = (
            (part + 0.1 * torch.randn(part.shape, generator=generator)).half().numpy()
        )
    file.flush()


def stream(path: Path, query_size: int) -> None:
    """Print what picking from a file costs; in a process of its own, so that memory is its own."""
    torch.set_num_threads(1)
    rows = as_tensor(np.load(path, mmap_mode="r"))
    labeled = pool(1)[1]
    ours(rows[:3000], labeled, 20)
    read = 0
    given, take = Vectors.given, Vectors.take

    def counting_given(vectors: Vectors, part: slice = slice(None)) -> Any:
        nonlocal read
        found = given(vectors, part)
        read += len(found[0]) if len(vectors) == len(rows) else 0
        return found

    def counting_take(vectors: Vectors, places: Tensor) -> Vectors:
        nonlocal read
        read += len(places) if len(vectors) == len(rows) else 0
        return take(vectors, places)

    Vectors.given, Vectors.take = counting_given, counting_take
    with most_anonymous() as most:
        clock, processor = time.perf_counter(), time.process_time()
        picks = ours(rows, labeled, query_size)
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
    print(
        f"{len(rows):,} x {rows.shape[1]} float16, {path.stat().st_size / 1e9:.1f} GB, {len(set(picks))} "
        f"picks: {processor:.0f} s of processor time, {clock:.0f} s by the clock; rows read "
        f"{read / len(rows):.2f} times; anonymous memory {most[0]:.0f} MB above the start"
    )


def streamed(gigabytes: float, folder: str | None) -> None:
    """Write the file, pick, delete it."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "pool.npy"
        write_file(path, int(gigabytes * 1e9 / (2 * WIDTH)))
        process = multiprocessing.get_context("spawn").Process(target=stream, args=(path, 1000))
        process.start()
        process.join()


# ---------------------------------------------------------------------- a picture


def both(rows: Tensor, labeled: Tensor, query_size: int) -> tuple[float, float]:
    """Processor times of `k_center_greedy` and of the plain loop, medians of three."""
    pairs = []
    for _ in range(3):
        slow, _ = prolonged(gemv, rows, labeled, query_size, (10, 40))
        pairs.append((cost(ours, rows, labeled, query_size)[0], slow))
    fast, slow = (statistics.median(column) for column in zip(*pairs, strict=True))
    return round(fast, 4), round(slow, 4)


def plot(path: str) -> None:
    """Draw the cost against the size of the pool and of the query."""
    from lightning_al.plotting.style import BASELINE, calm, new_figure

    figure = new_figure((9, 3.8))
    left, right = figure.subplots(1, 2)
    sizes = [5000, 10_000, 20_000, 50_000, 100_000, 200_000]
    queries = [20, 50, 100, 200, 500, 1000, 2000, 5000]
    ours(*(part[:2000] for part in pool(2000)), 20)
    by_size = [both(*pool(rows), 1000) for rows in sizes]
    fixed = pool(50_000)
    by_query = [both(*fixed, query_size) for query_size in queries]
    for ax, places, found, label, given in (
        (left, sizes, by_size, "rows in the pool", "1,000 picks"),
        (right, queries, by_query, "picks", "50,000 rows"),
    ):
        for column, name, colour, marker in (
            (1, "all distances at every pick", BASELINE, "s"),
            (0, "k_center_greedy", "#0072B2", "o"),
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
    figure.suptitle("Cost of k-center, D = 512, 1,000 labelled rows", x=0.01, ha="left", fontsize=12)
    figure.savefig(path)
    print(f"{path}: {by_size} {by_query}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5,000 rows, one run")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--plot", metavar="FILE", help="only draw the cost against the sizes")
    parser.add_argument("--stream", metavar="GB", type=float, help="only pick from a file of this size")
    parser.add_argument(
        "--folder", help="where that file is written; the system's temporary folder otherwise"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.plot:
        plot(options.plot)
        return
    if options.stream:
        streamed(options.stream, options.folder)
        return
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}")
    if not HAS_PEER:
        print(f"bmdal_reg is not installed; for its column: {INSTALL}")
    print(
        "   rows picks       kind  ours s   faiss   gemv s         gemv anomalib   bmdal  same  distances"
        " contested rounds     MB  a quarter of the pool"
    )
    if options.quick:
        compare(5000, 100, "clustered", 1, True)
        return
    for size, query_size, kind, whole in (
        (10_000, 100, "clustered", True),
        (50_000, 1000, "clustered", True),
        (50_000, 1000, "isotropic", True),
        (50_000, 1000, "digits", True),
        (200_000, 5000, "clustered", False),
    ):
        compare(size, query_size, kind, options.runs, whole)


if __name__ == "__main__":
    main()
