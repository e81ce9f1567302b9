"""LEARNING LOSS: a head that predicts the loss of a sample, trained beside the module that it looks into.

layers of the module -> [features] -> [head] -> predicted losses -> `acquisition.LearningLoss`

mixin.py     `LearningLossMixin`: what a user adds to a module
options.py   its settings
steps.py     looks after a module's training steps and epochs
teacher.py   what the head learns in a step, and whether it did in a fit
objective.py how far predictions are from the losses
features.py  what layers give in a training step, or in a scoring
tap.py       the hook on a layer, which pools what it gives
layout.py    which axis of that has the samples, which the channels
making.py    where a head comes from: a dry run, to know how wide the features are, or saved weights
head.py      features -> one number a sample
held_out.py  how well it ranks, in validation and tests
attached.py  whether head, layers and options fit each other
checks.py    what a step must give, and what to do where it does not
"""

from lightning_al.learning_loss.head import LossHead
from lightning_al.learning_loss.mixin import LearningLossMixin
from lightning_al.learning_loss.options import LearningLossOptions

__all__ = ["LearningLossMixin", "LearningLossOptions", "LossHead"]
