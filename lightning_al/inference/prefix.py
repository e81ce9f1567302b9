"""PREFIX: what a forward pass does before its first dropout, computed once and given again.

a call of a torch function, the first time -> computed, and its result held by a weak reference
the first dropout                          -> the results that are still in use are kept
a call in a later pass                     -> the result of the call at this place before
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["ChangedError", "Prefix"]


class ChangedError(RuntimeError):
    """A pass did not do what the one before did, up to the first dropout."""


class Prefix:
    """What a forward does before its first dropout, and what it gave: done once, then given again.

    Only results that are still in use when the first dropout comes are held on to; of the others nothing
    can be asked for any more, and a tensor without data stands for them.
    """

    def __init__(self, *, copies: bool = False) -> None:
        self._calls: list[tuple[Any, Any]] = []
        self._done, self._at = False, 0
        self._copies = copies
        #: Results, their versions and, if they are changed later on, copies of them.
        self._kept: list[tuple[Tensor, int, Tensor | None]] = []
        self._overwritten: list[tuple[Tensor, Tensor]] = []

    def rewound(self) -> Prefix:
        """To be given again from the beginning."""
        self._at = 0
        return self

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute, or give again."""
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
            raise ChangedError(f"`{getattr(func, '__name__', func)}` was not called at this place before")
        result = self._calls[self._at][1]
        self._at += 1
        if not any(isinstance(leaf, Tensor) for leaf in tree_leaves((args, kwargs, result))):
            return func(*args, **kwargs)  # a switch of torch's, such as of gradients
        return iter(result.values) if isinstance(result, _Walked) else result

    def end(self) -> None:
        """The first dropout is here."""
        if self._done:
            if self._at != len(self._calls):
                raise ChangedError("the first dropout came earlier than before")
            return
        self._calls = [(func, _strongly(result)) for func, result in self._calls]
        results = [r.values if isinstance(r, _Walked) else r for _, r in self._calls]
        for tensor in {id(leaf): leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)}.values():
            # Inference tensors do not tell whether they were changed.
            copied = self._copies or tensor.is_inference()
            self._kept.append((tensor, _version(tensor), tensor.clone() if copied else None))
        self._done = True

    def written(self, values: Tensor, changed: Tensor) -> Tensor:
        """`values` overwritten, until the pass is over."""
        self._overwritten.append((values, values.clone()))
        return values.copy_(changed)

    def ended(self) -> Prefix | None:
        """After a pass: what to begin the next one with; `None`: with nothing, but keep copies then."""
        if not self._done:
            return None
        for tensor, before in reversed(self._overwritten):
            tensor.copy_(before)
        undone = {id(tensor) for tensor, _ in self._overwritten}
        self._overwritten = []
        kept = []
        for tensor, version, copied in self._kept:
            if copied is not None:
                tensor.copy_(copied)
            elif _version(tensor) != version and id(tensor) not in undone:
                return Prefix(copies=True)
            kept.append((tensor, _version(tensor), copied))
        self._kept = kept
        return self


class _Walked:
    """What an iterator gave."""

    def __init__(self, values: Any) -> None:
        self.values = values


_GONE = torch.empty(0, device="meta")


def _weakly(value: Any) -> Any:
    return weakref.ref(value) if isinstance(value, Tensor) else value


def _strongly(result: Any) -> Any:
    if isinstance(result, _Walked):
        return _Walked(_strongly(result.values))
    return tree_map(_alive, result)


def _alive(value: Any) -> Any:
    if not isinstance(value, weakref.ref):
        return value
    tensor = value()
    return _GONE if tensor is None else tensor


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
