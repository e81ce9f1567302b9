"""Processes whose fit went well end well."""

import os

import pytest
from integration.small import Net, margin, pool, quiet

from distributed.launch import TESTS, run_anew
from lightning_al.together import leaving


@pytest.mark.distributed
@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="threads cannot be held back here")
def test_threads_of_the_process_group_are_done_before_the_interpreter_ends(tmp_path):
    """One of three processes aborted without, and with only the group destroyed."""
    ended = run_anew(str(TESTS / "distributed" / "leaving.py"), "6", folder=tmp_path, limit=1200)
    assert ended.said.endswith("0 of 12 failed\n"), ended.said[-4000:]
    assert ended.status == 0


def test_it_is_closed_only_after_a_fit_that_went_well(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(leaving.atexit, "register", lambda close: calls.append("register"))
    monkeypatch.setattr(leaving.atexit, "unregister", lambda close: calls.append("unregister"))

    class Failing(Net):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("no")

    data = pool(tmp_path)
    with pytest.raises(RuntimeError, match="no"):
        quiet(callbacks=[margin()]).fit(Failing(), datamodule=data)
    assert calls == ["unregister"]
    quiet(callbacks=[margin()]).fit(Net(), datamodule=data)
    assert calls == ["unregister", "unregister", "unregister", "register"]
