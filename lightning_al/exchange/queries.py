"""QUERIES: which samples wait, what an annotator is shown of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lightning_al.ledger.state import ASKED

if TYPE_CHECKING:
    from lightning_al.data.book import LabelBook

__all__ = ["Describe", "described_rows"]

Describe = Callable[[int], Any]
_OURS = ("index", "id", "round", "rank", "score", "label", "skip")


def described_rows(book: LabelBook, describe: Describe | None = None) -> list[dict[str, Any]]:
    """One row a waiting sample, most wanted first: index, name, round, rank, score, and what is shown."""
    return [row | _description(row["index"], describe) for row in _rows(book)]


def _rows(book: LabelBook) -> list[dict[str, Any]]:
    state, ids = book.state, book.samples.ids
    asked = [event for _, event in book.ledger.events() if event.kind == "asked"]
    scores = {event.sample if ids is None else event.id: event.score for event in asked}
    rows = []
    for index in state.indices(ASKED).tolist():
        score = scores.get(index if ids is None else ids[index])
        rows.append(
            {"index": index, **({} if ids is None else {"id": ids[index]}),
             "round": int(state.round[index]), "rank": int(state.rank[index]),
             "score": "" if score is None else score}
        )  # fmt: skip
    return rows


def _description(index: int, describe: Describe | None) -> dict[str, Any]:
    if describe is None:
        return {}
    shown = describe(index)
    shown = shown if isinstance(shown, Mapping) else {"sample": shown}
    return {
        _free_name(str(key), shown): value
        for key, value in shown.items()
        if isinstance(value, str | int | float)
    }


def _free_name(name: str, taken: Mapping[Any, Any]) -> str:
    """A column beside ours: on a day of annotation nothing fails over a name."""
    if name not in _OURS:
        return name
    name = f"sample_{name}"
    while name in taken:
        name += "_"
    return name
