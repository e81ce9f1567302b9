"""AGREEMENT: see `lightning_al.together`."""

from lightning_al.together import agree, gathered, on_every_rank, same_on_every_rank, shared

__all__ = ["agree", "gathered", "on_every_rank", "same_on_every_rank", "shared"]
