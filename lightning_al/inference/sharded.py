"""SHARDED: a module of which each process holds a part, and passes over it that all make in step.

Its weights are gathered, layer by layer, in every forward pass: a pass that one process makes all must make.
Those that have nothing to score make a pass over a batch that they have, and throw away what it gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import lightning as L
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor

from lightning_al.together import Ranks, together
from lightning_al.together.ranks import is_broken, text_of

try:
    from torch.distributed.fsdp import FSDPModule
except ImportError:  # before torch 2.6
    from torch.distributed._composable.fsdp import FSDPModule

__all__ = ["FSDPModule", "InStep", "is_sharded", "is_wrapped", "reshard", "root_of"]

#: What a process says before it goes on; the largest of what all say holds.
_DONE, _PASS, _JUDGED, _FAILED = range(4)


def is_sharded(module: nn.Module) -> bool:
    """Whether a forward pass of the module speaks to other processes: FSDP, of either kind, or DTensors."""
    return is_wrapped(module) or any(
        isinstance(part, FSDPModule) or any(isinstance(p, DTensor) for p in part._parameters.values())
        for part in module.modules()
    )


def is_wrapped(module: nn.Module) -> bool:
    """Whether parts of it are in `FullyShardedDataParallel`, the older FSDP."""
    return any(isinstance(part, FullyShardedDataParallel) for part in module.modules())


def root_of(trainer: L.Trainer, module: nn.Module) -> nn.Module:
    """What is to be called for the module's weights to be whole: the older FSDP wraps it as a whole."""
    model = trainer.strategy.model
    return model if isinstance(model, FullyShardedDataParallel) else module


def reshard(module: nn.Module) -> None:
    """What a forward pass gathered is given back: the outermost part would keep it."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


class _StoppedError(BaseException):
    """Another process failed; no `except Exception` of a model is to take it for an error of its own."""


class InStep:
    """Processes that make their passes over a sharded module together, however many each needs.

    Before each pass a process says that it wants one; one that wants none makes it all the same, as long as
    others do. So nothing needs to be known of how many blocks, samples or passes another one has.

    What goes wrong between two passes ends all processes with the message. What goes wrong inside of a pass
    cannot: the others are in it already, wait for this one's part of the weights, and would take whatever
    it sent them for that. It is printed at once and raised; the others end when this process does.

    Args:
        ranks: All of them.
        spare: Makes a pass whose results are dropped: a plain one, or one with predicted losses.
    """

    def __init__(self, ranks: Ranks, spare: Callable[[bool], None]) -> None:
        self.ranks, self._spare = ranks, spare
        self._inside = False

    @contextmanager
    def together(self, what: str) -> Iterator[None]:
        """As `lightning_al.together.together`, around passes in step.

        Raises:
            Exception: What this rank raised.
            RuntimeError: If another rank failed between two passes; the message says which and why.
        """
        failure: BaseException | None = None
        try:
            yield
        except _StoppedError:
            pass
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            if self._inside:
                self._alone(what, error)
                raise
            failure = error
            self.ranks.announce(error, what)
            if not is_broken(error):
                with suppress(RuntimeError):  # this rank's own error is what it ends with
                    self._say(_FAILED)
        with together(self.ranks, what):
            if failure is not None:
                raise failure

    def _alone(self, what: str, error: BaseException) -> None:
        """An error where the others cannot be met: that of a broken pass may be the fault of another rank.

        Raises:
            RuntimeError: If so, with what that one left.
        """
        text = self.ranks.heard() if isinstance(error, RuntimeError) else None
        if text is not None:
            raise RuntimeError(text) from error
        where = f"{what} failed on rank {self.ranks.rank}, in a pass of a sharded module"
        self.ranks.leave(f"{where}; the other processes end with this one. {text_of(error)}")

    @contextmanager
    def turn(self, *, judged: bool = False) -> Iterator[None]:
        """Around one pass of this rank's own, with predicted losses or without."""
        self._wait(_JUDGED if judged else _PASS)
        self._inside = True
        yield
        self._inside = False

    def rest(self) -> None:
        """This rank has no pass to make; it makes those of the others, until they have none either."""
        self._wait(_DONE)

    def _wait(self, wanted: int) -> None:
        # Whatever looks at the functions of a pass is not to see these.
        with torch._C.DisableTorchFunction():
            while (now := self._say(wanted)) != wanted:
                if now == _FAILED:
                    raise _StoppedError
                self._inside = True
                self._spare(now == _JUDGED)
                self._inside = False

    def _say(self, what: int) -> int:
        said = torch.tensor([what], device=self.ranks.device)
        with self.ranks.unbroken():
            dist.all_reduce(said, dist.ReduceOp.MAX, group=self.ranks.group)
        return int(said)
