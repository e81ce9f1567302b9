"""SNAPSHOT: what a checkpoint says of the labels, held against the ledger, which is the authority."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lightning_al.ledger.connection import LedgerError
from lightning_al.ledger.state import LABELED, PoolState

__all__ = ["compare", "is_snapshot", "snapshot_of"]


def snapshot_of(state: PoolState) -> dict[str, Any]:
    """A copy for a checkpoint, of plain values: weights-only loading takes it."""
    return {
        "run_id": state.run_id,
        "round": state.last_round,
        "events": state.seq,
        "labeled": state.indices(LABELED).tolist(),
    }


def is_snapshot(value: Any) -> bool:
    """Whether a checkpoint's entry is a copy that `snapshot_of` made."""
    return isinstance(value, dict) and set(value) == {"run_id", "round", "events", "labeled"}


def compare(snapshot: dict[str, Any], state: PoolState, where: Path | None) -> None:
    """Hold a checkpoint's copy against the ledger: an older one is outvoted, with a warning.

    Args:
        snapshot: As `snapshot_of` made it.
        state: What the ledger amounts to.
        where: Its folder, for messages.

    Raises:
        LedgerError: If the checkpoint is newer: labels are missing.
    """
    count = len(state.indices(LABELED))
    if snapshot["run_id"] != state.run_id:
        rank_zero_warn(
            f"The checkpoint belongs to run {snapshot['run_id']}, the ledger in {where} to run "
            f"{state.run_id}. Its weights are loaded, its labels are not."
        )
    elif snapshot["events"] > state.seq:
        raise LedgerError(
            f"The checkpoint is of round {snapshot['round']} with {len(snapshot['labeled'])} labels, but "
            f"the ledger in {where} ends at round {state.last_round} with {count}. Labels are "
            "missing there: put the newer ledger back."
        )
    elif snapshot["events"] < state.seq:
        rank_zero_warn(
            f"The checkpoint is of round {snapshot['round']}, the ledger of round {state.last_round}; "
            f"training goes on with the {count} labels of the ledger."
        )
