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


def refuse(*_):
    raise AssertionError("CUDA was started")


def test_cuda_is_not_started(monkeypatch):
    """A process that has started it can fork no workers."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    for name in ("get_rng_state", "set_rng_state", "manual_seed_all", "_lazy_call", "_lazy_init"):
        monkeypatch.setattr(torch.cuda, name, refuse)
    with preserved_rng(5):
        first = draws()
    with preserved_rng(5):
        assert draws() == first


def test_the_streams_of_every_gpu_are_put_back(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: f"state {device}")
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: calls.append((device, state)))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: calls.append(seed))
    with preserved_rng(5):
        pass
    assert calls == [5, (0, "state 0"), (1, "state 1")]


@pytest.mark.parametrize("seed", [None, True, 1.5, "0"])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(TypeError, match=rf"`seed` is {seed!r}; needed is a whole number.*`seed=0`"):
        derive_seed(seed, "order")
