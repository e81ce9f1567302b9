from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_al import ActiveDataModule

ROWS = TensorDataset(torch.arange(20).float()[:, None], torch.arange(20) % 2)


class Frame:
    """Has what a table of pandas has, whose `[0]` is a column."""

    iloc = SimpleNamespace()

    def __len__(self):
        return 20

    def __getitem__(self, name):
        raise KeyError(name)


WRONG = {
    "frame": ({"train_set": Frame()}, TypeError, r"`train_set` is a Frame; .*first sample.*to_dict"),
    "mapping": ({"train_set": {"train": ROWS}}, TypeError, r"`train_set` is a dict; .*one of its values"),
    "val loader": ({"val_set": DataLoader(ROWS)}, TypeError, r"`val_set` is a DataLoader.*from_dataloaders"),
    "test loader": ({"test_set": DataLoader(ROWS)}, TypeError, r"`test_set` is a DataLoader.*`.dataset`"),
    "batch size": ({"loader_options": {"batch_size": 4}}, ValueError, r"holds \['batch_size'\].*Leave"),
    "order": (
        {"loader_options": {"shuffle": True, "sampler": None, "timeout": 0}},
        ValueError,
        r"holds \['sampler', 'shuffle'\], but which samples",
    ),
    "no seed": ({"seed": None}, TypeError, r"`seed` is None; needed is a whole number"),
    "true": ({"initial": True}, TypeError, r"`initial` is True; needed is how many .*or which"),
    "share": ({"initial": 0.1}, TypeError, r"`initial` is 0.1; needed is how many .*`initial=len"),
    "double class": (
        {"class_names": ["a", "a", "b"]},
        ValueError,
        r"`class_names` holds 'a' more than once, as classes \[0, 1\]; a name must mean one class",
    ),
    "none": ({"initial": None}, TypeError, r"`initial` is None; needed is how many"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_said_when_the_data_module_is_made(what):
    options, error, words = WRONG[what]
    with pytest.raises(error, match=words):
        ActiveDataModule(**{"train_set": ROWS, "initial": 4, **options})


def test_a_list_and_worker_options_are_welcome():
    data = ActiveDataModule(list(ROWS), list(ROWS), initial=4, loader_options={"timeout": 0})
    assert len(data.labeled_indices) == 4
