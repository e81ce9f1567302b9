"""Which strategy needs the fewest labels? Active learning on scikit-learn's 1,797 handwritten digits.

A small network starts with 10 labels and asks for 10 more, eleven times, by each strategy. For one seed,
split, initial set, initial weights and training schedule are the same for all strategies; only what is asked
for differs. What trains and asks is `run_once`; all else is bookkeeping around it.

    python examples/demo.py                       # about two minutes on two cores; writes to runs/demo
    python examples/demo.py --seeds 1 --rounds 2  # a quick look
"""

from __future__ import annotations

import argparse
import csv
import logging
import math
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

# Runs go side by side: one thread each is quicker than all of them sharing every core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import lightning as L
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from tqdm import tqdm

from lightning_al import ActiveDataModule, ActiveLearning, History, fit_rounds, labels_to_target
from lightning_al import acquisition as acq
from lightning_al.plotting import class_balance, learning_curves, selected_samples

STRATEGIES: dict[str, acq.Acquisition] = {
    "Random": acq.Random(),
    "Margin": acq.Margin(),
    "Entropy": acq.Entropy(),
    "LeastConfidence": acq.LeastConfidence(),
    "HyperplaneDistance": acq.HyperplaneDistance(),
}
INITIAL, QUERY_SIZE, TEST_SIZE, CLASSES = 10, 10, 500, 10
TARGETS = (0.90, 0.95)
# Chosen once, with random sampling on seeds that the demo does not use.
STEPS, BATCH_SIZE, LEARNING_RATE = 100, 32, 1e-2

OWN_SCRIPT = """\
In a script of your own, with your data set, your module and your Trainer:

    import lightning as L
    from lightning_al import ActiveDataModule, ActiveLearning, acquisition as acq, fit_rounds

    data = ActiveDataModule(train_set, test_set=test_set, initial=10, state_dir="runs/mine")
    active = ActiveLearning(acq.Margin(), query_size=10, budget=120)
    history = fit_rounds(model, lambda round: L.Trainer(max_epochs=20), data, active, rounds=11)
"""


class Digits(L.LightningModule):
    """Two convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(32 * 4 * 4, CLASSES),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, 10)` of images `(B, 1, 8, 8)`."""
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: D102
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def test_step(self, batch: Any, batch_idx: int) -> None:  # noqa: D102
        x, y = batch
        self.log("test_acc", (self(x).argmax(1) == y).float().mean(), batch_size=len(y))

    def configure_optimizers(self) -> Any:  # noqa: D102
        optimizer = torch.optim.AdamW(self.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def split(seed: int) -> tuple[TensorDataset, TensorDataset]:
    """1,297 digits to learn from and 500 to test on."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    targets = torch.tensor(digits.target)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    test, train = order[:TEST_SIZE], order[TEST_SIZE:]
    return TensorDataset(images[train], targets[train]), TensorDataset(images[test], targets[test])


# ---------------------------------------------------------------------- one run


@dataclass
class Run:
    """One strategy with one seed, and what became of it."""

    strategy: str
    seed: int
    rows: list[dict[str, Any]]
    asked: list[int]  # data set indices of all queries, in the order of asking
    scores: list[float]

    @property
    def history(self) -> History:
        """The rounds."""
        return History(self.rows)


def run_once(strategy: str, seed: int, rounds: int, folder: Path) -> Run:
    """Active learning from the initial set to the budget."""
    train_set, test_set = split(seed)
    data = ActiveDataModule(
        train_set, test_set=test_set, initial=INITIAL, batch_size=BATCH_SIZE, pool_batch_size=500,
        steps_per_epoch=STEPS, seed=seed, state_dir=folder,
    )  # fmt: skip
    active = ActiveLearning(STRATEGIES[strategy], query_size=QUERY_SIZE)

    def make_trainer(number: int) -> L.Trainer:
        count_round()
        return L.Trainer(
            max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip

    def make_model(seed: int) -> Digits:
        torch.manual_seed(seed)
        return Digits()

    history = fit_rounds(make_model, make_trainer, data, active, rounds=rounds)
    asked = [event for _, event in data.ledger.events() if event.kind == "asked" and event.round]
    return Run(strategy, seed, history.rows, [e.sample for e in asked], [float(e.score or 0) for e in asked])


# ---------------------------------------------------------------------- all runs, side by side

_rounds_done: Any = None


def prepare_worker(rounds_done: Any) -> None:
    """Make a process quiet, single-threaded, and end with the one that started it."""
    global _rounds_done
    _rounds_done = rounds_done
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that has the terminal
    threading.Thread(target=end_with_parent, daemon=True).start()
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", "The number of training batches.*")
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # torch's, of how Lightning calls it


def end_with_parent() -> None:
    """Leave no process behind, however the demo ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def count_round() -> None:
    """For the progress bar."""
    with _rounds_done.get_lock():
        _rounds_done.value += 1


def run_all(seeds: int, rounds: int, workers: int, folder: Path) -> list[Run]:
    """Every strategy with every seed."""
    context = multiprocessing.get_context("spawn")
    rounds_begun = context.Value("i", 0)
    pairs = [(strategy, seed) for seed in range(seeds) for strategy in STRATEGIES]
    with ProcessPoolExecutor(workers, context, prepare_worker, (rounds_begun,)) as pool:
        try:
            runs = [
                pool.submit(run_once, strategy, seed, rounds, folder / f"{strategy}-{seed}")
                for strategy, seed in pairs
            ]
            show_progress(runs, rounds_begun, len(pairs) * (rounds + 1))
            return [run.result() for run in runs]
        except BaseException:
            for process in multiprocessing.active_children():
                process.kill()
            raise


def show_progress(runs: list[Future[Run]], rounds_begun: Any, total: int) -> None:
    """A bar over all rounds of all runs, until these are done or one fails."""
    with tqdm(total=total, desc="Learning", unit="round") as bar:
        waiting: Any = runs
        while waiting:
            done, waiting = wait(runs, timeout=0.25, return_when=FIRST_EXCEPTION)
            bar.n = rounds_begun.value
            bar.set_postfix_str(f"{len(done)} of {len(runs)} runs done")
            if any(run.exception() for run in done):
                break


# ---------------------------------------------------------------------- what came out


def by_strategy(runs: list[Run]) -> dict[str, list[Run]]:
    """The runs of every strategy, by seed."""
    return {name: [run for run in runs if run.strategy == name] for name in STRATEGIES}


def outcome(runs: list[Run]) -> str:
    """Labels to every target: medians over seeds, and how many seeds never got there."""
    last = max(row["labeled"] for run in runs for row in run.rows)
    said = []
    for name, own in by_strategy(runs).items():
        counts = []
        for target in TARGETS:
            needed = [labels_to_target(run.history, "test_acc", target) for run in own]
            middle, never = median(needed), sum(map(math.isinf, needed))
            counts.append((f"> {last}" if math.isinf(middle) else f"{middle:g}") + f" [{never}]")
        said.append(f"{name} {' / '.join(counts)}")
    targets = " / ".join(f"{100 * target:g} %" for target in TARGETS)
    return (
        f"Labels to {targets} test accuracy, median of {len(own)} seed{'s' * (len(own) > 1)} "
        f"[seeds that never got there]: {', '.join(said)}."
    )


def write_csv(runs: list[Run], path: Path) -> None:
    """Every round of every run."""
    columns = ["strategy", "seed", *runs[0].history.columns]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for run in runs:
            writer.writerows({"strategy": run.strategy, "seed": run.seed, **row} for row in run.history)


def draw_curves(runs: list[Run], path: Path) -> None:
    """The learning curves, and what was asked for first."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.6), layout="constrained", dpi=150)
    left, right = figure.subfigures(1, 2, width_ratios=(1.75, 1), wspace=0.04)
    own = by_strategy(runs)
    ax = left.subplots()
    learning_curves(
        {name: [run.history for run in runs] for name, runs in own.items()}, "test_acc", target=TARGETS[0],
        saving=("Margin", "Random"), emphasize=("Margin", "Random"), ax=ax,
    )  # fmt: skip
    ax.set_title(
        "Handwritten digits: accuracy against labels", loc="left", fontsize=12, pad=10, color="#333333"
    )
    above, below = right.subfigures(2, 1)
    draw_first_query(own["Margin"][0], above, "What Margin asked for first, with its scores")
    draw_first_query(own["Random"][0], below, "What Random asked for first")
    figure.savefig(path, bbox_inches="tight", pad_inches=0.15)


def draw_first_query(run: Run, figure: Any, heading: str) -> None:
    """Ten images with their labels, and scores where the strategy has any."""
    images, targets = split(run.seed)[0].tensors
    asked, scores = run.asked[:QUERY_SIZE], run.scores[:QUERY_SIZE]
    if not any(scores):
        scores = [math.nan] * len(scores)
    titles = [f"a {targets[index]}" for index in asked]
    selected_samples(images[asked], scores, titles, decimals=3, heading=heading, figure=figure)


def draw_balance(runs: list[Run], path: Path) -> None:
    """The classes of the labels asked for, against those of the pool."""
    targets = {run.seed: split(run.seed)[0].tensors[1].numpy() for run in runs}
    counts = {
        name: [np.bincount(targets[run.seed][run.asked], minlength=CLASSES) for run in own]
        for name, own in by_strategy(runs).items()
    }
    pool = np.mean([np.bincount(values, minlength=CLASSES) for values in targets.values()], axis=0)
    figure = class_balance(counts, pool=pool, heading="Handwritten digits: classes of the acquired labels")
    figure.savefig(path, bbox_inches="tight", pad_inches=0.15)


# ---------------------------------------------------------------------- the command


def fresh_folder(out: Path) -> Path:
    """For the runs' ledgers: what an earlier demo left there is removed, and nothing else."""
    folder, mark = out / "state", out / "state" / "made_by_the_demo"
    if folder.exists() and not mark.exists():
        sys.exit(
            f"{folder} exists and was not made by this demo, which would empty it. Pass another `--out`, or "
            "move that folder away."
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mark.touch()
    return folder


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} was given; needed is a whole number from 1 on")
    return int(text)


def main() -> None:
    """Run, draw, tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of all that is written")
    parser.add_argument("--seeds", type=positive, default=5, help="runs of every strategy")
    parser.add_argument("--rounds", type=positive, default=11, help=f"queries of {QUERY_SIZE} labels a run")
    parser.add_argument("--workers", type=positive, default=2, help="runs side by side")
    options = parser.parse_args()
    begun = time.perf_counter()
    folder = fresh_folder(options.out)
    try:
        runs = run_all(options.seeds, options.rounds, options.workers, folder)
    except KeyboardInterrupt:
        sys.exit("Interrupted: no figures were drawn. The same command begins anew.")
    files = {
        "learning curves": options.out / "learning_curves.png",
        "class balance": options.out / "class_balance.png",
        "every round": options.out / "rounds.csv",
    }
    draw_curves(runs, files["learning curves"])
    draw_balance(runs, files["class balance"])
    write_csv(runs, files["every round"])
    print(f"\n{outcome(runs)}\n")
    for what, path in files.items():
        print(f"{what + ':':<17}{path}")
    print(f"{'ledgers:':<17}{folder}  ({time.perf_counter() - begun:.0f} s in all)\n\n{OWN_SCRIPT}")


if __name__ == "__main__":
    main()
