"""GRADIENTS: what the last layer would learn from each row, never written out.

probabilities, embeddings -> [p - y and h as factors] -> Vectors whose rows are their outer products
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_al.functional.matrices import check_matrix, refuse_rows
from lightning_al.functional.rows import as_float, check_tensors, checked
from lightning_al.functional.shard import Shard
from lightning_al.functional.vectors import Vectors

__all__ = ["Gradients"]


@dataclass(frozen=True)
class Gradients(Vectors):
    """Gradients by the last layer, of probabilities and embeddings as they were given; made by `of`.

    Args:
        labels: The predicted class of each row, `(n,)`; `None` for one logit a column.
        gains: Powers of two by which residuals and embeddings are multiplied, so that squares stay in range.
        column: What is appended to every embedding, instead of the one of `bias`.
        lengths: Squared lengths, `(n,)` in float32.
        tiny: What squared distances may be off beside `slack`: a factor's square may be too small a number.
    """

    labels: Tensor | None = None
    gains: tuple[float, float] = (1.0, 1.0)
    column: float | None = None
    lengths: Tensor | None = None
    tiny: float = 0.0

    @classmethod
    def of(cls, probs: Tensor, embeddings: Tensor, bias: bool, shard: Shard) -> Gradients:
        """Of the rows held here; every one is looked at once.

        Raises:
            TypeError: If a tensor is none, or not of floating-point numbers.
            ValueError: If shapes do not fit, `probs` are no probabilities, or a row is not finite (named).
        """
        with shard.together():
            _check(probs, embeddings, shard)
            made, largest = cls._looked_at(probs, embeddings, bias, shard)
        most = [max(found) for found in zip(*shard.gather_objects(largest), strict=True)]
        if all(1e-8 < one < 1e8 for one in most):
            return replace(made, tiny=made.width * 2.0**-120 * (1 + most[0] + most[1]))
        gains = made._gains(shard)
        column = gains[1] if bias and gains[1] != 1 else None
        made = replace(
            made, bias=bias and column is None, gains=gains, column=column, tiny=made.width**2 * 2.0**-120
        )
        return replace(made, lengths=made.squares())

    @classmethod
    def _looked_at(
        cls, probs: Tensor, embeddings: Tensor, bias: bool, shard: Shard
    ) -> tuple[Gradients, tuple[float, float]]:
        """With labels and lengths; and the largest squared length of each factor."""
        factors = probs.detach().to(embeddings.device), embeddings.detach()
        lengths = torch.empty(len(embeddings), dtype=torch.float32, device=embeddings.device)
        labels = None if probs.ndim == 3 or probs.shape[1] == 1 else torch.empty_like(lengths).long()
        made = cls(factors, bias=bias, backend="torch", labels=labels, lengths=lengths)
        largest = 0.0, 0.0
        for rows in made.chunks():
            if labels is not None:
                labels[rows] = factors[0][rows].argmax(1)
            left, right = (torch.linalg.vecdot(part, part) for part in made.block(rows))
            here = float(left.max()), float(right.max())
            if not (here[0] < math.inf and here[1] < math.inf):
                _refuse_not_finite(factors, rows, shard)
            largest = max(largest[0], here[0]), max(largest[1], here[1])
            lengths[rows] = left * (right + 1 if bias else right)
        return made, largest

    def _gains(self, shard: Shard) -> tuple[float, float]:
        """Powers of two that make the largest residual and embedding of the pool about one."""
        largest = 0.0, 0.0
        for rows in self.chunks():
            left, right = (float(part.abs().max()) for part in self.given(rows))
            largest = max(largest[0], left), max(largest[1], right)
        left, right = (max(found) for found in zip(*shard.gather_objects(largest), strict=True))
        if self.bias:
            right = max(right, 1.0)
        return _reciprocal(left), _reciprocal(right)

    @property
    def gain(self) -> float:
        """What the true gradients were multiplied by."""
        return self.gains[0] * self.gains[1]

    def given(self, rows: slice | Tensor = slice(None)) -> tuple[Tensor, ...]:  # noqa: D102
        probs, inputs = (factor[rows] for factor in self.factors)
        residuals = _residuals(probs, None if self.labels is None else self.labels[rows])
        left, right = self.gains
        if left != 1:
            residuals = residuals * left
        if right != 1:
            inputs = as_float(inputs) * right
        if self.column is not None:
            inputs = torch.cat([inputs, inputs.new_full((len(inputs), 1), self.column)], 1)
        return residuals, inputs

    def take(self, rows: Tensor) -> Vectors:  # noqa: D102
        return self.like(*self.given(rows.to(self.device)))

    def like(self, *factors: Tensor) -> Vectors:  # noqa: D102
        return Vectors(factors, bias=self.bias, backend="torch")


def _check(probs: Tensor, embeddings: Tensor, shard: Shard) -> None:
    check_tensors(probs=probs)
    pairs = probs.ndim == 3 and probs.shape[2] == 2
    if not (pairs or probs.ndim == 2) or probs.shape[1] == 0:
        raise ValueError(
            f"`probs` has shape {tuple(probs.shape)}; needed are probabilities (N, C), (N, L, 2) for one "
            "logit a label, or (N, 1) for a single logit. Pool dense outputs over their places first."
        )
    if not probs.is_floating_point():
        raise TypeError(
            f"`probs` is of type {probs.dtype}; needed are probabilities. Apply `softmax(-1)` to the logits."
        )
    check_matrix(embeddings, "embeddings")
    shard.check(len(embeddings), "embeddings")
    if len(probs) != len(embeddings):
        raise ValueError(
            f"`probs` has {len(probs)} rows and `embeddings` {len(embeddings)}; needed is one of each for "
            "every sample. Take both from the same pass."
        )
    if probs.shape[1:] == (1,):
        outside = (probs < 0) | (probs > 1)
        if bool(outside.any()):
            raise ValueError(
                f"`probs` is {float(probs[outside][0]):.4g} in a row; needed is the probability of class "
                "one. Apply `sigmoid()` to the logit first."
            )
    else:
        try:
            checked(probs)
        except ValueError as error:
            raise ValueError(f"{error} One logit a label: `torch.stack([1 - p, p], -1)`.") from None


def _refuse_not_finite(factors: tuple[Tensor, Tensor], rows: slice, shard: Shard) -> None:
    for name, factor in zip(("probs", "embeddings"), factors, strict=True):
        wrong = ~factor[rows].isfinite().flatten(1).all(1)
        if bool(wrong.any()):
            refuse_rows(wrong, rows, name, shard, "NaN or infinite")


def _residuals(probs: Tensor, labels: Tensor | None) -> Tensor:
    """`p - y` at the predicted y, one column a logit."""
    probs = as_float(probs)
    if labels is not None:
        return probs.scatter_add(1, labels[:, None], probs.new_full((len(labels), 1), -1.0))
    if probs.ndim == 3:
        zero, one = probs.unbind(2)
        return torch.where(one > zero, -zero, one)
    return torch.where(probs > 0.5, probs - 1, probs)


def _reciprocal(value: float) -> float:
    """A power of two near it, that float32 can be multiplied by; one of zero."""
    return 2.0 ** min(100, -math.frexp(value)[1]) if value > 0 else 1.0
