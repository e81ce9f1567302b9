"""RECURRENT: the dropout between the layers of an LSTM, GRU or RNN, where it can be seen.

Torch runs all layers in one function, with a dropout of its own inside. One by one, with a dropout
between them, they give the same numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

__all__ = ["layer_by_layer"]

Drop = Callable[[Tensor, float], Tensor]

_KINDS: dict[str, Callable[..., nn.RNNBase]] = {
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "RNN_TANH": partial(nn.RNN, nonlinearity="tanh"),
    "RNN_RELU": partial(nn.RNN, nonlinearity="relu"),
}


@contextmanager
def layer_by_layer(module: nn.Module, drop: Drop) -> Iterator[None]:
    """For the block, recurrent parts of `module` with dropout run their layers one by one.

    Args:
        module: Looked through for such parts.
        drop: Dropout of values `(batch, time, features)` with a probability.
    """
    found = [p for p in module.modules() if isinstance(p, nn.RNNBase) and p.dropout > 0 and p.num_layers > 1]
    try:
        for part in found:
            part.forward = partial(_forward, part, _layers(part), drop)
        yield
    finally:
        for part in found:
            vars(part).pop("forward", None)


def _layers(part: nn.RNNBase) -> list[nn.RNNBase]:
    """Each layer of `part` as one of its own, with the same parameters."""
    directions = 2 if part.bidirectional else 1
    width = directions * (part.proj_size or part.hidden_size)
    layers = []
    for number in range(part.num_layers):
        options = {"proj_size": part.proj_size} if part.proj_size else {}
        layer = _KINDS[part.mode](
            width if number else part.input_size, part.hidden_size, bias=part.bias, device="meta",
            batch_first=part.batch_first, bidirectional=part.bidirectional, **options,
        )  # fmt: skip
        for names in part._all_weights[directions * number : directions * (number + 1)]:
            for name in names:
                setattr(layer, name.replace(f"_l{number}", "_l0"), getattr(part, name))
        layers.append(layer.eval())
    return layers


def _forward(
    part: nn.RNNBase, layers: list[nn.RNNBase], drop: Drop, values: Any, hx: Any = None
) -> tuple[Any, Any]:
    directions = 2 if part.bidirectional else 1
    states = []
    for number, layer in enumerate(layers):
        if number:
            values = _dropped(values, drop, part.dropout, batch_first=part.batch_first)
        rows = slice(directions * number, directions * (number + 1))
        begin = tuple(h[rows] for h in hx) if isinstance(hx, tuple) else None if hx is None else hx[rows]
        with warnings.catch_warnings():  # the parameters of one layer are not one piece of a GPU's memory
            warnings.filterwarnings("ignore", message=".*single contiguous chunk.*")
            values, end = layer(values, begin)
        states.append(end)
    if isinstance(states[0], tuple):
        return values, tuple(torch.cat(ends) for ends in zip(*states, strict=True))
    return values, torch.cat(states)


def _dropped(values: Any, drop: Drop, probability: float, *, batch_first: bool) -> Any:
    if isinstance(values, PackedSequence):
        padded, lengths = pad_packed_sequence(values, batch_first=True)
        sorts = values.sorted_indices is not None
        dropped = drop(padded, probability)
        return pack_padded_sequence(dropped, lengths, batch_first=True, enforce_sorted=not sorts)
    if batch_first or values.ndim == 2:
        return drop(values, probability)
    return drop(values.transpose(0, 1), probability).transpose(0, 1)
