"""PLOTTING: what a run has shown, as figures.

saving.py   histories -> labels_to_target: how many labels a run needed, and the mark of what was saved
curves.py   histories -> learning_curves: a metric against the number of labels
balance.py  label counts -> class_balance: the classes of each strategy's labels
images.py   a query -> selected_samples: what was asked for, with its scores
style.py    colours, calm axes, and a figure where none is given

Needs matplotlib (`pip install lightning-al[plot]`), which is imported by the first call that draws. Every
function takes the place to draw on, or makes a `Figure` of its own; none touches `pyplot` or its state.
"""

from lightning_al.plotting.balance import class_balance
from lightning_al.plotting.curves import learning_curves
from lightning_al.plotting.images import selected_samples
from lightning_al.plotting.saving import labels_to_target

__all__ = ["class_balance", "labels_to_target", "learning_curves", "selected_samples"]
