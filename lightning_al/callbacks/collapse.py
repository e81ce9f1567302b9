"""COLLAPSE: do labels fall on fewer classes than a random draw's would? A Monte Carlo test.

labels a class, and what the pool is known by -> random draws of as many -> p
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_al.class_entropy import class_entropy

__all__ = ["Balance", "Counts", "Reference", "checked_shares", "compared", "shares_by_class"]

Counts = npt.NDArray[np.int64]
_CHUNK = 2**20  # numbers of draws at a time
_NAMED = 8  # classes in a message


@dataclass(frozen=True)
class Reference:
    """What the classes of the pool are known by; one of the three, an entry a class.

    Args:
        sample: Labels of a random draw from the pool; the question is whether both are draws of one pool.
        population: Labels of the pool itself.
        shares: Of the classes, in any unit.
    """

    sample: Counts | None = None
    population: Counts | None = None
    shares: npt.NDArray[np.float64] | None = None

    @property
    def parts(self) -> npt.NDArray[np.float64]:
        """Shares of the classes, as far as they are known."""
        known: Any = next(p for p in (self.sample, self.population, self.shares) if p is not None)
        shares: npt.NDArray[np.float64] = known / known.sum()
        return shares

    def draw(self, acquired: Counts, draws: int, rng: np.random.Generator) -> Counts:
        """Random draws of as many labels as were acquired, `(draws, classes)`."""
        count = int(acquired.sum())
        if self.shares is not None:
            return rng.multinomial(count, self.parts, size=draws)
        drawn_from = self.population if self.sample is None else self.sample + acquired
        assert drawn_from is not None
        return rng.multivariate_hypergeometric(drawn_from, count, size=draws, method="marginals")


@dataclass(frozen=True)
class Balance:
    """How the classes of some labels compare with random draws.

    Args:
        acquired: The labels a class, `(classes,)`.
        entropy: Of their classes, in nats.
        random_entropy: The mean of as many labels drawn at random.
        p: How often random draws have an entropy as low or lower.
        expected: Labels a class in a random draw, as the reference says, `(classes,)`.
    """

    acquired: Counts
    entropy: float
    random_entropy: float
    p: float
    expected: npt.NDArray[np.float64]

    def starved(self, names: Sequence[str]) -> str:
        """The classes with less than half of a random draw's labels, in words; first those that lack most.

        Args:
            names: Of the classes.
        """
        missing = self.expected - self.acquired
        places = [int(i) for i in np.argsort(-missing, kind="stable") if missing[i] > self.expected[i] / 2]
        places = places or [int(np.argmax(missing))]
        said = [f"{names[i]} ({self.acquired[i]}, expected {self.expected[i]:.1f})" for i in places[:_NAMED]]
        return ", ".join(said) + (f" and {len(places) - _NAMED} more" if len(places) > _NAMED else "")


def compared(acquired: Counts, reference: Reference, *, draws: int, rng: np.random.Generator) -> Balance:
    """Hold labels against random draws of as many.

    With a `sample` this is a permutation test: were the acquired labels a random draw too, any division of
    all labels into the two would be as likely. So whatever the classes of the pool, and however few labels
    the sample has, p is below 0.01 in one random draw of a hundred at most. With a `population` draws are
    without replacement, with `shares` they are independent.

    Args:
        acquired: Labels a class `(classes,)`, one at least.
        reference: Of the same classes.
        draws: How many; p is from 1 / (draws + 1).
        rng: Source of randomness.

    References:
        Valid Monte Carlo p: Phipson & Smyth, "Permutation P-values Should Never Be Zero", 2010.

    Example:
        >>> few, sample = np.array([30, 0, 0]), np.array([9, 11, 10])
        >>> found = compared(few, Reference(sample), draws=999, rng=np.random.default_rng(0))
        >>> found.entropy, found.p, found.expected.tolist()
        (0.0, 0.001, [9.0, 11.0, 10.0])
    """
    own = float(class_entropy(acquired))
    lower, total, left = 0, 0.0, draws
    while left:
        some = min(left, 1 + _CHUNK // len(acquired))
        entropies = class_entropy(reference.draw(acquired, some, rng))
        # The same counts of other classes, summed in another order, are as low.
        lower += int((entropies <= own + 1e-9).sum())
        total += float(entropies.sum())
        left -= some
    expected = reference.parts * acquired.sum()
    return Balance(acquired, own, total / draws, (1 + lower) / (1 + draws), expected)


def checked_shares(given: Any) -> dict[Any, float]:
    """Shares of the classes, one or more, as they were given.

    Args:
        given: A number a class, or a mapping from class, or its name, to number.

    Raises:
        ValueError: If these are no shares.

    Example:
        >>> checked_shares([2, 1])
        {0: 2.0, 1: 1.0}
    """
    try:
        parts = given if isinstance(given, Mapping) else dict(enumerate(given))
        shares = {name: float(share) for name, share in parts.items()}
    except (TypeError, ValueError):  # nothing to go through, or no number
        shares = {}
    if not all(0 <= share < float("inf") for share in shares.values()) or not any(shares.values()):
        raise ValueError(
            f"`reference` is {given!r}; needed are shares of the classes in the pool, none negative and not "
            'all 0: a number a class, or a mapping from class to number, such as `{"cat": 2, "dog": 1}`.'
        )
    return shares


def shares_by_class(
    shares: Mapping[Any, float], names: Sequence[str], seen: Collection[Any], *, text: bool
) -> dict[Any, float]:
    """The same by class as the labels have it.

    Args:
        shares: By class or name.
        names: Of the classes, if they have any.
        seen: Classes of the labels so far.
        text: The labels are text, not numbers.

    Raises:
        MisconfigurationException: If a name or number is none of the classes: nothing would be expected of
            those that there are, and nothing ever be warned of.

    Example:
        >>> shares_by_class({"dog": 1.0}, ["cat", "dog"], (), text=False)
        {1: 1.0}
    """
    found = {name: _class_of(name, names, text=text) for name in shares}
    wrong = [name for name, own in found.items() if own is None]
    if text and not names and seen and not {*found.values()} & {*seen}:
        wrong = list(shares)
    if wrong:
        known = list(names) or sorted(seen) or ["whole numbers from 0 on"]
        more = " and more" if len(known) > _NAMED else ""
        raise MisconfigurationException(
            f"`ClassBalance(reference=...)` has shares of {wrong[:_NAMED]}, but the classes of the labels "
            f"are {known[:_NAMED]}{more}; needed are shares of these, by name or number. Name them as they "
            "are, or pass their names as `class_names` to the data module."
        )
    return {found[name]: share for name, share in shares.items()}


def _class_of(name: Any, names: Sequence[str], *, text: bool) -> Any:
    """The class that is meant, `None` if it is none."""
    if isinstance(name, str):
        if name in names:
            return name if text else names.index(name)
        return name if text and not names else None
    if isinstance(name, bool) or not isinstance(name, int | np.integer) or name < 0:
        return None
    place = int(name)
    if names:
        return None if place >= len(names) else names[place] if text else place
    return None if text else place
