"""MEMBERS: a committee's, trained one after the other; stopped in between, those that are there stay."""

from __future__ import annotations

from functools import partial

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lightning_al.callbacks.seat import Seat
from lightning_al.fitting.fits import Fits
from lightning_al.inference.committee import Committee
from lightning_al.inference.member import Member
from lightning_al.together import agree

__all__ = ["seat_of", "train_members"]


def seat_of(fits: Fits, number: int, committee: Committee, place: int) -> Seat:
    """The place of a member in round `number`."""
    assert fits.data.state_dir is not None
    file = fits.data.state_dir / f"round_{number}" / f"member_{place}.pt"
    shares = committee.makers is None and isinstance(fits.models.model, torch.nn.Module)
    return Seat(place, committee.num_samples, file, shares)


def train_members(
    fits: Fits, number: int, committee: Committee, *, asks: bool
) -> tuple[list[Member | None], float]:
    """All members but the last, whose fit asks; `None` stands for it. And the seconds that they took."""
    members: list[Member | None] = []
    seconds = 0.0
    data = fits.data
    for place in range(committee.num_samples - 1):
        seat = seat_of(fits, number, committee, place)
        took = agree(partial(seat.kept, data.training_set().digest))
        if took is None:
            with committee.seated([None] * committee.num_samples):
                fit = fits.fit(number, committee, seat, asks=asks)
            data.open()
            if fit.was_tried:
                return [None] * committee.num_samples, 0.0
            fits.trainers.keep_steps(fit.trainer)
            took = agree(partial(seat.kept, data.training_set().digest))
            assert took is not None
            rank_zero_info(f"round {number}: member {place + 1} of {committee.num_samples} is trained")
        seconds += took
        make = None if committee.makers is None else committee.makers[place]
        members.append(Member(seat.file, make, fits.models.seed(number, seat)))
    return [*members, None], seconds
