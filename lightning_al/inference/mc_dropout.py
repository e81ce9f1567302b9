"""MC DROPOUT: passes with dropout on, as samples of the posterior.

first pass -> what lies before the first dropout is kept -> the other passes, some at once
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from lightning_al.data.checks import check_flag, check_positive
from lightning_al.inference.dropout import Dropping
from lightning_al.inference.look import Known, look
from lightning_al.inference.masks import fold
from lightning_al.inference.model_call import ModelCall
from lightning_al.inference.outputs import Outputs
from lightning_al.inference.posteriors import BatchPosterior, Draw, SinglePass, check_finite
from lightning_al.inference.recurrent import layer_by_layer
from lightning_al.inference.statistics import STATISTICS, Statistics

__all__ = ["MCDropout"]

#: Elements that the largest tensor of passes run together may have: what stays in cache, or fills a device.
_TOGETHER = {"cpu": 2**22}
_TOGETHER_ELSEWHERE = 2**26


class MCDropout(BatchPosterior):
    """Many passes with dropout on: samples of an approximate posterior over the weights.

    Dropout layers, `functional.dropout`, and the dropout inside of attention and recurrent layers drop,
    though the module is in eval mode, in which BatchNorm and all else stay. What lies before the first
    dropout is computed once. The masks are a function of seed, round, place in the model and pass: batch
    size, order and number of processes change nothing.

    Args:
        num_samples: Passes. With few, chance has a part in the order; the papers take up to 100.
        consistent: The same masks for all samples: a pass is then one draw of the weights, as `BatchBALD`
            needs. `False`: every sample has masks of its own.
        train: Submodules to put into training mode meanwhile, by name or class, one or several: for dropout
            that the model hides behind `if self.training`.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If `num_samples` is not positive; in scoring, if nothing of the model drops.

    References:
        Gal & Ghahramani, "Dropout as a Bayesian Approximation", 2016, section 4; consistent masks: Kirsch
        et al., "BatchBALD", 2019. Cost: what comes after the first dropout
        `num_samples` times, the rest once.

    Example:
        >>> MCDropout(50)
        MCDropout(num_samples=50, consistent=True)
    """

    def __init__(
        self,
        num_samples: int = 20,
        consistent: bool = True,
        *,
        train: str | type[nn.Module] | Sequence[str | type[nn.Module]] = (),
    ) -> None:
        check_positive(num_samples=num_samples)
        check_flag(consistent=consistent)
        self.num_samples, self.consistent = num_samples, consistent
        if chosen := _parts_named(train):
            self.train = chosen
        self._known: WeakKeyDictionary[nn.Module, Known] = WeakKeyDictionary()
        self._said: set[str] = set()

    def outputs(  # noqa: D102
        self, call: ModelCall, batch: Any, needs: tuple[str, ...], draw: Draw, *, multilabel: bool = False
    ) -> Outputs:
        plain = tuple(name for name in needs if name not in STATISTICS)
        many = Statistics(needs, multilabel=multilabel)
        mask: Tensor | None = None

        def forward(module: nn.Module, batch: Any) -> Tensor:
            del module  # the one that `call` knows
            nonlocal mask
            said = call.one_pass(batch)
            # Of the first pass over the whole batch: later ones may be many at once.
            if mask is None and said.mask is not None and len(said.mask) == len(draw.positions):
                mask = said.mask
            return said.logits

        for logits in self.passes(forward, call.module, batch, draw):
            check_finite(logits.transpose(0, 1))
            many.add(logits)
        found = Outputs(mask=mask, **many.fields())
        if not plain:
            call.next_batch()
            return found
        return found.joined(SinglePass().outputs(call, batch, plain, draw, multilabel=multilabel))

    def passes(
        self, forward: Callable[[nn.Module, Any], Tensor], module: nn.Module, batch: Any, draw: Draw
    ) -> Iterator[Tensor]:
        """What `forward` gives of module and batch in every pass, some at a time: `(k, B, ...)`.

        Raises:
            ValueError: If nothing of the module drops, or it draws random numbers that are no masks.
        """
        device, samples = draw.positions.device, len(draw.positions)
        numbers = torch.arange(self.num_samples, device=device)
        once = partial(forward, module, batch)
        with self._in_training(module), layer_by_layer(), _uncompiled(), _attributes_kept(module):
            known = self._known.get(module) or look(forward, module, batch, samples)
            if known is None:
                known = Known()  # another batch may tell
            else:
                self._known[module] = known
            key = fold(torch.tensor(draw.seed, device=device), 0)
            positions = None if self.consistent else draw.positions
            dropping = Dropping(key, samples, positions, known.layouts)
            first = dropping.run(once, numbers[0])
            self._check(module, known, dropping)
            yield first[None]
            most = _TOGETHER.get(device.type, _TOGETHER_ELSEWHERE) // max(1, dropping.largest)
            for some in torch.split(numbers[1:], max(1, most)) if len(numbers) > 1 else ():
                found = self._together(once, module, known, dropping, some, first) if len(some) > 1 else None
                yield torch.stack([dropping.run(once, n) for n in some]) if found is None else found
        if dropping.recomputes:
            what = f"what comes before a dropout is computed again and again, since {dropping.recomputes}"
            self._say(f"{_of(module)}: {what}. The scores are the same; it takes longer.")

    def _check(self, module: nn.Module, known: Known, dropping: Dropping) -> None:
        if dropping.foreign and self.consistent:
            raise ValueError(
                f"{_of(module)} draws random numbers by {sorted(dropping.foreign)}, which are no dropout, so "
                "that a pass is not the same draw for all samples. Leave them out in eval mode, or use "
                "`MCDropout(consistent=False)`."
            )
        if not dropping.sites and not dropping.foreign:
            raise _nothing_drops(module, known.hidden)
        if known.hidden:
            self._say(
                f"{_of(module)}: parts of class {known.hidden} drop in training mode only, and in the passes "
                "all else drops but they do not. To have them drop too, name them: "
                f"`MCDropout(train=({', '.join(known.hidden)},))`."
            )
        if dropping.foreign:
            self._say(
                f"{_of(module)} draws random numbers by {sorted(dropping.foreign)}, which are no dropout: "
                "scores depend on the size and order of batches, and on the number of processes."
            )
        if dropping.unbound:
            self._say(
                f"{_of(module)} drops parts of a tensor in which the samples are along no axis: scores "
                "depend on the size and order of batches."
            )

    def _together(
        self,
        forward: Callable[[], Tensor],
        module: nn.Module,
        known: Known,
        dropping: Dropping,
        some: Tensor,
        first: Tensor,
    ) -> Tensor | None:
        """Passes by `torch.vmap`; `None` where it cannot, or gives something else the first time."""
        if known.vmaps is False or dropping.foreign:  # which `torch.vmap` would draw by itself
            return None
        if torch.is_autocast_enabled(some.device.type):  # `torch.vmap` leaves it out
            self._say(
                f"{_of(module)}: passes run one after the other under mixed precision, of which `torch.vmap` "
                "knows nothing. The scores are right; it takes longer.",
                rank_zero_info,
            )
            return None
        numbers = torch.cat([some.new_zeros(1), some]) if known.vmaps is None else some
        try:
            run = partial(dropping.run, forward, together=True)
            found = torch.vmap(run, randomness="different")(numbers)
        except Exception as error:
            why = f"`torch.vmap` failed with {type(error).__name__}: {str(error).splitlines()[0]}"
        else:
            if known.vmaps:
                return found
            # Of the weights: what a forward gives is float32 by now.
            coarse = any(p.dtype in (torch.float16, torch.bfloat16) for p in module.parameters())
            slack = 5e-2 if coarse else 1e-4
            if torch.allclose(found[0], first, rtol=slack, atol=slack * float(first.abs().max())):
                known.vmaps = True
                return found[1:]
            why = "`torch.vmap` gives other numbers than one pass after the other"
        known.vmaps = False
        self._say(f"{_of(module)}: passes run one after the other, since {why}. It takes longer.")
        return None

    @contextmanager
    def _in_training(self, module: nn.Module) -> Iterator[None]:
        """The parts named by `train`, not what they contain."""
        wanted = getattr(self, "train", ())
        names: set[str] = {name for name in wanted if isinstance(name, str)}
        classes = tuple(kind for kind in wanted if not isinstance(kind, str))
        parts = dict(module.named_modules())
        if unknown := sorted(names - set(parts)):
            raise ValueError(
                f"`MCDropout(train=...)` names {unknown}, which the module does not have. It has "
                f"{[name for name in parts if name]}."
            )
        chosen = [part for name, part in parts.items() if name in names or isinstance(part, classes)]
        before = [part.training for part in chosen]
        try:
            for part in chosen:
                part.training = True
            yield
        finally:
            for part, mode in zip(chosen, before, strict=True):
                part.training = mode

    def _say(self, what: str, by: Callable[[str], None] = rank_zero_warn) -> None:
        if what not in self._said:
            self._said.add(what)
            by(what)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_known": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _known=WeakKeyDictionary())


def _parts_named(train: Any) -> tuple[str | type[nn.Module], ...]:
    several = train if isinstance(train, Sequence) and not isinstance(train, str) else (train,)
    for one in several:
        if not (isinstance(one, str) or (isinstance(one, type) and issubclass(one, nn.Module))):
            raise TypeError(
                f"`train` holds {one!r}; needed are names of submodules or classes of them. Pass them, such "
                'as `train=("net.attention", Attention)`.'
            )
    return tuple(several)


def _of(module: nn.Module) -> str:
    return f"MCDropout on `{type(module).__name__}`"


@contextmanager
def _attributes_kept(module: nn.Module) -> Iterator[None]:
    """A forward that notes something on its modules would leave there what is of many passes at once."""
    before = [(part, dict(vars(part))) for part in module.modules()]
    try:
        yield
    finally:
        for part, attributes in before:
            now = vars(part)
            for name in [name for name in now if name not in attributes]:
                del now[name]
            for name, value in attributes.items():
                if now.get(name) is not value:
                    now[name] = value


def _uncompiled() -> AbstractContextManager[Any]:
    """Compiled parts hold a graph in which nothing drops: they run as they were written."""
    if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
        return torch.compiler.set_stance("force_eager")  # type: ignore[no-any-return]
    return nullcontext()


def _nothing_drops(module: nn.Module, hidden: list[str]) -> ValueError:
    parts = f"those of class {hidden}" if hidden else "the parts"
    which = f"{', '.join(hidden)}," if hidden else "..."
    return ValueError(
        f"`MCDropout` needs a model that drops something, but a pass through `{type(module).__name__}` met "
        f"no dropout with a probability above 0. Add `nn.Dropout`, name {parts} that drop only in training "
        f"mode by `MCDropout(train=({which}))`, or use a `Committee`, which needs no dropout."
    )
