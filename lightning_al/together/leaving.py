"""LEAVING: the interpreter does not end while threads of the process group still hold its tensors.

Lightning leaves gloo's process group open. Gloo's threads let go of a tensor some time after the exchange is
over; one that does so while the interpreter ends aborts the process, and with it a run in which all went well
("terminate called without an active exception", https://github.com/pytorch/pytorch/pull/179291).
"""

from __future__ import annotations

import atexit
import gc
import sys
import time

import torch
import torch.distributed as dist

__all__ = ["close_at_exit", "leave_open"]

#: Seconds for threads of a group that something still refers to.
_GRACE = 0.1


def close_at_exit() -> None:
    """Close the group when the interpreter ends; for when nothing of it waits for other ranks any more."""
    leave_open()
    atexit.register(_close)


def leave_open() -> None:
    """Take that back: who fails in the middle of an exchange must not wait for the others when it ends."""
    atexit.unregister(_close)


def _close() -> None:
    if not (dist.is_available() and dist.is_initialized()) or dist.get_backend() != "gloo":
        return  # Lightning closes NCCL's
    if hasattr(sys, "last_type"):  # an error ends this process
        return
    gc.collect()  # a wrapped module, which no one needs, keeps its group
    if torch.__version__ >= "2.13":  # before, it may wait for others
        dist.destroy_process_group()
    time.sleep(_GRACE)
