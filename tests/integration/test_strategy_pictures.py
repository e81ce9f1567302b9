"""A page and a picture a strategy; the pictures are drawn again at a tiny size."""

import os
import re
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data import TensorDataset
from warm import Started

from lightning_al import ActiveDataModule, MCDropout
from lightning_al import acquisition as acq

ROOT = Path(__file__).parents[2]
BASES = {"Selection", *(name for name in acq.__all__ if name.endswith("Acquisition"))}
STRATEGIES = sorted(set(acq.__all__) - BASES)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import strategy_pictures

    return strategy_pictures


def test_one_command_draws_a_picture_of_every_strategy(tmp_path):
    small = ["--members", "2", "--passes", "3", "--steps", "3", "--side", "9"]
    process = Started(
        ROOT / "examples" / "strategy_pictures.py",
        "--pictures",
        str(tmp_path / "pictures"),
        *small,
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
    )
    try:
        said, _ = process.communicate(timeout=600)
    finally:
        process.end()
    assert process.returncode == 0, said
    assert sorted(re.findall(r"^(\w+): \d+ of 10 from the clump", said, re.MULTILINE)) == STRATEGIES
    drawn = {path.name for path in tmp_path.rglob("*.png")}
    assert drawn == {f"strategy_{name.lower()}.png" for name in STRATEGIES}


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_has_a_page_with_its_picture_and_a_small_file_of_it(name):
    page = (ROOT / "docs" / "strategies" / f"{name.lower()}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {name}\n")
    picture = f"images/strategy_{name.lower()}.png"
    assert f"](../{picture})" in page
    assert (ROOT / "docs" / picture).stat().st_size < 60_000
    assert f"](strategies/{name.lower()}.md)" in (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")


def test_the_map_is_of_the_same_passes_as_the_query(script):
    x, classes, _ = script.points()
    net, trainer, bald = script.Net(), L.Trainer(**script.QUIET), acq.BALD(MCDropout(5))
    net.eval()
    data = ActiveDataModule(TensorDataset(x, classes), initial=[len(x) - 1])
    asked = script.scores_of(bald, net, data, trainer)
    mapped = script.scores_of(bald, net, script.pool_of(x), trainer)
    torch.testing.assert_close(torch.tensor(mapped[:-1]), torch.tensor(asked))


def test_numbers_stand_apart_from_each_other_and_from_what_they_are_of(script):
    x, _, group = script.points()
    asked = x[group == script.CLUMP][:10]
    places = torch.stack(script.places_of(asked, x[:5]))
    assert torch.pdist(places).min() > 0.41
    assert torch.cdist(places, asked).min() > 0.41
