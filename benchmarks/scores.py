"""Processor time and memory of entropy, margin and BALD beside other libraries'.

    python benchmarks/scores.py            # a few minutes, about 3 GB of memory
    python benchmarks/scores.py --quick    # a tenth of the rows: does it run?

Every library scores the same float32 probabilities in the layout it asks for, on one thread; the
implementations take turns, and the median of the runs is shown. Extra memory is the resident high-water mark
of a call above what was resident before it (Linux), the difference the largest from float64. `ratio` is the
fastest other library's time over ours; the exit status says whether the promised ratios and 10 MB are kept.

Compared where installed, never needed: pip install baal scikit-activeml batchbald_redux
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import platform
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_al import functional as F

MAX_EXTRA_MB, MAX_DIFFERENCE = 10, 1e-5
PROMISED = {"entropy": 5, "margin": 3, "BALD": 8}
SIZES = {"entropy": (100_000, 1000), "margin": (100_000, 1000), "BALD": (5_000, 20, 1000)}
PEERS = {"baal": "baal", "scikit-activeml": "skactiveml", "batchbald_redux": "batchbald_redux"}
Score = Callable[[], Any]


def main() -> int:
    """Print the table; the exit status says whether the promises are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, nothing promised")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    versions = {name: version for name in PEERS if (version := installed(name))}
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, one thread")
    print(", ".join(f"{name} {version}" for name, version in versions.items()) or "no other library")
    for name in PEERS.keys() - versions.keys():
        print(f"{name} is not installed and left out: pip install {name}")
    print(f"\n{'score':<9}{'size':<16}{'library':<17}{'s':>8}{'extra MB':>10}{'ratio':>7}{'difference':>12}")
    kept = [compare(score, options.quick, options.runs, versions) for score in SIZES]
    if options.quick or not versions:
        return 0
    print(f"\npromised ratios {PROMISED}, at most {MAX_EXTRA_MB} MB: {'kept' if all(kept) else 'NOT KEPT'}")
    return not all(kept)


def installed(name: str) -> str:
    """Its version, or nothing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def compare(score: str, quick: bool, runs: int, peers: dict[str, str]) -> bool:
    """Print the lines of one score; whether its promises are kept."""
    rows, *rest = SIZES[score]
    shape = (rows // 10 if quick else rows, *rest)
    probs = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul_(2)
    for part in probs.split(1000):
        part.copy_(part.softmax(-1))
    scores = contenders(score, probs, peers)
    expected = exact(score, probs)
    times: dict[str, list[float]] = {name: [] for name in scores}
    extra, worst = {}, {}
    for name, call in scores.items():
        found, extra[name] = extra_memory(call)
        worst[name] = float(np.abs(np.asarray(found, dtype=np.float64) - expected).max())
    for run in range(runs):
        for name in list(scores) if run % 2 else reversed(scores):
            begun = time.process_time()
            scores[name]()
            times[name].append(time.process_time() - begun)
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = min((medians[name] for name in medians if name != "lightning_al"), default=float("nan"))
    size = " x ".join(f"{n // 1000}k" if n % 1000 == 0 and n > 1000 else str(n) for n in shape)
    for name, seconds in medians.items():
        ratio = f"{best / seconds:.1f}" if name == "lightning_al" else ""
        print(
            f"{score:<9}{size:<16}{name:<17}{seconds:>8.3f}{extra[name]:>10.0f}{ratio:>7}{worst[name]:>12.1e}"
        )
    ours = "lightning_al"
    return (
        best >= PROMISED[score] * medians[ours]
        and extra[ours] <= MAX_EXTRA_MB
        and worst[ours] < MAX_DIFFERENCE
    )


def contenders(score: str, probs: Tensor, peers: dict[str, str]) -> dict[str, Score]:
    """The same score of each library, its input laid out beforehand as it wants it."""
    ours = {"entropy": F.entropy, "margin": F.margin, "BALD": F.bald}[score]
    found: dict[str, Score] = {"lightning_al": lambda: ours(probs)}
    if "baal" in peers:
        found["baal"] = of_baal(score, probs)
    if "scikit-activeml" in peers:
        found["scikit-activeml"] = of_scikit_activeml(score, probs)
    if "batchbald_redux" in peers and score == "BALD":
        found["batchbald_redux"] = of_batchbald_redux(probs)
    return found


def of_baal(score: str, probs: Tensor) -> Score:
    """Classes in the second axis, passes in the last: (N, C, K)."""
    from baal.active.heuristics import BALD, Entropy, Margin

    if score == "BALD":
        passes = np.ascontiguousarray(probs.numpy().transpose(0, 2, 1))
        return lambda: BALD().compute_score(passes)
    table = probs.numpy()
    if score == "entropy":
        return lambda: Entropy().compute_score(table)
    return lambda: 1 - Margin().compute_score(table)  # theirs is the gap itself


def of_scikit_activeml(score: str, probs: Tensor) -> Score:
    """Members in the first axis, (K, N, C); BALD is its mean divergence from the consensus."""
    from skactiveml.pool import average_kl_divergence, uncertainty_scores

    if score == "BALD":
        members = np.ascontiguousarray(probs.numpy().transpose(1, 0, 2))  # a copy: it is changed in place
        return lambda: average_kl_divergence(members)
    table, method = probs.numpy(), {"entropy": "entropy", "margin": "margin_sampling"}[score]
    return lambda: uncertainty_scores(table, method=method)


def of_batchbald_redux(probs: Tensor) -> Score:
    """Logarithms of probabilities, (N, K, C)."""
    from batchbald_redux import batchbald

    # No progress bars.
    batchbald.tqdm = lambda *_, **__: SimpleNamespace(update=lambda _: None, close=lambda: None)
    logs = probs.clamp_min(1e-38).log()
    return lambda: batchbald.compute_entropy(logs) - batchbald.compute_conditional_entropy(logs)


def exact(score: str, probs: Tensor) -> np.ndarray:
    """By definition, in float64."""
    parts = []
    for part in torch.split(probs, 250):
        part = part.double()
        if score == "entropy":
            parts.append(torch.special.entr(part).sum(-1))
        elif score == "margin":
            parts.append(1 + part.topk(2).values.diff().squeeze(-1))
        else:
            mean, each = (torch.special.entr(p).sum(-1) for p in (part.mean(1), part))
            parts.append(mean - each.mean(1))
    return torch.cat(parts).numpy()


def extra_memory(call: Score) -> tuple[Any, float]:
    """What a call returns, and the megabytes that it needs at its highest."""
    call()  # what is loaded or set up once does not count
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return call(), float("nan")
    before = resident("VmRSS")
    found = call()
    return found, (resident("VmHWM") - before) / 1024


def resident(key: str) -> int:
    """In kB."""
    return int(re.search(rf"^{key}:\s+(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)[1])


if __name__ == "__main__":
    raise SystemExit(main())
