"""TASKS: one sample of a query as Label Studio takes it.

    Task -> [Task.as_json] -> what is imported

Label Studio gives ids of its own, and gives those of deleted tasks again. So a task carries our key in its
data (`lal_run`, `lal_round`, `lal_sample`), and nothing else says whose answer an annotation is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from lightning_al.exchange.label_studio.form import Form

__all__ = ["IMAGE_SUFFIXES", "Key", "Task", "is_address", "key_of", "medium_of"]

#: What a Label Studio server takes as a picture.
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".svg", ".webp")


class Key(NamedTuple):
    """One asking for one sample: asked again in a later round, it is another task.

    Args:
        run: The ledger's `run_id`.
        round: The round that asked for it.
        sample: The user's name of the sample; without names, its index, as text.
    """

    run: str
    round: int
    sample: str


@dataclass(frozen=True)
class Task:
    """A sample that waits for its label.

    Args:
        key: Whose label it is.
        shown: What the annotator is to see: text and numbers, by name.
        rank: Place in the query, 0 is wanted most.
        score: The strategy's score, higher = more informative.
        strategy: What asked for it.
        predicted: A class that the annotator finds filled in; people tend to leave it as it is.

    Example:
        >>> task = Task(Key("4f0c", 3, "17"), {"text": "Not bad at all."}, rank=0, score=0.9)
        >>> task.as_json(Form("choices", labels=("bad", "good")))["data"]
        {'text': 'Not bad at all.', 'lal_run': '4f0c', 'lal_round': 3, 'lal_sample': '17', 'lal_rank': 0}
    """

    key: Key
    shown: Mapping[str, Any] = field(default_factory=dict)
    rank: int = 0
    score: float | None = None
    strategy: str | None = None
    predicted: str | None = None

    @property
    def model_version(self) -> str:
        """Under which name Label Studio keeps the score: one a round."""
        return f"{self.key.run[:8]} round {self.key.round}"

    def look(self, form: Form) -> str | None:
        """What the annotator looks at: text, or path or address of a picture; `None`: nothing fits.

        The column that the project shows, else what `medium_of` finds.
        """
        at = self.shown.get(form.field)
        if isinstance(at, str) and at.strip():
            return at
        if form.medium == "image":
            kind, value = medium_of(self.shown) or ("", "")
            return value if kind == "image" else None
        texts = [value for value in self.shown.values() if isinstance(value, str) and value.strip()]
        if texts:
            return texts[0]
        return (
            "\n".join(f"{name}: {value}" for name, value in self.shown.items()) or f"sample {self.key.sample}"
        )

    def as_json(self, form: Form, look: str | None = None) -> dict[str, Any]:
        """What is imported: data with our key, the score as that of a prediction.

        Args:
            form: What the project asks.
            look: Text or address of the picture; default: as shown.
        """
        data = {name: _plain(value) for name, value in self.shown.items()}
        data[form.field] = self.look(form) if look is None else look
        data |= {
            "lal_run": self.key.run,
            "lal_round": self.key.round,
            "lal_sample": self.key.sample,
            "lal_rank": self.rank,
        }
        if self.strategy is not None:
            data["lal_strategy"] = self.strategy
        prediction = self.prediction(form)
        return {"data": data, **({} if prediction is None else {"predictions": [prediction]})}

    def prediction(self, form: Form) -> dict[str, Any] | None:
        """Score and predicted class; `None` where there is neither."""
        if self.score is None and self.predicted is None:
            return None
        result = [] if self.predicted is None else form.result(self.predicted)
        score = {} if self.score is None else {"score": float(self.score)}
        return {"model_version": self.model_version, **score, "result": result}


def key_of(data: Any) -> Key | None:
    """The key in a task's data; `None`: the task is not ours.

    Example:
        >>> key_of({"text": "...", "lal_run": "4f0c", "lal_round": 3, "lal_sample": "17"})
        Key(run='4f0c', round=3, sample='17')
    """
    if not isinstance(data, dict):
        return None
    run, number, sample = data.get("lal_run"), data.get("lal_round"), data.get("lal_sample")
    if isinstance(number, str) and number.isdecimal():  # after a detour through a table
        number = int(number)
    if isinstance(sample, int) and not isinstance(sample, bool):
        sample = str(sample)
    if not isinstance(number, int) or isinstance(number, bool):
        return None
    return Key(run, number, sample) if isinstance(run, str) and isinstance(sample, str) else None


def medium_of(shown: Mapping[str, Any]) -> tuple[str, str] | None:
    """What an annotator is to look at, for a project that is yet to be made; `None`: there is no text at all.

    The column `image`, else `text`, else the first that is an address or ends as a picture does, else the
    first text.

    Example:
        >>> medium_of({"patient": "p1", "scan": "scans/17.png"}), medium_of({"words": "Not bad."})
        (('image', 'scans/17.png'), ('text', 'Not bad.'))
    """
    texts = {name: value for name, value in shown.items() if isinstance(value, str) and value.strip()}
    for kind in ("image", "text"):
        if kind in texts:
            return kind, texts[kind]
    for value in texts.values():
        alone = is_address(value) and not re.search(r"\s", value)
        if alone or PurePosixPath(value).suffix.lower() in IMAGE_SUFFIXES:
            return "image", value
    return ("text", next(iter(texts.values()))) if texts else None


def is_address(value: str) -> bool:
    """Whether a server or a browser finds it: a URL, a picture as data, or a path on the server itself."""
    return re.match(r"/data/|data:image/|(?!file:)[A-Za-z][A-Za-z0-9+.-]*://\S", value) is not None


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such number
    return value if isinstance(value, str | int | float) or value is None else str(value)
