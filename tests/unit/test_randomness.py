import itertools
import random

import numpy as np
import pytest
import torch

from lightning_al.randomness import derive_seed, generator_for, preserved_rng


def test_every_purpose_has_a_seed_of_its_own():
    names = itertools.product(range(3), ("order", "initial"), range(50))
    seeds = {derive_seed(seed, name, number) for seed, name, number in names}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**32 for seed in seeds)  # what NumPy and Lightning take
    assert derive_seed(0, "order", 1) == derive_seed(np.int64(0), "order", 1)
    assert derive_seed(0, "a", "b") != derive_seed(0, "ab")


def test_seeds_stay_the_same_in_later_versions():
    """Else a run could not be resumed with a newer version."""
    assert derive_seed(0, "order", 3) == 3950346612
    assert generator_for(0, "order", 3).initial_seed() == 3950346612


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def test_a_block_has_its_own_streams_and_leaves_the_others_alone():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    expected = [draws() for _ in range(2)]
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    first = draws()
    with preserved_rng(5):
        inside = draws()
    with preserved_rng(5):
        assert draws() == inside
    with pytest.raises(ZeroDivisionError), preserved_rng(5):
        raise ZeroDivisionError(draws())
    assert [first, draws()] == expected
