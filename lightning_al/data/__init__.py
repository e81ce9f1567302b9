"""1 POOL and 5 LABELLING: the data module, the ledger, and what lies between them.

module.py    ActiveDataModule: loaders and hooks for Lightning
overview.py  its part that looks: what is where, what a training sees
labelling.py its part that changes: ask, label, correct, export and import
book.py      every change: the ledger first, then the state in memory
ledger.py    the SQLite file; connection.py how it is opened; schema.py its tables; owner.py who may write
identity.py  what a run is known by; fingerprint.py what a data set is known by
state.py     what the events amount to
samples.py   the data set behind one index
targets.py   where labels sit in an item; label_values.py what may be a label
exchange.py  queries out and answers in, as CSV
"""

from lightning_al.data.ledger import Ledger, LedgerError
from lightning_al.data.module import ActiveDataModule
from lightning_al.data.waiting import AwaitingLabels

__all__ = ["ActiveDataModule", "AwaitingLabels", "Ledger", "LedgerError"]
