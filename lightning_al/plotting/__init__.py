"""PLOTTING: what a run has shown, as figures.

curves.py     histories, or a comparison -> learning_curves: a metric against the number of labels
bracket.py    the mark on them of how many labels a strategy saved
penalties.py  a comparison -> penalty_matrix: which strategy is beaten by which
times.py      a comparison -> time_split: what a round's time goes into
balance.py    label counts, or a comparison -> class_balance: the classes of each strategy's labels
balance_by_round.py  label counts by round, or a comparison -> class_balance_by_round, and their entropy
embeddings.py embeddings and queries -> embedding_map: where in the pool a strategy asks
images.py     a query -> selected_samples: what was asked for, with its scores
logging.py    figures -> a Trainer's loggers: log_figure, and LogFigures at the end of every fit
given.py      what they are given, checked: strategies by name, histories, numbers
style.py      colours, calm axes, long names in lines, and a figure where none is given

Needs matplotlib (`pip install lightning-al[plot]`), which is imported by the first call that draws. Every
function takes the place to draw on, or makes a `Figure` of its own; none touches `pyplot` or its state.
"""

from typing import TYPE_CHECKING

from lightning_al.plotting.balance import class_balance
from lightning_al.plotting.balance_by_round import class_balance_by_round
from lightning_al.plotting.curves import learning_curves
from lightning_al.plotting.embeddings import embedding_map
from lightning_al.plotting.images import selected_samples
from lightning_al.plotting.penalties import penalty_matrix
from lightning_al.plotting.times import time_split

if TYPE_CHECKING:
    from lightning_al.plotting.logging import LogFigures, log_figure

__all__ = [
    "LogFigures",
    "class_balance",
    "class_balance_by_round",
    "embedding_map",
    "learning_curves",
    "log_figure",
    "penalty_matrix",
    "selected_samples",
    "time_split",
]

if not TYPE_CHECKING:  # a ledger is drawn without Lightning

    def __getattr__(name: str) -> object:
        if name not in ("LogFigures", "log_figure"):
            raise AttributeError(f"module 'lightning_al.plotting' has no attribute {name!r}")
        from lightning_al.plotting import logging

        return getattr(logging, name)
