"""THREADS: one is taken where more would wait for ever.

After a fork the threads that the parent's torch and FAISS had are gone, and what is shared among them is
never done (docs/faiss.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["one_thread_after_fork"]

_PROCESS = os.getpid()


@contextmanager
def one_thread_after_fork() -> Iterator[None]:
    """In a process forked from the one that imported this: one thread for the block. A decorator, too."""
    threads = torch.get_num_threads()
    if os.getpid() == _PROCESS or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
