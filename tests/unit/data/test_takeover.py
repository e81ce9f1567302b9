import lightning as L
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from lightning_al import ActiveDataModule

DATA = TensorDataset(torch.arange(12).float()[:, None], torch.arange(12) % 3)


def collate(items):
    return default_collate(items)


class Digits(L.LightningDataModule):
    def __init__(self):
        super().__init__()
        self.calls = []

    def prepare_data(self):
        self.calls.append("prepare")

    def setup(self, stage):
        self.calls.append(stage)
        self.ready = True

    def train_dataloader(self):
        assert self.ready
        return DataLoader(DATA, 5, shuffle=True, collate_fn=collate, pin_memory=False, drop_last=True)

    def val_dataloader(self):
        return DataLoader(DATA, 3)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0] + 100, batch[1]


def test_the_memory_that_scoring_may_take_is_an_option_of_every_way_to_make_one(tmp_path):
    loader = DataLoader(DATA, 5)
    for given, expected in (({}, 2**31), ({"spill_bytes": 0}, 0)):
        options = {"state_dir": tmp_path, **given}
        assert ActiveDataModule(DATA, **options).spill_bytes == expected
        assert ActiveDataModule.from_dataloaders(loader, **options).spill_bytes == expected
        assert ActiveDataModule.from_datamodule(Digits(), **options).spill_bytes == expected


def test_a_data_modules_settings_loaders_and_hooks(tmp_path):
    source = Digits()
    data = ActiveDataModule.from_datamodule(source, initial=6, state_dir=tmp_path)
    assert source.calls == ["prepare", "fit"]
    assert data.samples.train_set is DATA
    assert (data.batch_size, data.collate_fn, data.drop_last) == (5, collate, True)
    assert data.has_val_data()
    assert not data.has_test_data()
    assert data.val_dataloader().batch_size == 3
    assert data.on_after_batch_transfer((torch.zeros(1), None), 0)[0].item() == 100
    assert data.train_dataloader().collate_fn is collate
    data.setup("test")
    assert source.calls[-1] == "test"


def test_arguments_win_over_what_was_found(tmp_path):
    data = ActiveDataModule.from_datamodule(
        Digits(), initial=4, state_dir=tmp_path, batch_size=2, val_set=DATA, test_set=DATA
    )
    assert data.batch_size == data.val_dataloader().batch_size == 2
    assert data.has_test_data()


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_loaders_settings(shuffle):
    train = DataLoader(
        DATA, 4, shuffle=shuffle, num_workers=2, persistent_workers=True, prefetch_factor=3, timeout=7
    )
    val, test = DataLoader(DATA, 3), [DataLoader(DATA, 2), DataLoader(DATA, 1)]
    data = ActiveDataModule.from_dataloaders(train, val, test, initial=4)
    assert data.batch_size == 4
    assert data.collate_fn is None
    loader = data.train_dataloader()
    assert (loader.num_workers, loader.persistent_workers, loader.prefetch_factor) == (2, True, 3)
    assert loader.timeout == 7
    assert data.val_dataloader() is val
    assert data.test_dataloader() is test
    assert not data.pool_loader(data.pool_indices, torch.arange(2)).persistent_workers


def test_without_validation_and_test():
    data = ActiveDataModule.from_dataloaders(DataLoader(DATA, 4), initial=4)
    assert not data.has_val_data()
    assert not data.has_test_data()


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


class Own(BatchSampler):
    pass


WEIGHTS = torch.ones(12)
REFUSED = {
    "several": ([DataLoader(DATA), DataLoader(DATA)], "it is a list, several loaders at once"),
    "named": ({"a": DataLoader(DATA)}, "it is a dict, several loaders at once"),
    "none": (None, "it is a NoneType, no DataLoader"),
    "iterable": (DataLoader(Stream(), 2), "its data set is iterable; a pool needs samples .* by index"),
    "weighted": (DataLoader(DATA, 2, sampler=WeightedRandomSampler(WEIGHTS, 12)), "WeightedRandomSampler"),
    "subset": (DataLoader(DATA, 2, sampler=SubsetRandomSampler([1])), "by SubsetRandomSampler in a way of"),
    "repeating": (DataLoader(DATA, 2, sampler=RandomSampler(DATA, replacement=True)), "by RandomSampler"),
    "fewer": (DataLoader(DATA, 2, sampler=RandomSampler(DATA, num_samples=5)), "by RandomSampler"),
    "batches of its own": (
        DataLoader(DATA, batch_sampler=Own(SequentialSampler(DATA), 2, False)), "makes batches by Own"
    ),
    "no batches": (DataLoader(DATA, batch_size=None), "makes batches by SequentialSampler"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_taken_over_is_named(what):
    loader, words = REFUSED[what]
    with pytest.raises(ValueError, match=rf"cannot be taken over: .*{words}.*Pass `ActiveDataModule\(train"):
        ActiveDataModule.from_dataloaders(loader, initial=4)

    class Module(L.LightningDataModule):
        def train_dataloader(self):
            return loader

    with pytest.raises(ValueError, match=words):
        ActiveDataModule.from_datamodule(Module(), initial=4)


@pytest.mark.parametrize("way", ["loaders", "module"])
def test_without_workers_their_settings_are_left_out(way):
    train = DataLoader(
        DATA, 4, num_workers=2, persistent_workers=True, prefetch_factor=3, timeout=7,
        multiprocessing_context="fork",
    )  # fmt: skip

    class Module(L.LightningDataModule):
        def train_dataloader(self):
            return train

    if way == "loaders":
        data = ActiveDataModule.from_dataloaders(train, initial=4, num_workers=0)
    else:
        data = ActiveDataModule.from_datamodule(Module(), initial=4, num_workers=0)
    loader = data.train_dataloader()
    assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (0, None, False)
    assert len(next(iter(loader))[0]) == 4
