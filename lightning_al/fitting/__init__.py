"""FITTING: what one fit of `fit_rounds` is made of.

connecting.py  other processes, met before the first look at the ledger
trainers.py  a fresh Trainer, its checkpoints, one curve in the logger
models.py    the module, with weights drawn for this fit
fits.py      one fit: the round's, or that of a member of its committee
members.py   a committee's members, one fit each
"""

from lightning_al.fitting.fits import Fit, Fits
from lightning_al.fitting.members import train_members
from lightning_al.fitting.models import Models
from lightning_al.fitting.trainers import Trainers

__all__ = ["Fit", "Fits", "Models", "Trainers", "train_members"]
