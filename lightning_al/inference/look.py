"""LOOK: what a few samples tell about a module, before its passes.

a pass, and one without a sample    -> where the samples are in what is dropped
a pass with all in training mode    -> which parts drop in that mode only
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_al.inference.dropout import Sites
from lightning_al.inference.layout import Layout, first_of, without_first
from lightning_al.inference.sharing import buffers_kept
from lightning_al.randomness import preserved_rng

__all__ = ["Known", "look"]

#: Samples by which it is found out.
_LOOKED_AT = 3
Forward = Callable[[nn.Module, Any], Tensor]


@dataclass
class Known:
    """What was found out about a module.

    Attributes:
        layouts: Of the inputs of its dropouts, in order.
        hidden: Classes of the parts that drop in training mode only.
        vmaps: Whether its passes can be run together; `None`: it was not tried yet.
    """

    layouts: list[Layout | None] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    vmaps: bool | None = None


def look(forward: Forward, module: nn.Module, batch: Any, samples: int) -> Known | None:
    """What a batch tells; `None` if too little, and another may tell."""
    count = min(samples, _LOOKED_AT)
    batch = first_of(batch, samples, count)
    fewer = None if batch is None else without_first(batch, count)
    if fewer is None:
        return None
    known = Known()
    whole, part = Sites(count, module), Sites(count - 1, module)
    whole.look(partial(forward, module, batch))
    with suppress(Exception):  # it may know how many samples there are
        part.look(partial(forward, module, fewer))
    if len(whole.inputs) == len(part.inputs):
        pairs = zip(whole.inputs, part.inputs, strict=True)
        known.layouts = [Layout.seen(one, other, count) for one, other in pairs]
    with suppress(Exception), _all_training(module):  # in that mode it may want targets, or other ranks
        known.hidden = _hidden(partial(forward, module, batch), module, whole)
    return known


def _hidden(forward: Callable[[], Tensor], module: nn.Module, shown: Sites) -> list[str]:
    """Classes of parts that have more dropouts now than they have shown, and that the logits depend on."""
    training = Sites(shown.samples, module)
    with preserved_rng(0):
        logits = training.look(forward)
    excess = Counter(training.owners(shown.parts)) - Counter(shown.owners(shown.parts))
    if not excess:
        return []
    # Such as those of an auxiliary head do not matter.
    without = Sites(shown.samples, module, blanks=lambda: without.owners(shown.parts)[-1] in excess)
    with preserved_rng(0):
        same = torch.equal(without.look(forward), logits)
    return [] if same else sorted({type(part).__name__ for part in excess})


@contextmanager
def _all_training(module: nn.Module) -> Iterator[None]:
    """All parts but those with running statistics are in training mode; nothing of it is left behind."""
    modes = [(part, part.training) for part in module.modules() if not isinstance(part, _NormBase)]
    with buffers_kept(module), warnings.catch_warnings(), _Alone():  # type: ignore[no-untyped-call]
        warnings.simplefilter("ignore")
        try:
            for part, _ in modes:
                part.training = True
            yield
        finally:
            for part, mode in modes:
                part.training = mode


class _Alone(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """No other rank is spoken to: some have no batch, and would never answer."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        if func.namespace in ("c10d", "_c10d_functional") and dist.get_world_size() > 1:
            raise RuntimeError(f"{func} would wait for other ranks")
        return func(*args, **(kwargs or {}))
