"""The data sets of some examples: published ones from `--data-root`, else small ones that need no file.

    DIR/mnist/, DIR/fashion_mnist/   the four .gz files, as published
    DIR/trec/                 TREC.train and TREC.test
    DIR/regression/           regression.npz, with concrete_x, concrete_y and concrete_test_mask
    DIR/pneumonia_mnist/      pneumoniamnist.npz

Every function gives a training set, whose labels stay hidden until they are asked for, and a test set.
"""

import argparse
import gzip
import os
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_diabetes, load_digits
from torch.utils.data import TensorDataset


def options(text, *, rounds):
    """A parser with what all these examples are told."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data-root", type=Path, default=os.environ.get("LIGHTNING_AL_DATA"),
        help="folder of published data sets; default: small ones",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=rounds, help="queries")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state-dir", help="where labels and queries are kept; default: a fresh folder")
    return parser


# ---------------------------------------------------------------------- images


#: Mean and deviation of their pixels.
PIXELS = {"mnist": (0.1307, 0.3081), "fashion_mnist": (0.2860, 0.3530)}


def images(root, name="fashion_mnist"):
    """Grey images and ten classes: published ones `(1, 28, 28)`, else scikit-learn's digits `(1, 8, 8)`."""
    if root is not None:
        return tuple(_published(Path(root) / name, part) for part in ("train", "t10k"))
    x, y = _digits()
    return TensorDataset(x[:1297], y[:1297]), TensorDataset(x[1297:], y[1297:])


def _published(folder, part):
    arrays = []
    for kind, start, shape in (("images-idx3", 16, (-1, 1, 28, 28)), ("labels-idx1", 8, (-1,))):
        content = gzip.decompress((folder / f"{part}-{kind}-ubyte.gz").read_bytes())
        arrays.append(torch.tensor(np.frombuffer(content, np.uint8, offset=start)).view(shape))
    pixels, classes = arrays
    mean, deviation = PIXELS[folder.name]
    return TensorDataset((pixels / 255 - mean) / deviation, classes.long())


def _digits():
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1, torch.tensor(y)


# ---------------------------------------------------------------------- text

QUESTIONS = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")


def questions(root):
    """Questions and what they ask for, as lists of (text, class): TREC, else some that are put together."""
    if root is not None:
        return tuple(_trec(root / "trec" / f"TREC.{part}") for part in ("train", "test"))
    return _made_questions(600, seed=0), _made_questions(200, seed=1)


def _trec(path):
    """A line is `COARSE:fine question`; the coarse class is taken."""
    lines = path.read_text(encoding="latin-1").splitlines()
    pairs = [line.split(" ", 1) for line in lines]
    return [(text, QUESTIONS.index(label.split(":")[0])) for label, text in pairs]


_BEGINNINGS = {
    "ABBR": ("what does the short form {} stand for", "what is {} short for"),
    "DESC": ("why does {} matter", "how does {} work", "what is meant by {}"),
    "ENTY": ("what colour is {}", "what kind of animal lives in {}", "which product made {} famous"),
    "HUM": ("who invented {}", "who wrote about {}", "what person is known for {}"),
    "LOC": ("where is {}", "what country has {}", "which city is near {}"),
    "NUM": ("how many people know {}", "when was {} found", "what year saw {}", "how far is {}"),
}
_THINGS = (
    "the river", "the old bridge", "radio", "the moon", "paper", "a comet", "the opera", "steam", "glass",
    "the north pole",
)  # fmt: skip
_ENDS = ("", " today", " in the end", " of all things", " as people say")


def _made_questions(count, seed):
    draw = np.random.default_rng(seed)
    shares = [0.04, 0.2, 0.24, 0.2, 0.16, 0.16]  # as in TREC, one is rare
    made = []
    for label in draw.choice(len(QUESTIONS), count, p=shares):
        beginning, thing, end = map(draw.choice, (_BEGINNINGS[QUESTIONS[label]], _THINGS, _ENDS))
        words = (beginning.format(thing) + end).split()
        kept = [word for word in words if draw.random() < 0.8] or words  # so that some cannot be told
        made.append((" ".join([*kept, "?"]), int(label)))
    return made


# ---------------------------------------------------------------------- numbers


def numbers(root, seed):
    """Rows and a number: the strength of concrete, else of a diabetes; inputs have mean 0 and variance 1."""
    if root is not None:
        with np.load(root / "regression" / "regression.npz") as file:
            x, y = file["concrete_x"], file["concrete_y"]
            tested = file["concrete_test_mask"][:, seed % 10]
    else:
        x, y = load_diabetes(return_X_y=True)
        tested = np.random.default_rng(seed).permutation(len(x)) < 100
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)[:, None]
    x = (x - x.mean(0)) / x.std(0)  # inputs are known of all samples; targets are not
    tested = torch.tensor(tested)
    return TensorDataset(x[~tested], y[~tested]), TensorDataset(x[tested], y[tested])


# ---------------------------------------------------------------------- a rare class


def rare(root, share=0.05):
    """Images of two classes, of which class 0 is rare in the training set: its share of the pool.

    Chest X-rays of children, healthy or with pneumonia; else eights among scikit-learn's digits.
    """
    if root is not None:
        with np.load(root / "pneumonia_mnist" / "pneumoniamnist.npz") as file:
            parts = {name: torch.tensor(file[name]) for name in file}
        train, test = (
            TensorDataset(
                parts[f"{part}_images"][:, None] / 255 - 0.57, parts[f"{part}_labels"].view(-1).long()
            )
            for part in ("train", "val")  # the published test part is of another mix
        )
    else:
        x, y = _digits()
        y = (y != 8).long()
        train, test = TensorDataset(x[:1297], y[:1297]), TensorDataset(x[1297:], y[1297:])
    x, y = train.tensors
    few, many = (y == 0).nonzero()[:, 0], (y == 1).nonzero()[:, 0]
    kept = torch.cat([few[: round(len(many) * share / (1 - share))], many]).sort().values
    return TensorDataset(x[kept], y[kept]), test
