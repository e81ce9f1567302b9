"""DATA: the published files as data sets that all studies read alike.

files in a folder -> [read_images, read_questions, read_x_rays] -> Source -> what one seed learns from
"""

from __future__ import annotations

import gzip
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

__all__ = ["Samples", "Source", "pad", "read_images", "read_questions", "read_x_rays"]

#: Numbers of words: padding, a word that is not in the vocabulary, and the first that is.
PAD, UNKNOWN, FIRST = 0, 1, 2


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Inputs, one tensor each, and their classes.

    Args:
        inputs: Images `(N, 1, H, W)`, or a list of word numbers `(words,)`.
        targets: Classes `(N,)`.
    """

    def __init__(self, inputs: Tensor | list[Tensor], targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Many at once, as loaders ask for them."""
        chosen = self.part(torch.tensor(indices))
        return list(zip(chosen.inputs, chosen.targets, strict=True))

    def part(self, indices: Tensor) -> Samples:
        """Those samples only."""
        held = self.inputs
        inputs = held[indices] if isinstance(held, Tensor) else [held[i] for i in indices.tolist()]
        return Samples(inputs, self.targets[indices])


@dataclass(frozen=True)
class Source:
    """A data set as it was published.

    Args:
        train: What a pool is drawn from.
        test: What every round is tested on.
        class_names: Of the classes 0, 1, ...
        fine: A finer class of every training sample `(N,)`, which no model is shown; or `None`.
        words: Word numbers in use; 0 for images.
    """

    train: Samples
    test: Samples
    class_names: list[str]
    fine: Tensor | None = None
    words: int = 0


def pad(items: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """A batch of questions, the shorter ones filled up with 0."""
    words, targets = zip(*items, strict=True)
    return [pad_sequence(list(words), batch_first=True, padding_value=PAD), torch.stack(targets)]


# ---------------------------------------------------------------------- images


def read_images(root: Path, folder: str, class_names: list[str]) -> Source:
    """The four published .gz files of MNIST, or of a set in its format.

    Args:
        root: Holds the folder.
        folder: `mnist` or `fashion_mnist`.
        class_names: Of the classes.
    """
    parts = []
    for part in ("train", "t10k"):
        images, labels = (
            _idx(_there(root / folder / f"{part}-{kind}-ubyte.gz")) for kind in ("images-idx3", "labels-idx1")
        )
        parts.append((images, labels))
    return _of_pixels(*parts[0], *parts[1], class_names)


def read_x_rays(root: Path) -> Source:
    """PneumoniaMNIST's .npz; its validation part is not used."""
    with np.load(_there(root / "pneumonia_mnist" / "pneumoniamnist.npz")) as held:
        parts = [held[f"{part}_{kind}"] for part in ("train", "test") for kind in ("images", "labels")]
    return _of_pixels(parts[0], parts[1].ravel(), parts[2], parts[3].ravel(), ["normal", "pneumonia"])


def _of_pixels(train: Any, train_labels: Any, test: Any, test_labels: Any, class_names: list[str]) -> Source:
    """With the mean 0 and deviation 1 of all training pixels, whose labels are not needed for that."""
    pixels = torch.from_numpy(train.copy()).unsqueeze(1).float().div_(255)
    mean, deviation = pixels.mean().item(), pixels.std().item()
    tested = torch.from_numpy(test.copy()).unsqueeze(1).float().div_(255)
    return Source(
        Samples((pixels - mean) / deviation, torch.from_numpy(train_labels.astype(np.int64))),
        Samples((tested - mean) / deviation, torch.from_numpy(test_labels.astype(np.int64))),
        class_names,
    )


def _idx(path: Path) -> Any:
    content = gzip.decompress(path.read_bytes())
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


# ---------------------------------------------------------------------- text


def read_questions(root: Path) -> Source:
    """TREC's two files: the six coarse classes to learn, the fifty fine ones to look at.

    The vocabulary is of the training questions, whose text is there before any label is: words that two of
    them have.
    """
    train, test = (_lines(_there(root / "trec" / f"TREC.{part}")) for part in ("train", "test"))
    counts = Counter(word for _, words in train for word in set(words))
    kept = sorted(word for word, count in counts.items() if count > 1)
    numbers = {word: number for number, word in enumerate(kept, FIRST)}
    coarse = sorted({name.split(":")[0] for name, _ in train})
    fine = sorted({name for name, _ in train})
    samples = [
        Samples(
            [torch.tensor([numbers.get(word, UNKNOWN) for word in words]) for _, words in lines],
            torch.tensor([coarse.index(name.split(":")[0]) for name, _ in lines]),
        )
        for lines in (train, test)
    ]
    of_fine = torch.tensor([fine.index(name) for name, _ in train])
    return Source(samples[0], samples[1], coarse, of_fine, len(kept) + FIRST)


def _lines(path: Path) -> list[tuple[str, list[str]]]:
    """The fine class, which begins with the coarse one, and the words."""
    found = []
    for line in path.read_text(encoding="latin-1").splitlines():
        name, *words = line.lower().split()
        found.append((name.upper(), words))
    return found


def _there(path: Path) -> Path:
    if not path.exists():
        sys.exit(
            f"{path} is not there. Needed are the published files in a folder `{path.parent.name}`; name the "
            "folder that holds it by --data-root or LIGHTNING_AL_DATA."
        )
    return path
