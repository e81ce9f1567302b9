"""The tests of this folder hold without a GPU, on a device that is as unlike the CPU; see `pretend.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import backend_registration

from gpu import pretend

TESTS = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices that are written in Python",
)
@pytest.mark.parametrize("name", ["test_functions.py", "test_queries.py"])
def test_choices_and_queries_are_the_same_on_a_pretended_device(name):
    # In a process of its own, where the device stays.
    environment = os.environ | {
        "LIGHTNING_AL_TEST_DEVICE": pretend.NAME, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    environment = {k: v for k, v in environment.items() if not k.startswith("PYTEST_")}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / "gpu" / name)],
        cwd=TESTS.parent, env=environment, capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
    assert " passed" in ended.stdout
    assert "skipped" not in ended.stdout


def test_what_is_not_highest_precision_is_rough():
    values = torch.tensor([1 + 2**-10, 1 + 2**-13])
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert pretend.rough(values).tolist() == [1 + 2**-10, 1.0]
        torch.set_float32_matmul_precision("highest")
        assert torch.equal(pretend.rough(values), values)
    finally:
        torch.set_float32_matmul_precision(before)
