"""RECURRENT: the dropout between the layers of an LSTM, GRU or RNN, where it can be seen.

Torch runs all layers in one function, with a dropout of its own inside. One by one, with a dropout
between them, they give the same numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

__all__ = ["layer_by_layer"]

_KINDS: dict[str, Callable[..., nn.RNNBase]] = {
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "RNN_TANH": partial(nn.RNN, nonlinearity="tanh"),
    "RNN_RELU": partial(nn.RNN, nonlinearity="relu"),
}


@contextmanager
def layer_by_layer() -> Iterator[None]:
    """For the block, recurrent modules with dropout between their layers run these one by one."""
    with ExitStack() as stack:
        for kind in (nn.LSTM, nn.GRU, nn.RNN):
            # The classes' own, which a subclass may call from a forward of its own.
            stack.enter_context(patch.object(kind, "forward", _instead_of(kind.forward)))
        yield


def _instead_of(own: Callable[..., Any]) -> Callable[..., Any]:
    def forward(part: nn.RNNBase, input: Any, hx: Any = None) -> Any:
        if part.dropout == 0 or part.num_layers == 1:
            return own(part, input, hx)
        return _forward(part, own, input, hx)

    return forward


def _layers(part: nn.RNNBase) -> list[nn.RNNBase]:
    """Each layer of `part` as one of its own, with the same parameters."""
    directions = 2 if part.bidirectional else 1
    width = directions * (part.proj_size or part.hidden_size)
    layers = []
    for number in range(part.num_layers):
        options = {"proj_size": part.proj_size} if part.proj_size else {}
        with torch._C.DisableTorchFunction():  # to draw its first weights is no part of the forward
            layer = _KINDS[part.mode](
                width if number else part.input_size, part.hidden_size, bias=part.bias, device="meta",
                batch_first=part.batch_first, bidirectional=part.bidirectional, **options,
            )  # fmt: skip
        for names in part._all_weights[directions * number : directions * (number + 1)]:
            for name in names:
                place = name.replace(f"_l{number}", "_l0")
                del layer._parameters[place]  # the weights may be computed, as by `weight_norm`
                setattr(layer, place, getattr(part, name))
        layer._init_flat_weights()
        layers.append(layer.eval())
    return layers


def _forward(part: nn.RNNBase, own: Callable[..., Any], values: Any, hx: Any) -> tuple[Any, Any]:
    directions = 2 if part.bidirectional else 1
    states = []
    for number, layer in enumerate(_layers(part)):
        if number:
            values = _dropped(values, part.dropout)
        rows = slice(directions * number, directions * (number + 1))
        begin = tuple(h[rows] for h in hx) if isinstance(hx, tuple) else None if hx is None else hx[rows]
        with warnings.catch_warnings():  # the parameters of one layer are not one piece of a GPU's memory
            warnings.filterwarnings("ignore", message=".*single contiguous chunk.*")
            values, end = own(layer, values, begin)
        states.append(end)
    if isinstance(states[0], tuple):
        return values, tuple(torch.cat(ends) for ends in zip(*states, strict=True))
    return values, torch.cat(states)


def _dropped(values: Any, probability: float) -> Any:
    if not isinstance(values, PackedSequence):
        return dropout(values, probability)
    padded, lengths = pad_packed_sequence(values, batch_first=True)
    sorts = values.sorted_indices is not None
    return pack_padded_sequence(
        dropout(padded, probability), lengths, batch_first=True, enforce_sorted=not sorts
    )
