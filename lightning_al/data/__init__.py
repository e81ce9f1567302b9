"""1 POOL and 5 LABELLING: the data module, and what lies between it and the ledger.

module.py    ActiveDataModule: loaders and hooks for Lightning
overview.py  its part that looks: what is where, what a training sees
labelling.py its part that changes: ask, label, correct, export and import
book.py      the ledger as the run knows it, with its data set and processes; snapshot.py a checkpoint of it
round_0.py   the events that it begins with; initial.py of which samples; state_dir.py a fresh folder
identity.py  what a run is known by; fingerprint.py what a data set is known by
samples.py   the data set behind one index
targets.py   where labels sit in an item

The ledger itself is in `lightning_al.ledger`, the files of annotators in `lightning_al.exchange`.
"""

from lightning_al.data.module import ActiveDataModule
from lightning_al.ledger import AwaitingLabels, Ledger, LedgerError

__all__ = ["ActiveDataModule", "AwaitingLabels", "Ledger", "LedgerError"]
