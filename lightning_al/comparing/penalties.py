"""PENALTIES: which strategy is beaten by which, and how often."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Penalties"]


class Penalties:
    """Which strategy is beaten by which, and at what share of label counts.

    Args:
        names: Of rows and columns.
        matrix: P[i, j]: i is beaten by j.
        seeds: How many.
        counts: How many label counts.
        metric: That was compared.

    Example:
        >>> print(Penalties(["Random", "Margin"], np.array([[0.0, 0.5], [0.0, 0.0]]), 5, 8, "test_acc"))
        beaten by  Random  Margin   mean
        Random          -    0.50   0.50
        Margin       0.00       -   0.00
    """

    def __init__(
        self, names: Sequence[str], matrix: npt.NDArray[np.float64], seeds: int, counts: int, metric: str
    ) -> None:
        self.names, self.matrix = list(names), matrix
        self.seeds, self.counts, self.metric = seeds, counts, metric

    @property
    def means(self) -> dict[str, float]:
        """How often each was beaten by another one, on average; the lower, the better."""
        others = max(1, len(self.names) - 1)
        return {n: float(row.sum()) / others for n, row in zip(self.names, self.matrix, strict=True)}

    def __str__(self) -> str:
        wide = max(map(len, [*self.names, "beaten by"]))
        widths = [max(6, len(name)) for name in self.names]
        head = f"{'beaten by':<{wide}}  " + "  ".join(
            f"{n:>{w}}" for n, w in zip(self.names, widths, strict=True)
        )
        lines = [f"{head}  {'mean':>5}"]
        for i, name in enumerate(self.names):
            cells = ["-" if i == j else f"{value:.2f}" for j, value in enumerate(self.matrix[i])]
            row = "  ".join(f"{cell:>{w}}" for cell, w in zip(cells, widths, strict=True))
            lines.append(f"{name:<{wide}}  {row}  {self.means[name]:>5.2f}")
        return "\n".join(lines)
