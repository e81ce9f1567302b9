"""FITS: one fit, from its seed to its end: the round's, or that of a member of its committee."""

from __future__ import annotations

from dataclasses import dataclass

import lightning as L

from lightning_al.callbacks import ActiveLearning
from lightning_al.callbacks.seat import Seat
from lightning_al.data import ActiveDataModule
from lightning_al.fitting.connecting import connected
from lightning_al.fitting.models import Models
from lightning_al.fitting.trainers import Trainers, check_whole
from lightning_al.inference.committee import Committee
from lightning_al.randomness import derive_seed
from lightning_al.stopping.judging import Stopping
from lightning_al.together import agree, on_every_rank

__all__ = ["Fit", "Fits"]


@dataclass(frozen=True)
class Fit:
    """What is left of a fit that was made."""

    trainer: L.Trainer
    module: L.LightningModule
    callback: ActiveLearning

    @property
    def was_tried(self) -> bool:
        """Whether nothing came of it, by `fast_dev_run`."""
        return bool(self.trainer.fast_dev_run)  # type: ignore[attr-defined]


class Fits:
    """Makes fits: joins Trainer, module and callback.

    Args:
        trainers: Where a fit's Trainer comes from.
        models: Where its module comes from.
        data: What it trains on.
        active: What a fit's callback is a copy of.

    Attributes:
        stopping: What may end the rounds before a query.
    """

    def __init__(
        self, trainers: Trainers, models: Models, data: ActiveDataModule, active: ActiveLearning
    ) -> None:
        self.trainers, self.models, self.data, self.active = trainers, models, data, active
        self.stopping = Stopping()

    def connect(self, number: int, committee: Committee | None) -> bool:
        """Meet the other processes by the Trainer of a round's first fit; whether any were met just now."""
        if self.trainers.has_met or connected():
            return False
        name = () if committee is None else ("member", 0)
        self._seed(number, name)
        return self.trainers.connect(number, name)

    def _seed(self, number: int, name: tuple[str | int, ...]) -> None:
        seed = derive_seed(self.data.seed, "round", number, *name)
        L.seed_everything(seed, workers=True, verbose=False)

    def fit(self, number: int, committee: Committee | None, seat: Seat | None, *, asks: bool) -> Fit:
        """Train in round `number`, on `seat` if it is a member of `committee`.

        Args:
            number: Of the round.
            committee: That the round trains, if any.
            seat: The member's.
            asks: Whether the round is to ask for labels; only its last fit does.
        """
        data = self.data
        name = () if seat is None else seat.seeds
        self._seed(number, name)
        trainer = self.trainers.fresh(number, seat)
        last = seat is None or seat.is_last
        callback = self.active.for_round(
            asks=last and asks,
            drawn=self.models.makes and self.active.restart == "redraw",
            made=self.models.makes,
            seat=seat,
            stopping=self.stopping,
            # What cannot be scored is known before the first member's training, not only the last one's.
            rehearses=asks and (last or (seat is not None and seat.number == 0)),
        )
        trainer.callbacks.append(callback)  # type: ignore[attr-defined]
        module = self.models.of(number, committee, seat)
        if type(trainer.strategy.launcher).__name__ == "_MultiProcessingLauncher":
            self.models.make_layers(module, trainer)
        path = agree(lambda: self.trainers.checkpoint(trainer))
        check_whole(path)
        bootstrap = committee is not None and committee.bootstrap
        with data.drawn_for(*name, bootstrap=bootstrap), on_every_rank(path) as file:
            trainer.fit(module, datamodule=data, ckpt_path=file)
        return Fit(trainer, module, callback)
