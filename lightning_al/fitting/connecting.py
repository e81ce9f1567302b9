"""CONNECTING: processes meet before anything is looked at that only one of them may see.

a Trainer -> its launcher and strategy -> a process group; until then, who is rank 0 is a guess
"""

from __future__ import annotations

import os
import signal

import lightning as L
import torch.distributed as dist
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher, _SubprocessScriptLauncher
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_al.data.alone import take_rank_of

__all__ = ["connect", "connected", "may_be_one_of_several"]

#: What torchrun, SLURM, MPI and Lightning itself tell the processes that they start.
_TOLD = (
    "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_ADDR", "SLURM_PROCID",
    "JSM_NAMESPACE_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK",
)  # fmt: skip


def connected() -> bool:
    """Whether this process is in a process group already."""
    return dist.is_available() and dist.is_initialized()


def may_be_one_of_several() -> bool:
    """Whether somebody started this process who may have started others too; a Trainer knows."""
    return any(name in os.environ for name in _TOLD)


def connect(trainer: L.Trainer) -> bool:
    """Start the other processes, unless somebody did, and meet them all.

    Returns:
        Whether there are others. Those of "ddp_spawn" and "ddp_fork" live as long as a fit.

    Raises:
        MisconfigurationException: If they would end with each fit on machines that go on without them.
    """
    take_rank_of(trainer)
    strategy, launcher = trainer.strategy, trainer.strategy.launcher
    if isinstance(launcher, _MultiProcessingLauncher) and trainer.num_nodes > 1:
        raise MisconfigurationException(
            f"The Trainer has {trainer.num_nodes} nodes and a strategy whose processes end with each fit, so "
            'that nodes could not tell each other what was asked for. Use `strategy="ddp"` in `make_trainer`.'
        )
    # These have no launcher in processes that are there already.
    is_there = launcher is None and isinstance(strategy, FSDPStrategy | ModelParallelStrategy)
    if trainer.world_size == 1 or not (is_there or isinstance(launcher, _SubprocessScriptLauncher)):
        return False
    if isinstance(strategy, ModelParallelStrategy):  # it shows its mesh to a module, which a fit brings
        strategy.connect(L.LightningModule())
    if launcher is None:
        strategy.setup_environment()
        return True
    try:
        launcher.launch(strategy.setup_environment, trainer=trainer)
    except BaseException:
        launcher.kill(getattr(signal, "SIGKILL", signal.SIGTERM))
        raise
    return True
