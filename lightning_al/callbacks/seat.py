"""SEAT: one member's place in a committee that a round trains, and the weights it leaves there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_al.callbacks.weights import save_whole
from lightning_al.data.book import is_writer

__all__ = ["Seat"]


@dataclass(frozen=True)
class Seat:
    """Member `number` of `size`, trained in one round.

    Attributes:
        number: From 0.
        size: Of the committee.
        file: What the member leaves: its weights, the labels they know, and the time they took.
        shares_module: All members are trained in one module, whose weights are drawn anew for each.
    """

    number: int
    size: int
    file: Path
    shares_module: bool = False

    @property
    def name(self) -> tuple[str | int, ...]:
        """Its part of folders."""
        return ("member", self.number)

    @property
    def seeds(self) -> tuple[str | int, ...]:
        """Its part of seeds: the last member is the model that a run without a committee would train.

        So runs with and without one begin alike, if a single model is tested.
        """
        return () if self.is_last else self.name

    @property
    def is_last(self) -> bool:
        """Whether the round's query follows."""
        return self.number == self.size - 1

    def keep(self, module: nn.Module, row: dict[str, Any]) -> None:
        """Write down the trained member, whole or not at all."""
        if is_writer():
            known = {name: row[name] for name in ("trained", "train_s")}
            save_whole({"state_dict": module.state_dict(), **known}, self.file)

    def kept(self, trained: str) -> float | None:
        """Seconds that it took to train the member on these labels; `None` if it was not, or on others."""
        if not self.file.exists():
            return None
        saved = torch.load(self.file, map_location="cpu", weights_only=False)
        return float(saved["train_s"]) if saved["trained"] == trained else None
