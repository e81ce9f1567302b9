"""TOGETHER: what several processes do as one, and how what fails on one of them fails on all.

failing.py     `together`: a block that ends on every rank if it fails on one
ranks.py       the ranks of a process group, and the exchanges in which they meet
headers.py     what each brings to an exchange, and what is wrong if that differs
word.py        what a rank that failed leaves for those that are in no exchange
agreement.py   rank 0's answer for all, everybody's answers for all, settings that must not differ
files.py       a file of rank 0's disk on every rank
leaving.py     the process group is closed before the interpreter ends

A rank that fails prints its error, leaves it in the process group's store and comes to the next exchange of
the others, whichever that is. There all learn of it at once; and where they are in none, or it broke, from
the store. Each ends with its own error, or with "... failed on rank 1: " and that of the first that failed.
"""

from lightning_al.together.agreement import agree, gathered, same_on_every_rank, shared
from lightning_al.together.failing import together
from lightning_al.together.files import on_every_rank
from lightning_al.together.leaving import close_at_exit, leave_open
from lightning_al.together.ranks import Ranks, ranks_of

__all__ = [
    "Ranks", "agree", "close_at_exit", "gathered", "leave_open", "on_every_rank", "ranks_of",
    "same_on_every_rank", "shared", "together",
]  # fmt: skip
