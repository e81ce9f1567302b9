"""Active learning for PyTorch Lightning: train, ask which samples are worth labelling, label, train again.

One round, and where it happens:

    1 POOL        data/         ActiveDataModule: labelled, asked, ignored, or still to choose
    2 INFERENCE   inference/    one pass over this rank's blocks, for what the strategy needs
    3 SUMMARY     acquisition/  what is kept of each sample
    4 SELECTION   acquisition/  from all ranks' summaries to `query_size` positions; its maths: functional/
    5 LABELLING   data/         the query is on disk first, then its labels; only then training goes on
                  ledger/       the file that all of it is in; exchange/ queries out to people, answers in
    on several processes: together/  what one finds out all know, and what fails on one fails on all

`callbacks/` (the query at the end of fit), `rounds.py` (a fresh Trainer a round; `fitting/`: one fit of it)
and `querying.py` (no fit at all) join them. `stopping/` says when another label is not worth it,
`learning_loss/` teaches a module to predict its loss, `plotting/` draws what came of it, `metrics/` judges
it, and `comparing/` runs strategies against each other.

Names are looked up when they are first used: `ledger/` and `exchange/` work without torch and Lightning.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_al import acquisition, functional
    from lightning_al.callbacks import ActiveLearning, ClassBalance
    from lightning_al.comparing import Comparison, compare
    from lightning_al.data import ActiveDataModule
    from lightning_al.history import History
    from lightning_al.inference import Committee, MCDropout, SinglePass
    from lightning_al.learning_loss import LearningLossMixin, LearningLossOptions
    from lightning_al.ledger import AwaitingLabels, Ledger, LedgerError
    from lightning_al.querying import Query, query
    from lightning_al.reaching import labels_to_target
    from lightning_al.rounds import fit_rounds
    from lightning_al.stopping import Plateau, StablePredictions, TargetMetric

__version__ = "0.1.0"

__all__ = [
    "ActiveDataModule",
    "ActiveLearning",
    "AwaitingLabels",
    "ClassBalance",
    "Committee",
    "Comparison",
    "History",
    "LearningLossMixin",
    "LearningLossOptions",
    "Ledger",
    "LedgerError",
    "MCDropout",
    "Plateau",
    "Query",
    "SinglePass",
    "StablePredictions",
    "TargetMetric",
    "acquisition",
    "compare",
    "fit_rounds",
    "functional",
    "labels_to_target",
    "query",
]

_PLACES = {
    "ActiveDataModule": "data",
    "ActiveLearning": "callbacks",
    "AwaitingLabels": "ledger",
    "ClassBalance": "callbacks",
    "Committee": "inference",
    "Comparison": "comparing",
    "History": "history",
    "LearningLossMixin": "learning_loss",
    "LearningLossOptions": "learning_loss",
    "Ledger": "ledger",
    "LedgerError": "ledger",
    "MCDropout": "inference",
    "Plateau": "stopping",
    "Query": "querying",
    "SinglePass": "inference",
    "StablePredictions": "stopping",
    "TargetMetric": "stopping",
    "compare": "comparing",
    "fit_rounds": "rounds",
    "labels_to_target": "reaching",
    "query": "querying",
}
_MODULES = (
    "acquisition", "callbacks", "comparing", "data", "exchange", "fitting", "functional", "history",
    "inference", "learning_loss", "ledger", "metrics", "plotting", "querying", "randomness", "reaching",
    "rounds", "stopping",
)  # fmt: skip

if not TYPE_CHECKING:  # else every name would seem to exist

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name in _MODULES:
            return import_module(f"lightning_al.{name}")
        if name not in _PLACES:
            raise AttributeError(f"module 'lightning_al' has no attribute {name!r}")
        value = getattr(import_module(f"lightning_al.{_PLACES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_MODULES})
