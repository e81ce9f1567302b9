"""The script of every guide, run from first line to last at a tiny size."""

import importlib
import importlib.util
import re

import numpy as np
import pytest
import torch
from distributed.launch import still_there

from .scripts import EXAMPLES, published_files, rows, run, side_by_side, started, table, uses

SMALL = ("--rounds", "1", "--query-size", "6")
TEXTS = [("who is it ?", "HUM:ind"), ("where is it now ?", "LOC:city"), ("how far ?", "NUM:dist")]


def images_on_files(folder):
    home = published_files(folder, "fashion_mnist")
    return run("images", folder, *SMALL, "--epochs", "1", "--data-root", home)


def text_on_files(folder):
    home = folder.parent / "data" / "trec"
    home.mkdir(parents=True)
    for part, times in (("train", 10), ("test", 3)):
        lines = [f"{label} {text} {n}" for n in range(times) for text, label in TEXTS]
        (home / f"TREC.{part}").write_text("\n".join(lines) + "\nDESC:def caf\xe9 ?\n", encoding="latin-1")
    return run("text", folder, *SMALL, "--epochs", "1", "--data-root", str(home.parent))


def regression_on_files(folder):
    home = folder.parent / "data" / "regression"
    home.mkdir(parents=True)
    draw = np.random.default_rng(0)
    x, tested = draw.normal(size=(60, 3)), np.zeros((60, 10), bool)
    tested[:15] = True
    np.savez(home / "regression.npz", concrete_x=x, concrete_y=x.sum(1), concrete_test_mask=tested)
    return run("regression", folder, *REGRESSION, "--data-root", str(home.parent))


def imbalanced_on_files(folder):
    home = folder.parent / "data" / "pneumonia_mnist"
    home.mkdir(parents=True)
    draw, arrays = np.random.default_rng(0), {}
    for part, few, many in (("train", 40, 190), ("val", 10, 20)):
        arrays[f"{part}_images"] = draw.integers(0, 256, (few + many, 28, 28), dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(few + many) >= few).astype(np.uint8)[:, None]
    np.savez(home / "pneumoniamnist.npz", **arrays)
    options = ["--strategy", "Random", "--data-root", str(home.parent)]
    return run("imbalanced", folder, *SMALL, "--steps", "2", *options)


def on_two_processes(folder):
    """What it says, and the processes that it left behind."""
    options = ["--devices", "2", "--accelerator", "cpu", "--epochs", "1", "--state-dir", str(folder)]
    process = started("multi_gpu", folder, *SMALL, *options)
    try:
        said, _ = process.communicate(timeout=600)
        left = still_there(process.pid)
    finally:
        process.end()
    assert process.returncode == 0, said
    return said, left


REGRESSION = ("--rounds", "1", "--query-size", "5", "--seeds", "1", "--steps", "5", "--members", "2")
SEGMENTATION = ("--rounds", "1", "--query-size", "6", "--steps", "4", "--pool", "40")
HAS_TRANSFORMERS = importlib.util.find_spec("transformers") is not None
JOBS = {
    "two processes": on_two_processes,
    "images": lambda folder: run("images", folder, *SMALL, "--epochs", "1", "--strategy", "BADGE"),
    "images of files": images_on_files,
    "text": lambda folder: run("text", folder, *SMALL, "--epochs", "1", "--strategy", "BALD"),
    "text of files": text_on_files,
    "numbers": lambda folder: run("regression", folder, *REGRESSION),
    "numbers of files": regression_on_files,
    "masks": lambda folder: run("segmentation", folder, *SEGMENTATION, "--reduction", "worst"),
    "masks by passes": lambda folder: run("segmentation", folder, *SEGMENTATION, "--strategy", "BALD"),
    "a rare class": lambda folder: run("imbalanced", folder, *SMALL, "--steps", "4"),
    "a rare class of files": imbalanced_on_files,
}
if HAS_TRANSFORMERS:
    BERT = (*SMALL, "--steps", "2", "--strategy", "BALD")
    JOBS["transformers"] = lambda folder: run("hugging_face", folder, *BERT)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, request):
    with side_by_side(JOBS, tmp_path_factory.mktemp("guides"), request) as found:
        yield found


@pytest.fixture
def example(monkeypatch):
    """A script as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


def strategies(folder):
    return rows(folder, "SELECT DISTINCT strategy FROM events WHERE kind = 'asked' AND round > 0")


def asked(folder):
    found = rows(folder, "SELECT sample FROM events WHERE kind = 'asked' AND round > 0 ORDER BY rank")
    return [sample for (sample,) in found]


@uses("images", "images of files")
def test_images_train_with_augmentation_and_are_scored_without(runs, example):
    for name, strategy in (("images", "BADGE"), ("images of files", "Margin")):
        said, folder = runs(name)
        assert table(said) == [(0, 6, 6), (1, 12, 0)]
        assert strategies(folder)[0][0].startswith(strategy)
        assert "fetched twice" not in said, "the pool is scored with augmentation"
    torch.manual_seed(0)
    plain = torch.utils.data.TensorDataset(torch.rand(2, 1, 8, 8), torch.tensor([3, 4]))
    augmented = example("images").Augmented(plain, pixels=1, mirror=False)
    drawn = [augmented[1] for _ in range(200)]
    assert {(tuple(x.shape), int(y)) for x, y in drawn} == {((1, 8, 8), 4)}
    assert len({x.numpy().tobytes() for x, _ in drawn}) == 9, "one pixel either way, or none, in both axes"


@uses("text", "text of files")
def test_text_asks_for_questions_and_shows_the_most_wanted(runs, example):
    module = example("text")
    for name, strategy in (("text", "BALD"), ("text of files", "Margin")):
        said, folder = runs(name)
        assert table(said) == [(0, 6, 6), (1, 12, 0)]
        assert strategies(folder)[0][0].startswith(strategy)
        root = None if name == "text" else folder.parent / "data"
        text, label = module.questions(root)[0][asked(folder)[0]]
        assert f"round 1, most wanted: {text!r} ({module.QUESTIONS[label]})" in said


def test_padding_changes_nothing_that_the_transformer_says_of_a_text(example):
    module = example("text")
    torch.manual_seed(0)
    model = module.Transformer(words=20, classes=3).eval()
    items = [{"tokens": torch.arange(2, 2 + length), "label": 0} for length in (3, 9)]
    together, alone = module.collate(items), module.collate(items[:1])
    assert together["tokens"].shape == (2, 9)
    with torch.no_grad():
        both = model(together["tokens"], together["attention_mask"])
        torch.testing.assert_close(both[:1], model(alone["tokens"], alone["attention_mask"]))


@uses("numbers", "numbers of files")
def test_regression_compares_variances_with_random_draws(runs):
    for name in ("numbers", "numbers of files"):
        said, folder = runs(name)
        errors = re.findall(r"^(5|10)" + r" +([\d.]+)" * 4 + "$", said, re.MULTILINE)
        assert [labels for labels, *_ in errors] == ["5", "10"]
        assert "test_rmse, lower is better" in said
        kept = {path.parent.parent.name: path.parent for path in folder.glob("*/seed_0/ledger.sqlite3")}
        found = {name: strategies(place)[0][0] for name, place in kept.items()}
        assert sorted(text.split("(")[0] for text in found.values()) == [
            "PowerSampling", "PredictiveVariance", "PredictiveVariance", "Random",
        ]  # fmt: skip
        assert any("Committee(size=2)" in text for text in found.values())


def test_the_regressor_learns_the_scale_of_the_labels_it_has(example):
    module = example("regression")
    y = torch.tensor([[100.0], [300.0]])
    model = module.Regressor(inputs=3)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(2, 3), y))
    L = module.L
    L.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False,
    ).fit(model, loader)  # fmt: skip
    assert model.state_dict()["mean"] == 200
    assert model.state_dict()["scale"] == y.std()


@uses("masks", "masks by passes")
def test_segmentation_scores_whole_images_and_counts_the_crosses_it_asked_for(runs, example):
    crosses = (example("segmentation").shapes(40, seed=0).tensors[1] == 3).any(2).any(1)
    for name, strategy in (("masks", "Entropy(multilabel=False, reduction="), ("masks by passes", "BALD")):
        said, folder = runs(name)
        assert table(said, metrics=2) == [(0, 6, 6), (1, 12, 0)]
        assert strategies(folder)[0][0].startswith(strategy)
        assert f"among those asked for: {int(crosses[asked(folder)].sum())} of 6" in said
    assert "worst_twentieth" in strategies(runs("masks")[1])[0][0]


def test_the_worst_twentieth_of_an_image_leaves_out_what_does_not_count(example):
    scores = torch.arange(40.0).repeat(2, 1)
    counted = torch.ones(2, 40, dtype=torch.bool)
    counted[1, -10:] = False
    found = example("segmentation").worst_twentieth(scores, counted)
    assert found.tolist() == [38.5, 28.5]


@uses("a rare class", "a rare class of files")
def test_a_rare_class_is_in_the_first_labels_and_counted_among_those_asked_for(runs, example):
    for name, pool in (("a rare class", None), ("a rare class of files", "data")):
        said, folder = runs(name)
        assert table(said, metrics=2) == [(0, 6, 6), (1, 12, 0)]
        classes = example("data_sets").rare(None if pool is None else folder.parent / pool)[0].tensors[1]
        first = rows(folder, "SELECT sample FROM events WHERE kind = 'labeled' AND round = 0")
        assert sorted(int(classes[sample]) for (sample,) in first) == [0, 0, 0, 1, 1, 1]
        rare = int((classes[asked(folder)] == 0).sum())
        assert (
            f": {int((classes == 0).sum())} of {len(classes)} in the pool, {rare} of the 6 asked for" in said
        )
        assert (classes == 0).float().mean() == pytest.approx(0.05, abs=0.005)
    assert strategies(runs("a rare class")[1])[0][0].startswith("ClassBalanced")


@pytest.mark.skipif(not HAS_TRANSFORMERS, reason="transformers is not installed")
@uses("transformers")
def test_a_model_of_hugging_face_is_asked_as_it_is(runs):
    said, folder = runs("transformers")
    assert table(said) == [(0, 6, 6), (1, 12, 0)]
    assert "drop in training mode only" not in said, "its attention does not drop in the passes"
    assert strategies(folder)[0][0].startswith("BALD")
    scores = rows(folder, "SELECT score FROM events WHERE kind = 'asked' AND round > 0")
    assert all(score > 0 for (score,) in scores)


@pytest.mark.distributed
@uses("two processes")
def test_two_processes_ask_each_sample_once_say_it_once_and_end(runs):
    (said, left), folder = runs("two processes")
    assert table(said) == [(0, 20, 6), (1, 26, 0)]
    assert len(set(asked(folder))) == 6
    assert left == []
