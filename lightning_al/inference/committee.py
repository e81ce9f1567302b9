"""COMMITTEE: one pass of each of several models, as samples of the posterior.

Members are outermost: one after the other goes through the whole pool, so that no more than one of them
is in memory besides the module that is scored.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_al.data.checks import check_flag
from lightning_al.inference.member import Maker, Member, name_of, ready
from lightning_al.inference.posteriors import Draw, Posterior

__all__ = ["Committee", "check_maker"]


class Committee(Posterior):
    """Several models that were trained apart; where they contradict each other, a label helps.

    `fit_rounds` trains the members, each with its own seed, weights and order, the last with those of a run
    without a committee: all of the given module, or each of its own. A committee that is there already is
    given as modules or as checkpoints.

    Args:
        size: Members, when `fit_rounds` trains them.
        bootstrap: Train each on labels drawn with replacement, as many as there are.
        models: The members instead: functions from a seed to a module, which `fit_rounds` trains (other
            structures, other hyper-parameters); or trained modules; or checkpoints of the module that is
            scored.

    Raises:
        ValueError: If there are fewer than two members, or `size` is not their number.
        TypeError: If `models` are of both kinds, trained and to be trained, or of none.

    References:
        Seung, Opper & Sompolinsky, "Query by Committee", 1992; for networks: Beluch et al., "The Power of
        Ensembles for Active Learning in Image Classification", 2018. Cost: that of one model, times `size`.

    Example:
        >>> Committee(3), Committee(models=[nn.Linear(2, 2), nn.Linear(2, 2)]).num_samples
        (Committee(size=3), 2)
    """

    def __init__(
        self,
        size: int | None = None,
        *,
        bootstrap: bool = False,
        models: Sequence[Maker | nn.Module | str | os.PathLike[str]] | None = None,
    ) -> None:
        _check_size(size)
        check_flag(bootstrap=bootstrap)
        if isinstance(models, str | os.PathLike | nn.Module) or callable(models):
            what = repr(models) if isinstance(models, str) else f"a `{name_of(models)}`"
            raise TypeError(
                f"`models` is {what}; needed is a list of the members. Put it and others into one."
            )
        models = None if models is None else list(models)
        count = size if size is not None else 5 if models is None else len(models)
        if models is not None and len(models) != count:
            raise ValueError(f"`size` is {size}, but `models` are {len(models)}. Leave `size` out.")
        if count < 2:
            raise _too_few(count)
        self.num_samples, self.bootstrap = count, bootstrap
        self.makers: list[Maker] | None = None
        self._members: list[nn.Module | Member | None] | None = None
        self._seated = False
        self._loaded: list[nn.Module] | None = None
        if models is not None:
            self._take(models)
        if bootstrap and not self.trains:
            raise ValueError(
                "`bootstrap` is about the training of members, but the given ones are trained. Leave it out."
            )

    def _take(self, models: list[Any]) -> None:
        if any(_same(a, b) for place, a in enumerate(models) for b in models[:place]):
            raise ValueError(
                f"`models` are {[name_of(model) for model in models]}, of which one is given twice; a model "
                "cannot disagree with itself. Give modules or checkpoints that were trained apart."
            )
        if all(isinstance(model, nn.Module) for model in models):
            self._members = list(models)
        elif all(isinstance(model, str | os.PathLike) for model in models):
            self._members = [Member(Path(model)) for model in models]
        elif all(callable(model) and not isinstance(model, nn.Module | type) for model in models):
            for model in models:
                check_maker(model)
            self.makers = models
        elif all(isinstance(model, type) for model in models):
            # The seed would become whatever a class takes first: perhaps a number of units.
            raise TypeError(
                f"`models` are the classes {[name_of(model) for model in models]}; needed are functions from "
                f"a seed to a module. Write `lambda seed: {name_of(models[0])}(...)` for each."
            )
        else:
            raise TypeError(
                f"`models` are {[name_of(model) for model in models]}; needed are functions from a seed to a "
                "module, or modules, or paths of checkpoints: all of one kind."
            )

    @property
    def trains(self) -> bool:
        """Whether `fit_rounds` is to train the members."""
        return self.makers is not None or self._members is None or self._seated

    @contextmanager
    def seated(self, members: Sequence[Member | None]) -> Iterator[None]:
        """For the block, the trained members; `None` stands for the module that is scored."""
        self._members, self._seated = list(members), True
        try:
            yield
        finally:
            self._members, self._seated = None, False

    def members(self, module: nn.Module) -> list[AbstractContextManager[nn.Module]]:
        """Each for a block, on the device of `module` and in eval mode; entered by all ranks alike.

        Raises:
            ValueError: If they were never trained; in the block, if their weights do not fit.
        """
        self.check_trained()
        return [ready(member, module) for member in self._members or ()]

    def check_trained(self) -> None:
        """Refuse a committee whose members are not there.

        Raises:
            ValueError: If they were never trained.
        """
        if self._members is None:
            raise ValueError(
                f"{self!r} has no members yet: `fit_rounds` trains them. Outside of it give trained ones, "
                "`Committee(models=[...])` of modules or checkpoints, or use `MCDropout()`."
            )

    @contextmanager
    def together(self, module: nn.Module) -> Iterator[None]:
        """For the block, all members are in memory at once."""
        with ExitStack() as stack:
            self._loaded = [stack.enter_context(member) for member in self.members(module)]
            try:
                yield
            finally:
                self._loaded = None

    def passes(  # noqa: D102
        self, forward: Callable[[nn.Module, Any], Tensor], module: nn.Module, batch: Any, draw: Draw
    ) -> Iterator[Tensor]:
        del draw
        if self._loaded is not None:
            yield from (forward(member, batch)[None] for member in self._loaded)
            return
        for block in self.members(module):
            with block as member:
                yield forward(member, batch)[None]

    def __repr__(self) -> str:
        given = self.makers or (None if self.trains else self._members)
        if given is None:
            parts = [f"size={self.num_samples}"]
        else:
            parts = [f"models=[{', '.join(name_of(model) for model in given)}]"]
        if self.bootstrap:
            parts.append("bootstrap=True")
        return f"Committee({', '.join(parts)})"


def _same(model: Any, other: Any) -> bool:
    """Whether two members would be one. Not two calls of a function: each has a seed of its own."""
    if isinstance(model, str | os.PathLike) and isinstance(other, str | os.PathLike):
        return Path(model).resolve() == Path(other).resolve()
    return isinstance(model, nn.Module) and model is other


def check_maker(make: Any) -> None:
    """Refuse what cannot be called with a seed; it is not called.

    Raises:
        TypeError: If it cannot.
    """
    if isinstance(make, type):  # the seed would become whatever it takes first: perhaps a number of units
        raise TypeError(
            f"The model is the class `{name_of(make)}`; needed is a module or a function from a seed to a "
            f"module. Write `lambda seed: {name_of(make)}(...)`."
        )
    if not callable(make):
        raise TypeError(
            f"The model is {make!r}; needed is a module or a function from a seed to a module. Pass one of "
            "them."
        )
    try:
        signature = inspect.signature(make)
    except ValueError:  # built in
        return
    try:
        signature.bind(0)
    except TypeError:
        name = name_of(make).rsplit(".", 1)[-1]
        raise TypeError(
            f"`{name}{signature}` takes no seed, or more than that; needed is a function from a seed to a "
            "module. Write `lambda seed: ...`, and seed the weights by it: `torch.manual_seed(seed)`."
        ) from None


def _check_size(size: Any) -> None:
    if isinstance(size, Sequence | nn.Module) or callable(size):
        raise TypeError(
            f"The size of a committee is given as a `{type(size).__name__}`; needed is a whole number. Pass "
            "members by name: `Committee(models=[...])`."
        )
    if size is None:
        return
    if isinstance(size, bool) or not isinstance(size, Integral):
        raise TypeError(f"`size` is {size!r}; needed is a whole number, 2 or more. Pass `size=5`.")
    if size < 2:
        raise _too_few(int(size))


def _too_few(count: int) -> ValueError:
    return ValueError(
        f"A committee of {count} cannot disagree; needed are at least two members. Pass `size=5`, or use "
        "`MCDropout()`, which needs one model."
    )
