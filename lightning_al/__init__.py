"""Active learning for PyTorch Lightning: train, ask which samples are worth labelling, label, train again.

One round, and where it happens:

    1 POOL        data/         ActiveDataModule: labelled, asked, ignored, or still to choose
    2 INFERENCE   inference/    one pass over this rank's blocks, for what the strategy needs
    3 SUMMARY     acquisition/  what is kept of each sample
    4 SELECTION   acquisition/  from all ranks' summaries to `query_size` positions; its maths: functional/
    5 LABELLING   data/         the query is on disk first, then its labels; only then training goes on

`callbacks/` (the query at the end of fit), `rounds.py` (a fresh Trainer a round; `fitting/`: one fit of it)
and `querying.py` (no fit at all) join them. `learning_loss/` teaches a module to predict its loss,
`plotting/` draws what came of it, `metrics.py` judges it.
"""

from lightning_al import acquisition, functional
from lightning_al.callbacks import ActiveLearning
from lightning_al.data import ActiveDataModule, AwaitingLabels, Ledger, LedgerError
from lightning_al.history import History
from lightning_al.inference import Committee, MCDropout, SinglePass
from lightning_al.learning_loss import LearningLossMixin, LearningLossOptions
from lightning_al.querying import Query, query
from lightning_al.rounds import fit_rounds

__version__ = "0.1.0"

__all__ = [
    "ActiveDataModule",
    "ActiveLearning",
    "AwaitingLabels",
    "Committee",
    "History",
    "LearningLossMixin",
    "LearningLossOptions",
    "Ledger",
    "LedgerError",
    "MCDropout",
    "Query",
    "SinglePass",
    "acquisition",
    "fit_rounds",
    "functional",
    "query",
]
