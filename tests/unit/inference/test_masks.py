"""Masks: fair, independent of each other, and a function of what they are for."""

import itertools

import pytest
import torch

from lightning_al.inference.masks import fold, keep_masks

KEY = torch.tensor(7)


def keys(count, seed=0):
    return fold(torch.tensor(seed), torch.arange(count))


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(64, 33), (8, 16, 17), (8, 5, 4, 13)], ids=str)
def test_the_share_of_kept_elements_is_the_probability(keep, shape):
    masks = keep_masks(keys(16), keep, shape, axis=0, positions=torch.arange(shape[0]))
    assert masks.shape == (16, *shape)
    error = (keep * (1 - keep) / masks.numel()) ** 0.5
    assert abs(masks.float().mean().item() - keep) <= 4.5 * error + 2**-17
    # Not only over all: no row, column or pass is favoured.
    for axis in range(masks.ndim):
        means = masks.movedim(axis, 0).flatten(1).float().mean(1)
        each = (keep * (1 - keep) / (masks.numel() / len(means))) ** 0.5
        assert (means - keep).abs().max() <= 5.5 * each + 2**-17


def test_passes_sites_and_samples_have_nothing_to_do_with_each_other():
    rows = [
        keep_masks(
            fold(fold(fold(torch.tensor(seed), 0), site), torch.arange(2)),
            0.5, (4, 2048), axis=0, positions=torch.arange(4),
        )
        for seed, site in itertools.product((0, 1), (0, 1, 2))
    ]  # fmt: skip
    signs = torch.cat(rows).reshape(-1, 2048).float() * 2 - 1
    correlation = signs @ signs.T / 2048 - torch.eye(len(signs))
    assert len(signs) == 48
    assert correlation.abs().max() < 5.5 / 2048**0.5


def test_neighbouring_elements_are_independent():
    bits = keep_masks(keys(4), 0.5, (64, 1024), axis=0, positions=torch.arange(64)).float() * 2 - 1
    flat = bits.reshape(-1)
    for lag in (1, 2, 3, 4, 5, 8, 1024):
        correlation = (flat[:-lag] * flat[lag:]).mean().abs()
        assert correlation < 5 / len(flat) ** 0.5


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_samples_mask_is_the_same_in_every_company(axis):
    shape = [5, 6, 7]
    shape[axis] = 9
    positions = torch.tensor([40, 3, 2**40, 0, 5, 77, 12, 1, 6])
    whole = keep_masks(keys(3), 0.5, shape, axis=axis, positions=positions)
    chosen = torch.tensor([7, 2, 4])
    fewer = [3 if place == axis else n for place, n in enumerate(shape)]
    some = keep_masks(keys(3), 0.5, fewer, axis=axis, positions=positions[chosen])
    assert torch.equal(some, whole.index_select(axis + 1, chosen))
    alike = keep_masks(keys(3), 0.5, fewer, axis=axis, positions=torch.tensor([5, 5, 9]))
    assert torch.equal(alike.select(axis + 1, 0), alike.select(axis + 1, 1))
    assert not torch.equal(alike.select(axis + 1, 0), alike.select(axis + 1, 2))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_mask_for_all_does_not_know_how_many_they_are(axis):
    for count in (1, 4, 9):
        shape = [5, 6, 7]
        shape[axis] = count
        mask = keep_masks(keys(3), 0.5, shape, axis=axis)
        assert mask.shape[axis + 1] == 1
        alone = [1 if place == axis else n for place, n in enumerate(shape)]
        assert torch.equal(mask, keep_masks(keys(3), 0.5, alone, axis=axis))


@pytest.mark.parametrize(("consistent", "expected"), [(False, (2, 6, 5, 1, 1)), (True, (2, 1, 5, 1, 1))])
def test_feature_dropout_has_bits_for_samples_and_channels_only(consistent, expected):
    positions = None if consistent else torch.arange(6)
    mask = keep_masks(keys(2), 0.5, (6, 5, 8, 8), axis=0, positions=positions, mask_axes=2)
    assert mask.shape == expected
    assert 0 < mask.float().mean() < 1


def test_keys_of_different_values_differ_and_are_drawn_again_the_same():
    values = torch.arange(-50_000, 50_000)
    folded = fold(KEY, values)
    assert len(folded.unique()) == len(values)
    assert torch.equal(folded, fold(KEY, values))
    assert torch.equal(fold(KEY, 12), fold(KEY, torch.tensor(12)))
    assert fold(KEY, 12) != fold(KEY, 13)
    assert fold(fold(KEY, 1), 2) != fold(fold(KEY, 2), 1)
    assert fold(KEY, 2**62) != fold(KEY, 2**62 + 1)


def test_pieces_of_the_work_do_not_show(monkeypatch):
    shape, positions = (9, 11, 13), torch.arange(9)
    whole = keep_masks(keys(3), 0.3, shape, axis=0, positions=positions)
    monkeypatch.setattr("lightning_al.inference.masks._CHUNK", 8)
    assert torch.equal(keep_masks(keys(3), 0.3, shape, axis=0, positions=positions), whole)


def test_no_generator_is_drawn_from():
    before = torch.get_rng_state()
    keep_masks(keys(2), 0.5, (4, 8), axis=0, positions=torch.arange(4))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_tensor_without_the_samples_has_a_mask_bound_to_the_block():
    first, same, other = (
        keep_masks(keys(2), 0.5, (3, 64), positions=torch.tensor(p)) for p in ([4, 5], [4, 9], [6, 7])
    )
    assert first.shape == (2, 3, 64)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
