"""Two GPUs ask for what one asks for: `ddp`, and modules of which each process holds a part."""

import os

import pytest
import torch
from distributed.launch import TESTS, run_anew

from gpu.devices import IS_GPU

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.distributed,
    pytest.mark.skipif(IS_GPU and torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
]


@pytest.fixture(scope="module", params=["ddp", "parts"])
def both(request, tmp_path_factory):
    """What one process saw, and what two did."""
    ends = [ended(tmp_path_factory.mktemp(f"of_{world}"), request.param, world) for world in (1, 2)]
    return request.param, *ends


def ended(folder, what, world, limit=500):
    """Lightning starts the other rank; whatever happens, all are gone after `limit` seconds."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PL_", "PYTEST_", "MASTER_"))}
    script = str(TESTS / "gpu" / "several.py")
    ended = run_anew(script, what, str(world), folder=folder, limit=limit, env=environment)
    assert ended.status == 0, f"{what} on {world}: {ended.status}\n{ended.said[-6000:]}"
    return ended


def test_every_strategy_asks_the_same(both):
    _, one, two = both
    alone = one.notes(0)["queries"]
    assert len(alone) > 10
    for rank in (0, 1):
        found = two.notes(rank)
        assert found["backend"] == ("nccl" if IS_GPU else "gloo")
        for name, query in found["queries"].items():
            assert query["indices"] == alone[name]["indices"], name
            assert query["scores"] == pytest.approx(alone[name]["scores"], rel=1e-3, abs=1e-4), name
            assert query.get("left", True), name


def test_rounds_go_on_and_every_sample_is_scored_once(both):
    what, one, two = both
    here, there = two.notes(0), two.notes(1)
    if what == "parts":
        assert here["restarts"].keys() == one.notes(0)["restarts"].keys()
        assert here["restarts"]["labeled"] == there["restarts"]["labeled"] == [12, 20]
        for name in ("initial", "redraw", "shrink_perturb", "warm", "repeated"):
            begun, done = here["restarts"][name][::2], here["restarts"][name][1::2]
            assert len(begun) == 3
            assert all(a != b for a, b in zip(begun, done, strict=True)), "it did not train"
        return
    for size, seen in here["once"].items():
        samples = sorted(seen["seen"] + there["once"][size]["seen"])
        assert samples == list(range(12, 12 + int(size)))
        assert seen["digest"] == there["once"][size]["digest"]
    untimed = [
        [{k: v for k, v in row.items() if not k.endswith("_s")} for row in part["rounds"]]
        for part in (here, there)
    ]
    assert untimed[0] == untimed[1]
    assert len(untimed[0]) == 3
