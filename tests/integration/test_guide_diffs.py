"""What a guide says to change in a script: the changed script runs, on data and modules of a few numbers.

The diffs are no code blocks, so nothing else runs them.
"""

import re
import textwrap
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import lightning_al
from lightning_al import fit_rounds
from lightning_al import functional as F

from .small import Net, blobs, quiet

ROOT = Path(__file__).parents[2]
DIFF = re.compile(r"^```diff\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = {
    path.relative_to(ROOT).as_posix(): found
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if (found := DIFF.findall(path.read_text(encoding="utf-8")))
}


class Noisy(Dataset):
    """In place of images that are moved at random."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        x, y = self.images[index]
        return x + torch.randn(len(x)), y


class Words(Net):
    """In place of a model of texts: `input_ids` in, with a loss where there are `labels`."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(9, 4)

    def forward(self, input_ids, labels=None):
        logits = self.net(self.words(input_ids).mean(1))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SimpleNamespace(logits=logits, loss=loss)

    def training_step(self, batch, batch_idx):
        return self(**batch).loss


class Masks(Net):
    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(1, 3, 3, padding=1)

    def test_step(self, batch, batch_idx):
        """Nothing."""


class Numbers(Net):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1))

    def training_step(self, batch, batch_idx):
        return nn.functional.mse_loss(self(batch[0]), batch[1])


class Digits(L.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(blobs(), batch_size=8, shuffle=True)


def collate(rows):
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def texts():
    return [{"input_ids": [n % 9, n % 4], "labels": n % 3} for n in range(120)]


def names_of(page):
    """What the script holds already; a page that is not named here trains blobs."""
    draw = torch.Generator().manual_seed(0)
    x, y = blobs(60).tensors
    images = torch.rand(30, 1, 6, 6, generator=draw)
    return {
        "README.md": {"train_set": blobs(300), "test_set": blobs()},
        "docs/guides/images.md": {"images": blobs(), "Augmented": Noisy, "test_set": blobs()},
        "docs/guides/text.md": {"rows": texts(), "collate": collate, "model": Words()},
        "docs/guides/hugging_face.md": {
            "rows": texts(), "module": Words(), "tokenizer": None,
            "DataCollatorWithPadding": lambda tokenizer: collate,
        },
        "docs/guides/segmentation.md": {
            "train_set": TensorDataset(images, (images[:, 0] > 0.5).long()), "model": Masks(),
        },
        "docs/guides/regression.md": {"train_set": TensorDataset(x, y[:, None].float()), "model": Numbers()},
        "docs/guides/existing_datamodule.md": {"Digits": Digits},
        "docs/guides/imbalanced.md": {"train_set": blobs()},
    }.get(page, {})  # fmt: skip


def changed(diff):
    """The script without what goes, with what comes."""
    return textwrap.dedent("\n".join(line[1:] for line in diff.splitlines() if not line.startswith("-")))


@pytest.mark.parametrize("page", PAGES)
def test_the_changed_script_of_a_page_runs(page, monkeypatch):
    histories = []

    def one_query(*args, rounds):
        """One shows what many do."""
        histories.append(fit_rounds(*args, rounds=1))
        return histories[-1]

    monkeypatch.setattr(lightning_al, "fit_rounds", one_query)  # a page may import it, or have it
    trainer = partial(quiet, limit_train_batches=3)
    space = {
        **{name: getattr(lightning_al, name) for name in lightning_al.__all__},
        "acq": lightning_al.acquisition, "F": F, "L": SimpleNamespace(Trainer=trainer), "Net": Net,
        "model": Net(), "make_trainer": lambda number: trainer(max_epochs=1), **names_of(page),
    }  # fmt: skip
    assert len(PAGES[page]) == 1
    exec(compile(changed(PAGES[page][0]), page, "exec"), space)
    if "data" in space:  # else it changes a Trainer, or a strategy, alone
        (history,) = histories
        assert history.column("asked") == [space["active"].query_size, 0]
    else:
        assert page in ("docs/guides/multi_gpu.md", "docs/guides/own_acquisition.md")


def test_only_what_goes_is_left_out():
    assert changed("  a = 1\n- b = 2\n+ b = [\n+     3]\n") == "a = 1\nb = [\n    3]"
