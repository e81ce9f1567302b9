"""The definitions of the diverse selections, against values made by hand, proved bounds, and autograd."""

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from reference import clustering, d2_sampling, k_center


def column(*values):
    return np.array(values, dtype=float)[:, None]


# --- k-center


def test_farthest_first_on_a_line_with_a_labelled_row():
    # Distances to 0: 1 4 9 10. Then to {0, 10}: 1 4 1. Then to {0, 4, 10}: 1 1, the lowest first.
    picked, at_pick = k_center.k_center_greedy(column(1, 4, 9, 10), 4, labeled=column(0))
    assert picked == [3, 1, 0, 2]
    assert at_pick == [10, 4, 1, 1]


@pytest.mark.parametrize("labeled", [None, np.empty((0, 1))])
def test_without_labels_the_row_nearest_to_the_mean_comes_first(labeled):
    # The mean is 5; 4 and 6 are as near.
    picked, at_pick = k_center.k_center_greedy(column(0, 4, 6, 10), 3, labeled)
    assert picked == [1, 3, 0]
    assert at_pick == [math.inf, 6, 4]


def test_copies_are_never_taken_twice_and_come_lowest_position_first():
    rows = column(3, 3, 3, 7, 3)
    assert k_center.k_center_greedy(rows, 9) == ([0, 3, 1, 2, 4], [math.inf, 4, 0, 0, 0])
    assert k_center.k_center_greedy(rows[:3], 2, labeled=column(3)) == ([0, 1], [0, 0])
    assert k_center.k_center_greedy(np.empty((0, 2)), 3) == ([], [])
    assert k_center.k_center_greedy(rows, 0) == ([], [])


def test_distances_equal_in_float32_are_a_tie():
    assert k_center.k_center_greedy(column(1, 1 + 1e-9), 1, labeled=column(0))[0] == [0]
    assert k_center.k_center_greedy(column(1, 1 + 1e-6), 1, labeled=column(0))[0] == [1]
    # To the mean, 0.5 + 1e-9 / 2: the second is nearer by less than float32 tells.
    assert k_center.k_center_greedy(column(0, 1 + 1e-9), 1)[0] == [0]


def test_cosine_is_one_minus_the_cosine_and_does_not_see_lengths():
    rows = np.array([[4.0, 0.0], [0.0, 3.0], [-0.5, 0.0], [8.0, 8.0]])
    picked, at_pick = k_center.k_center_greedy(rows, 4, labeled=np.array([[2.0, 0.0]]), metric="cosine")
    assert picked == [2, 1, 3, 0]
    assert at_pick == pytest.approx([2, 1, 1 - math.sqrt(0.5), 0])
    # Of the unit rows two cancel, and the mean lies half-way between the two others.
    assert k_center.k_center_greedy(rows, 1, metric="cosine")[0] == [1]
    # The longest row alone does not draw the mean to itself.
    rows = np.array([[100.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    assert k_center.k_center_greedy(rows, 1, metric="cosine")[0] == [2]
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5))
    cosine = a @ b / math.sqrt((a @ a) * (b @ b))
    units = k_center.unit_rows(np.stack([a, b]))
    assert k_center.distances(units[:1], units[1], "cosine") == pytest.approx([1 - cosine])


def test_huge_rows_are_told_apart():
    rows = column(1e30, 2e30, -3e30)
    assert k_center.k_center_greedy(rows, 3, labeled=column(0))[0] == [2, 1, 0]
    # Beyond the range of float32 all is as far.
    picked, at_pick = k_center.k_center_greedy(column(-3e38, -3.2e38), 2, labeled=column(3e38))
    assert picked == [0, 1]
    assert at_pick == [math.inf, np.float32(2e37)]


def exact_greedy(rows, query_size, labeled):
    """Farthest-first on whole numbers, where squared distances are exact."""

    def squared(a, b):
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))

    picked = []
    for _ in range(query_size):
        centers = labeled + [rows[i] for i in picked]
        reach = {i: min(squared(row, c) for c in centers) for i, row in enumerate(rows) if i not in picked}
        picked.append(min(i for i in reach if reach[i] == max(reach.values())))
    return picked


def test_on_a_grid_full_of_ties_the_picks_are_those_of_whole_numbers():
    rng = np.random.default_rng(1)
    for _ in range(50):
        dim = int(rng.integers(1, 4))
        rows, labeled = rng.integers(0, 5, (12, dim)), rng.integers(0, 5, (int(rng.integers(1, 4)), dim))
        picked, _ = k_center.k_center_greedy(rows, 12, labeled)
        assert picked == exact_greedy(rows.tolist(), 12, labeled.tolist())


def test_the_covering_radius_by_hand():
    assert k_center.covering_radius(column(0, 3, 10), column(2, 8)) == 2
    assert k_center.covering_radius(np.array([[3.0, 4.0], [0.0, 1.0]]), np.zeros((1, 2))) == 5
    assert k_center.covering_radius(column(1), np.empty((0, 1))) == math.inf
    assert k_center.covering_radius(np.array([[0.0, 7.0]]), np.array([[2.0, 0.0]]), "cosine") == 1


def test_the_best_radius_by_hand():
    assert k_center.best_radius(column(0, 1, 2, 10, 11), 2) == 1
    assert k_center.best_radius(column(0, 1, 2, 10, 11), 1, labeled=column(1)) == 1
    assert k_center.best_radius(column(0, 1, 2, 10, 11), 0, labeled=column(1)) == 10
    assert k_center.best_radius(column(0, 1, 2), 9) == 0


def test_greedy_is_within_twice_the_optimum_and_not_always_at_it():
    rng = np.random.default_rng(2)
    worst = 0.0
    for trial in range(120):
        rows = rng.normal(size=(8, 1 + trial % 3))
        labeled = rng.normal(size=(trial % 4, rows.shape[1]))
        k = 1 + trial % 3
        picked, at_pick = k_center.k_center_greedy(rows, k, labeled)
        radius = k_center.covering_radius(rows, np.concatenate([labeled, rows[picked]]))
        best = k_center.best_radius(rows, k, labeled)
        assert best <= radius <= 2 * best + 1e-12
        assert at_pick == sorted(at_pick, reverse=True)
        assert k_center.k_center_greedy(rows, 8, labeled)[0][:k] == picked
        worst = max(worst, radius / best)
    assert worst > 1.3


def test_the_next_pick_is_as_far_as_the_radius():
    rng = np.random.default_rng(3)
    rows, labeled = rng.normal(size=(15, 3)), rng.normal(size=(2, 3))
    picked, at_pick = k_center.k_center_greedy(rows, 15, labeled)
    for k in range(15):
        radius = k_center.covering_radius(rows, np.concatenate([labeled, rows[picked[:k]]]))
        assert at_pick[k] == np.float32(radius)


# --- gradient embeddings


def heads(seed=0, outputs=4, dim=3, rows=25):
    rng = np.random.default_rng(seed)
    weight, bias, h = rng.normal(size=(outputs, dim)), rng.normal(size=outputs), rng.normal(size=(rows, dim))
    return torch.tensor(weight), torch.tensor(bias), torch.tensor(h)


def gradient(loss_of_logits, weight, bias, h, with_bias):
    """Of the loss of one sample, by the last layer, the bias as the last input."""
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    by_weight, by_bias = torch.autograd.grad(loss_of_logits(weight @ h + bias), (weight, bias))
    return (torch.cat([by_weight, by_bias[:, None]], 1) if with_bias else by_weight).flatten().numpy()


def test_gradient_embeddings_by_hand():
    probs, h = np.array([[0.25, 0.75], [0.5, 0.5]]), np.array([[2.0, 4.0], [2.0, 0.0]])
    assert d2_sampling.gradient_embeddings(probs, h).tolist() == [[0.5, 1, -0.5, -1], [-1, 0, 1, 0]]
    assert d2_sampling.gradient_embeddings(probs, h, bias=True).tolist() == [
        [0.5, 1, 0.25, -0.5, -1, -0.25],
        [-1, 0, -0.5, 1, 0, 0.5],
    ]
    single = d2_sampling.gradient_embeddings(probs[:, 1:], h)
    assert single.tolist() == [[-0.5, -1], [1, 0]]
    several = d2_sampling.gradient_embeddings(np.array([[[0.25, 0.75], [0.875, 0.125]]]), h[:1])
    assert several.tolist() == [[-0.5, -1, 0.25, 0.5]]
    assert d2_sampling.gradient_embeddings(np.full((1, 1, 2), 0.5), h[:1]).tolist() == [[1, 2]]


@pytest.mark.parametrize("with_bias", [False, True])
def test_they_are_the_gradient_of_cross_entropy_at_the_predicted_label(with_bias):
    weight, bias, h = heads()
    logits = h @ weight.T + bias
    explicit = d2_sampling.gradient_embeddings(logits.softmax(-1).numpy(), h.numpy(), with_bias)
    for row, g in enumerate(explicit):
        label = logits[row].argmax()
        by_autograd = gradient(lambda z, y=label: cross_entropy(z, y), weight, bias, h[row], with_bias)
        np.testing.assert_allclose(g, by_autograd, atol=1e-12)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("outputs", [1, 3])
def test_with_one_logit_a_label_they_are_the_gradient_of_binary_cross_entropy(outputs, with_bias):
    weight, bias, h = heads(outputs=outputs)
    logits = h @ weight.T + bias
    ones = logits.sigmoid()
    probs = ones if outputs == 1 else torch.stack([1 - ones, ones], -1)
    explicit = d2_sampling.gradient_embeddings(probs.numpy(), h.numpy(), with_bias)
    for row, g in enumerate(explicit):
        labels = (logits[row] > 0).double()
        by_autograd = gradient(
            lambda z, y=labels: binary_cross_entropy_with_logits(z, y, reduction="sum"),
            weight,
            bias,
            h[row],
            with_bias,
        )
        np.testing.assert_allclose(g, by_autograd, atol=1e-12)


def test_proposition_1_of_badge_no_label_has_a_shorter_gradient_than_the_predicted_one():
    weight, bias, h = heads(seed=1)
    probs = (h @ weight.T + bias).softmax(-1).numpy()
    shortest = np.linalg.norm(d2_sampling.gradient_embeddings(probs, h.numpy()), axis=1)
    for row, p in enumerate(probs):
        squared = []
        for label in range(len(p)):
            by_autograd = gradient(
                lambda z, y=label: cross_entropy(z, torch.tensor(y)), weight, bias, h[row], False
            )
            squared.append((by_autograd**2).sum())
            formula = ((p**2).sum() + 1 - 2 * p[label]) * (h[row].numpy() ** 2).sum()
            assert squared[label] == pytest.approx(formula)
        assert shortest[row] ** 2 == pytest.approx(min(squared))
        assert int(np.argmin(squared)) == int(p.argmax())


def test_no_set_of_labels_has_a_shorter_gradient_than_the_predicted_one():
    weight, bias, h = heads(seed=2, outputs=3, rows=10)
    ones = (h @ weight.T + bias).sigmoid()
    probs = torch.stack([1 - ones, ones], -1).numpy()
    shortest = np.linalg.norm(d2_sampling.gradient_embeddings(probs, h.numpy()), axis=1)
    for row in range(10):
        norms = []
        for labels in itertools.product([0.0, 1.0], repeat=3):
            y = torch.tensor(labels, dtype=torch.double)
            by_autograd = gradient(
                lambda z, y=y: binary_cross_entropy_with_logits(z, y, reduction="sum"),
                weight,
                bias,
                h[row],
                False,
            )
            norms.append(float(np.linalg.norm(by_autograd)))
        assert shortest[row] == pytest.approx(min(norms))


# --- the law of D^2 sampling


def test_the_law_by_hand():
    line = column(0, 1, 3, 3)
    assert d2_sampling.d2_law(line, []).tolist() == [0.25] * 4
    assert d2_sampling.d2_law(line, [0]) == pytest.approx([0, 1 / 19, 9 / 19, 9 / 19])
    # A copy of what is chosen is not worth a draw, though it was not chosen.
    assert d2_sampling.d2_law(line, [0, 2]).tolist() == [0, 1, 0, 0]
    # All distances are zero: uniform over the rest.
    assert d2_sampling.d2_law(line, [1, 0, 2]).tolist() == [0, 0, 0, 1]
    assert d2_sampling.d2_law(column(5, 5, 5, 5), [1]) == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])
    # Centres are chosen from the start: 4 1 1 1; with row 0 chosen too, 0 1 1 1.
    assert d2_sampling.d2_law(line, [], centers=column(2)) == pytest.approx([4 / 7, 1 / 7, 1 / 7, 1 / 7])
    assert d2_sampling.d2_law(line, [0], centers=column(2)) == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    with pytest.raises(ValueError, match="every row"):
        d2_sampling.d2_law(line, [0, 1, 2, 3])


def test_the_largest_first():
    rows = np.array([[1.0, 0.0], [0.0, -3.0], [3.0, 0.0], [0.0, 0.0]])
    assert d2_sampling.d2_law(rows, [], first="largest").tolist() == [0, 1, 0, 0]
    # Only where nothing is chosen yet: later picks, and picks around centres, follow D^2.
    assert d2_sampling.d2_law(rows, [1], first="largest") == pytest.approx([10 / 37, 0, 18 / 37, 9 / 37])
    around = np.zeros((1, 2))
    assert d2_sampling.d2_law(rows, [], around, "largest") == pytest.approx([1 / 19, 9 / 19, 9 / 19, 0])
    assert d2_sampling.d2_law(np.zeros((3, 2)), [], first="largest").tolist() == [1, 0, 0]


def test_the_law_of_batches_by_hand():
    law = d2_sampling.law_of_batches(column(0, 1, 3), 2, "random")
    assert law == pytest.approx(
        {(0, 1): 1 / 30, (0, 2): 9 / 30, (1, 0): 1 / 15, (1, 2): 4 / 15, (2, 0): 9 / 39, (2, 1): 4 / 39}
    )
    law = d2_sampling.law_of_batches(column(0, 1, 3), 3, "largest")
    assert {picks for picks, probability in law.items() if probability > 0} == {(2, 0, 1), (2, 1, 0)}
    assert law[2, 0, 1] == pytest.approx(9 / 13)
    law = d2_sampling.law_of_batches(column(0, 1, 3), 1, "largest", centers=column(0))
    assert law == pytest.approx({(0,): 0, (1,): 0.1, (2,): 0.9})


@pytest.mark.parametrize("first", ["random", "largest"])
@pytest.mark.parametrize("kind", ["generic", "copies", "all alike", "zero"])
def test_the_law_of_batches_sums_to_one_and_begins_as_shorter_batches_do(first, kind):
    rng = np.random.default_rng(4)
    rows = {
        "generic": rng.normal(size=(5, 3)),
        "copies": rng.normal(size=(2, 3))[[0, 1, 0, 1, 0]],
        "all alike": np.ones((5, 3)),
        "zero": np.zeros((5, 3)),
    }[kind]
    for centers in (None, rows[:1], rng.normal(size=(2, 3))):
        for k in (1, 2, 3, 5, 9):
            law = d2_sampling.law_of_batches(rows, k, first, centers)
            assert sum(law.values()) == pytest.approx(1)
            assert all(len(set(picks)) == min(k, 5) for picks in law)
        longer = d2_sampling.law_of_batches(rows, 3, first, centers)
        for begin, probability in d2_sampling.law_of_batches(rows, 2, first, centers).items():
            whole = sum(p for picks, p in longer.items() if picks[:2] == begin)
            assert whole == pytest.approx(probability)


def test_one_logit_and_two_classes_have_the_same_law():
    # The residuals of two classes are (-r, r): all squared distances double.
    rng = np.random.default_rng(5)
    ones, h = rng.uniform(size=(5, 1)), rng.normal(size=(5, 3))
    single = d2_sampling.gradient_embeddings(ones, h)
    both = d2_sampling.gradient_embeddings(np.concatenate([1 - ones, ones], 1), h)
    for first in ("random", "largest"):
        assert d2_sampling.law_of_batches(single, 3, first) == pytest.approx(
            d2_sampling.law_of_batches(both, 3, first)
        )


# --- clustering


def test_inertia_by_hand():
    # 2 * 1 + 1 * 0 + 3 * 4
    assert clustering.weighted_inertia(column(1, 2, 8), np.array([2.0, 1.0, 3.0]), column(2, 10)) == 14


def test_lloyd_by_hand():
    points, weights = column(0, 2, 9, 10), np.array([3.0, 1.0, 1.0, 1.0])
    # 0 and 2 go to the first, 9 and 10 to the second: (3 * 0 + 2) / 4 and 19 / 2.
    assert clustering.lloyd(points, weights, column(1, 6), 1).tolist() == [[0.5], [9.5]]
    # 2 is as near to 0 as to 4, and goes to the first.
    assert clustering.lloyd(points, weights, column(0, 4), 1).tolist() == [[0.5], [9.5]]
    assert clustering.lloyd(points, weights, column(1, 6), 0).tolist() == [[1], [6]]
    # First 2 is with the nine and the ten, then with the zero.
    assert clustering.lloyd(points, weights, column(0, 3), 1).tolist() == [[0], [7]]
    assert clustering.lloyd(points, weights, column(0, 3), 2).tolist() == [[0.5], [9.5]]


def test_a_cluster_without_points_or_weight_keeps_its_centre():
    points = column(0, 2, 9)
    assert clustering.lloyd(points, np.ones(3), column(0, 9, 50), 3).tolist() == [[1], [9], [50]]
    assert clustering.lloyd(points, np.array([1.0, 1.0, 0.0]), column(0, 8), 3).tolist() == [[1], [8]]
    assert clustering.lloyd(points, np.zeros(3), column(1, 8), 3).tolist() == [[1], [8]]


def test_fixed_centres_have_points_and_never_move():
    points, ones, fixed = column(0, 1, 6, 10), np.ones(4), column(7)
    # Without it 6 and 10 are together at 8; with it 6 is at 7, and 10 alone draws the second to itself.
    assert clustering.lloyd(points, ones, column(0, 9), 5).tolist() == [[0.5], [8]]
    assert clustering.lloyd(points, ones, column(0, 9), 5, fixed).tolist() == [[0.5], [10]]
    assert fixed.tolist() == [[7]]
    # As near to a fixed one: it stays with the other.
    assert clustering.lloyd(column(1, 2), np.ones(2), column(1), 1, fixed=column(3)).tolist() == [[1.5]]


def test_the_centres_given_are_left_as_they_were():
    centers = column(1, 6)
    clustering.lloyd(column(0, 2, 9), np.ones(3), centers, 2)
    assert centers.tolist() == [[1], [6]]


def test_single_precision_is_worked_in_double():
    points, weights = column(0, 1, 3).astype(np.float32), np.array([1, 2**-25, 2**-25], np.float32)
    center = clustering.lloyd(points, weights, points[:1], 1)
    assert center.tolist() == [[4 / (2**25 + 2)]]
    assert clustering.weighted_inertia(points, weights, points[:1]) == 10 / 2**25
    assert (
        clustering.weighted_inertia(points[1:] + 2**12, weights[:2], points[:1]) == 4097**2 + 4099**2 / 2**25
    )


def test_whole_weights_are_repeated_points():
    rng = np.random.default_rng(6)
    points, weights = rng.normal(size=(12, 2)), rng.integers(1, 4, 12)
    centers = points[:3]
    repeated = np.repeat(points, weights, axis=0)
    np.testing.assert_allclose(
        clustering.lloyd(points, weights, centers, 4),
        clustering.lloyd(repeated, np.ones(len(repeated)), centers, 4),
    )
    assert clustering.weighted_inertia(points, weights, centers) == pytest.approx(
        clustering.weighted_inertia(repeated, np.ones(len(repeated)), centers)
    )


def test_lloyd_comes_to_rest_where_that_of_scikit_learn_does():
    rng = np.random.default_rng(7)
    points, weights = rng.normal(size=(60, 3)), rng.uniform(0.1, 1, 60)
    start = points[:4]
    theirs = KMeans(4, init=start, n_init=1, max_iter=100, tol=0).fit(points, sample_weight=weights)
    ours = clustering.lloyd(points, weights, start, 100)
    np.testing.assert_allclose(ours, theirs.cluster_centers_)
    assert clustering.weighted_inertia(points, weights, ours) == pytest.approx(theirs.inertia_)


def test_lloyd_only_goes_down_and_never_below_the_optimum():
    rng = np.random.default_rng(8)
    reached = 0
    for _ in range(10):
        points, weights = rng.normal(size=(7, 2)), rng.uniform(0, 1, 7)
        best = clustering.best_inertia(points, weights, 2)
        path = [
            clustering.weighted_inertia(points, weights, clustering.lloyd(points, weights, points[:2], i))
            for i in range(6)
        ]
        assert path == sorted(path, reverse=True)
        assert path[-1] >= best - 1e-12
        reached += path[-1] <= best + 1e-12
    assert reached > 0


def test_the_best_inertia_by_hand():
    points = column(0, 2, 10, 12)
    assert clustering.best_inertia(points, np.ones(4), 2) == pytest.approx(4)
    assert clustering.best_inertia(points, np.ones(4), 4) == 0
    # (3 * 0 + 2) / 4 = 0.5: 3 * 0.25 + 2.25 = 3; and what has no weight costs nothing.
    assert clustering.best_inertia(points, np.array([3.0, 1.0, 5.0, 0.0]), 2) == pytest.approx(3)
    assert clustering.best_inertia(points[:2], np.array([3.0, 1.0]), 1) == pytest.approx(3)


def test_two_centres_at_one_point_take_two_points():
    points = column(0, 5, 6, 9)
    assert clustering.nearest_different(points, column(5.1, 5.2, 0)) == [1, 2, 0]
    assert clustering.nearest_different(points, column(0, 0, 0, 0)) == [0, 1, 2, 3]
    # 5.5 is as near to 5 as to 6; a copy of a point is another point.
    assert clustering.nearest_different(points, column(5.5)) == [1]
    assert clustering.nearest_different(column(4, 4, 4), column(4, 4)) == [0, 1]
    assert clustering.nearest_different(column(4, 7), column(6, 6, 6)) == [1, 0]


def test_a_centre_half_way_but_for_the_last_bit_takes_the_lowest_position():
    third = 0.1 * 1 / 0.3 + 0.1 * 2 / 0.3 + 0.1 * 3 / 0.3
    for center in (2.0, np.nextafter(2.0, 9), np.nextafter(2.0, -9), third):
        assert clustering.nearest_different(column(1, 3), column(center)) == [0]


def test_candidates_by_hand():
    weights = np.array([0.1, 0.9, 0.5, 0.5, 0.0, 0.5])
    assert clustering.diverse_mini_batch_candidates(weights, 1, 1) == [1]
    assert clustering.diverse_mini_batch_candidates(weights, 1, 3) == [1, 2, 3]
    assert clustering.diverse_mini_batch_candidates(weights, 2, 2) == [1, 2, 3, 5]
    assert clustering.diverse_mini_batch_candidates(weights, 2, 10) == [0, 1, 2, 3, 4, 5]
    assert clustering.diverse_mini_batch_candidates(np.zeros(4), 1, 2) == [0, 1]
