"""The definitions themselves, against geometry and hand-made values."""

import math
import random

import pytest

from reference import scores, selection


def test_moving_by_the_distance_along_the_normal_reaches_equal_logits():
    rng = random.Random(0)
    for _ in range(50):
        dim, classes = rng.randint(1, 5), rng.randint(2, 5)
        weight = [[rng.gauss(0, 1) for _ in range(dim)] for _ in range(classes)]
        bias = [rng.gauss(0, 1) for _ in range(classes)]
        h = [rng.gauss(0, 2) for _ in range(dim)]
        distance, y, c = scores.nearest_boundary(h, weight, bias)
        normal = [b - a for a, b in zip(weight[y], weight[c], strict=True)]
        length = math.sqrt(sum(n * n for n in normal))
        there = [x + distance * n / length for x, n in zip(h, normal, strict=True)]
        outputs = scores.logits(there, weight, bias)
        assert outputs[y] == pytest.approx(outputs[c], abs=1e-9)
        # No class wins on the way: inside the ball of that radius the prediction stays the same.
        for _ in range(20):
            step = [rng.gauss(0, 1) for _ in range(dim)]
            scale = 0.999 * distance / math.sqrt(sum(s * s for s in step))
            near = scores.logits([x + scale * s for x, s in zip(h, step, strict=True)], weight, bias)
            assert max(range(classes), key=lambda i: near[i]) == y


def test_hand_made_values():
    assert scores.entropy([0.5, 0.25, 0.25], base=2) == pytest.approx(1.5)
    assert scores.margin([0.2, 0.5, 0.3]) == pytest.approx(0.8)
    assert scores.least_confidence([0.2, 0.5, 0.3]) == 0.5
    assert selection.top_k([1.0, 3.0, 3.0, 2.0], 3) == [1, 2, 3]


def test_the_law_of_draws_is_a_law():
    law = selection.law_of_draws([0.0, 2.0, 1.0, 0.0], 3)
    assert sum(law.values()) == pytest.approx(1)
    assert law[1, 2, 0] == law[1, 2, 3] == pytest.approx(2 / 3 / 2)
    assert law[0, 1, 2] == 0
