"""LEARNING LOSS: a head that predicts the loss of a sample, trained beside the module that it looks into.

layers of the module -> [features] -> [head] -> predicted losses -> `acquisition.LearningLoss`

mixin.py     `LearningLossMixin`: what a user adds to a module
options.py   its settings
features.py  listens to layers while a training step, or a scoring, asks for it
steps.py     looks after a module's training steps and epochs
layout.py    which axis of what a layer gives has the samples, which the channels
head.py      features -> one number a sample
held_out.py  how well it ranks, in validation and tests
shapes.py    a dry run, to know how wide the features are
"""

from lightning_al.learning_loss.head import LossHead
from lightning_al.learning_loss.mixin import LearningLossMixin
from lightning_al.learning_loss.options import LearningLossOptions

__all__ = ["LearningLossMixin", "LearningLossOptions", "LossHead"]
