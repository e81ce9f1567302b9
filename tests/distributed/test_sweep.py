"""Runs of one process each that are numbered like ranks: every one has a ledger of its own."""

import pytest
from integration.small import queries

from distributed import sweep
from distributed.launch import launch
from lightning_al import Ledger

pytestmark = pytest.mark.distributed


@pytest.mark.parametrize("way", sweep.WAYS)
@pytest.mark.parametrize("how", ["plain", "plugin"])
def test_each_run_of_a_slurm_sweep_keeps_its_own_ledger(tmp_path, way, how):
    """With the environment that Lightning finds, and with the one that is given to keep runs apart."""
    sweep.WAYS[way](tmp_path / "one")
    ended = launch("sweep.py", tmp_path, way, how, ranks=2, by="slurm", apart=True)
    assert ended.status == 0, ended.said[-4000:]
    for task in range(2):
        assert ended.notes(task)["done"]
        home = ended.folder_of(task)
        assert [len(asked) for asked in queries(home / "run").values()] == [8, 8]
        assert told(home / "run") == told(tmp_path / "one" / "run")
        if way == "rounds":
            assert len((home / "run" / "history.csv").read_text().splitlines()) == 1 + 3
            assert len(list((home / "run").glob("round_*/*.ckpt"))) == 3
            assert len(list(home.glob("log/**/metrics.csv"))) == 1


def told(folder):
    """What a ledger holds, but for times and names."""
    events = Ledger(folder / "ledger.sqlite3").events()
    return [(event.kind, event.sample, event.value, event.who, event.round) for _, event in events]
