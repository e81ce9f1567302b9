"""The benchmark for a GPU runs, though there may be none to run it on."""

import os
import subprocess
import sys

import pytest
from distributed.launch import TESTS

ROOT = TESTS.parent


def said(*arguments):
    ended = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *arguments],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=900, check=True,
    )  # fmt: skip
    return ended.stdout


def test_without_a_gpu_it_says_that_it_has_not_run():
    assert said() == "This benchmark needs an NVIDIA GPU, which torch does not find here; it has not run.\n"


@pytest.mark.slow
def test_all_of_it_runs_at_a_tiny_size():
    lines = said("--quick", "--device", "cpu").splitlines()
    for name in ("bf16-mixed", "32-true", "k_center", "badge"):
        (line,) = (line for line in lines if line.split()[:1] == [name])
        assert len(line.split()) >= 4
