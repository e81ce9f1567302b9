"""DROPOUT: a forward pass with its dropout switched on, by masks that can be drawn again.

    every torch function of a forward -> before the first dropout: computed once, then given again
                                      -> a dropout: drops, by masks of this site, pass and sample
                                      -> after it: computed for every pass

The model stays in eval mode: BatchNorm, and whatever else asks for `self.training`, behaves as in a
deterministic pass. It is a mode around torch's functions that makes dropouts drop.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function_unary
from torch.utils._pytree import tree_leaves, tree_map

from lightning_al.inference.masks import fold, keep_masks, sample_axis

__all__ = ["Dropping", "drop_samples_first"]


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
_SATURATED = -1.7580993408473766  # what SELU tends to for very negative inputs


class _ChangedError(RuntimeError):
    """A pass did not do what the one before did, up to the first dropout."""


def drop_samples_first(values: Tensor, probability: float) -> Tensor:
    """Dropout of values known to have their samples on the first axis; without `Dropping`, nothing."""
    if has_torch_function_unary(values):
        dropped: Tensor = handle_torch_function(drop_samples_first, (values,), values, probability)
        return dropped
    return values


class Dropping(TorchFunctionMode):
    """Runs a forward pass again and again, with other masks each time.

    Args:
        key: What the masks depend on besides site, pass and sample: int64 `()`.
        samples: How many the batch has.
        positions: Of the samples, if each has masks of its own; `None`: one mask for all.
        time_first: Sequences inside of the model are (time, batch, features).

    Attributes:
        sites: Dropouts met in the last pass.
        largest: Elements of the largest result after the first dropout, for one pass.
        recomputes: Why every pass computes what lies before the first dropout, if it does.
    """

    def __init__(self, key: Tensor, samples: int, positions: Tensor | None, *, time_first: bool) -> None:
        super().__init__()
        self.key, self.samples, self.positions, self.time_first = key, samples, positions, time_first
        self.sites = self.largest = 0
        self.recomputes: str | None = None
        self._passes = key
        self._prefix: _Prefix | None = None
        self._before = _Prefix()

    def run(self, forward: Callable[[], Tensor], passes: Tensor) -> Tensor:
        """`forward` in one pass `()`; under `torch.vmap` in many."""
        try:
            return self._run(forward, passes)
        except _ChangedError as error:
            self.recomputes, self._prefix = str(error), None
            return self._run(forward, passes)

    def _run(self, forward: Callable[[], Tensor], passes: Tensor) -> Tensor:
        self.sites, self._passes = 0, passes
        self._before = _Prefix() if self._prefix is None else self._prefix.rewound()
        with self:
            result = forward()
        if self._before.intact():
            self._prefix = self._before
        else:
            self.recomputes = "it is changed in place afterwards"
            self._prefix = None
        return result

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        stochastic = self._stochastic(func, args, kwargs)
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
                return values.copy_(dropped) if in_place else dropped

            return drop
        if func is drop_samples_first:
            return lambda: self._drop(args[0], args[1], None, rows_first=True)
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
            return self._drop(weights, p, None, rows_first=True)

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
        return self._drop(scores.softmax(-1), dropout_p, None, rows_first=True) @ value

    def _drop(
        self,
        values: Tensor,
        probability: float,
        mask_axes: int | None,
        *,
        alpha: bool = False,
        rows_first: bool = False,
    ) -> Tensor:
        """Dropped values of this pass; a site is a place in the order of the dropouts of a forward."""
        shape = values.shape if values.ndim else torch.Size([1])
        axis, group = sample_axis(shape, self.samples, time_first=self.time_first and not rows_first)
        if rows_first and shape[0] % self.samples == 0:
            axis, group = 0, shape[0] // self.samples
        if axis is None and self.positions is None:
            raise ValueError(
                f"A dropout acts on a tensor of shape {tuple(shape)}, but none of its axes holds the "
                f"{self.samples} samples of the batch, so no mask can be the same for all of them. Keep the "
                "batch on the first or second axis, or use `MCDropout(consistent=False)`."
            )
        if axis is not None and group > 1:
            shape = torch.Size([*shape[:axis], self.samples, group, *shape[axis + 1 :]])
            mask_axes = None if mask_axes is None else mask_axes + 1
        key = fold(self.key, self.sites)
        self.sites += 1
        dropped: Tensor = _Drop.apply(  # type: ignore[no-untyped-call]
            values.reshape(shape), self._passes, key, probability, axis, self.positions, mask_axes, alpha
        )
        return dropped.reshape(values.shape)


class _Drop(torch.autograd.Function):
    """A dropout; a Function only because `torch.vmap` then shows it all passes at once."""

    @staticmethod
    def forward(
        values: Tensor,
        passes: Tensor,
        key: Tensor,
        probability: float,
        axis: int | None,
        positions: Tensor | None,
        mask_axes: int | None,
        alpha: bool,
    ) -> Tensor:
        keep = keep_masks(
            fold(key, passes.reshape(1)), 1 - probability, values.shape,
            axis=axis, positions=positions, mask_axes=mask_axes,
        )  # fmt: skip
        return _masked(values, keep[0], probability, alpha=alpha)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        del ctx, inputs, output

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        values, passes, key, probability, axis, positions, mask_axes, alpha = inputs
        del info
        if in_dims[0] is not None:
            values = values.movedim(in_dims[0], 0)
        keep = keep_masks(
            fold(key, passes), 1 - probability, values.shape if in_dims[0] is None else values.shape[1:],
            axis=axis, positions=positions, mask_axes=mask_axes,
        )  # fmt: skip
        return _masked(values, keep, probability, alpha=alpha), 0


def _masked(values: Tensor, keep: Tensor, probability: float, *, alpha: bool) -> Tensor:
    if probability == 1:
        return values * keep
    if alpha:  # mean and variance stay those of the input (Klambauer et al. 2017, section 2)
        factor = 1 / math.sqrt((1 - probability) * (1 + probability * _SATURATED**2))
        kept = torch.where(keep, values, torch.full_like(values, _SATURATED))
        return kept * factor - factor * _SATURATED * probability
    return values * (1 / (1 - probability)) * keep


class _Prefix:
    """What a forward does before its first dropout, and what it gave: done once, then given again.

    Only results that are still in use when the first dropout comes are held on to; of the others nothing
    can be asked for any more, and a tensor without data stands for them.
    """

    def __init__(self) -> None:
        self._calls: list[tuple[Any, Any]] = []
        self._done, self._at = False, 0
        self._versions: list[tuple[Tensor, int]] = []

    def rewound(self) -> _Prefix:
        self._at = 0
        return self

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._done:
            return self._again(func, args, kwargs)
        result = func(*args, **kwargs)
        if isinstance(result, Iterator):
            result = list(result)
            self._calls.append((func, _Walked(tree_map(_weakly, result))))
            return iter(result)
        self._calls.append((func, tree_map(_weakly, result)))
        return result

    def _again(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Looking up an attribute makes an object each time, equal but not the same.
        if self._at >= len(self._calls) or self._calls[self._at][0] != func:
            raise _ChangedError(f"`{getattr(func, '__name__', func)}` was not called at this place before")
        result = self._calls[self._at][1]
        self._at += 1
        if not any(isinstance(leaf, Tensor) for leaf in tree_leaves((args, kwargs, result))):
            return func(*args, **kwargs)  # a switch of torch's, such as of gradients
        return iter(result.values) if isinstance(result, _Walked) else result

    def end(self) -> None:
        """The first dropout is here."""
        if self._done:
            if self._at != len(self._calls):
                raise _ChangedError("the first dropout came earlier than before")
            return
        self._calls = [
            (
                func,
                _Walked(tree_map(_strongly, result.values))
                if isinstance(result, _Walked)
                else tree_map(_strongly, result),
            )
            for func, result in self._calls
        ]
        results = [r.values if isinstance(r, _Walked) else r for _, r in self._calls]
        tensors = [leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]
        self._versions = [(tensor, _version(tensor)) for tensor in tensors]
        self._done = True

    def intact(self) -> bool:
        """Whether what is to be given again is still as it was."""
        return all(_version(tensor) == version for tensor, version in self._versions)


class _Walked:
    """What an iterator gave."""

    def __init__(self, values: Any) -> None:
        self.values = values


_GONE = torch.empty(0, device="meta")


def _weakly(value: Any) -> Any:
    return weakref.ref(value) if isinstance(value, Tensor) else value


def _strongly(value: Any) -> Any:
    if not isinstance(value, weakref.ref):
        return value
    tensor = value()
    return _GONE if tensor is None else tensor


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
