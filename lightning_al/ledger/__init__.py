"""5 LEDGER: what was asked, answered and labelled, on disk; no torch, no Lightning, no data set needed.

    ask, label, undo, ... -> [Book] -> Ledger (ledger.sqlite3) -> PoolState

book.py         every change: the ledger first, then the state in memory; record.py what is looked up
ledger.py       the SQLite file; connection.py how it is opened; schema.py its tables, statements.py what is
                asked of them; owner.py who may write
chain.py        the digests that show what was changed
state.py        what the events amount to; indices.py, names.py where a sample is
trail.py        what happened to one sample; what taking back a change gives
answer.py       what an annotator says; intake.py how it is held against the record
kind.py         what a label must be like; label_values.py how it is written down
waiting.py      what waits for labels, and how a run ends that waits
"""

from lightning_al.ledger.answer import Answer, Opinion
from lightning_al.ledger.book import Book
from lightning_al.ledger.connection import LedgerError
from lightning_al.ledger.ledger import Ledger
from lightning_al.ledger.schema import Event
from lightning_al.ledger.state import PoolState
from lightning_al.ledger.waiting import AwaitingLabels, Waiting

__all__ = [
    "Answer",
    "AwaitingLabels",
    "Book",
    "Event",
    "Ledger",
    "LedgerError",
    "Opinion",
    "PoolState",
    "Waiting",
]
