"""COMMITTEE: one pass of each of several models, as samples of the posterior.

Members are outermost: one after the other goes through the whole pool, so that no more than one of them
is in memory besides the module that is scored.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from lightning_al.data.agreement import agree
from lightning_al.data.checks import check_positive
from lightning_al.inference.model_call import ModelCall
from lightning_al.inference.outputs import Outputs
from lightning_al.inference.posteriors import Draw, Posterior

__all__ = ["Committee", "Member"]

Maker = Callable[[int], L.LightningModule]


@dataclass(frozen=True)
class Member:
    """A member by its weights.

    Attributes:
        weights: File of a checkpoint, or of anything with a `state_dict` in it.
        make: From a seed to its module; `None`: of the structure of the module that is scored.
        seed: For `make`.
    """

    weights: Path
    make: Maker | None = None
    seed: int = 0


class Committee(Posterior):
    """Several models that were trained apart; where they contradict each other, a label helps.

    `fit_rounds` trains the members, each with its own seed, weights and order: all of the given module, or
    each of its own. A committee that is there already is given as modules or as checkpoints.

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
        check_positive(size=size)
        models = None if models is None else list(models)
        count = size if size is not None else 5 if models is None else len(models)
        if models is not None and len(models) != count:
            raise ValueError(f"`size` is {size}, but `models` are {len(models)}. Leave `size` out.")
        if count < 2:
            raise ValueError(
                f"A committee of {count} cannot disagree; needed are at least two members. Pass "
                "`size=5`, or use `MCDropout()`, which needs one model."
            )
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
        if all(isinstance(model, nn.Module) for model in models):
            self._members = list(models)
        elif all(isinstance(model, str | os.PathLike) for model in models):
            self._members = [Member(Path(model)) for model in models]
        elif all(callable(model) and not isinstance(model, nn.Module) for model in models):
            self.makers = models
        else:
            raise TypeError(
                f"`models` are {[_name(model) for model in models]}; needed are functions from a seed to a "
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

    def members(self, module: nn.Module) -> Iterator[nn.Module]:
        """One after the other, on the device of `module` and in eval mode.

        Raises:
            ValueError: If they were never trained, or their weights do not fit.
        """
        self.check_trained()
        for member in self._members or ():
            with _ready(member, module) as ready:
                yield ready

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

    def outputs(  # noqa: D102
        self, call: ModelCall, batch: Any, needs: tuple[str, ...], draw: Draw, *, multilabel: bool = False
    ) -> Outputs:
        raise NotImplementedError("a committee goes through the whole pool, member by member")

    @contextmanager
    def together(self, module: nn.Module) -> Iterator[None]:
        """For the block, all members are in memory at once."""
        self.check_trained()
        with ExitStack() as stack:
            self._loaded = [stack.enter_context(_ready(member, module)) for member in self._members or ()]
            try:
                yield
            finally:
                self._loaded = None

    def passes(  # noqa: D102
        self, forward: Callable[[nn.Module], Tensor], module: nn.Module, draw: Draw
    ) -> Iterator[Tensor]:
        del draw
        for member in self.members(module) if self._loaded is None else self._loaded:
            yield forward(member)[None]

    def __repr__(self) -> str:
        given = self.makers or (None if self.trains else self._members)
        if given is None:
            parts = [f"size={self.num_samples}"]
        else:
            parts = [f"models=[{', '.join(_name(model) for model in given)}]"]
        if self.bootstrap:
            parts.append("bootstrap=True")
        return f"Committee({', '.join(parts)})"


@contextmanager
def _ready(member: nn.Module | Member | None, module: nn.Module) -> Iterator[nn.Module]:
    """A member in eval mode, where `module` is; a given one is put back after."""
    if member is None or member is module:
        yield module
        return
    place = next((p for p in module.parameters()), torch.zeros(()))
    trainer = getattr(module, "_trainer", None)
    if isinstance(member, Member):
        made: Any = copy.deepcopy(module) if member.make is None else member.make(member.seed)
        if member.make is not None:
            made.configure_model()
        _load(made, member)
        with _attached(made, trainer):
            yield made.to(place.device).eval()
        return
    modes = [(part, part.training) for part in member.modules()]
    before = next((p.device for p in member.parameters()), place.device)
    try:
        with _attached(member, trainer):
            yield member.to(place.device).eval()
    finally:
        member.to(before)
        for part, mode in modes:
            part.training = mode


@contextmanager
def _attached(module: nn.Module, trainer: Any) -> Iterator[None]:
    """A LightningModule may ask for its Trainer."""
    if not isinstance(module, L.LightningModule):
        yield
        return
    own = module._trainer
    module._trainer = trainer
    try:
        yield
    finally:
        module._trainer = own


def _load(module: nn.Module, member: Member) -> None:
    saved = agree(lambda: torch.load(member.weights, map_location="cpu", weights_only=False))
    state = saved.get("state_dict", saved)
    try:
        module.load_state_dict(state, strict=bool(getattr(module, "strict_loading", True)))
    except RuntimeError as error:
        raise ValueError(
            f"The weights in {member.weights} do not fit a `{type(module).__name__}` ({error}). Give "
            "checkpoints of the module that is scored, or the members as modules."
        ) from error


def _name(model: Any) -> str:
    if isinstance(model, nn.Module):
        return type(model).__name__
    if isinstance(model, Member):
        return repr(str(model.weights))
    return getattr(model, "__qualname__", None) or repr(model)
