"""ALONE: a run of one process, whatever number it was given by who started it.

The tasks of a SLURM sweep are numbered like the ranks of one run, and Lightning takes the number for a rank
when it is imported. Strategies of several processes correct it; that of one device does not.
"""

from __future__ import annotations

import lightning as L
import torch.distributed as dist
from lightning.pytorch.utilities.rank_zero import rank_zero_only

__all__ = ["take_rank_of"]


def take_rank_of(trainer: L.Trainer) -> None:
    """What is done by rank 0 only is done by this process, if the Trainer is one of a single process.

    That is the ledger and weights, and Lightning's own loggers and messages.
    """
    met = dist.is_available() and dist.is_initialized()
    if trainer.world_size == 1 and not met:
        rank_zero_only.rank = trainer.global_rank  # type: ignore[attr-defined]
