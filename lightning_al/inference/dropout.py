"""DROPOUT: a forward pass with its dropout switched on, by masks that can be drawn again.

    every torch function of a forward -> before the first dropout: computed once, then given again
                                      -> a dropout: drops, by masks of this site, pass and sample
                                      -> after it: computed for every pass

The model stays in eval mode: BatchNorm, and whatever else asks for `self.training`, behaves as in a
deterministic pass. It is a mode around torch's functions that makes dropouts drop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lightning_al.inference.layout import Layout, Seen
from lightning_al.inference.masks import Drop, fold
from lightning_al.inference.prefix import ChangedError, Prefix

__all__ = ["Dropping", "Sites"]


def _elements(ndim: int) -> int | None:
    del ndim
    return None


def _maps(spatial: int) -> Callable[[int], int]:
    """Feature dropout: samples and channels have bits; an input may come without the batch axis."""
    return lambda ndim: 1 if ndim == spatial + 1 and spatial != 2 else 2


#: Functions that drop, and how many leading axes of their input have bits of their own (`None`: all).
_DROPOUTS: dict[Any, Callable[[int], int | None]] = {
    functional.dropout: _elements,
    functional.dropout1d: _maps(1),
    functional.dropout2d: _maps(2),
    functional.dropout3d: _maps(3),
    torch.dropout: _elements,
    torch.dropout_: _elements,
    torch.feature_dropout: _maps(2),
    torch.feature_dropout_: _maps(2),
}
_ALPHA_DROPOUTS: dict[Any, Callable[[int], int | None]] = {
    functional.alpha_dropout: _elements,
    functional.feature_alpha_dropout: _maps(2),
    torch.alpha_dropout: _elements,
    torch.alpha_dropout_: _elements,
    torch.feature_alpha_dropout: _maps(2),
    torch.feature_alpha_dropout_: _maps(2),
}

#: Functions that draw what is no dropout.
_RANDOM = {
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "normal_",
    "uniform_", "random_", "exponential_", "geometric_", "cauchy_", "log_normal_", "bernoulli", "bernoulli_",
    "poisson", "multinomial", "gumbel_softmax",
}  # fmt: skip


class Dropping(TorchFunctionMode):
    """Runs a forward pass again and again, with other masks each time.

    Args:
        key: What the masks depend on besides site, pass and sample: int64 `()`.
        samples: How many the batch has.
        positions: Of the samples, if each has masks of its own; `None`: one mask for all.
        layouts: Of the inputs of the dropouts, in order, as far as known; else judged by their shapes.

    Attributes:
        sites: Dropouts met in the last pass.
        largest: Elements of the largest result after the first dropout, for one pass.
        foreign: Functions met that draw random numbers other than masks.
        unbound: A dropout acts on a tensor in which the samples could not be found.
        recomputes: Why passes compute what lies before the first dropout again, if they do.
    """

    def __init__(
        self, key: Tensor, samples: int, positions: Tensor | None, layouts: Sequence[Layout | None] = ()
    ) -> None:
        super().__init__()
        self.key, self.samples, self.positions, self.layouts = key, samples, positions, layouts
        self.sites = self.largest = 0
        self.foreign: set[str] = set()
        self.unbound = False
        self.recomputes: str | None = None
        self._passes, self._together = key, False
        self._prefix: Prefix | None = None
        self._before = Prefix()

    def run(self, forward: Callable[[], Tensor], passes: Tensor, *, together: bool = False) -> Tensor:
        """`forward` in one pass `()`; under `torch.vmap`, so `together`, in many."""
        self._together = together
        try:
            return self._run(forward, passes)
        except ChangedError as error:
            self.recomputes, self._prefix = str(error), None
            return self._run(forward, passes)

    def _run(self, forward: Callable[[], Tensor], passes: Tensor) -> Tensor:
        self.sites, self._passes = 0, passes
        self._before = Prefix() if self._prefix is None else self._prefix.rewound()
        with self:
            result = forward()
        self._prefix = self._before.ended()
        return result

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        stochastic = self._stochastic(func, args, kwargs)
        if stochastic is None and getattr(func, "__name__", "") in _RANDOM:
            self.foreign.add(func.__name__)
        if not self.sites and stochastic is None:
            return self._before.call(func, args, kwargs)
        if not self.sites:
            self._before.end()
        result = func(*args, **kwargs) if stochastic is None else stochastic()
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.largest = max([self.largest, *sizes])
        return result

    # ------------------------------------------------------------------ what drops

    def _stochastic(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[], Any] | None:
        """What to do instead of `func`, if it has a dropout that is not of probability zero."""
        if func in _DROPOUTS or func in _ALPHA_DROPOUTS:
            values = args[0] if args else kwargs["input"]
            probability = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
            if probability == 0:
                return None
            in_place = func.__name__.endswith("_") or kwargs.get(
                "inplace", args[3] if len(args) > 3 else False
            )
            mask_axes = (_DROPOUTS.get(func) or _ALPHA_DROPOUTS[func])(values.ndim)
            alpha = func in _ALPHA_DROPOUTS

            def drop() -> Tensor:
                dropped = self._drop(values, probability, mask_axes, alpha=alpha)
                # Under `torch.vmap` what differs by pass cannot be written where all passes read.
                return self._before.written(values, dropped) if in_place and not self._together else dropped

            return drop
        if func is Tensor.bernoulli_:  # stochastic depth: ones and zeros, not yet scaled
            share = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
            if isinstance(share, int | float):
                ones = torch.ones_like(args[0])
                return lambda: self._drop(ones, 1 - share, None, scaled=False)
        if func is functional.scaled_dot_product_attention:
            if (args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)) == 0:
                return None
            return lambda: self._attention(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            # In order: query, key, value, width, heads, projection, its bias, two more, add_zero_attn.
            if (args[10] if len(args) > 10 else kwargs["dropout_p"]) == 0:
                return None
            return lambda: self._multi_head(args, kwargs)
        return None

    def _multi_head(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Torch's own, with a dropout of ours where it has its own; `training` is the 14th argument."""
        if len(args) > 13:
            args = (*args[:13], True, *args[14:])
        else:
            kwargs = {**kwargs, "training": True}

        def dropout(weights: Tensor, p: float) -> Tensor:
            return self._drop(weights, p, None)

        with (
            patch.object(functional, "dropout", dropout),
            patch.object(functional, "scaled_dot_product_attention", self._attention),
        ):
            return functional.multi_head_attention_forward(*args, **kwargs)

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if enable_gqa:
            heads = query.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(heads, -3), value.repeat_interleave(heads, -3)
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        return self._drop(scores.softmax(-1), dropout_p, None) @ value

    def _drop(
        self,
        values: Tensor,
        probability: float,
        mask_axes: int | None,
        *,
        alpha: bool = False,
        scaled: bool = True,
    ) -> Tensor:
        """Dropped values of this pass; a site is a place in the order of the dropouts of a forward."""
        site, self.sites = self.sites, self.sites + 1
        shape: Sequence[int] = values.shape if values.ndim else (1,)
        layout = self.layouts[site] if site < len(self.layouts) else Layout.guessed(shape, self.samples)
        if layout is not None and not layout.fits(shape, self.samples):
            layout = None
        if layout is None and self.positions is None:
            raise ValueError(
                f"A dropout acts on a tensor of shape {tuple(shape)}, in which the {self.samples} samples of "
                "the batch are along no axis, so no mask can be the same for all of them. Keep samples on an "
                "axis of their own, or use `MCDropout(consistent=False)`."
            )
        self.unbound |= layout is None
        positions = self.positions
        axis = None
        if layout is not None:
            split, axis = layout.split(shape, self.samples)
            if mask_axes is not None and len(split) > len(shape):
                mask_axes += 1
            shape = split
            positions = positions if axis is not None else None
        dropped: Tensor = Drop.apply(  # type: ignore[no-untyped-call]
            values.reshape(shape), self._passes, fold(self.key, site), probability, axis, positions,
            mask_axes, alpha, scaled,
        )  # fmt: skip
        return dropped.reshape(values.shape)


class Sites(Dropping):
    """Notes what enters the dropouts and in which part of the module each is, and drops nothing.

    Args:
        samples: How many the batch has.
        module: That is looked at.
        blanks: Asked at each dropout whether zeros are to come out of it.

    Attributes:
        inputs: Of the dropouts, in order.
        parts: All that were called.
    """

    def __init__(
        self, samples: int, module: nn.Module, *, blanks: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__(torch.zeros((), dtype=torch.long), samples, None)
        self.inputs: list[Seen] = []
        self.parts: set[nn.Module] = {module}
        self._module, self._blanks = module, blanks
        self._path = [module]
        self._paths: list[list[nn.Module]] = []

    def look(self, forward: Callable[[], Tensor]) -> Tensor:
        """One deterministic pass."""
        parts = [p for p in self._module.modules() if not isinstance(p, torch.jit.ScriptModule)]
        hooks = [part.register_forward_pre_hook(self._enter) for part in parts]
        hooks += [part.register_forward_hook(self._leave, always_call=True) for part in parts]
        try:
            with self:
                return forward()
        finally:
            for hook in hooks:
                hook.remove()

    def owners(self, known: set[nn.Module]) -> list[nn.Module]:
        """Of each dropout, the innermost part around it that is among those known."""
        return [next(part for part in reversed(path) if part in known) for path in self._paths]

    def _enter(self, part: nn.Module, args: Any) -> None:
        self.parts.add(part)
        self._path.append(part)

    def _leave(self, part: nn.Module, args: Any, result: Any) -> None:
        self._path.pop()

    def _drop(self, values: Tensor, *_: Any, **__: Any) -> Tensor:
        self.inputs.append(Seen.of(values, self.samples))
        self._paths.append(list(self._path))
        self.sites += 1
        return torch.zeros_like(values) if self._blanks() else values
