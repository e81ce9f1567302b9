import math

import numpy as np
import pytest
import torch
from reference import ranking

from lightning_al.functional import pairwise_ranking_loss, ranking_accuracy


def drawn(size, seed=0, *, ties=False):
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.randn(size, generator=generator)
    target = torch.rand(size, generator=generator)
    return ((predicted * 2).round(), (target * 3).round()) if ties else (predicted, target)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 9, 64])
def test_the_losses_are_those_of_the_definitions(size, ties):
    predicted, target = drawn(size, ties=ties)
    pairs = ranking.flip_pairs(size)
    for margin in (0.0, 1.0, 2.5):
        found = pairwise_ranking_loss(predicted, target, margin)
        expected = ranking.hinge(predicted.tolist(), target.tolist(), margin, pairs)
        assert found.item() == pytest.approx(expected, abs=1e-6)
    found = pairwise_ranking_loss(predicted, target, form="smooth")
    assert found.item() == pytest.approx(ranking.smooth(predicted.tolist(), target.tolist(), pairs), abs=1e-6)


def test_the_hinge_is_torchs_margin_ranking_loss_where_targets_differ():
    predicted, target = drawn(32)
    first, second = predicted[:16], predicted.flip(0)[:16]
    sign = (target[:16] - target.flip(0)[:16]).sign()
    expected = torch.nn.functional.margin_ranking_loss(first, second, sign, margin=1.0)
    assert torch.allclose(pairwise_ranking_loss(predicted, target), expected)


def test_equal_targets_make_no_pair():
    predicted = torch.tensor([3.0, 1.0, 0.0, 2.0], requires_grad=True)
    loss = pairwise_ranking_loss(predicted, torch.tensor([1.0, 5.0, 4.0, 1.0]))
    assert loss.item() == 0
    loss = pairwise_ranking_loss(predicted, torch.tensor([1.0, 4.0, 5.0, 1.0]))
    assert loss.item() == 2
    assert torch.autograd.grad(loss, predicted)[0].tolist() == [0, 1, -1, 0]
    loss = pairwise_ranking_loss(predicted, torch.ones(4))
    assert loss.item() == 0
    assert torch.autograd.grad(loss, predicted)[0].tolist() == [0] * 4


def test_targets_are_compared_in_their_own_precision():
    target = torch.tensor([1.0, 1.0 + 1e-12], dtype=torch.float64)
    assert pairwise_ranking_loss(torch.tensor([2.0, 0.0]), target).item() == 3


def test_infinite_and_huge_targets_have_shares():
    """Of an infinite one and a finite one all and nothing; of two infinite ones, as of equal ones, halves."""
    inf = math.inf
    for target, share in (
        ([inf, 1.0], 1.0), ([0.0, inf], 0.0), ([inf, inf], 0.5), ([3e38, 3e38], 0.5), ([3e38, 1.5e38], 2 / 3),
        ([0.0, 0.0], 0.5), ([1e-45, 1e-45], 0.5), ([2.0, 0.0], 1.0),
    ):  # fmt: skip
        predicted = torch.tensor([0.3, 0.0], requires_grad=True)
        loss = pairwise_ranking_loss(predicted, torch.tensor(target), form="smooth")
        assert loss.isfinite()
        gradient = torch.autograd.grad(loss, predicted)[0][0].item()
        assert gradient == pytest.approx(1 / (1 + math.exp(-0.3)) - share, abs=1e-6)


def test_the_smooth_form_is_least_where_predictions_say_the_targets_shares():
    target = torch.tensor([3.0, 1.0])
    best = pairwise_ranking_loss(torch.tensor([math.log(3.0), 0.0]), target, form="smooth")
    assert best.item() == pytest.approx(0, abs=1e-6)
    assert pairwise_ranking_loss(torch.tensor([0.0, 0.0]), target, form="smooth") > 0.1


def test_random_pairs_hold_every_sample_once_and_follow_the_generator():
    predicted = torch.zeros(7, requires_grad=True)
    target = torch.arange(7.0)
    grads = []
    for seed in (0, 0, 1):
        generator = torch.Generator().manual_seed(seed)
        loss = pairwise_ranking_loss(predicted, target, pairing="random", generator=generator)
        grads.append(torch.autograd.grad(loss, predicted)[0])
        assert int((grads[-1] != 0).sum()) == 6
    assert torch.equal(grads[0], grads[1])
    assert not torch.equal(grads[0], grads[2])


def test_no_gradient_flows_to_targets_and_a_single_sample_has_a_graph():
    predicted, target = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    loss = pairwise_ranking_loss(predicted, target)
    loss.backward()
    assert loss.item() == 0
    assert predicted.grad.tolist() == [0]
    assert target.grad is None
    pairwise_ranking_loss(torch.ones(2, requires_grad=True), target.expand(2)).backward()
    assert target.grad is None


def test_half_precision_is_ranked_in_float32():
    """1 and 1 + 2**-10 are one number in bfloat16, but two targets here are not."""
    target = torch.tensor([1.0, 1.0 + 2**-10])
    predicted = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    found = pairwise_ranking_loss(predicted, target)
    assert found.dtype == torch.float32
    assert found.item() == 0
    assert pairwise_ranking_loss(predicted.flip(0), target).item() == 2
    assert pairwise_ranking_loss(predicted.double(), target).dtype == torch.float64


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("size", [2, 3, 5, 8, 33, 100])
def test_the_accuracy_is_that_of_all_pairs(size, ties):
    predicted, target = drawn(size, seed=size, ties=ties)
    found = ranking_accuracy(predicted, target).item()
    expected = ranking.ranking_accuracy(predicted.tolist(), target.tolist())
    assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_accuracy_of_the_right_order_the_reverse_and_none():
    target = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    assert ranking_accuracy(target.exp(), target) == 1
    assert ranking_accuracy(-target, target) == 0
    assert ranking_accuracy(torch.zeros(1000), target) == 0.5
    assert ranking_accuracy(target, torch.zeros(1000)).isnan()
    assert ranking_accuracy(torch.zeros(0), torch.zeros(0)).isnan()
    assert ranking_accuracy(torch.zeros(1), torch.zeros(1)).isnan()


@pytest.mark.parametrize("pairing", ["flip", "random"])
@pytest.mark.parametrize("form", ["hinge", "smooth"])
def test_on_other_devices_nobody_waits_for_the_values(form, pairing):
    """A tensor that has none cannot be looked at."""
    predicted = torch.zeros(6, device="meta", requires_grad=True)
    loss = pairwise_ranking_loss(predicted, torch.zeros(6, device="meta"), form=form, pairing=pairing)
    loss.backward()
    assert predicted.grad.shape == (6,)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"`predicted` has shape \(3, 1\) and `target` \(3,\).*mean"):
        pairwise_ranking_loss(torch.zeros(3, 1), torch.zeros(3))
    with pytest.raises(ValueError, match=r"`target` \(2,\); needed is one number"):
        ranking_accuracy(torch.zeros(3), torch.zeros(2))
    with pytest.raises(
        ValueError, match=r"A predicted loss, of `predicted`, is NaN, .*features and the weights"
    ):
        ranking_accuracy(torch.tensor([0.0, math.nan]), torch.zeros(2))
    with pytest.raises(
        ValueError, match=r"A true loss, of `target`, is NaN, which has no place.*leave it out"
    ):
        ranking_accuracy(torch.zeros(2), torch.tensor([0.0, math.nan]))
    with pytest.raises(ValueError, match=r"A target is negative.*form=\"hinge\""):
        pairwise_ranking_loss(torch.zeros(2), torch.tensor([1.0, -1.0]), form="smooth")
    with pytest.raises(ValueError, match=r"`form` is 'x'; needed is \"hinge\""):
        pairwise_ranking_loss(torch.zeros(2), torch.zeros(2), form="x")
    with pytest.raises(ValueError, match=r"`pairing` is 'x'; needed is \"flip\""):
        pairwise_ranking_loss(torch.zeros(2), torch.zeros(2), pairing="x")
    for name, value in (("predicted", [0.0, 1.0]), ("predicted", np.zeros(2)), ("target", (1.0, 2.0))):
        given = {"predicted": torch.zeros(2), "target": torch.zeros(2), name: value}
        for function in (pairwise_ranking_loss, ranking_accuracy):
            with pytest.raises(TypeError, match=rf"`{name}` is a \w+; needed is a tensor.*as_tensor"):
                function(**given)
    with pytest.raises(TypeError, match=r"`target` is of torch\.complex64; needed is a tensor of real"):
        ranking_accuracy(torch.zeros(2), torch.zeros(2, dtype=torch.complex64))
    for form in ("hinge", "smooth"):
        for values in ([0.0, math.nan], [math.nan, math.nan]):
            with pytest.raises(ValueError, match="is NaN, which has no place"):
                pairwise_ranking_loss(torch.zeros(2), torch.tensor(values), form=form)
        with pytest.raises(ValueError, match="is NaN, which has no place"):
            pairwise_ranking_loss(torch.tensor([math.nan, 0.0]), torch.arange(2.0), form=form)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(
    "options", [{"form": "x"}, {"pairing": "x"}, *({"margin": m} for m in (-1, math.nan, "1"))]
)
def test_bad_options_are_refused_whatever_the_batch(size, options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"`{name}` is {options[name]!r}; needed is"):
        pairwise_ranking_loss(torch.zeros(size), torch.zeros(size), **options)
