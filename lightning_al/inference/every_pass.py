"""EVERY PASS: MC dropout on a sharded module, whose passes are whole, one after the other.

Its weights are there only while a pass uses them: nothing of one pass can be given again in the next, and
`torch.vmap` cannot gather them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from lightning_al.inference.dropout import _RANDOM, Dropping, Sites
from lightning_al.inference.layout import Layout, Seen, first_of, without_first
from lightning_al.inference.look import _LOOKED_AT, Known
from lightning_al.inference.masks import fold
from lightning_al.inference.mc_dropout import MCDropout, _attributes_kept, _uncompiled
from lightning_al.inference.posteriors import Draw
from lightning_al.inference.recurrent import layer_by_layer

__all__ = ["every_pass", "layouts_of"]


def every_pass(posterior: MCDropout, layouts: list[Layout | None]) -> MCDropout:
    """The same posterior, with the same masks, for a sharded module.

    Args:
        posterior: As it was given.
        layouts: Of the inputs of the module's dropouts, in order.
    """
    whole = copy.copy(posterior)
    known = Known(layouts, vmaps=False)

    def passes(
        self: MCDropout,
        forward: Callable[[nn.Module, Any], Tensor],
        module: nn.Module,
        batch: Any,
        draw: Draw,
    ) -> Iterator[Tensor]:
        device = draw.positions.device
        key = fold(torch.tensor(draw.seed, device=device), 0)
        positions = None if self.consistent else draw.positions
        once = partial(forward, module, batch)
        with self._in_training(module), layer_by_layer(), _uncompiled(), _attributes_kept(module):
            dropping = _Whole(key, len(draw.positions), positions, known.layouts)
            for number in torch.arange(self.num_samples, device=device):
                found = dropping.run(once, number)
                if not number:
                    self._check(module, known, dropping)
                yield found[None]

    vars(whole)["passes"] = MethodType(passes, whole)
    return whole


def layouts_of(
    posterior: MCDropout, forward: Callable[[Any], Any], module: nn.Module, batch: Any, samples: int
) -> list[Layout | None]:
    """Where the samples are in what is dropped, by two passes; all ranks make them of the same batch."""
    count = min(samples, _LOOKED_AT)
    batch = first_of(batch, samples, count)
    fewer = None if batch is None else without_first(batch, count)
    if fewer is None:
        return []
    whole, part = _Seen(count, module), _Seen(count - 1, module)
    with posterior._in_training(module), layer_by_layer(), _uncompiled(), _attributes_kept(module):
        whole.look(partial(forward, batch))
        with suppress(Exception):  # it may know how many samples there are
            part.look(partial(forward, fewer))
    if len(whole.inputs) != len(part.inputs):
        return []
    pairs: Sequence[tuple[Seen, Seen]] = list(zip(whole.inputs, part.inputs, strict=True))
    return [Layout.seen(one, other, count) for one, other in pairs]


class _Whole(Dropping):
    """Computes all of every pass."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        drop = self._stochastic(func, args, kwargs)
        if drop is None:
            if getattr(func, "__name__", "") in _RANDOM:
                self.foreign.add(func.__name__)
            return func(*args, **kwargs)
        if not self.sites:
            self._before.end()
        return drop()


class _Seen(_Whole, Sites):
    """Notes what enters the dropouts, and drops nothing."""
