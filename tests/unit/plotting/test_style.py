"""What holds for every figure."""

import builtins
import math

import pytest
import torch
from matplotlib.colors import to_hex

from lightning_al import labels_to_target
from lightning_al.plotting import class_balance, learning_curves, selected_samples
from unit.plotting.runs import SEEDS, lines_of


def test_a_strategy_has_the_same_colour_in_curves_and_balance():
    names = ["Random", "Margin", "Entropy"]
    lines = lines_of(learning_curves(dict.fromkeys(names, SEEDS), "test_acc").axes[0])
    panels = class_balance({name: [1, 1] for name in names}).axes
    for name, ax in zip(names, panels, strict=True):
        assert to_hex(ax.patches[0].get_facecolor()) == to_hex(lines[name].get_color())


def test_figures_are_written_without_a_display(tmp_path):
    learning_curves(
        {"Random": SEEDS, "Margin": SEEDS}, "test_acc", target=0.5, saving=("Margin", "Random")
    ).savefig(tmp_path / "curves.png")
    class_balance({"Random": [1, 2]}, pool=[1, 1]).savefig(tmp_path / "balance.png")
    selected_samples(torch.rand(7, 8, 8), [0.5] * 7, heading="first").savefig(tmp_path / "first.png")
    assert all(path.stat().st_size > 5_000 for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 3


def test_missing_matplotlib_is_told_with_the_way_out(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for draw in (
        lambda: learning_curves({"Margin": SEEDS}, "test_acc"),
        lambda: class_balance({"Margin": [1, 2]}),
        lambda: selected_samples(torch.ones(1, 8, 8), [0.5]),
    ):
        with pytest.raises(ModuleNotFoundError, match=r"needs matplotlib.*pip install lightning-al\[plot\]"):
            draw()
    assert labels_to_target(SEEDS[0], "test_acc", 0.9) == math.inf
