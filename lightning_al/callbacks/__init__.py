"""Callbacks: one a file.

active_learning.py  ActiveLearning: the query at the end of fit
rearm.py            makes a Trainer ready to fit again
weights.py          where a round's weights begin, and which ones are scored
"""

from lightning_al.callbacks.active_learning import ActiveLearning

__all__ = ["ActiveLearning"]
