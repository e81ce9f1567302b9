"""WHOLE STATE: the weights of a module as one file holds them, also where each process has a part of it.

Of such a module rank 0 alone holds the whole state, on the CPU, and the others an empty one; all of them
must ask for it and put it back together.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.tensor import DTensor

from lightning_al.inference.sharded import is_sharded, is_wrapped, reshard
from lightning_al.together import agree

__all__ = ["changed_whole", "copied", "put_state", "read_checkpoint", "read_state", "state_of"]

State = dict[str, Any]


def copied(state: State) -> State:
    """Tensors, or parts of them, and extra state, apart from the module's."""
    return {
        name: value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in state.items()
    }


def state_of(module: nn.Module) -> State:
    """The module's own tensors; of a sharded one, rank 0's whole copy."""
    if not is_sharded(module):
        return module.state_dict()
    return get_model_state_dict(module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def put_state(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Put weights into the module, in place; of a sharded one, rank 0's, or every rank's parts.

    Raises:
        RuntimeError: If they do not fit, on all ranks.
    """
    strict = bool(getattr(module, "strict_loading", True))  # a module may say that its state is not whole
    parts = any(isinstance(value, DTensor) for value in state.values())
    if parts or not is_sharded(module):
        module.load_state_dict(state, strict=strict)
        return
    if not is_wrapped(module):
        reshard(module)
        own = module.state_dict()  # parts, of which the shapes of the whole are known
        agree(lambda: _check(own, state, strict))
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=strict)
    set_model_state_dict(module, dict(state), options=options)


def read_state(find: Callable[[], State | None], module: nn.Module) -> State | None:
    """What rank 0 finds, for all; for a sharded module rank 0 keeps it, and the others have an empty one.

    Raises:
        Exception: What rank 0 raised, on all ranks.
    """
    if not is_sharded(module):
        return agree(find)
    found: list[State | None] = []

    def is_there() -> bool:
        found.append(find())
        return found[0] is not None

    there = agree(is_there)
    return (found[0] if found else {}) if there else None


def read_checkpoint(path: Path, module: nn.Module) -> State:
    """The weights in a checkpoint; one that was saved in parts is a folder, and is read in parts."""
    if not agree(path.is_dir):
        found = read_state(
            lambda: torch.load(path, map_location="cpu", weights_only=False)["state_dict"], module
        )
        assert found is not None
        return found
    parts = copied(module.state_dict())
    dcp.load({"state_dict": parts}, checkpoint_id=path)
    return parts


def changed_whole(module: nn.Module, change: Callable[[], None]) -> None:
    """Do something to the parameters of a module, in place; of a sharded one, to rank 0's whole copies.

    Args:
        module: Changed in place.
        change: Finds whole parameters in the module.
    """
    if not is_sharded(module):
        change()
        return
    reshard(module)
    state = state_of(module)

    def changed() -> None:
        with _whole_parameters(module, state):
            change()
            # Clones: these are taken out of the module next.
            for name, value in [*_named_parameters(module), *module.named_buffers(remove_duplicate=False)]:
                if name in state:
                    state[name] = value.detach().cpu().clone()

    agree(changed)
    put_state(module, state)


@contextmanager
def _whole_parameters(module: nn.Module, state: Mapping[str, Any]) -> Iterator[None]:
    """For the block, the module has whole parameters in the place of its parts."""
    before = [(part, dict(part._parameters)) for part in module.modules()]
    whole = {
        id(p): nn.Parameter(state[name].detach().clone(), p.requires_grad)
        for name, p in _named_parameters(module)
    }
    try:
        for part, parameters in before:
            for name, p in parameters.items():
                part._parameters[name] = None if p is None else whole[id(p)]
        yield
    finally:
        for part, parameters in before:
            part._parameters.update(parameters)


def _named_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return list(module.named_parameters(remove_duplicate=False))


def _check(own: Mapping[str, Any], state: Mapping[str, Any], strict: bool) -> None:
    """What `load_state_dict` would say, before ranks wait for each other."""
    wrong = []
    if strict:
        wrong += [f"missing key {name!r}" for name in own if name not in state]
        wrong += [f"unexpected key {name!r}" for name in state if name not in own]
    for name, value in own.items():
        other = state.get(name)
        if isinstance(value, Tensor) and isinstance(other, Tensor) and value.shape != other.shape:
            wrong.append(f"size mismatch for {name}: {tuple(other.shape)}, not {tuple(value.shape)}")
    if wrong:
        raise RuntimeError(f"{'; '.join(wrong[:5])}{' and more' if len(wrong) > 5 else ''}")
