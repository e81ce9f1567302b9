"""5 LEDGER: what was asked, answered and labelled, on disk; no torch, no Lightning, no data set needed.

    ask, label, ... -> [Ledger] -> ledger.sqlite3 -> [PoolState]

ledger.py       the SQLite file; connection.py how it is opened; schema.py its tables; owner.py who may write
state.py        what the events amount to; indices.py places in the data set
label_values.py what may be a label, and how it is written down
waiting.py      how a run ends that waits for people
"""

from lightning_al.ledger.connection import LedgerError
from lightning_al.ledger.ledger import Ledger
from lightning_al.ledger.schema import Event
from lightning_al.ledger.state import PoolState
from lightning_al.ledger.waiting import AwaitingLabels

__all__ = ["AwaitingLabels", "Event", "Ledger", "LedgerError", "PoolState"]
