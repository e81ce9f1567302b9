"""SNAPSHOT: what a checkpoint says of the labels, held against the ledger, which is the authority.

PoolState -> [snapshot_of] -> checkpoint, [sign] -> its digest too; later: checkpoint -> [compare] <- ledger
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lightning_al.ledger import statements as sql
from lightning_al.ledger.connection import LedgerError, LedgerFile
from lightning_al.ledger.state import LABELED, PoolState
from lightning_al.together import agree

__all__ = ["compare", "is_snapshot", "sign", "snapshot_in", "snapshot_of"]

_ALWAYS = {"run_id", "round", "events", "labeled"}


def snapshot_of(state: PoolState) -> dict[str, Any]:
    """A copy for a checkpoint, of plain values: weights-only loading takes it."""
    return {
        "run_id": state.run_id,
        "round": state.last_round,
        "events": state.seq,
        "labeled": state.indices(LABELED).tolist(),
    }


def is_snapshot(value: Any) -> bool:
    """Whether a checkpoint's entry is a copy that `snapshot_of` made, and perhaps `sign` signed."""
    return isinstance(value, dict) and set(value) - {"digest"} == _ALWAYS


def snapshot_in(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """The copy in a checkpoint, by whichever name."""
    return next((value for value in checkpoint.values() if is_snapshot(value)), None)


def sign(checkpoint: Mapping[str, Any], where: Path) -> None:
    """Add to the copy the digest of its last event: a ledger with as many other events is another one.

    Args:
        checkpoint: Changed in place, where there is a copy in it.
        where: The ledger's folder.
    """
    snapshot = snapshot_in(checkpoint)
    if snapshot is None:
        return
    try:
        digest = _digest(where, snapshot["events"])
    except LedgerError:  # checkpoints go on without; what is wrong with the ledger, the next write says
        return
    if digest is not None:
        snapshot["digest"] = digest


def compare(snapshot: dict[str, Any], state: PoolState, where: Path | None, *, goes_on: bool = True) -> None:
    """Hold a checkpoint's copy against the ledger: an older one is outvoted, with a warning.

    All processes come here with the same.

    Args:
        snapshot: As `snapshot_of` made it.
        state: What the ledger amounts to.
        where: Its folder, for messages and digests.
        goes_on: Whether there is to be a training.

    Raises:
        LedgerError: If the checkpoint is newer, or of events that the ledger has not: labels are missing.
    """
    count = len(state.indices(LABELED))
    if snapshot["run_id"] != state.run_id:
        rank_zero_warn(
            f"The checkpoint belongs to run {snapshot['run_id']}, the ledger in {where} to run "
            f"{state.run_id}. Its weights are loaded, its labels are not."
        )
        return
    of_checkpoint = f"The checkpoint is of round {snapshot['round']} with {len(snapshot['labeled'])} labels"
    if snapshot["events"] > state.seq:
        raise LedgerError(
            f"{of_checkpoint}, but the ledger in {where} ends at round {state.last_round} with {count}. "
            "Labels are missing there: put the newer ledger back."
        )
    if not _has(where, snapshot):
        raise LedgerError(
            f"{of_checkpoint} and its event {snapshot['events']}; the ledger in {where}, at round "
            f"{state.last_round} with {count}, has another event of that number: it is an older copy that "
            "went on otherwise. Labels are missing there: put the ledger back that the checkpoint was made "
            "with, or start without the checkpoint."
        )
    if goes_on and snapshot["events"] < state.seq:
        rank_zero_warn(
            f"The checkpoint is of round {snapshot['round']}, the ledger of round {state.last_round}; "
            f"training goes on with the {count} labels of the ledger."
        )


def _has(where: Path | None, snapshot: Mapping[str, Any]) -> bool:
    """Whether the ledger has the event that the copy ends with; older copies do not say which that was."""
    if where is None or "digest" not in snapshot:
        return True
    return agree(lambda: _digest(where, snapshot["events"])) == str(snapshot["digest"])


def _digest(where: Path, number: int) -> str | None:
    with LedgerFile(where / "ledger.sqlite3").reading() as db:
        return sql.digest_of(db, number)
