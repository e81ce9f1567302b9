"""Histories as a run leaves them, and the curves drawn of them."""

from lightning_al import History


def history(*values, first=10, step=10, metric="test_acc"):
    return History(
        [{"round": r, "labeled": first + step * r, metric: value} for r, value in enumerate(values)]
    )


SEEDS = [history(0.1, 0.5, 0.9), history(0.2, 0.5, 0.6), history(0.3, 0.4, 0.7), history(0.4, 0.9, 0.8)]


def lines_of(ax):
    return {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}
