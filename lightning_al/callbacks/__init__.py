"""Callbacks: one a file.

active_learning.py  ActiveLearning: the query at the end of fit
class_balance.py    ClassBalance: a warning where labels fall on few classes
collapse.py         the test that it makes
checks.py           fits that it cannot work with
report.py           what it tells of a round
rearm.py            makes a Trainer ready to fit again
weights.py          where a round's weights begin, and which ones are scored
whole_state.py      the weights of a module as one file holds them, whoever has parts of it
unread.py           the checkpoint of a fit that ends before it is read
seat.py             a member's place in a committee that a round trains
"""

from lightning_al.callbacks.active_learning import ActiveLearning
from lightning_al.callbacks.class_balance import ClassBalance

__all__ = ["ActiveLearning", "ClassBalance"]
