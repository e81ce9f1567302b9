"""Labels given by a script that several processes run, one after the other."""

import pytest
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.utils.data import TensorDataset

from lightning_al import ActiveDataModule, Ledger
from lightning_al.together import agree, gathered, on_every_rank, same_on_every_rank


def labelled(state_dir):
    data = ActiveDataModule(
        TensorDataset(torch.arange(20.0)[:, None], torch.arange(20) % 2),
        initial=range(4),
        state_dir=state_dir,
    )
    data.label([7, 8], [0, 1])
    data.ignore([9])
    data.unlabel([8])
    return data


def test_a_process_that_runs_the_script_after_rank_0_writes_and_refuses_nothing(tmp_path, monkeypatch):
    first = labelled(tmp_path)
    there = list(Ledger(tmp_path / "ledger.sqlite3").events())
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    again = labelled(tmp_path)
    assert again.labeled_indices.tolist() == first.labeled_indices.tolist()
    assert list(Ledger(tmp_path / "ledger.sqlite3").events()) == there
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    with pytest.raises(ValueError, match="labelled already"):
        labelled(tmp_path)


def test_one_process_agrees_with_itself(tmp_path):
    assert agree(lambda: 3) == 3
    assert gathered(lambda: 3) == [3]
    same_on_every_rank(lambda: {"a": 1 / 0})  # nobody to compare with
    with on_every_rank("nowhere") as path:
        assert path == "nowhere"
