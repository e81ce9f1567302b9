"""HELD OUT: how well the head ranks samples that nothing was learned from, where the options ask for it.

losses of `validation_step` or `test_step`, and what the head predicts -> two metrics -> the module's log
"""

from __future__ import annotations

import warnings

import lightning as L
import torch
from torch import Tensor
from torchmetrics import Metric, SpearmanCorrCoef

from lightning_al.inference.averaging import AveragedTest
from lightning_al.metrics import LossRankingAccuracy

__all__ = ["HeldOutRanking", "averages_passes"]


class HeldOutRanking:
    """Logs `val_loss_ranking_accuracy` and `val_loss_spearman`, in tests with `test_`.

    Every loader has metrics of its own. The Trainer computes them over all samples of all processes at the
    end of the loader, and empties them.
    """

    def __init__(self) -> None:
        self._metrics: dict[tuple[str, int | None], dict[str, Metric]] = {}
        self._was_told = False

    def begin_step(self, trainer: L.Trainer) -> None:
        """Called before every step: the first one of a pass finds nothing of a pass that was interrupted."""
        if trainer._evaluation_loop.batch_progress.current.ready > 1:
            return
        self._was_told = False
        for metrics in self._metrics.values():
            for metric in metrics.values():
                metric.reset()

    def log(self, module: L.LightningModule, predicted: Tensor, losses: Tensor) -> None:
        """Add a batch."""
        self._was_told = True
        stage = "test" if module.trainer.testing else "val"
        results = module.trainer._results
        place = (stage, None if results is None else results.dataloader_idx)
        if place not in self._metrics:
            self._metrics[place] = _metrics()
        dtype = torch.promote_types(torch.promote_types(predicted.dtype, losses.dtype), torch.float32)
        for name, metric in self._metrics[place].items():
            metric.to(module.device).update(predicted.to(dtype), losses.to(dtype))
            # Not a part of the module, so that neither its state nor its copies change.
            module.log(f"{stage}_{name}", metric, on_step=False, on_epoch=True, metric_attribute=name)

    def end_step(self, module: L.LightningModule) -> None:
        """Called after every step.

        Raises:
            RuntimeError: If a validation ends in which no step told its losses.
        """
        trainer = module.trainer
        if self._was_told or trainer.testing or not trainer._evaluation_loop.batch_progress.is_last_batch:
            return
        raise RuntimeError(
            f"`LearningLossOptions(log_ranking=True)`, but `{type(module).__name__}.validation_step` never "
            "called `self.learning_loss`, so there is no true loss to compare the predicted one with. Call "
            '`self.learning_loss(losses)` there too, of losses with `reduction="none"`: it gives their mean.'
        )


def averages_passes(trainer: L.Trainer) -> bool:
    """Whether it is a test of the mean of several passes, of which the head's prediction is of none."""
    return any(isinstance(callback, AveragedTest) for callback in trainer.callbacks)  # type: ignore[attr-defined]


def _metrics() -> dict[str, Metric]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric `SpearmanCorrcoef` will save all targets")  # as told
        return {"loss_ranking_accuracy": LossRankingAccuracy(), "loss_spearman": SpearmanCorrCoef()}
