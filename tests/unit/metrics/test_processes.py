"""Two processes that each saw a part find what one finds that saw all."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ports import free_port

from lightning_al.functional import covering_radius, ranking_accuracy
from lightning_al.metrics import AreaUnderBudgetCurve, CoveringRadius, LabelEntropy, LossRankingAccuracy

ROWS = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
TARGET = ROWS[:, 0] + torch.randn(40, generator=torch.Generator().manual_seed(1))
CLASSES = (ROWS[:, 1] > 0).long() + 2 * (ROWS[:, 2] > 1).long()


def metrics():
    return {
        "ranking": LossRankingAccuracy(),
        "entropy": LabelEntropy(4),
        "radius": CoveringRadius(ROWS[:3]),
        "curve": AreaUnderBudgetCurve(),
    }


def update(found, rows):
    found["ranking"].update(ROWS[rows, 0], TARGET[rows])
    found["entropy"].update(CLASSES[rows])
    found["radius"].update(ROWS[rows])


def computed(found):
    return {name: float(metric.compute()) for name, metric in found.items()}


def drawn(rank):
    """Of points of its own: what is told, drawn, written above it, and kept for later."""
    metric = AreaUnderBudgetCurve()
    for labels, value in [[(20, 0.5), (30, 0.2)], [(40, 0.9), (30, 0.6)]][rank]:
        metric.update(labels, value)
    curve = [part.tolist() for part in metric.curve()]
    _, ax = metric.plot()
    line, mean = ax.lines
    seen = [line.get_xdata().tolist(), line.get_ydata().tolist()]
    metric.sync()
    while_synced = [part.tolist() for part in metric.curve()]
    metric.unsync()
    return curve, seen, while_synced, float(mean.get_ydata()[0]), ax.get_title(), len(metric.labels)


def on_a_rank(rank, port, told):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    shared = metrics()
    update(shared, slice(0, 13) if rank == 0 else slice(13, 40))
    for labels, value in [(20, 0.5), (40, 0.9)]:  # what was logged is known to all
        shared["curve"].update(labels, value)
    told[rank] = computed(shared)
    one_sided = metrics()
    if rank == 0:  # the other one's share was empty
        update(one_sided, slice(0, 40))
        one_sided["curve"].update(torch.tensor([20, 40]), torch.tensor([0.5, 0.9]))
    told[2 + rank] = computed(one_sided)
    told[4 + rank] = drawn(rank)
    dist.destroy_process_group()


@pytest.mark.distributed
def test_what_two_processes_saw_counts_once():
    with mp.get_context("spawn").Manager() as manager:
        told = manager.dict()
        mp.spawn(on_a_rank, (free_port(), told), nprocs=2)
        told = dict(told)
    shares = torch.bincount(CLASSES, minlength=4) / 40
    expected = {
        "ranking": float(ranking_accuracy(ROWS[:, 0], TARGET)),
        "entropy": float(torch.special.entr(shares).sum()),
        "radius": covering_radius(ROWS, ROWS[:3]),
        "curve": 0.7,
    }
    for rank in (4, 5):
        *curves, mean, title, own = told.pop(rank)
        for x, y in curves:
            assert x == [20, 30, 40]
            assert y == pytest.approx([0.5, 0.4, 0.9])
        assert mean == pytest.approx(0.55)
        assert title == "area under the budget curve 0.5500"
        assert own == 2
    assert told == {rank: pytest.approx(expected) for rank in range(4)}
