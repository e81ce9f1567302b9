"""The device that the tests of this folder are about."""

import pytest

from gpu.devices import DEVICE, present


@pytest.fixture
def device():
    """The CUDA device, or what `LIGHTNING_AL_TEST_DEVICE` names in its place."""
    with present():
        yield DEVICE
