"""A device without hardware: its tensors say that they are not on the CPU, where their numbers lie.

It does what makes code for a GPU fail there and nowhere else. Tensors of two devices do not mix, except where
CUDA lets them; of equal numbers another one is found first than on the CPU; sums round otherwise; products
are rough unless the highest precision is asked for; and what has no deterministic kernel says so.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["DEVICE", "NAME", "Pretended", "pretended_device", "rough"]

NAME = "pretended"
DEVICE = torch.device("privateuseone:0")  # by the name of `NAME` once it is there
aten = torch.ops.aten

#: Ops that copy from one device to another.
_COPY = {aten._to_copy, aten.copy_, aten._local_scalar_dense, aten._copy_from}
#: Ops whose further tensors may be indices on the CPU.
_INDEX = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
#: Ops besides the pointwise ones in which a tensor of no axes may lie on the CPU.
_TAKE_NUMBERS = {aten.where, aten.masked_fill, aten.masked_fill_, aten.fill_}
_PRODUCTS = {aten.mm, aten.addmm, aten.addmm_, aten.bmm, aten.mv, aten.baddbmm, aten.addmv, aten.dot}
#: Ops that make the host wait for the device.
_WAITS = {aten._local_scalar_dense, aten.nonzero, aten._unique2, aten.unique_dim, aten.unique_consecutive}
_SHAPES = {aten.squeeze_, aten.unsqueeze_, aten.t_, aten.transpose_, aten.as_strided_}
_MAKERS = {aten.lift_fresh, aten.detach, aten.alias}


class Pretended(Tensor):
    """A tensor on the pretended device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        made = Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, device=DEVICE, requires_grad=inner.requires_grad,
        )  # fmt: skip
        made.inner = inner.detach()
        return made

    def __repr__(self, **_: Any) -> str:
        return f"Pretended({self.inner})"

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert pretended:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *_: Any, **__: Any) -> Any:
        self.numpy()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _ran(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """Tensors that are made on the device are pretended ones; what it does is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        on_device = any(isinstance(leaf, Pretended) for leaf in tree_leaves([args, kwargs]))
        if on_device and not func.is_view and func.overloadpacket not in _MAKERS:
            self.launches[func.overloadpacket.__name__] += 1
            to_host = func.overloadpacket is aten._to_copy and _device(kwargs) == "cpu"
            self.waits += func.overloadpacket in _WAITS or to_host
        return _ran(func, args, kwargs)


@contextmanager
def pretended_device() -> Any:
    """For the block and this thread, the device is there; gives what counts its work."""
    _register()
    with _Mode() as mode:
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor` makes its numbers on the CPU first
        try:
            yield mode
        finally:
            torch._C._set_only_lift_cpu_tensors(False)


@cache
def _register() -> None:
    """For as long as the process lives."""
    from torch.utils.backend_registration import (
        _DummyBackendModule,
        _setup_privateuseone_for_python_backend,
    )

    class Backend(_DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16]

    _setup_privateuseone_for_python_backend(NAME, Backend())


def _device(kwargs: dict[str, Any]) -> str | None:
    device = kwargs.get("device")
    return None if device is None else torch.device(device).type


def _ran(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An op by way of the CPU."""
    op, leaves = func.overloadpacket, tree_leaves([args, kwargs])
    here = [leaf for leaf in leaves if isinstance(leaf, Pretended)]
    target = _device(kwargs)
    if target == NAME:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if here and op not in _COPY:
        _refuse_mixture(func, op, args, [leaf for leaf in leaves if isinstance(leaf, Tensor)])
    _refuse_undetermined(op, here)
    known = {id(leaf.inner): leaf for leaf in here}
    kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory"}
    plain_args, plain_kwargs = tree_map(_inner, (args, kwargs))
    found = _unlike_the_cpu(func, op, plain_args, plain_kwargs) if here else func(*plain_args, **plain_kwargs)
    if op in _SHAPES:  # a tensor that changes its shape in place
        with torch._C._DisableTorchDispatch():
            func(*args, **kwargs)
        return args[0]
    stays = target == NAME or (bool(here) and target is None and op is not aten._local_scalar_dense)
    if op is aten.copy_ and not isinstance(args[0], Pretended):
        return args[0]
    return tree_map(lambda leaf: _outer(leaf, known), found) if stays else found


def _inner(leaf: Any) -> Any:
    return leaf.inner if isinstance(leaf, Pretended) else leaf


def _outer(leaf: Any, known: dict[int, Pretended]) -> Any:
    if not isinstance(leaf, Tensor) or isinstance(leaf, Pretended):
        return leaf
    return known.get(id(leaf)) if id(leaf) in known else Pretended(leaf)


# ---------------------------------------------------------------------- what CUDA refuses


def _refuse_mixture(func: Any, op: Any, args: Any, tensors: list[Tensor]) -> None:
    others = [tensor for tensor in tensors if not isinstance(tensor, Pretended)]
    if op in _INDEX and isinstance(args[0], Pretended):
        others = [t for t in tree_leaves(args[2:]) if isinstance(t, Tensor) and not isinstance(t, Pretended)]
        others = [tensor for tensor in others if tensor.ndim]
    elif torch.Tag.pointwise in func.tags or op in _TAKE_NUMBERS:
        first = args[0] if args and isinstance(args[0], Tensor) else None
        in_place = func.__name__.split(".")[0].endswith("_") and first in others
        others = others if in_place else [tensor for tensor in others if tensor.ndim]
    if others:
        shapes = [(tuple(t.shape), t.device.type) for t in tensors]
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got {shapes}")


def _refuse_undetermined(op: Any, here: list[Pretended]) -> None:
    """What torch 2.5 has no deterministic kernel for, of the ops in use."""
    sums = bool(here) and op in (aten.cumsum, aten.cumsum_) and here[0].is_floating_point()
    if sums and torch.are_deterministic_algorithms_enabled():
        raise RuntimeError(f"{op.__name__} does not have a deterministic implementation on CUDA")


# ---------------------------------------------------------------------- what CUDA finds otherwise


def _unlike_the_cpu(func: Any, op: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The numbers that another order of work could give."""
    name = func.__name__
    if op in (aten.mm, aten.mv, aten.dot) and "out" not in kwargs:
        left, right = (rough(part).flip(-1 if part is args[0] else 0) for part in args)
        return func(left, right)
    if op in (aten.addmm, aten.addmm_) and "out" not in kwargs:
        return func(args[0], rough(args[1]).flip(1), rough(args[2]).flip(0), **kwargs)
    if op in _PRODUCTS:
        return func(*(rough(part) if isinstance(part, Tensor) else part for part in args), **kwargs)
    if name in ("max.dim", "min.dim") and args[0].ndim:  # of equal ones the last
        values, places = func(args[0].flip(args[1]), *args[1:])
        return values, args[0].shape[args[1]] - 1 - places
    if name == "argmax.default" and len(args) > 1 and args[1] is not None and args[0].ndim:
        return args[0].shape[args[1]] - 1 - func(args[0].flip(args[1]), *args[1:])
    if name == "sort.default" or (name == "sort.stable" and not kwargs.get("stable")):
        return _unstable(args[0], *args[1:], **{k: v for k, v in kwargs.items() if k != "stable"})
    if name == "topk.default" and args[0].ndim == 1 and len(args[0]):
        values, places = func(args[0].flip(0), *args[1:])
        return values, len(args[0]) - 1 - places
    if name == "sum.dim_IntList" and args[0].is_floating_point():
        return func(args[0].flip(tuple(range(args[0].ndim))), *args[1:], **kwargs).flip(
            tuple(range(_kept(args))) if _kept(args) else ()
        )
    return func(*args, **kwargs)


def _kept(args: Any) -> int:
    """Axes that a sum leaves."""
    keepdim = args[2] if len(args) > 2 else False
    return args[0].ndim if keepdim else args[0].ndim - len(args[1] or range(args[0].ndim))


def _unstable(values: Tensor, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    if not values.ndim:
        return values.sort(dim, descending)
    found, places = values.flip(dim).sort(dim=dim, descending=descending, stable=True)
    return found, values.shape[dim] - 1 - places


def rough(part: Any) -> Any:
    """With 10 bits of its fraction, as the tensor cores read it, unless all of them were asked for."""
    if part.dtype != torch.float32 or not _allows_rough():
        return part
    bits = part.contiguous().view(torch.int32)
    return ((bits + (1 << 12)) >> 13 << 13).view(torch.float32)


def _allows_rough() -> bool:
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # the newer way was used
        return torch.backends.cuda.matmul.fp32_precision == "tf32"
