"""CHECKS: a fit that `ActiveLearning` cannot work with, in one message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any
from weakref import WeakSet

import lightning as L
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    SingleDeviceXLAStrategy,
    XLAStrategy,
)
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn
from torch.distributed.tensor import DTensor, Replicate, Shard

from lightning_al.data import ActiveDataModule
from lightning_al.inference.committee import Committee
from lightning_al.inference.mc_dropout import MCDropout
from lightning_al.inference.posteriors import Posterior, SinglePass
from lightning_al.inference.sharded import FSDPModule, is_sharded, is_wrapped, root_of

__all__ = [
    "advise_configure_model",
    "check_not_wrapped",
    "check_sharded",
    "check_strategy",
    "check_wrapped_once",
    "data_of",
    "no_step",
]

_KNOWN = (SingleDeviceStrategy, DDPStrategy, FSDPStrategy, ModelParallelStrategy)
#: Derived from those, and other than them: weights in another place, or processes with other duties.
_OTHER = (DeepSpeedStrategy, XLAStrategy, SingleDeviceXLAStrategy)
#: Modules that the older FSDP has wrapped.
_WRAPPED: WeakSet[nn.Module] = WeakSet()


def data_of(
    trainer: L.Trainer,
    why: str = "`ActiveLearning` needs to know what is labelled",
    otherwise: str = "`ActiveDataModule.from_datamodule` and `.from_dataloaders` make one of what you have",
) -> ActiveDataModule:
    """The data module of a fit.

    Args:
        trainer: Of the fit.
        why: It is needed, for the message.
        otherwise: What else helps.

    Raises:
        MisconfigurationException: If it is none of ours.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, ActiveDataModule):
        given = "plain data loaders" if data is None else f"a {type(data).__name__}"
        raise MisconfigurationException(
            f"{why}, but the fit was given {given}. Call `trainer.fit(model, datamodule=data)` with an "
            f"`ActiveDataModule`; {otherwise}."
        )
    return data


def no_step(trainer: L.Trainer) -> RuntimeError:
    """Of a fit that trained nothing."""
    return RuntimeError(
        f"The fit ended without a single training step (max_epochs={trainer.max_epochs}, "
        f"max_steps={trainer.max_steps}, training batches={trainer.num_training_batches}); a query would ask "
        "by an untrained model, so nothing was asked for. Raise these, or start without the checkpoint of a "
        "fit that had ended."
    )


def check_strategy(trainer: L.Trainer) -> None:
    """Refuse a strategy whose weights and processes are not known to be handled rightly.

    Raises:
        MisconfigurationException: If it is one.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, _KNOWN) or isinstance(strategy, _OTHER):
        raise MisconfigurationException(
            f"The Trainer has a `{type(strategy).__name__}`, under which `ActiveLearning` does not know how "
            "to put weights back and to score the pool. Use one device, `ddp`, `ModelParallelStrategy` or "
            "`fsdp`."
        )


def check_sharded(
    trainer: L.Trainer,
    module: L.LightningModule,
    *,
    posterior: Posterior,
    needs: Sequence[str],
    restart: str,
    drawn: bool,
    score_with: str,
    test_posterior: Posterior | None,
) -> None:
    """Refuse what cannot be done where each process holds a part of the module.

    Args:
        trainer: Of the fit.
        module: After `configure_model`.
        posterior: Of the acquisition.
        needs: What that is to give.
        restart: What a round begins with.
        drawn: The module is fresh from a function.
        score_with: Whether the best checkpoint is scored.
        test_posterior: What tests are to average.

    Raises:
        MisconfigurationException: If something of it cannot be done.
    """
    root = root_of(trainer, module)
    if not is_sharded(root):
        if isinstance(trainer.strategy, ModelParallelStrategy) and trainer.world_size > 1:
            raise MisconfigurationException(
                "`ModelParallelStrategy` has a module of which nothing is sharded, so that each process "
                "would train one of its own. Call `fully_shard(self.net)` in `configure_model`, or use `ddp`."
            )
        return
    for what in (posterior, test_posterior):
        if isinstance(what, Committee) and (what.trains or not _given_whole(what)):
            raise MisconfigurationException(
                f"{what!r} needs copies of the module, but it is sharded: each process holds a part. Give "
                "trained modules that are not, `Committee(models=[...])`, use `MCDropout()`, or train with "
                "`ddp`."
            )
    if test_posterior is not None and not isinstance(test_posterior, SinglePass):
        raise MisconfigurationException(
            f"`test_posterior={test_posterior!r}` cannot be tested on a sharded module, whose processes must "
            "make as many passes. Leave it out."
        )
    if is_wrapped(root):
        _check_wrapped(trainer, posterior, needs, restart, drawn, score_with)
    else:
        _check_parts(trainer, module)


def check_wrapped_once(
    trainer: L.Trainer, module: L.LightningModule, *, loops: bool, made: bool, tests: Callable[[], bool]
) -> None:
    """Refuse to have a module wrapped twice by the older FSDP, which would cut up its parts again.

    Args:
        trainer: Of the fit.
        module: As the Trainer was given it.
        loops: `fit_rounds` goes on with further fits.
        made: Each of them has a fresh module.
        tests: Whether it tests after each.

    Raises:
        MisconfigurationException: If this fit or a later one would.
    """
    if root_of(trainer, module) is module:
        return
    if loops and not made:
        raise MisconfigurationException(
            "The Trainer's strategy is `fsdp`, which wraps the module anew in every fit, but all rounds were "
            "given the same one. Give `fit_rounds` a function from a seed to a fresh module, or use "
            "`ModelParallelStrategy` with `fully_shard`."
        )
    if loops and tests():
        raise MisconfigurationException(
            "The Trainer's strategy is `fsdp`, which wraps the module anew for a test, but it is wrapped "
            "from the fit already. Leave the test set out, and test a checkpoint of the round by itself; or "
            "use `ModelParallelStrategy` with `fully_shard`."
        )
    _WRAPPED.add(module)


def check_not_wrapped(module: L.LightningModule) -> None:
    """Refuse a module that an earlier fit has left wrapped.

    Raises:
        MisconfigurationException: If it is one.
    """
    if module in _WRAPPED:
        raise MisconfigurationException(
            "The module was wrapped by `fsdp` in an earlier fit, and the Trainer would do so again. Loop "
            "with `fit_rounds` and a function from a seed to a fresh module, or use `ModelParallelStrategy` "
            "with `fully_shard`."
        )


def _given_whole(committee: Committee) -> bool:
    members = committee._members or ()
    return all(isinstance(member, nn.Module) and not is_sharded(member) for member in members)


def _check_wrapped(
    trainer: L.Trainer, posterior: Posterior, needs: Sequence[str], restart: str, drawn: bool, score_with: str
) -> None:
    """The older FSDP keeps its weights in one flat row, and gathers them outside of what can be seen."""
    what, instead = "", "`ModelParallelStrategy` with `fully_shard`, or `ddp`"
    if isinstance(posterior, MCDropout):
        what = f"{posterior!r}"
    elif "predicted_loss" in needs:
        what = "predicted losses"
    elif restart == "shrink_perturb" or (restart == "redraw" and not drawn):
        what, instead = f"`restart={restart!r}`", f'`restart="initial"` or "warm"; or {instead}'
    elif score_with == "best" and getattr(trainer.strategy, "_state_dict_type", "full") == "sharded":
        what, instead = '`score_with="best"` of sharded checkpoints', '`FSDPStrategy(state_dict_type="full")`'
    if what:
        raise MisconfigurationException(
            f"The Trainer's strategy is `fsdp`, under which there is no {what}. Use {instead}."
        )


def _check_parts(trainer: L.Trainer, module: nn.Module) -> None:
    """All processes hold a part of each weight, and see samples of their own."""
    inside = {id(p) for part in module.modules() if isinstance(part, FSDPModule) for p in part.parameters()}
    plain = []
    for name, p in module.named_parameters():
        if not isinstance(p, DTensor):
            plain += [name] if p.requires_grad else []
            continue
        *outer, last = p.placements
        names = p.device_mesh.mesh_dim_names or ()
        split = (
            id(p) in inside and all(isinstance(one, Replicate) for one in outer) and isinstance(last, Shard)
        )
        if p.device_mesh.size() != trainer.world_size or not split or "tensor_parallel" in names:
            raise MisconfigurationException(
                f"The weight {name!r} is laid out as {p.placements} over {p.device_mesh}, but each of the "
                f"{trainer.world_size} processes trains and scores samples of its own, which tensor "
                "parallelism does not. Use `ModelParallelStrategy(data_parallel_size="
                f"{trainer.world_size}, tensor_parallel_size=1)` and `fully_shard(self.net, "
                'mesh=self.device_mesh["data_parallel"])`, or `ddp`.'
            )
    if plain and trainer.world_size > 1:
        rank_zero_warn(
            f"The weights {plain[:5]} are not sharded, so nothing makes them the same on all processes, and "
            "the query may be by several models. Put them into `fully_shard` too, in `configure_model`."
        )


def advise_configure_model(module: L.LightningModule) -> None:
    """Should `configure_model` fail on a module that is sharded already, its error says what to do.

    The Trainer calls it next, in every fit and test.
    """
    if not is_sharded(module) or not is_overridden("configure_model", module):
        return
    own: Callable[[], Any] = module.configure_model
    before = vars(module).get("configure_model")

    @wraps(own)
    def configure_model() -> Any:
        if before is None:
            del module.configure_model
        else:
            module.configure_model = before  # type: ignore[method-assign]
        try:
            return own()
        except Exception as error:
            error.add_note(
                f"`{type(module).__name__}.configure_model` is called before every fit and test, and the "
                "module is sharded from the last one already. Let it begin with `if isinstance(self.net, "
                "FSDPModule): return`, or give `fit_rounds` a function from a seed to a fresh module."
            )
            raise

    module.configure_model = configure_model  # type: ignore[method-assign]
