"""One hostile file against a ledger: it is refused and changes nothing, or all that came in are labels."""

import math
import os
from pathlib import Path

from lightning_al.exchange import Imported, import_answers
from lightning_al.ledger import Book, Event, Ledger, LedgerError
from lightning_al.ledger.answer import RESERVED
from tests.fuzz.inputs import ASKED, CLASSES, IDS, KINDS, SIZE, Case, case

__all__ = ["Bench"]

WHO = ("Eve", None)


class Bench:
    """Ledgers of every kind, each put back after a file changed it.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.whole = {}
        for kind in KINDS:
            for ids in (False, True):
                place = self._place(kind, ids)
                place.mkdir(parents=True)
                meta = {
                    "size": SIZE, "samples": SIZE, "run_id": "f0c4", "names": "ids:x" if ids else None,
                    "fingerprint": "ids:x" if ids else "x", "label_kind": kind,
                    "class_names": CLASSES if kind == "class" else None,
                }  # fmt: skip
                first = [
                    Event(
                        "asked", index, IDS[index] if ids else None, round=0, rank=rank, strategy="Margin()"
                    )
                    for rank, index in enumerate(ASKED)
                ]
                Ledger(place / "ledger.sqlite3").create(meta, first, names=IDS if ids else None)
                self.whole[place] = (place / "ledger.sqlite3").read_bytes()

    def _place(self, kind: str | None, ids: bool) -> Path:
        return self.folder / f"{kind}_{ids}"

    def try_number(self, number: int) -> str:
        """The outcome for the file of a number: "refused", "empty" or "accepted"."""
        return self.try_case(case(number, "f0c4"))

    def try_case(self, given: Case) -> str:
        place = self._place(given.kind, given.ids)
        path = self.folder / "given"
        path.write_bytes(given.content)
        try:
            found = self._import(place, path, given)
        except (ValueError, LedgerError):
            self._check_unchanged(place)
            return "refused"
        try:
            return self._check_accepted(place, path, given, found)
        finally:
            (place / "ledger.sqlite3").write_bytes(self.whole[place])

    def restore(self) -> None:
        """Put all ledgers back as they were."""
        for place, content in self.whole.items():
            (place / "ledger.sqlite3").write_bytes(content)

    def _check_unchanged(self, place: Path) -> None:
        assert (place / "ledger.sqlite3").read_bytes() == self.whole[place], (
            "a refused file changed the ledger"
        )
        assert os.listdir(place) == ["ledger.sqlite3"]

    def _check_accepted(self, place: Path, path: Path, given: Case, found: Imported) -> str:
        ledger = Ledger(place / "ledger.sqlite3")
        count = ledger.verify()
        assert os.listdir(place) == ["ledger.sqlite3"]
        state = Book(place).state
        for index in state.values:
            assert 0 <= index < SIZE
            check_label(state.target(index), given.kind)
        for _, event in ledger.events():
            assert event.who is None or (event.who not in RESERVED and event.who.isprintable() and event.who)
            assert not event.kind.startswith("re") or event.kind == "relabeled"
        again: object = "refused"
        try:
            again = self._import(place, path, given)
        except ValueError as error:
            # What contradicts a later answer in the same file, or a run that never said what its labels are.
            if given.kind is not None and "is labelled" not in str(error):
                raise
        assert ledger.verify() == count, f"read again, it says something new: {found}, then {again}"
        return "accepted" if count > len(ASKED) else "empty"

    def _import(self, place: Path, path: Path, given: Case) -> Imported:
        return import_answers(Book(place), path, format=given.format, who=WHO[given.number % 2])


def check_label(value: object, kind: str | None) -> None:
    """Whether a label could be trained on."""
    if kind == "class":
        assert type(value) is int
        assert 0 <= value < len(CLASSES)
    elif kind == "number":
        assert type(value) in (int, float)
        assert math.isfinite(value)
    elif kind == "text":
        assert isinstance(value, str)
    assert not isinstance(value, str) or value.strip()
    check_plain(value)


def check_plain(value: object) -> None:
    """Whether a value is one that every reader can hold."""
    if isinstance(value, str):
        value.encode()
        assert "\0" not in value
    elif isinstance(value, int):
        assert -(2**63) <= value < 2**63
    elif isinstance(value, float):
        assert math.isfinite(value)
    elif isinstance(value, list):
        for part in value:
            check_plain(part)
    elif isinstance(value, dict):
        for key, part in value.items():
            check_plain(key)
            check_plain(part)
    else:
        assert value is None or hasattr(value, "dtype")
