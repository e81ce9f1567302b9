"""Strategies: which samples are worth a label?

    from lightning_al import acquisition as acq
    acq.Margin(), acq.PowerSampling(acq.Entropy(), beta=2)

base.py           what a strategy is, and how to write one
random.py         the baseline
uncertainty.py    from one prediction: entropy, least confidence, margin, distance to the boundary
disagreement.py   from many passes or members: BALD, votes, BatchBALD, variance for regression
learning_loss.py  from a head that predicts the loss
diversity.py      by where samples lie: core-set, diverse mini-batch, BADGE
wrappers.py       strategies made of strategies
balanced.py       a strategy whose query has its share of every predicted class
"""

from lightning_al.acquisition.balanced import ClassBalanced
from lightning_al.acquisition.base import (
    Acquisition,
    DenseAcquisition,
    ProbabilityAcquisition,
    ScoreAcquisition,
    Selection,
)
from lightning_al.acquisition.disagreement import (
    BALD,
    BatchBALD,
    ConsensusKL,
    DisagreementAcquisition,
    MeanSTD,
    PredictiveVariance,
    VariationRatio,
    VoteEntropy,
    VoteMargin,
)
from lightning_al.acquisition.diversity import BADGE, CoreSet, DiverseMiniBatch
from lightning_al.acquisition.learning_loss import LearningLoss
from lightning_al.acquisition.random import Random
from lightning_al.acquisition.uncertainty import (
    Entropy,
    HyperplaneDistance,
    LeastConfidence,
    Margin,
)
from lightning_al.acquisition.wrappers import PowerSampling, TwoStage

__all__ = [
    "BADGE",
    "BALD",
    "Acquisition",
    "BatchBALD",
    "ClassBalanced",
    "ConsensusKL",
    "CoreSet",
    "DenseAcquisition",
    "DisagreementAcquisition",
    "DiverseMiniBatch",
    "Entropy",
    "HyperplaneDistance",
    "LearningLoss",
    "LeastConfidence",
    "Margin",
    "MeanSTD",
    "PowerSampling",
    "PredictiveVariance",
    "ProbabilityAcquisition",
    "Random",
    "ScoreAcquisition",
    "Selection",
    "TwoStage",
    "VariationRatio",
    "VoteEntropy",
    "VoteMargin",
]
