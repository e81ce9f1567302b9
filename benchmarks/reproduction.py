"""What all reproductions share: the runs, side by side and resumable, and the report.

    dbal_mnist.py, ... -> Protocol -> [main] -> runs/reproduce, results/*.csv, docs/images/*.png

A run is one strategy with one seed, in a folder of its own. Every round of it is in the ledger there before
the next begins: the same command, given again, goes on where it stopped. For one seed the samples, the
initial set and the weights that each round begins with are the same for all strategies.

Labels are counted strictly: a test is credited to the labels that its model was trained on. A target counts
as reached at the first of two consecutive rounds at it. No validation labels are used: every round trains
for a fixed number of steps, and its last weights are tested.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import inf, isinf
from pathlib import Path
from queue import Empty
from statistics import median
from typing import Any

# Runs go side by side: one thread each is quicker than all of them sharing every core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_al import (
    ActiveDataModule,
    ActiveLearning,
    History,
    Ledger,
    MCDropout,
    fit_rounds,
    labels_to_target,
)
from lightning_al import acquisition as acq
from lightning_al.plotting import learning_curves

HERE = Path(__file__).parent
MEAN, DEVIATION = 0.1307, 0.3081  # of MNIST's training images
TUNING_SEEDS, TUNING_SIZE = (100, 101), 2_500
TARGETS = (0.90, 0.95)


@dataclass(frozen=True)
class Settings:
    """How a round is trained; chosen once on random sampling, see `tune`."""

    steps: int
    learning_rate: float
    decay: float  # the L2 penalty is this over the number of labels
    batch_size: int = 32


class Protocol(ABC):
    """What is compared, and how far each run goes."""

    name: str
    strategies: Mapping[str, acq.Acquisition]
    settings: Settings
    tried: Sequence[Settings]
    #: Labels that the settings are tried with last; the first ones are 20, then 200 more each time.
    tuned_to: int
    #: What the settings are tried on, and how many labels more each time.
    tuned_on, tuned_by = "Random", 200
    candidates: int | None = None
    test_passes: int | None
    initial: int = 20
    initial_balanced = True
    query_size: int = 10
    #: Among which the steps of a round are divided.
    epochs = 1
    precision: Any = "32-true"
    #: Folder of the data, and mean and deviation of its training images.
    data: tuple[str, float, float] = ("mnist", MEAN, DEVIATION)
    #: Test metrics beside the accuracy, where a strategy's module logs them.
    more_metrics: Sequence[str] = ()
    #: Labels that every run goes to, and from where it ends once it has reached `last_target`.
    least_labels: int
    #: Labels at which a run ends in any case, by strategy; "*" for all others.
    most_labels: Mapping[str, int]
    last_target: float
    lowest_shown = 0.7
    #: What others report for each target, and what it is.
    published: Mapping[str, Mapping[float, Any]]
    published_as: str

    @abstractmethod
    def layers(self) -> nn.Module:
        """The network: from images `(B, 1, 28, 28)` to logits `(B, 10)`."""

    @abstractmethod
    def samples(self, train: Images, seed: int) -> Images:
        """What the strategies choose from."""

    @abstractmethod
    def gates(self, needed: Needed) -> list[tuple[str, bool | None]]:
        """Sentences and whether they hold; `None`: not yet known."""

    def module(self, strategy: str, settings: Settings) -> L.LightningModule:
        """What is trained; logs `test_acc`."""
        return Net(self.layers(), settings)

    def report(self, jobs: Sequence[Job]) -> bool:
        """Write tables and plot of what there is, and say what holds."""
        return report(self, jobs)

    def targets(self) -> list[float]:
        """Test accuracies."""
        return [target for target in TARGETS if target <= self.last_target]

    def most(self, strategy: str) -> int:
        """Labels at which a run ends in any case."""
        return self.most_labels.get(strategy, self.most_labels["*"])

    def has_ended(self, strategy: str, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a run with these rounds needs no more."""
        if not rows or rows[-1]["labeled"] < self.least_labels:
            return False
        history = History([dict(row) for row in rows])
        reached = labels_to_target(history, "test_acc", self.last_target) < inf
        return bool(reached or rows[-1]["labeled"] >= self.most(strategy))


# ---------------------------------------------------------------------- data


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Images `(N, 1, 28, 28)` and their classes."""

    def __init__(self, images: Tensor, targets: Tensor) -> None:
        self.images, self.targets = images, targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.targets[index]

    def part(self, indices: Tensor) -> Images:
        """Those samples only."""
        return Images(self.images[indices], self.targets[indices])


def read(root: Path, part: str, data: tuple[str, float, float]) -> Images:
    """The `"train"` or `"t10k"` images, normalised, from the four published files in a folder of `root`."""
    name, mean, deviation = data
    pixels = torch.from_numpy(_idx(root / name / f"{part}-images-idx3-ubyte.gz")).unsqueeze(1)
    targets = torch.from_numpy(_idx(root / name / f"{part}-labels-idx1-ubyte.gz"))
    return Images(pixels.float().div_(255).sub_(mean).div_(deviation), targets.long())


def _idx(path: Path) -> Any:
    if not path.exists():
        sys.exit(
            f"{path} is not there. Needed are the four published .gz files in a folder "
            f"`{path.parent.name}`; name the folder that holds it by --data-root or LIGHTNING_AL_DATA."
        )
    content = gzip.decompress(path.read_bytes())
    start = 4 + 4 * content[3]
    shape = np.frombuffer(content, ">i4", content[3], 4)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


# ---------------------------------------------------------------------- one run


class Net(L.LightningModule):
    """Any network, trained by Adam with one cycle of the learning rate."""

    def __init__(self, layers: nn.Module, settings: Settings) -> None:
        super().__init__()
        self.layers = layers.to(memory_format=torch.channels_last)  # quicker convolutions
        self.settings = settings

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, 10)` of images `(B, 1, 28, 28)`."""
        return self.layers(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: D102
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def test_step(self, batch: Any, batch_idx: int) -> None:  # noqa: D102
        x, y = batch
        self.log("test_acc", (self(x).argmax(1) == y).float().mean(), batch_size=len(y))

    def configure_optimizers(self) -> Any:  # noqa: D102
        given = self.settings
        labels = len(self.trainer.datamodule.labeled_indices)
        optimizer = torch.optim.Adam(self.parameters(), weight_decay=given.decay / labels)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, given.learning_rate, total_steps=given.steps
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Clock(L.Callback):
    """What a round cost, query and test included, as two more test metrics."""

    def __init__(self) -> None:
        self.begun = time.perf_counter(), time.process_time()

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        wall, processor = self.begun
        pl_module.log("wall_s", time.perf_counter() - wall)
        pl_module.log("processor_s", time.process_time() - processor)


class Ended(Exception):
    """A run has gone as far as it is needed."""


@dataclass(frozen=True)
class Job:
    """One run."""

    protocol: Protocol
    strategy: str
    seed: int
    folder: Path
    root: Path

    def rows(self) -> list[dict[str, Any]]:
        """The rounds so far that were tested."""
        ledger = Ledger(self.folder / "ledger.sqlite3")
        rows = ledger.rounds() if ledger.exists() else []
        return [row | {"test_acc": round(row["test_acc"], 4)} for row in rows if "test_acc" in row]

    def has_ended(self) -> bool:
        """Whether there is nothing left to do."""
        return self.protocol.has_ended(self.strategy, self.rows())

    def rounds_left(self) -> int:
        """At most."""
        rows = self.rows()
        if self.protocol.has_ended(self.strategy, rows):
            return 0
        labeled = rows[-1]["labeled"] + self.protocol.query_size if rows else self.protocol.initial
        return 1 + (self.protocol.most(self.strategy) - labeled) // self.protocol.query_size


def run(job: Job) -> None:
    """From the initial set, or from where it stopped, to the end."""
    protocol = job.protocol
    train = protocol.samples(_images(job.root, "train", protocol.data), job.seed)
    test = _images(job.root, "t10k", protocol.data)
    _rounds(job, protocol.settings, protocol.strategies[job.strategy], train, test)


def _rounds(job: Job, settings: Settings, acquisition: acq.Acquisition, train: Images, test: Images) -> None:
    protocol = job.protocol
    data = ActiveDataModule.from_dataloaders(
        DataLoader(train, settings.batch_size), test=DataLoader(test, 250), pool_batch_size=250,
        initial=protocol.initial, initial_balanced=protocol.initial_balanced,
        steps_per_epoch=settings.steps // protocol.epochs, seed=job.seed, state_dir=job.folder,
    )  # fmt: skip
    active = ActiveLearning(
        acquisition, query_size=protocol.query_size, candidates=protocol.candidates, restart="redraw",
        test_posterior=None if protocol.test_passes is None else MCDropout(protocol.test_passes),
    )  # fmt: skip

    def make_module(seed: int) -> L.LightningModule:
        torch.manual_seed(seed)
        return protocol.module(job.strategy, settings)

    def make_trainer(number: int) -> L.Trainer:
        rows = job.rows()
        if rows:
            _say((job.strategy, job.seed, rows[-1]))
        if protocol.has_ended(job.strategy, rows):
            raise Ended
        return L.Trainer(
            max_epochs=protocol.epochs, accelerator="cpu", devices=1, precision=protocol.precision,
            callbacks=[Clock()], logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip

    with suppress(Ended):
        fit_rounds(make_module, make_trainer, data, active, rounds=10_000)


_read: dict[tuple[Any, ...], Images] = {}


def _images(*what: Any) -> Images:
    """Read once a process."""
    if what not in _read:
        _read[what] = read(*what)
    return _read[what]


# ---------------------------------------------------------------------- all runs, side by side

_news: Any = None


def _say(row: Any) -> None:
    if _news is not None:
        _news.put(row)


def _prepare(news: Any) -> None:
    """Make a process quiet, single-threaded, and end with the one that started it."""
    global _news
    _news = news
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that has the terminal
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for said in (".*does not have many workers.*", "The number of training batches.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", said)
    warnings.filterwarnings("ignore", "`batch_bald`: after.*")  # in nearly every round, see the docs


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def run_all(jobs: Sequence[Job], workers: int) -> None:
    """Every run that has not ended, `workers` at a time."""
    left = [job for job in jobs if not job.has_ended()]
    print(f"{len(jobs) - len(left)} of {len(jobs)} runs have ended before", flush=True)
    if not left:
        return
    context = multiprocessing.get_context("spawn")
    news = context.Queue()
    with ProcessPoolExecutor(min(workers, len(left)), context, _prepare, (news,)) as pool:
        futures = [pool.submit(run, job) for job in left]
        try:
            _follow(futures, left, news, min(workers, len(left)))
        except BaseException:
            for process in list(pool._processes.values()):
                process.kill()
            raise


def _follow(futures: Sequence[Future[None]], jobs: Sequence[Job], news: Any, workers: int) -> None:
    """A line for every round."""
    begun, done = time.perf_counter(), 0
    most = {(job.strategy, job.seed): job.rounds_left() for job in jobs}
    while not all(future.done() for future in futures) or not news.empty():
        for future in futures:
            if future.done() and future.exception() is not None:
                future.result()
        try:
            strategy, seed, row = news.get(timeout=1)
        except Empty:
            continue
        done += 1
        for job, future in zip(jobs, futures, strict=True):
            running = (job.strategy, job.seed) == (strategy, seed)
            most[job.strategy, job.seed] = 0 if future.done() else most[job.strategy, job.seed] - running
        spent = time.perf_counter() - begun
        left = sum(most.values()) * spent / done / 60
        print(
            f"{strategy:<16} seed {seed}  {row['labeled']:>4} labels  {row['test_acc']:.4f}  "
            f"{row['processor_s']:5.1f} s   {spent / 60:.0f} min so far, at most {left:.0f} to go "
            f"({workers} side by side)",
            flush=True,
        )


# ---------------------------------------------------------------------- the training settings


def tune(protocol: Protocol, root: Path, folder: Path, workers: int) -> None:
    """Random sampling under every setting tried, on other seeds, tested on training images held out."""
    context = multiprocessing.get_context("spawn")
    jobs = [(protocol, root, folder, given, seed) for given in protocol.tried for seed in TUNING_SEEDS]
    with ProcessPoolExecutor(workers, context, _prepare, (None,)) as pool:
        found = list(pool.map(_try, jobs))
    rows: list[dict[str, Any]] = []
    for given in protocol.tried:
        mine = [history for job, history in zip(jobs, found, strict=True) if job[3] == given]
        accuracy, more = _means(mine, "test_acc", "accuracy"), {}
        for column in protocol.more_metrics:
            more |= _means(mine, column, column)
        chosen = "yes" if given == protocol.settings else ""
        # With the first labels the seeds differ by more than the settings.
        mean = {f"mean_after_{protocol.initial}": round(float(np.mean(list(accuracy.values())[1:])), 4)}
        rows.append(asdict(given) | accuracy | mean | more | {"chosen": chosen})
    write(HERE / "results" / f"{protocol.name}_tuning.csv", rows)
    print(draw_table(rows))


def _means(histories: Sequence[History], column: str, name: str) -> dict[str, float]:
    labels, values = histories[0].column("labeled"), [history.column(column) for history in histories]
    means = np.mean(values, 0)
    return {f"{name}_{at}": round(float(mean), 4) for at, mean in zip(labels, means, strict=True)}


def _try(job: tuple[Protocol, Path, Path, Settings, int]) -> History:
    protocol, root, folder, given, seed = job
    train = _images(root, "train", protocol.data)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    samples = protocol.samples(train.part(order[TUNING_SIZE:]), seed)
    name = "-".join(str(value) for value in (*asdict(given).values(), seed))
    few = _Few(protocol)
    run = Job(few, protocol.tuned_on, seed, folder / "tuning" / name, root)
    _rounds(run, given, acq.Random(), samples, train.part(order[:TUNING_SIZE]))
    return History(run.rows())


class _Few:
    """A protocol with queries of many random samples."""

    candidates = None

    def __init__(self, protocol: Protocol) -> None:
        self.protocol, self.query_size = protocol, protocol.tuned_by

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["protocol"], name)

    def has_ended(self, strategy: str, rows: Sequence[Mapping[str, Any]]) -> bool:
        return bool(rows) and rows[-1]["labeled"] >= self.protocol.tuned_to


# ---------------------------------------------------------------------- the report


@dataclass
class Needed:
    """Labels that every run needed for a target, by strategy; infinity if it never got there."""

    runs: dict[str, dict[float, list[float]]]
    ends: dict[str, list[int]]
    complete: dict[str, bool]

    def median(self, strategy: str, target: float) -> float | None:
        """Over the seeds, infinite if most never got there; `None` while runs are going on."""
        return median(self.runs[strategy][target]) if self.complete.get(strategy) else None

    def at_least(self, strategy: str, target: float) -> float | None:
        """The median, were every run that never got there to get there at once."""
        if not self.complete.get(strategy):
            return None
        return median(map(min, self.runs[strategy][target], self.ends[strategy]))


def report(protocol: Protocol, jobs: Sequence[Job]) -> bool:
    """Write tables and plot of what there is, and say what holds."""
    rows = rows_of(protocol, jobs)
    ended = sum(protocol.has_ended(strategy, found) for (strategy, _), found in rows.items())
    print(f"{protocol.name}: {ended} of {len(rows)} runs have ended, {sum(map(len, rows.values()))} rounds")
    results = HERE / "results"
    write_rounds(protocol, rows)
    whole = {run: found for run, found in rows.items() if protocol.has_ended(run[0], found)}
    if not whole:
        return False
    needed = _needed(protocol, rows, whole)
    summary = [_summary(protocol, strategy, whole, needed) for strategy in needed.runs]
    write(results / f"{protocol.name}_summary.csv", summary)
    print(draw_table(summary))
    draw(protocol, whole)
    gates = protocol.gates(needed)
    for said, holds in gates:
        print(f"{VERDICTS[holds]:<14}{said}")
    _into_docs(protocol, len(whole), len(rows), summary, gates)
    return all(holds for _, holds in gates)


def rows_of(protocol: Protocol, jobs: Sequence[Job]) -> Rows:
    """The rounds of every run: of its ledger, or, of one that ended and whose ledger is gone, of the CSV."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    path = HERE / "results" / f"{protocol.name}_rounds.csv"
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                run = row.pop("strategy"), int(row.pop("seed"))
                found.setdefault(run, []).append({k: _number(v) for k, v in row.items() if v})
    found = {run: rows for run, rows in found.items() if protocol.has_ended(run[0], rows)}
    for job in jobs:
        rows, run = job.rows(), (job.strategy, job.seed)
        if run not in found or job.has_ended():
            # As in the CSV.
            found[run] = [{name: _short(value) for name, value in row.items()} for row in rows]
    order = list(protocol.strategies)
    return {run: found[run] for run in sorted(found, key=lambda run: (run[1], order.index(run[0])))}


def _number(text: str) -> float:
    return int(text) if text.isdecimal() else float(text)


def write_rounds(protocol: Protocol, rows: Rows) -> None:
    """Every round of every run."""
    columns = ("round", "labeled", "test_acc", "label_entropy", "train_s", "score_s", "select_s")
    every = [
        {"strategy": strategy, "seed": seed, "validation_labels": 0}
        | {column: _short(row[column]) for column in (*columns, "wall_s", "processor_s")}
        | {column: _short(row[column]) for column in protocol.more_metrics if column in row}
        for (strategy, seed), found in rows.items()
        for row in found
    ]
    if every:
        write(HERE / "results" / f"{protocol.name}_rounds.csv", every)


VERDICTS = {True: "yes", False: "NO", None: "not yet known"}
Rows = Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]


def _needed(protocol: Protocol, rows: Rows, whole: Rows) -> Needed:
    """Of the runs that have ended."""
    needed = Needed({}, {}, {})
    for (strategy, _), found in whole.items():
        history = History([dict(row) for row in found])
        into = needed.runs.setdefault(strategy, {target: [] for target in TARGETS})
        for target in TARGETS:
            into[target].append(labels_to_target(history, "test_acc", target))
        needed.ends.setdefault(strategy, []).append(found[-1]["labeled"])
    for strategy in protocol.strategies:
        runs = [run for run in rows if run[0] == strategy]
        needed.complete[strategy] = bool(runs) and all(run in whole for run in runs)
    return needed


def _summary(protocol: Protocol, strategy: str, whole: Rows, needed: Needed) -> dict[str, Any]:
    row: dict[str, Any] = {"strategy": strategy, "seeds": len(needed.ends[strategy])}
    last = min(needed.ends[strategy])
    for target in protocol.targets():
        found, name = needed.runs[strategy][target], f"{target:.0%}"
        row[f"labels_to_{name}"] = _count(median(found), last)
        row[f"acquired_to_{name}"] = _count(median(found) - protocol.initial, last - protocol.initial)
        row[f"seeds_to_{name}"] = " ".join(
            _count(value, end) for value, end in zip(found, needed.ends[strategy], strict=True)
        )
        row[f"missed_{name}"] = sum(map(isinf, found))
    row["validation_labels"] = 0
    mine = [row for (name, _), found in whole.items() if name == strategy for row in found]
    row["rounds"] = len(mine)
    for column in ("train_s", "score_s", "select_s", "processor_s", "wall_s"):
        row[f"{column}_a_round"] = round(median(each[column] for each in mine if column in each), 2)
    row["wall_min"] = round(sum(each["wall_s"] for each in mine) / 60, 1)
    row["processor_min"] = round(sum(each["processor_s"] for each in mine) / 60, 1)
    return row


def draw(protocol: Protocol, whole: Rows) -> None:
    """Median and quartiles, as far as every seed of a strategy goes: later only the slow seeds are left."""
    grouped: dict[str, list[History]] = {}
    for strategy in dict.fromkeys(name for name, _ in whole):
        found = [values for (name, _), values in whole.items() if name == strategy]
        last = min(values[-1]["labeled"] for values in found)
        grouped[strategy] = [
            History([dict(row) for row in values if row["labeled"] <= last]) for values in found
        ]
    figure = learning_curves(grouped, "test_acc", target=TARGETS[0])
    ax = figure.axes[0]
    if protocol.last_target > TARGETS[0]:
        ax.axhline(protocol.last_target, color="#333333", linewidth=0.8, linestyle=(0, (1, 2)), zorder=1.5)
    ax.set_ylim(protocol.lowest_shown, 1)
    path = HERE.parent / "docs" / "images" / f"{protocol.name}.png"
    figure.savefig(path, dpi=110)
    print(f"drawn: {path}")


def _into_docs(
    protocol: Protocol,
    ended: int,
    wanted: int,
    summary: Sequence[Mapping[str, Any]],
    gates: Sequence[tuple[str, bool | None]],
) -> None:
    """What the page shows of it: between two marks that bear the protocol's name."""
    table = []
    for row in summary:
        shown = {"": row["strategy"]}
        for target in protocol.targets():
            name = f"{target:.0%}"
            shown[f"labels to {target:.0%}".replace("%", " %")] = f"**{row[f'labels_to_{name}']}**"
            shown["acquired" + " " * len(shown)] = row[f"acquired_to_{name}"]
            shown[protocol.published_as + " " * len(shown)] = protocol.published[row["strategy"]].get(
                target, ""
            )
            shown["each seed" + " " * len(shown)] = row[f"seeds_to_{name}"]
        table.append(shown | {"processor s a round": row["processor_s_a_round"]})
    minutes = [sum(row[f"{kind}_min"] for row in summary) for kind in ("processor", "wall")]
    said = "\n".join(f"- {VERDICTS[holds]}: {what}" for what, holds in gates)
    cost = f"{minutes[0]:.0f} minutes of processor time, {minutes[1]:.0f} of wall time on shared cores"
    part = f"{ended} of {wanted} runs have ended. " if ended < wanted else ""
    put(protocol.name, f"{draw_table(table)}\n\n{part}All runs together: {cost}.\n\n{said}")


def put(name: str, body: str, page: str = "reproductions.md") -> None:
    """Write on a page of the docs, between two marks of this name, if they are there."""
    path = HERE.parent / "docs" / page
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if begin not in text or end not in text:
        return
    before, after = text.split(begin)[0], text.split(end)[1]
    path.write_text(f"{before}{begin}\n{body}\n\n{end}{after}", encoding="utf-8")
    print(f"written: {path}")


def _count(labels: float, last: float) -> str:
    return f"> {last:g}" if isinf(labels) else f"{labels:g}"


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """As CSV."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)
    print(f"written: {path}")


def draw_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """In Markdown."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    lines = [names, ["---"] * len(names), *([str(row.get(name, "")) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# ---------------------------------------------------------------------- the command


def main(protocol: Protocol, description: str, arguments: Iterable[str] | None = None) -> int:
    """Tune, run, or report; the exit status of a report says whether everything promised holds."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-root", type=Path, help=f"folder that holds {protocol.data[0]}/; else LIGHTNING_AL_DATA"
    )
    parser.add_argument("--seeds", type=int, default=5, help="runs of every strategy")
    parser.add_argument("--first-seed", type=int, default=0, help="leave out those before it")
    parser.add_argument("--strategies", nargs="+", choices=list(protocol.strategies), help="default: all")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs side by side")
    parser.add_argument("--state", type=Path, default=Path("runs/reproduce"), help="where runs are kept")
    parser.add_argument("--report", action="store_true", help="tables and plot of what there is; no run")
    parser.add_argument("--tune", action="store_true", help="how the training settings were chosen")
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    root = options.data_root or Path(os.environ.get("LIGHTNING_AL_DATA", "data"))
    folder = options.state / protocol.name
    if options.tune:
        tune(protocol, root, folder, options.workers)
        return 0
    jobs = [
        Job(protocol, strategy, seed, folder / f"{strategy}-{seed}", root)
        for seed in range(options.first_seed, options.seeds)
        for strategy in options.strategies or protocol.strategies
    ]
    if not options.report:
        _idx(root / protocol.data[0] / "train-labels-idx1-ubyte.gz")
        try:
            run_all(jobs, options.workers)
        except KeyboardInterrupt:
            sys.exit("Interrupted: the same command goes on from here.")
    return 0 if protocol.report(jobs) else 1
