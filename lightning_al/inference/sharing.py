"""SHARING: what modules hold in common, and what a forward pass leaves behind in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import ref

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parameter import is_lazy

from lightning_al.functional.shard import Shard

__all__ = ["Apart", "buffers_kept", "share_buffers", "shares_storage"]


def shares_storage(module: nn.Module, other: nn.Module) -> bool:
    """Whether a parameter or buffer of one is one of the other too."""
    return bool(_storages([*_tensors(module)]) & _storages([*_tensors(other)]))


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """After the block all buffers are what they were: a forward may count or average as it goes."""
    before = [
        (part, name, buffer, None if buffer is None else buffer.detach().clone())
        for part in module.modules()
        for name, buffer in part._buffers.items()
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for part, name, buffer, value in before:
                if buffer is not None and value is not None:
                    buffer.copy_(value)
                part._buffers[name] = buffer


def share_buffers(module: nn.Module, shard: Shard) -> None:
    """Give the module rank 0's buffers on all ranks, as a checkpoint would: they are to score one model.

    `ddp` makes them the same before a forward only, so that after the last one each rank has statistics of
    its own batches; those of a sharded module never are the same. Cost: one broadcast of all buffers.

    Args:
        module: Of the same structure on all ranks, which must all come here, within `buffers_kept`.
        shard: Says who the others are.
    """
    if shard.world_size == 1:
        return
    own = {
        name: buffer.detach()
        for name, buffer in module.named_buffers()
        if not (is_lazy(buffer) or isinstance(buffer, DTensor))
    }
    layouts = shard.gather_objects([(name, b.dtype, b.shape, b.nbytes) for name, b in own.items()])[0]
    if not layouts:
        return
    device = torch.device("cuda" if dist.get_backend(shard.group) == "nccl" else "cpu")
    # As bytes: of all types at once, also those that a backend does not know.
    if dist.get_rank(shard.group) == 0:
        sent = torch.cat([b.contiguous().flatten().view(torch.uint8).to(device) for b in own.values()])
        dist.broadcast(sent, 0, group=shard.group)
        return
    sizes = [size for *_, size in layouts]
    sent = torch.empty(sum(sizes), dtype=torch.uint8, device=device)
    dist.broadcast(sent, 0, group=shard.group)
    place = next((tensor.device for tensor in _tensors(module)), device)
    with torch.no_grad():
        for (name, dtype, shape, _), part in zip(layouts, torch.split(sent, sizes), strict=True):
            value = part.clone().view(dtype).reshape(shape)
            if name in own and (own[name].dtype, own[name].shape) == (dtype, shape):
                own[name].copy_(value)
            else:  # made, or longer, by what a rank has seen
                path, _, leaf = name.rpartition(".")
                module.get_submodule(path)._buffers[leaf] = value.to(place)


class Apart:
    """Watches that modules made one after the other train nothing in common."""

    def __init__(self) -> None:
        # Not the tensors, which would keep all modules in memory.
        self._parameters: list[ref[Tensor]] = []
        self._buffers: list[tuple[ref[Tensor], Tensor]] = []

    def check(self, module: nn.Module) -> None:
        """Refuse a fresh module that would train what an earlier one holds.

        Frozen parameters may be common; common buffers are put back to what the first module began with.

        Raises:
            ValueError: If it does.
        """
        self._parameters = [known for known in self._parameters if known() is not None]
        self._buffers = [(known, value) for known, value in self._buffers if known() is not None]
        earlier = _storages([p for known in self._parameters if (p := known()) is not None])
        common = [
            name for name, p in module.named_parameters() if p.requires_grad and _storages([p]) & earlier
        ]
        if common:
            raise ValueError(
                f"A committee's member shares {common[:5]} with an earlier one, so training one would change "
                "the other. Make them anew in every call of the function, for instance by "
                "`copy.deepcopy(backbone)`; what all share must be frozen, `backbone.requires_grad_(False)`."
            )
        for buffer in (buffer for buffer in module.buffers() if not is_lazy(buffer)):
            begun = next((value for known, value in self._buffers if known() is buffer), None)
            if begun is None:
                self._buffers.append((ref(buffer), buffer.detach().clone()))
            else:
                buffer.copy_(begun)
        self._parameters += [ref(parameter) for parameter in module.parameters()]


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _storages(tensors: list[Tensor]) -> set[int]:
    return {t.untyped_storage().data_ptr() for t in tensors if not is_lazy(t)} - {0}
