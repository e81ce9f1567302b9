"""Stopping: when is another label not worth it? For `fit_rounds(stop=...)`.

    from lightning_al import Plateau, StablePredictions, TargetMetric

base.py         what a criterion is, and what it may look at
metrics.py      by a metric: TargetMetric, Plateau
predictions.py  by what the model says of samples without labels: StablePredictions
judging.py      when they are asked, and what stands on record
"""

from lightning_al.stopping.base import Ended, StopCriterion
from lightning_al.stopping.judging import Stopping, checked_criteria
from lightning_al.stopping.metrics import Plateau, TargetMetric
from lightning_al.stopping.predictions import StablePredictions

__all__ = [
    "Ended",
    "Plateau",
    "StablePredictions",
    "StopCriterion",
    "Stopping",
    "TargetMetric",
    "checked_criteria",
]
