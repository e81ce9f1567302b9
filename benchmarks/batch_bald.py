"""What BatchBALD costs beside `batchbald_redux`: processor time, extra memory, and what the picks are worth.

    python benchmarks/batch_bald.py [--quick]

K = 100 posterior samples, 10 classes, 10,000 joint samples, one thread; medians of runs that take turns.
The peer's cost of a pick stays the same once its joint entropy is sampled; "ext" prolongs the line through
the two numbers of picks named. Without the peer its columns stay empty. To install it in an environment of
its own (without its torchvision, which wants another torch): see INSTALL.
Promised: 30 times faster at 1k / 10 and 40 times at 1k / 40 (peer in float64: in float32 it is NaN from
pick 48 on), 12 times at 1k / 10 with `exact=True`; at most a tenth of the peer's extra memory; picks
equal to a full evaluation; joint information no more than 0.005 nats below the peer's.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.util
import io
import math
import multiprocessing
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_al.functional import batch_bald, joint_entropy

SAMPLES, CLASSES, JOINT = 100, 10, 10_000
INSTALL = "pip install toma tqdm psutil && pip install --no-deps batchbald_redux"
HAS_PEER = importlib.util.find_spec("batchbald_redux") is not None


def predictions(rows: int, seed: int = 0) -> Tensor:
    """Like MC dropout of a partly trained net, `(rows, SAMPLES, CLASSES)`.

    Clustered inputs and linear classifiers that differ by the posterior sample: they agree on some
    clusters and not on others, and the scale of the logits makes some rows sure and others not.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    clusters, width = normal(50, 24), 24**0.5
    inputs = clusters[torch.randint(50, (rows,), generator=generator)] + 0.6 * normal(rows, 24)
    weight = normal(24, CLASSES) + 0.25 * normal(SAMPLES, 24, CLASSES)
    scale = 3 * (0.6 * normal(rows, 1, 1)).exp()
    return (scale * torch.einsum("nd,kdc->nkc", inputs, weight) / width).softmax(-1)


def ours(mc_probs: Tensor, query_size: int, exact: bool = False) -> list[int]:
    """The picks of this package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the limit log(K): the peer passes it too
        generator = torch.Generator().manual_seed(0)
        return batch_bald(
            mc_probs, query_size, num_joint_samples=JOINT, exact=exact, generator=generator
        ).tolist()


def peers(mc_probs: Tensor, query_size: int, double: bool = False) -> list[int]:
    """The picks of `batchbald_redux`."""
    from batchbald_redux.batchbald import get_batchbald_batch

    torch.manual_seed(0)
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        dtype = torch.float64 if double else torch.float32
        # Smaller probabilities, as sure nets give them, make its scores NaN in float32.
        log_probs = mc_probs.to(dtype).clamp_min(1e-6).log()
        return list(get_batchbald_batch(log_probs, query_size, JOINT, dtype=dtype).indices)


def cost(select: Callable[..., list[int]], *arguments: Any) -> tuple[float, list[int]]:
    """Processor time of one call, and its picks."""
    begun = time.process_time()
    picks = select(*arguments)
    return time.process_time() - begun, picks


def peer_cost(
    mc_probs: Tensor, query_size: int, between: tuple[int, int] | None, double: bool
) -> tuple[float, list[int]]:
    """Its processor time, or that of the line through two fewer numbers of picks; the picks made."""
    if between is None:
        return cost(peers, mc_probs, query_size, double)
    (low, _), (high, picks) = (cost(peers, mc_probs, size, double) for size in between)
    return high + (high - low) / (between[1] - between[0]) * (query_size - between[1]), picks


def _resident(field: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def _measure_memory(
    select: Callable[..., list[int]], rows: int, arguments: tuple[Any, ...], pipe: Any
) -> None:
    torch.set_num_threads(1)
    mc_probs = predictions(rows)
    select(mc_probs[:50].clone(), 6, *arguments[1:])  # libraries are loaded by their first use
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)  # what was freed would hide what is needed
    Path("/proc/self/clear_refs").write_text("5")  # the mark starts anew
    before = _resident("VmRSS")
    select(mc_probs, *arguments)
    pipe.send(_resident("VmHWM") - before)


def extra_memory(select: Callable[..., list[int]], rows: int, *arguments: Any) -> float:
    """Resident high-water mark of one call above what was resident before it, in MB, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_measure_memory, args=(select, rows, arguments, there))
    process.start()
    found = here.recv()
    process.join()
    return float(found)


def joint_information(mc_probs: Tensor, picks: list[int], draws: int = 2000) -> tuple[float, float]:
    """Mean log ratio of the likelihood and the marginal of labels drawn from the model, and its error."""
    generator = torch.Generator().manual_seed(1)
    known, ratios = mc_probs[picks].double().clamp_min(1e-300).log(), []
    for sample in range(SAMPLES):
        total = torch.zeros(draws, SAMPLES, dtype=torch.float64)
        for log_probs in known:
            labels = torch.multinomial(log_probs[sample].exp(), draws, True, generator=generator)
            total += log_probs.T[labels]
        ratios.append(total[:, sample] - total.logsumexp(1) + math.log(SAMPLES))
    every = torch.stack(ratios)
    return float(every.mean()), float(every.std(1).square().mean().sqrt() / every.numel() ** 0.5)


@contextlib.contextmanager
def every_candidate_on_all_paths() -> Iterator[None]:
    """The full evaluation: without the bounds that spare most of it."""
    merged = joint_entropy._Paths.merged
    joint_entropy._Paths.merged = lambda paths: paths
    try:
        yield
    finally:
        joint_entropy._Paths.merged = merged


def compare(
    rows: int, query_size: int, runs: int, between: tuple[int, int] | None = None, double: bool = False
) -> None:
    """Print a line of the table."""
    mc_probs = predictions(rows)
    ours(mc_probs[:100], 6)
    found: dict[str, list[float]] = {"peer": [], "ours": [], "exact": []}
    for _ in range(runs):
        seconds, own_picks = cost(ours, mc_probs, query_size)
        found["ours"].append(seconds)
        found["exact"].append(cost(ours, mc_probs, query_size, True)[0])
        if HAS_PEER:
            seconds, peer_picks = peer_cost(mc_probs, query_size, between, double)
            found["peer"].append(seconds)
    fast, exact = statistics.median(found["ours"]), statistics.median(found["exact"])
    memory = extra_memory(ours, rows, query_size)
    said = f"{rows:>6} {query_size:>3} {fast:>8.2f} {exact:>8.2f} {memory:>7.0f}"
    picks = between[1] if between else query_size
    own, error = joint_information(mc_probs, own_picks[:picks])
    if HAS_PEER:
        peer = statistics.median(found["peer"])
        peer_memory = extra_memory(peers, rows, picks, double)
        theirs, _ = joint_information(mc_probs, peer_picks)
        kind = ("f64" if double else "f32") + (f" ext {list(between)}" if between else "")
        said += f" {peer:>8.1f} {peer_memory:>7.0f} {peer / fast:>7.1f} {peer / exact:>7.1f} {own:>9.4f}"
        said += f" {theirs:>9.4f} ±{error:.4f} at {picks:>2}  {kind}"
    else:
        said += f" {'':>8} {'':>7} {'':>7} {'':>7} {own:>9.4f} {'':>9} ±{error:.4f} at {picks:>2}"
    print(said, flush=True)


def check_picks(query_size: int, seeds: int) -> None:
    """Print for how many seeds the picks are those of the full evaluation."""
    same, part = 0, []
    for seed in range(seeds):
        mc_probs = predictions(1000, seed + 1)
        fast_seconds, fast = cost(ours, mc_probs, query_size)
        with every_candidate_on_all_paths():
            full_seconds, full = cost(ours, mc_probs, query_size)
        same += fast == full
        part.append(full_seconds / fast_seconds)
    print(
        f"1k / {query_size}: all picks equal to a full evaluation for {same} of {seeds} seeds, which takes "
        f"{statistics.median(part):.1f} times as long",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1k / 10 once, two seeds")
    parser.add_argument("--runs", type=int, default=3)
    quick, runs = (options := parser.parse_args()).quick, options.runs
    torch.set_num_threads(1)
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}")
    if not HAS_PEER:
        print(f"batchbald_redux is not installed; for its columns: {INSTALL}")
    print("     N   B   ours s  exact s      MB   peer s      MB   ratio   exact  own nats  peer nats")
    compare(1000, 10, 1 if quick else runs)
    if not quick:
        compare(1000, 40, runs, between=(8, 11), double=True)
        compare(10_000, 10, 1, between=(6, 7))
        long = ours(predictions(1000), 100)
        information, _ = joint_information(predictions(1000), long)
        print(f"1k / 100: {len(set(long))} picks, {information:.4f} nats of at most {math.log(SAMPLES):.4f}")
    check_picks(10, 2 if quick else 6)
    if not quick:
        check_picks(40, 2)


if __name__ == "__main__":
    main()
