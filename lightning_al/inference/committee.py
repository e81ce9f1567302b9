"""COMMITTEE: one pass of each of several models, as samples of the posterior.

Members are outermost: one after the other goes through the whole pool, so that no more than one of them
is in memory besides the module that is scored.
"""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_al.data.agreement import agree
from lightning_al.data.checks import check_flag
from lightning_al.inference.posteriors import Draw, Posterior
from lightning_al.inference.sharing import buffers_kept, shares_storage

__all__ = ["Committee", "Member", "check_maker"]

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
        _check_size(size)
        check_flag(bootstrap=bootstrap)
        if isinstance(models, str | os.PathLike | nn.Module) or callable(models):
            what = repr(models) if isinstance(models, str) else f"a `{_name(models)}`"
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
                f"`models` are {[_name(model) for model in models]}, of which one is given twice; a model "
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
                f"`models` are the classes {[_name(model) for model in models]}; needed are functions from a "
                f"seed to a module. Write `lambda seed: {_name(models[0])}(...)` for each."
            )
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

    def members(self, module: nn.Module) -> list[AbstractContextManager[nn.Module]]:
        """Each for a block, on the device of `module` and in eval mode; entered by all ranks alike.

        Raises:
            ValueError: If they were never trained; in the block, if their weights do not fit.
        """
        self.check_trained()
        return [_ready(member, module) for member in self._members or ()]

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
            parts = [f"models=[{', '.join(_name(model) for model in given)}]"]
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
            f"The model is the class `{_name(make)}`; needed is a module or a function from a seed to a "
            f"module. Write `lambda seed: {_name(make)}(...)`."
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
        name = _name(make).rsplit(".", 1)[-1]
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


@contextmanager
def _ready(member: nn.Module | Member | None, module: nn.Module) -> Iterator[nn.Module]:
    """A member in eval mode, where `module` is; a given one is put back after."""
    if member is None or member is module:
        yield module
        return
    place = next((p for p in module.parameters()), torch.zeros(()))
    trainer = getattr(module, "_trainer", None)
    if isinstance(member, Member):
        state = agree(partial(_read, member.weights))  # first: what fails on one rank only comes after
        made: Any = _copied(module) if member.make is None else member.make(member.seed)
        if member.make is not None and shares_storage(made, module):
            made = _copied(made)  # a frozen backbone, say, in which buffers may differ
        with _attached(made, trainer):
            if member.make is not None:  # as the Trainer does before a fit: layers may be made there
                made.setup("fit")
                made.configure_model()
            _put(made, state, member.weights)
            yield made.to(place.device, place.dtype).eval()
        return
    if any(parameter.dtype != place.dtype for parameter in member.parameters()):
        member = copy.deepcopy(member).to(place.dtype)  # its own numbers would come back rounded
    modes = [(part, part.training) for part in member.modules()]
    before = next((p.device for p in member.parameters()), place.device)
    try:
        with _attached(member, trainer), buffers_kept(member):
            try:
                yield member.to(place.device).eval()
            finally:
                member.to(before)
    finally:
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


def _copied(module: nn.Module) -> nn.Module:
    """A copy, without the graph of what a training step left behind, which cannot be copied."""
    left = [v for part in module.modules() for v in tree_leaves(vars(part)) if isinstance(v, Tensor)]
    return copy.deepcopy(module, {id(v): v.detach() for v in left if v.grad_fn is not None})


def _read(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        raise FileNotFoundError(
            f"A committee's member is given as {str(path)!r}, but there is no such file in {Path.cwd()}. "
            "Give paths of checkpoints that were written, or the members as modules."
        )
    saved = torch.load(path, map_location="cpu", weights_only=False)
    state = saved.get("state_dict", saved) if isinstance(saved, Mapping) else saved
    if not isinstance(state, Mapping):
        raise ValueError(
            f"The file {path} holds a `{type(saved).__name__}`; needed are a module's weights. Save "
            "`module.state_dict()` or a checkpoint of the Trainer, or give the members as modules."
        )
    return state


def _put(module: nn.Module, state: Mapping[str, Any], path: Path) -> None:
    try:
        module.load_state_dict(state, strict=bool(getattr(module, "strict_loading", True)))
    except RuntimeError as error:
        raise ValueError(
            f"The weights in {path} do not fit a `{type(module).__name__}` ({error}). Give "
            "checkpoints of the module that is scored, or the members as modules."
        ) from error


def _name(model: Any) -> str:
    """The same in every process: no address of an object."""
    if isinstance(model, nn.Module):
        return type(model).__name__
    if isinstance(model, Member):
        return repr(str(model.weights))
    if isinstance(model, str | os.PathLike):
        return repr(os.fspath(model))
    if isinstance(model, partial):
        settings = [*map(_setting, model.args), *(f"{k}={_setting(v)}" for k, v in model.keywords.items())]
        return f"partial({', '.join([_name(model.func), *settings])})"
    return getattr(model, "__qualname__", type(model).__qualname__)


def _setting(value: Any) -> str:
    plain = value is None or isinstance(value, str | bool | int | float)
    return repr(value) if plain else _name(value)
