"""Batches of other shapes than an image and its class, through whole rounds."""

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from integration.small import CLASSES, quiet
from lightning_al import ActiveDataModule, ActiveLearning, History, fit_rounds
from lightning_al import acquisition as acq


class Rows(Dataset):
    """Items made by a function of the index."""

    def __init__(self, make, size=40):
        self.make, self.size = make, size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return self.make(index)


class Base(L.LightningModule):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def noise(index, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(index))


def three_rounds(module, train_set, state_dir, acquisition=None, **options):
    """Two queries of 6 in the drop-in way; the data module and what was asked."""
    data = ActiveDataModule(train_set, **{"initial": 8, "batch_size": 4, "state_dir": state_dir, **options})
    trainer = quiet(callbacks=[ActiveLearning(acquisition or acq.Margin(), query_size=6, budget=20)])
    for _ in range(3):
        trainer.fit(module, datamodule=data)
    assert len(data.labeled_indices) == 20
    return data


def text(index):
    length = 2 + index % 5
    ids = torch.randint(1, 20, (length,), generator=torch.Generator().manual_seed(index)).tolist()
    return {"input_ids": ids, "attention_mask": [1] * length, "label": index % CLASSES}


def padded(rows):
    """As a Hugging Face collator: it pads, renames, and fails without a label."""
    longest = max(len(row["input_ids"]) for row in rows)

    def pad(key):
        return torch.tensor([row[key] + [0] * (longest - len(row[key])) for row in rows])

    labels = torch.tensor([row["label"] for row in rows])
    return {"input_ids": pad("input_ids"), "attention_mask": pad("attention_mask"), "labels": labels}


class Output(dict):
    """Attributes and keys, as a `ModelOutput`."""

    __getattr__ = dict.__getitem__


class Classifier(Base):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, CLASSES)
        self.saw_labels_in_scoring = False

    def forward(self, input_ids, attention_mask, labels=None):
        self.saw_labels_in_scoring |= labels is not None and not self.training
        mask = attention_mask[..., None].float()
        logits = self.head((self.embed(input_ids) * mask).sum(1) / mask.sum(1))
        return Output(
            logits=logits, loss=None if labels is None else nn.functional.cross_entropy(logits, labels)
        )

    def training_step(self, batch, batch_idx):
        return self(**batch).loss


@pytest.mark.parametrize(
    "acquisition", [acq.Margin(), acq.HyperplaneDistance()], ids=lambda a: type(a).__name__
)
def test_hugging_face_rows_with_a_collator_that_needs_labels(tmp_path, acquisition):
    module = Classifier()
    data = three_rounds(module, Rows(text), tmp_path, acquisition, collate_fn=padded)
    assert not module.saw_labels_in_scoring
    assert [data.state.target(i) for i in data.labeled_indices] == [i % CLASSES for i in data.labeled_indices]


class ImageNet(Base):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, CLASSES))
        self.keys = set()

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        self.keys.add(tuple(batch))
        return nn.functional.cross_entropy(self(batch["image"]), batch["label"])


def test_a_mapping_with_one_image(tmp_path):
    module = ImageNet()
    three_rounds(module, Rows(lambda i: {"image": noise(i, 1, 8, 8), "label": i % CLASSES}), tmp_path)
    assert module.keys == {("image", "label")}


class TwoInputs(Base):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(7, CLASSES)

    def forward(self, left, right):
        return self.head(torch.cat([left, right], 1))

    def training_step(self, batch, batch_idx):
        left, right, y = batch
        return nn.functional.cross_entropy(self(left, right), y)


def test_two_inputs(tmp_path):
    three_rounds(TwoInputs(), Rows(lambda i: (noise(i, 4), noise(i, 3), i % CLASSES)), tmp_path)


class Segmenter(Base):
    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(1, CLASSES, 3, padding=1)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)


def best(scores, pool, count):
    order = np.lexsort((pool, -np.asarray(scores)))
    return [pool[i] for i in order[:count]]


@pytest.mark.parametrize("reduction", ["mean", "max"])
def test_segmentation_asks_where_the_places_are_uncertain(tmp_path, reduction):
    samples = Rows(lambda i: (noise(i, 1, 6, 6), (noise(i, 1, 6, 6)[0] > 0).long()))
    module = Segmenter()
    data = three_rounds(module, samples, tmp_path, acq.Entropy(reduction=reduction))
    pool = data.pool_indices.tolist()
    trainer = quiet(max_epochs=1, callbacks=[ActiveLearning(acq.Entropy(reduction=reduction), query_size=6)])
    trainer.fit(module, datamodule=data)
    with torch.no_grad():
        probs = module(torch.stack([samples[i][0] for i in pool])).softmax(1)
        places = -(probs * probs.log()).sum(1).flatten(1)
        scores = places.mean(1) if reduction == "mean" else places.amax(1)
    assert data.labeled_indices[20:].tolist() == best(scores, pool, 6)
    assert np.isnan(History.of(data).column("label_entropy")).all()  # masks are no classes


class Tagger(Base):
    """Its logits are (B, tokens, C), as of Hugging Face models; or it says itself what they are."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, CLASSES)

    def forward(self, input_ids, attention_mask=None):
        return self.head(self.embed(input_ids))

    def training_step(self, batch, batch_idx):
        logits = self(batch["input_ids"]).movedim(-1, 1)
        return nn.functional.cross_entropy(logits, batch["labels"], ignore_index=-100)


class OwnMask(Tagger):
    def active_step(self, batch, batch_idx):
        return {"logits": self(batch["input_ids"]).movedim(-1, 1), "mask": batch["attention_mask"]}


class ClassesFirst(Tagger):
    def active_step(self, batch, batch_idx):
        return self(batch["input_ids"]).movedim(-1, 1)


def tagged(index):
    row = text(index)
    return row | {"label": [i % CLASSES for i in row["input_ids"]]}


def padded_tags(rows):
    longest = max(len(row["input_ids"]) for row in rows)

    def pad(key, value):
        return torch.tensor([row[key] + [value] * (longest - len(row[key])) for row in rows])

    return {
        "input_ids": pad("input_ids", 0),
        "attention_mask": pad("attention_mask", 0),
        "labels": pad("label", -100),
    }


@pytest.mark.parametrize("kind", [Tagger, OwnMask, ClassesFirst])
def test_padding_does_not_count_in_token_classification(tmp_path, kind):
    samples, module = Rows(tagged), kind()
    options = {"initial": 8, "batch_size": 4, "state_dir": tmp_path, "collate_fn": padded_tags}
    data = ActiveDataModule(samples, **options)
    pool = data.pool_indices.tolist()
    quiet(callbacks=[ActiveLearning(acq.LeastConfidence(), query_size=6)]).fit(module, datamodule=data)
    with torch.no_grad():
        scores = [
            float((1 - module(torch.tensor([samples[i]["input_ids"]])).softmax(-1).amax(-1)).mean())
            for i in pool
        ]
    assert data.labeled_indices[8:].tolist() == best(scores, pool, 6)


class Recorder(Base):
    """Keeps which label came with which sample."""

    def __init__(self, mapping):
        super().__init__()
        self.mapping, self.net, self.seen = mapping, nn.Linear(4, CLASSES), {}

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = (batch["x"], batch["y"]) if self.mapping else batch
        self.seen.update(zip(x[:, 0].long().tolist(), y.tolist(), strict=True))
        return nn.functional.cross_entropy(self(x / 40), y)


def numbered(first, label, mapping):
    def make(index):
        x = torch.cat([torch.tensor([float(first + index)]), noise(index, 3)])
        return {"x": x, "y": label(first + index)} if mapping else (x, label(first + index))

    return make


def truth(index):
    return index % CLASSES


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("mapping", [False, True], ids=["tuples", "mappings"])
def test_an_unlabeled_set_with_wrong_targets_trains_on_the_ledgers(tmp_path, mapping, workers):
    module = Recorder(mapping)
    data = ActiveDataModule(
        Rows(numbered(0, truth, mapping), 8),
        unlabeled_set=Rows(numbered(8, lambda i: (truth(i) + 1) % CLASSES, mapping), 30),
        oracle=lambda indices: [truth(int(i)) for i in indices],
        batch_size=4,
        num_workers=workers,
        state_dir=tmp_path,
    )
    active = ActiveLearning(acq.Margin(), query_size=6, budget=20)
    fit_rounds(module, lambda r: quiet(max_epochs=1), data, active, rounds=2)
    assert module.seen == {int(i): truth(int(i)) for i in data.labeled_indices}
    assert len(module.seen) == 20


@pytest.mark.parametrize("mapping", [False, True], ids=["tuples", "mappings"])
def test_an_unlabeled_set_without_targets_trains_on_the_ledgers(tmp_path, mapping):
    def bare(index):
        x = numbered(8, truth, mapping)(index)
        return {"x": x["x"]} if mapping else x[0]

    module = Recorder(mapping)
    data = ActiveDataModule(
        Rows(numbered(0, truth, mapping), 8),
        unlabeled_set=Rows(bare, 30),
        oracle=lambda indices: [truth(int(i)) for i in indices],
        batch_size=4,
        state_dir=tmp_path,
    )
    active = ActiveLearning(acq.Margin(), query_size=6, budget=20)
    fit_rounds(module, lambda r: quiet(max_epochs=1), data, active, rounds=2)
    assert module.seen == {int(i): truth(int(i)) for i in data.labeled_indices}
    assert len(module.seen) == 20
