"""CLASS BALANCE: says when a strategy falls for a few classes.

labels of the newest query, before they are trained on -> [test] -> a warning, and two columns of the history
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakKeyDictionary

import lightning as L
import numpy as np
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lightning_al.callbacks.checks import data_of
from lightning_al.callbacks.collapse import Balance, Reference, checked_shares, compared, shares_by_class
from lightning_al.data import ActiveDataModule
from lightning_al.data.checks import check_positive
from lightning_al.data.initial import listed_targets
from lightning_al.ledger.state import IGNORED, LABELED
from lightning_al.randomness import derive_seed
from lightning_al.together import agree

__all__ = ["ClassBalance"]


@dataclass
class _Memory:
    """What outlives a fit's callbacks: a driver makes fresh ones for each."""

    told: set[int] = field(default_factory=set)
    is_inactive: bool = False
    classes: list[Any] | None = None


_MEMORIES: WeakKeyDictionary[ActiveDataModule, _Memory] = WeakKeyDictionary()


class ClassBalance(L.Callback):
    """Warns when the labels that a strategy acquires fall on few classes: mode collapse.

    Before a round's training the labels of its query are held against random draws of as many: a Monte Carlo
    test of the entropy of their classes. It warns once a round, names the classes that are starved, and gives
    the round's row the columns `acquired_entropy` (nats) and `balance_p`. `acq.ClassBalanced` and
    `acq.PowerSampling` mend it. Labels may come from anyone, at any time before the training; where they are
    no classes (numbers, several labels a sample, masks) it says so once and does nothing more.

    What random draws would be is known by a reference:

    - `"initial"`: the initial set, if it was drawn at random. The test is whether one pool gave both, by
      permuting their labels: exact however few the initial labels are, whatever the classes of the pool. Few
      say little: with 10 of 10 classes only a coarse collapse shows.
    - `"dataset"`: the labels of the data set, in simulations. Where it lists no `targets`, each item is read
      once.
    - shares, in any unit: of classes 0, 1, ..., or a mapping from class, or its name, to share. Classes
      without one are not expected at all; one that is no class of the labels is refused.

    Args:
        reference: One of these.
        level: Warn where p is below. A strategy that draws at random is warned of in a share of `level` of
            the rounds at most.
        window: How many of the last queries to judge together: a query of a few labels shows nothing alone.
        draws: Random draws a round; p is no less than 1 / (draws + 1).

    Attributes:
        row: What was found in this round, by column; empty if nothing.
        balance: The same with what random draws gave; `None` if nothing.

    Raises:
        ValueError: If an argument does not fit.
        MisconfigurationException: At the start of a fit, if the reference is none for this data.

    Example:
        >>> watch = ClassBalance(reference={"cat": 2, "dog": 1}, level=0.001)
        >>> trainer = L.Trainer(callbacks=[watch], logger=False, enable_checkpointing=False)
        >>> watch.row
        {}
    """

    def __init__(
        self,
        *,
        reference: Literal["initial", "dataset"] | Sequence[float] | Mapping[Any, float] = "initial",
        level: float = 0.01,
        window: int = 1,
        draws: int = 9999,
    ) -> None:
        check_positive(window=window, draws=draws)
        if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
            raise ValueError(
                f"`level` is {level!r}; needed is the share of false alarms to put up with, such as 0.01."
            )
        if draws + 1 < 1 / level:
            raise ValueError(
                f"`draws` is {draws} and `level` {level}; p cannot be below 1 / (draws + 1), so nothing "
                f"would ever be warned of. Give {round(1 / level):,} draws or more, better ten times as many."
            )
        self.reference = reference if isinstance(reference, str) else checked_shares(reference)
        if isinstance(reference, str) and reference not in ("initial", "dataset"):
            raise ValueError(
                f'`reference` is {reference!r}; needed is "initial", "dataset", or the shares of the classes.'
            )
        self.level, self.window, self.draws = float(level), window, draws
        self.row: dict[str, float] = {}
        self.balance: Balance | None = None

    # ------------------------------------------------------------------ hooks

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:  # noqa: D102
        if stage == "fit":
            self._check(_data_of(trainer))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        self.row, self.balance = {}, None
        data = _data_of(trainer)
        if not data.round or data.repeats_round:
            return
        memory = _MEMORIES.setdefault(data, _Memory())
        found = self.judge(data)
        if found is None:
            return
        self.balance, names = found
        self.row = {"acquired_entropy": self.balance.entropy, "balance_p": self.balance.p}
        if self.balance.p < self.level and data.round not in memory.told:
            memory.told.add(data.round)
            rank_zero_warn(self._message(data, self.balance, names))

    # ------------------------------------------------------------------ the test

    def judge(self, data: ActiveDataModule) -> tuple[Balance, list[Any]] | None:
        """The labels of the newest queries against the reference; the same on every rank.

        Returns:
            What was found, and the classes; `None` if there is nothing to judge.
        """
        number = data.round
        first = max(1, number - self.window + 1)
        indices = data.state.labeled_up_to(number, first)
        acquired = data.state.class_counts(indices)
        if acquired == {}:
            return None
        known = None if acquired is None else self._known(data, first)
        if acquired is None or known is None:
            self._say_inactive(data)
            return None
        kind, other = known
        if not other:
            return None
        names = sorted({*acquired, *other}, key=lambda name: (isinstance(name, str), name))
        counts = np.array([acquired.get(name, 0) for name in names], np.int64)
        reference = Reference(**{kind: np.array([other.get(name, 0) for name in names])})
        rng = np.random.default_rng(derive_seed(data.seed, "class balance", number))
        return compared(counts, reference, draws=self.draws, rng=rng), names

    def _known(self, data: ActiveDataModule, first: int) -> tuple[str, Mapping[Any, float]] | None:
        """Of which kind the reference is, and its classes; `None` if it has none."""
        if self.reference == "initial":
            counts = data.state.class_counts(data.state.labeled_up_to(0))
            return None if counts is None else ("sample", counts)
        if self.reference == "dataset":
            classes = _classes_of(data)
            if classes is None:
                return None
            state = data.state
            earlier = (state.status == LABELED) & (state.round < first)  # could not be asked for any more
            there = np.flatnonzero(~earlier & (state.status != IGNORED))
            return "population", Counter(classes[index] for index in there.tolist())
        return "shares", self._by_class(data)

    def _by_class(self, data: ActiveDataModule) -> dict[Any, float]:
        """The given shares, by class as the labels have it, as far as that is known by now."""
        assert isinstance(self.reference, dict)
        seen = data.state.class_counts(data.state.labeled_up_to()) or {}
        kind = data.samples.kind.name
        if kind is None and seen:
            kind = "text" if isinstance(next(iter(seen)), str) else "class"
        if kind not in ("class", "text"):
            return self.reference
        names = [str(name) for name in data.class_names or ()]
        return shares_by_class(self.reference, names, seen, text=kind == "text")

    # ------------------------------------------------------------------ what is said

    def _message(self, data: ActiveDataModule, balance: Balance, names: list[Any]) -> str:
        last = data.round
        first = max(1, last - self.window + 1)
        query = f"query {last}" if first == last else f"queries {first} to {last}"
        return (
            f"Mode collapse: the {balance.acquired.sum()} labels of {query} fall on few classes. The entropy "
            f"of their classes is {balance.entropy:.2f} nats; random draws of as many have "
            f"{balance.random_entropy:.2f} on average, and one so low with p = {balance.p:.2g}, below "
            f"{self.level:g} (Monte Carlo test, {self.draws:,} draws, {self._told_of_reference()}). Starved: "
            f"{balance.starved([_name(data, name) for name in names])}. Wrap the strategy, "
            "`acq.ClassBalanced(...)`, or draw by its scores, `acq.PowerSampling(...)`."
        )

    def _told_of_reference(self) -> str:
        if self.reference == "initial":
            return "from these labels and those of the initial set together"
        return "from the data set's labels" if self.reference == "dataset" else "by the given shares"

    def _say_inactive(self, data: ActiveDataModule) -> None:
        memory = _MEMORIES.setdefault(data, _Memory())
        if not memory.is_inactive:
            memory.is_inactive = True
            rank_zero_info("ClassBalance: the labels are no single classes, whose balance could be watched")

    def _check(self, data: ActiveDataModule) -> None:
        """Refuse a reference that says nothing of the pool, or of other classes."""
        needed = 'Pass the shares of the classes in the pool, or, in a simulation, `reference="dataset"`.'
        if self.reference == "dataset" and data.oracle != "dataset":
            raise MisconfigurationException(
                f'`ClassBalance(reference="dataset")` needs the labels of all samples, but `oracle` is '
                f'{data.oracle!r}: they are not known yet. Pass `reference="initial"` or shares.'
            )
        if isinstance(self.reference, dict):
            self._by_class(data)
        if self.reference != "initial":
            return
        identity = data.book.identity
        how = None
        if data.samples.unlabeled_set is not None:
            how = "all of `train_set`, beside an `unlabeled_set`"
        elif identity.balanced:
            how = "drawn class by class (`initial_balanced=True`)"
        elif not isinstance(identity.initial, int):
            how = "given by indices"
        elif not identity.initial:
            how = "empty"
        if how is not None:
            raise MisconfigurationException(
                '`ClassBalance(reference="initial")` needs an initial set that was drawn at random from the '
                f"pool, to know its classes by, but here it is {how}. {needed}"
            )


def _data_of(trainer: L.Trainer) -> ActiveDataModule:
    why = "`ClassBalance` watches the labels that are asked for"
    return data_of(trainer, why, "or leave `ClassBalance` out")


def _name(data: ActiveDataModule, value: Any) -> str:
    names = data.class_names
    return (
        str(names[value])
        if names is not None and isinstance(value, int) and value < len(names)
        else str(value)
    )


def _classes_of(data: ActiveDataModule) -> list[Any] | None:
    """Of every sample, read once; `None` if the data set's labels are no classes."""
    memory = _MEMORIES.setdefault(data, _Memory())

    def read() -> list[Any] | None:
        samples = data.samples
        listed = (
            None if samples.unlabeled_set is not None else listed_targets(samples.train_set, samples.place)
        )
        values = samples.own_targets(np.arange(len(samples))) if listed is None else listed
        plain = [value.item() if getattr(value, "ndim", 1) == 0 else value for value in values]
        wrong = any(isinstance(value, bool) or not isinstance(value, int | str) for value in plain)
        return None if wrong else plain

    if memory.classes is None:
        memory.classes = agree(read)
    return memory.classes
