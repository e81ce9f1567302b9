"""How long does `compare` take on scikit-learn's digits, and how much of that is the library itself?

    python benchmarks/compare.py              # 6 strategies x 5 seeds x 8 rounds
    python benchmarks/compare.py --report     # tables of what there is
    python benchmarks/compare.py --report --figures docs/images   # and the pictures of docs/comparing.md

A round trains for 600 steps, about 3 s on a quiet core. Of a round's time, what is neither training, nor
testing, nor scoring the pool, nor the strategy's choice is counted as the library's own, though some of it is
Lightning making ready a Trainer, a fit and a test: the same of Lightning alone is shown beside it.
Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import lightning as L
import torch
from demo import Digits, split
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, Subset

from lightning_al import ActiveDataModule, Comparison, MCDropout, compare
from lightning_al import acquisition as acq

HERE = Path(__file__).parent
STEPS, BATCH_SIZE, QUERY_SIZE, ROUNDS, SEEDS = 600, 32, 10, 8, 5
STRATEGIES: dict[str, acq.Acquisition] = {
    "Random": acq.Random(),
    "Margin": acq.Margin(),
    "Entropy": acq.Entropy(),
    "BALD": acq.BALD(posterior=MCDropout(20)),
    "CoreSet": acq.CoreSet(),
    "BADGE": acq.BADGE(),
}


class Net(Digits):
    """The demo's, for more steps."""

    def configure_optimizers(self) -> Any:  # noqa: D102
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=STEPS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: D102
        return nn.functional.cross_entropy(self(batch[0]), batch[1])


class Loop(L.Callback):
    """How long the training loop itself takes, as one more test metric."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        self.begun = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        self.seconds = time.perf_counter() - self.begun

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        self.test_begun = time.perf_counter()

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        pl_module.log("loop_s", self.seconds)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        self.test_seconds = time.perf_counter() - self.test_begun


def make_trainer(number: int) -> L.Trainer:
    """Quiet, on one core."""
    return L.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[Loop()],
    )  # fmt: skip


def make_model(seed: int) -> Net:
    """By the seed."""
    torch.manual_seed(seed)
    return Net()


def make_data(seed: int, state_dir: Path) -> ActiveDataModule:
    """1,297 digits to learn from, 10 of them labelled, and 500 to test on."""
    train_set, test_set = split(seed)
    return ActiveDataModule(
        train_set, test_set=test_set, initial=10, batch_size=BATCH_SIZE, pool_batch_size=500,
        steps_per_epoch=STEPS, seed=seed, state_dir=state_dir,
    )  # fmt: skip


def plain(repeats: int = 3) -> list[tuple[float, float]]:
    """A whole round of Lightning alone, and what of it is neither training nor testing."""
    train_set, test_set = split(0)
    found = []
    for number in range(repeats):
        begun = time.perf_counter()
        trainer, model = make_trainer(0), make_model(number)
        labeled = Subset(train_set, range(50))
        sampler = RandomSampler(labeled, replacement=True, num_samples=STEPS * BATCH_SIZE)
        trainer.fit(model, DataLoader(labeled, BATCH_SIZE, sampler=sampler))
        trainer.test(model, DataLoader(test_set, BATCH_SIZE), verbose=False)
        whole = time.perf_counter() - begun
        loop = next(c for c in trainer.callbacks if isinstance(c, Loop))  # type: ignore[attr-defined]
        found.append((whole, whole - loop.seconds - loop.test_seconds))
    return found[1:]


def overhead(comparison: Comparison) -> list[dict[str, Any]]:
    """Of every strategy, medians over its rounds that asked."""
    found = []
    for name in comparison.strategies:
        rows = [row for row in comparison.rows if row["strategy"] == name and row["asked"]]
        own = [
            row["round_s"] - row["loop_s"] - row["test_s"] - row["score_s"] - row["select_s"] for row in rows
        ]
        shares = [seconds / row["round_s"] for seconds, row in zip(own, rows, strict=True)]
        found.append(
            {
                "strategy": name, "round_s": round(median(row["round_s"] for row in rows), 2),
                "train_s": round(median(row["loop_s"] for row in rows), 2),
                "test_s": round(median(row["test_s"] for row in rows), 3),
                "score_s": round(median(row["score_s"] for row in rows), 3),
                "select_s": round(median(row["select_s"] for row in rows), 3),
                "own_s": round(median(own), 3), "own_percent": round(100 * median(shares), 1),
            }
        )  # fmt: skip
    return found


def draw(comparison: Comparison, folder: Path, state: Path) -> None:
    """What there is to see, as `compare_*.png`."""
    from lightning_al import plotting

    pixels = torch.stack([split(0)[0][i][0] for i in range(len(split(0)[0]))]).flatten(1)
    figures = {
        "curves": plotting.learning_curves(comparison, "test_acc", target=0.9),
        "classes": plotting.class_balance_by_round(comparison),
        "penalties": plotting.penalty_matrix(comparison, metric="test_acc"),
        "times": plotting.time_split(comparison),
        "map": plotting.embedding_map(pixels, state / "BADGE" / "seed_0"),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"compare_{name}.png")


def main() -> int:
    """Run, tell, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--state", type=Path, default=Path("runs/compare"), help="where runs are kept")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="runs of every strategy")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="queries a run")
    parser.add_argument("--workers", type=int, help="runs side by side; default: one a core")
    parser.add_argument("--report", action="store_true", help="tables of what there is; no run")
    parser.add_argument("--figures", type=Path, help="folder for pictures")
    options = parser.parse_args()
    begun = time.perf_counter()
    if options.report:
        comparison = Comparison.load(options.state)
    else:
        comparison = compare(
            STRATEGIES, make_model, make_trainer, make_data, query_size=QUERY_SIZE, rounds=options.rounds,
            seeds=options.seeds, state_dir=options.state, workers=options.workers,
        )  # fmt: skip
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"\nAll runs took {(time.perf_counter() - begun) / 60:.1f} minutes by the clock, and "
            f"{(used.ru_utime + used.ru_stime) / 60:.1f} minutes of processor time.\n"
        )
    print(comparison.summary("test_acc", target=0.9))
    if options.seeds > 1:
        print(f"\n{comparison.penalties('test_acc')}\n")
    rows = overhead(comparison)
    torch.set_num_threads(1)
    alone = plain()
    rows.append(
        {
            "strategy": "Lightning alone", "round_s": round(median(whole for whole, _ in alone), 2),
            "own_s": round(median(rest for _, rest in alone), 3),
            "own_percent": round(100 * median(rest / whole for whole, rest in alone), 1),
        }
    )  # fmt: skip
    names = list(rows[0])
    for row in [dict(zip(names, names, strict=True)), *rows]:
        print("  ".join(f"{row.get(name, ''):>{max(15, len(name))}}" for name in names))
    path = HERE / "results" / "compare.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    comparison.write_csv(HERE / "results" / "compare_rounds.csv")
    print(f"\nwritten: {path}, and every round of every run beside it")
    if options.figures is not None:
        draw(comparison, options.figures, options.state)
    return 0 if all(row["own_percent"] <= 5 for row in rows[:-1]) else 1


if __name__ == "__main__":
    sys.exit(main())
