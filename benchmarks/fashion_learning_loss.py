"""Learning Loss on Fashion-MNIST: does the head rank losses that it has not seen, and does asking by it help?

    python benchmarks/fashion_learning_loss.py --data-root DIR    # about ten minutes on two cores; resumable
    python benchmarks/fashion_learning_loss.py --report           # tables and plot of what there is
    python benchmarks/fashion_learning_loss.py --tune --data-root DIR

After Yoo & Kweon, "Learning Loss for Active Learning", 2019 (arXiv:1905.03677), in small: four convolutional
stages, a head that looks into all of them and stops shaping them after 60 % of a round's epochs, and 5,000
candidates drawn anew every round, of which the highest predictions are labelled. Since the head changes what
it looks into, there are two baselines: random sampling with the same head, and without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import mean, median, stdev
from typing import Any, Literal

import lightning as L
import torch
from reproduction import (
    HERE,
    VERDICTS,
    Job,
    Net,
    Protocol,
    Rows,
    Settings,
    draw_table,
    main,
    put,
    rows_of,
    write,
    write_rounds,
)
from torch import Tensor, nn
from torch.nn import functional

from lightning_al import History, LearningLossMixin, LearningLossOptions
from lightning_al import acquisition as acq
from lightning_al.metrics import LossRankingAccuracy
from lightning_al.plotting import learning_curves

DATA = ("fashion_mnist", 0.2860, 0.3530)  # mean and deviation of the training images
LEAST_RANKING = 0.75
HEADS = "LearningLoss", "Random with the head"
HINGE = tuple(f"{name}, hinge" for name in HEADS)
RANKING, SPEARMAN, BY_ENTROPY = "test_loss_ranking_accuracy", "test_loss_spearman", "entropy_ranking_accuracy"


@dataclass(frozen=True)
class WithHead(Settings):
    """How the head is trained, too."""

    batch_size: int = 64
    weight: float = 1.0
    detach_after: float | int | None = 0.6
    objective: Literal["hinge", "smooth", "mse"] = "smooth"
    shift: int = 1  # pixels, at most, by which an image is moved in training


class Plain(Net):
    """The network without a head."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: D102
        return self.losses_of_moved(batch).mean()

    def losses_of_moved(self, batch: Any) -> Tensor:
        """Cross-entropies of images that were moved a little."""
        return functional.cross_entropy(
            self(_moved(batch[0], self.settings.shift)), batch[1], reduction="none"
        )


class Predicting(LearningLossMixin, Plain):
    """The network with a loss head; its test tells how well the losses of the test images are ranked."""

    learning_loss_layers = tuple(f"layers.{stage}" for stage in range(4))

    def __init__(self, layers: nn.Module, settings: WithHead) -> None:
        super().__init__(layers, settings)
        self.learning_loss_options = LearningLossOptions(
            weight=settings.weight, detach_after=settings.detach_after, objective=settings.objective,
            log_ranking=True,
        )  # fmt: skip
        self.by_entropy = LossRankingAccuracy()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: D102
        return self.learning_loss(self.losses_of_moved(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:  # noqa: D102
        x, y = batch
        logits = self(x)
        losses = functional.cross_entropy(logits, y, reduction="none")
        self.learning_loss(losses)
        self.by_entropy.update(torch.distributions.Categorical(logits=logits.float()).entropy(), losses)
        self.log(BY_ENTROPY, self.by_entropy)
        self.log("test_acc", (logits.argmax(1) == y).float().mean(), batch_size=len(y))


def _moved(images: Tensor, shift: int) -> Tensor:
    """Each by its own number of pixels; what comes in from outside is background."""
    size, side = len(images), torch.arange(images.shape[-1])
    wide = functional.pad(images, (shift,) * 4, value=-DATA[1] / DATA[2])
    down, right = torch.randint(2 * shift + 1, (2, size, 1)) + side
    return wide[torch.arange(size)[:, None, None], :, down[:, :, None], right[:, None, :]].movedim(3, 1)


CHOSEN = WithHead(steps=300, learning_rate=5e-3, decay=0.1)


class Fashion(Protocol):
    """The highest predicted losses against random sampling, with and without the head."""

    name = "fashion_learning_loss"
    strategies: Mapping[str, acq.Acquisition] = {
        "LearningLoss": acq.LearningLoss(),
        "Random with the head": acq.Random(),
        "Random": acq.Random(),
        "LearningLoss, hinge": acq.LearningLoss(),
        "Random with the head, hinge": acq.Random(),
    }
    data = DATA
    settings = CHOSEN
    tried = (CHOSEN, *(replace(CHOSEN, objective=name) for name in ("hinge", "mse")))
    tuned_on, tuned_by, tuned_to = "Random with the head", 300, 1_000
    candidates, initial, query_size, epochs, test_passes = 5_000, 100, 100, 10, None
    initial_balanced = False
    least_labels, last_target = 1_000, 1.0
    most_labels: Mapping[str, int] = {"*": 1_000}
    more_metrics = (RANKING, SPEARMAN, BY_ENTROPY)

    def layers(self) -> nn.Module:
        """Four stages, of which the first three halve the image, and a linear layer on their means."""
        widths = (1, 16, 32, 64, 128)
        stages = [
            nn.Sequential(
                nn.Conv2d(before, width, 3, stride=1 if place else 2, padding=1, bias=False),
                nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2) if place in (1, 2) else nn.Identity(),
            )
            for place, (before, width) in enumerate(pairwise(widths))
        ]  # fmt: skip
        return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))

    def module(self, strategy: str, settings: Any) -> L.LightningModule:
        """With the same first weights in all; the head is made later."""
        if strategy == "Random":
            return Plain(self.layers(), settings)
        chosen = replace(settings, objective="hinge") if strategy.endswith("hinge") else settings
        return Predicting(self.layers(), chosen)

    def samples(self, train: Any, seed: int) -> Any:
        """All training images; the seed draws initial set, weights and candidates."""
        return train

    def gates(self, needed: Any) -> list[tuple[str, bool | None]]:
        """Not by labels needed: see `report`."""
        return []

    def report(self, jobs: Sequence[Job]) -> bool:
        """Write tables and plot of what there is, and say what holds."""
        rows = rows_of(self, jobs)
        write_rounds(self, rows)
        whole = {run: found for run, found in rows.items() if self.has_ended(run[0], found)}
        print(f"{self.name}: {len(whole)} of {len(rows)} runs have ended")
        if not whole:
            return False
        summary = [_summary(name, runs) for name, runs in _by_strategy(whole).items()]
        write(HERE / "results" / f"{self.name}_summary.csv", summary)
        _draw(self, whole)
        seeds = {seed for _, seed in rows}
        promised = {(strategy, seed) for strategy in list(self.strategies)[:3] for seed in seeds}
        verdicts = _verdicts(whole, HEADS) if promised <= set(whole) else []
        said = _listed(verdicts) + (f"\n\n{_where_lower(whole)}" if verdicts else "")
        if {(strategy, seed) for strategy in HINGE for seed in seeds} <= set(whole):
            of_hinge = _listed(_verdicts(whole, HINGE))
            said += f"\n\nThe same of the hinge, of which nothing was promised:\n\n{of_hinge}"
        minutes = sum(row["processor_s"] for found in whole.values() for row in found) / 60
        table = draw_table([{"" if k == "strategy" else k: v for k, v in row.items()} for row in summary])
        ended = "" if len(whole) == len(rows) else f"{len(whole)} of {len(rows)} runs have ended. "
        body = f"{table}\n\n{ended}All runs together: {minutes:.0f} minutes of processor time.\n\n{said}"
        print(body)
        put(self.name, body, "learning_loss.md")
        return bool(verdicts) and all(holds for _, holds in verdicts)


def _by_strategy(rows: Rows) -> dict[str, list[Sequence[Mapping[str, Any]]]]:
    found: dict[str, list[Sequence[Mapping[str, Any]]]] = {}
    for (strategy, _), run in rows.items():
        found.setdefault(strategy, []).append(run)
    return found


def _curve(run: Sequence[Mapping[str, Any]]) -> float:
    """The mean accuracy over all label counts: the area under the curve, of width 1."""
    return mean(row["test_acc"] for row in run)


def _summary(strategy: str, runs: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    row: dict[str, Any] = {"strategy": strategy, "seeds": len(runs)}
    for place, labels in ((4, 500), (9, 1_000)):
        row[f"accuracy at {labels}"] = _spread([run[place]["test_acc"] for run in runs], 100)
    row["mean accuracy of the curve"] = _spread([_curve(run) for run in runs], 100)
    for name, column in (
        ("ranking accuracy", RANKING), ("Spearman", SPEARMAN), ("ranking by the entropy", BY_ENTROPY)
    ):  # fmt: skip
        if column in runs[0][-1]:
            row[f"{name} at 1000"] = _spread([run[-1][column] for run in runs], 1)
    row["processor s a round"] = round(mean(each["processor_s"] for run in runs for each in run), 1)
    return row


def _spread(values: Sequence[float], scale: int) -> str:
    digits = 1 if scale == 100 else 3
    wide = f" ± {scale * stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * mean(values):.{digits}f}{wide}"


def _listed(verdicts: Sequence[tuple[str, bool | None]]) -> str:
    return "\n".join(f"- {VERDICTS[holds]}: {what}" for what, holds in verdicts)


def _verdicts(whole: Rows, heads: Sequence[str]) -> list[tuple[str, bool | None]]:
    runs = _by_strategy(whole)
    ours, random = (runs[name] for name in heads)
    ranked = {name: [run[-1][RANKING] for run in runs[name]] for name in heads}
    differences = [_curve(a) - _curve(b) for a, b in zip(ours, random, strict=True)]
    spread = stdev(_curve(run) for run in random)
    return [
        *(
            (
                f"{name}: at 1,000 labels the head puts at least {LEAST_RANKING:.0%} of all pairs of test "
                f"images in order, median {median(values):.1%}, seeds {min(values):.1%} to {max(values):.1%}",
                median(values) >= LEAST_RANKING,
            )
            for name, values in ranked.items()
        ),
        (
            f"the curve of {heads[0]} is not below that of {heads[1]} by more than the seeds' spread: on "
            f"average it is {100 * mean(differences):+.1f} points from it (each seed: "
            f"{', '.join(f'{100 * value:+.1f}' for value in differences)}), the spread is "
            f"{100 * spread:.1f}",
            mean(differences) >= -spread,
        ),
    ]


def _where_lower(whole: Rows) -> str:
    """Not promised, but to be known."""
    runs = _by_strategy(whole)
    lower = []
    for ours, random in zip(*(zip(*runs[name], strict=True) for name in HEADS), strict=True):
        a, b = ([row["test_acc"] for row in found] for found in (ours, random))
        if mean(a) < mean(b) - stdev(b):
            lower.append(str(ours[0]["labeled"]))
    return f"By numbers of labels it is lower by more than the spread there at {', '.join(lower) or 'none'}."


def _draw(protocol: Fashion, whole: Rows) -> None:
    from matplotlib.figure import Figure

    runs = _by_strategy(whole)
    figure = Figure(figsize=(11.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    histories = {name: [History([dict(row) for row in run]) for run in found] for name, found in runs.items()}
    learning_curves(
        histories, "test_acc", ax=left, emphasize=[n for n in list(protocol.strategies)[:3] if n in histories]
    )
    left.set_ylim(0.6, 0.9)
    heads = {name: found for name, found in histories.items() if name != "Random"}
    if heads:
        learning_curves(heads, RANKING, ax=right, percent=True)
    right.set_ylabel("pairs of test images in the order of their losses")
    right.set_ylim(0.5, 1)
    right.axhline(LEAST_RANKING, color="#333333", linewidth=0.8, linestyle=(0, (1, 2)))
    path = HERE.parent / "docs" / "images" / f"{protocol.name}.png"
    figure.savefig(path, dpi=110)
    print(f"drawn: {path}")


if __name__ == "__main__":
    raise SystemExit(main(Fashion(), __doc__ or ""))
