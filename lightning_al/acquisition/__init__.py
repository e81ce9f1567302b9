"""Strategies: which samples are worth a label?

    from lightning_al import acquisition as acq
    acq.Margin(), acq.PowerSampling(acq.Entropy(), beta=2)

base.py         what a strategy is, and how to write one
random.py       the baseline
uncertainty.py  from one prediction: entropy, least confidence, margin, distance to the boundary
wrappers.py     strategies made of strategies
"""

from lightning_al.acquisition.base import (
    Acquisition,
    ProbabilityAcquisition,
    ScoreAcquisition,
    Selection,
)
from lightning_al.acquisition.random import Random
from lightning_al.acquisition.uncertainty import (
    Entropy,
    HyperplaneDistance,
    LeastConfidence,
    Margin,
)
from lightning_al.acquisition.wrappers import PowerSampling

__all__ = [
    "Acquisition",
    "Entropy",
    "HyperplaneDistance",
    "LeastConfidence",
    "Margin",
    "PowerSampling",
    "ProbabilityAcquisition",
    "Random",
    "ScoreAcquisition",
    "Selection",
]
