import numpy as np
import pytest
import torch

from lightning_al.metrics import CoveringRadius

ROWS = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_it_is_that_of_all_batches_together(metric):
    centers = ROWS[:5]
    found = CoveringRadius(centers, metric=metric)
    for rows in ROWS.split(7):
        found.update(rows)
    x, c = np.float64(ROWS), np.float64(centers)
    if metric == "cosine":
        x, c = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, c))
        distances = 1 - x @ c.T
    else:
        distances = np.linalg.norm(x[:, None] - c[None], axis=2)
    assert float(found.compute()) == pytest.approx(distances.min(1).max(), abs=1e-6)
    found.reset()
    found.update(centers)
    assert float(found.compute()) == pytest.approx(0, abs=1e-6)


def test_nothing_to_cover_and_nothing_to_cover_it_with():
    found = CoveringRadius(ROWS[:5])
    found.update(ROWS[:0])
    assert found.compute() == 0
    alone = CoveringRadius(ROWS[:0])
    alone.update(ROWS)
    assert alone.compute() == float("inf")


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(TypeError, match=r"`centers` is of type torch\.int64; needed are real floating-point"):
        CoveringRadius(torch.zeros(3, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="`centers` has shape"):
        CoveringRadius(torch.zeros(3))
    found = CoveringRadius(ROWS[:5])
    with pytest.raises(ValueError, match="has 4 numbers a row, and `embeddings` has 3"):
        found.update(ROWS[:, :3])
    with pytest.raises(ValueError, match=r"NaN or infinite at positions \[1\]"):
        found.update(torch.tensor([[0.0] * 4, [float("nan")] * 4]))


def test_it_is_drawn():
    found = CoveringRadius(ROWS[:5])
    found.update(ROWS)
    _, ax = found.plot()
    assert ax.lines
