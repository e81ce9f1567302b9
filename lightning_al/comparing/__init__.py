"""COMPARING: strategies against each other, with the same beginnings, by what a few seeds allow to be said.

    strategies x seeds -> runs, side by side -> ledgers -> one table -> Comparison: summary, tests, plots

driver.py      compare: what is asked for, what is missing, and its progress
arguments.py   what it is given, checked
run.py         one run, from its data to its last round
processes.py   runs side by side in processes of their own; none is left behind
settings.py    where a comparison's runs are, and what they were made with
starts.py      that all strategies began with the same labels and weights
training.py    that all were trained and tested alike, as far as it shows
table.py       ledgers -> one row a round, and the classes of its labels
statistics.py  quantiles, bootstrap, exact tests, penalty matrix
summary.py     one row a strategy
telling.py     a summary as text
penalties.py   which strategy is beaten by which
rows.py        the table of all runs, and the classes of their labels
comparison.py  Comparison: that table, and what may be said of it

Reading a comparison needs neither torch nor Lightning; only `compare` itself does.
"""

from typing import TYPE_CHECKING

from lightning_al.comparing.comparison import Comparison
from lightning_al.comparing.penalties import Penalties
from lightning_al.comparing.settings import FailedRun, FailedRunsError
from lightning_al.comparing.summary import ComparisonSummary

if TYPE_CHECKING:
    from lightning_al.comparing.driver import compare

__all__ = ["Comparison", "ComparisonSummary", "FailedRun", "FailedRunsError", "Penalties", "compare"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name != "compare":
            raise AttributeError(f"module 'lightning_al.comparing' has no attribute {name!r}")
        from lightning_al.comparing.driver import compare

        globals()[name] = compare
        return compare
