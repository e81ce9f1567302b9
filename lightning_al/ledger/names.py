"""NAMES: the user's names of samples, and where each is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

from lightning_al.ledger.connection import LedgerError
from lightning_al.ledger.label_values import by_name, whole

__all__ = ["Names"]


class Names:
    """From names to indices and back; `find` forgives what spreadsheets do to names.

    Args:
        ids: A name for every sample, or a function that reads them once they are needed.
        partial: Empty names are not known.

    Example:
        >>> names = Names(["scan-7", "12"])
        >>> names[1], names.find(" scan-7"), names.find("12.0"), names.find("other")
        ('12', 0, 1, None)
    """

    def __init__(self, ids: Sequence[str] | Callable[[], Sequence[str]], *, partial: bool = False) -> None:
        self._given, self._partial = ids, partial

    @cached_property
    def ids(self) -> Sequence[str]:
        """All names, in the order of the data set."""
        return self._given() if callable(self._given) else self._given

    def __getitem__(self, index: int) -> str:
        name = self.ids[index]
        if self._partial and not name:
            raise LedgerError(
                f"The name of sample {index} is not in the ledger, which an older version wrote; labels go "
                "by names. Run its script once, which adds them."
            )
        return name

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _exact(self) -> dict[str, int]:
        found = dict(zip(self.ids, range(len(self.ids)), strict=True))
        if self._partial:
            found.pop("", None)
        return found

    @cached_property
    def _loose(self) -> dict[str, int]:
        return by_name(self.ids)

    def find(self, name: str) -> int | None:
        """The index of a sample by the name in a file, in which outer spaces may have come or gone."""
        if name in self._exact:  # as nearly all are
            return self._exact[name]
        for form in (name, name.strip(), whole(name)):
            if self._partial and not form:
                continue
            if form in self._exact:
                return self._exact[form]
            if form in self._loose:
                return self._loose[form]
        return None

    def place(self, index: int, name: str | None) -> int | None:
        """Where the sample is now that was at `index` under `name`; `None`: nowhere."""
        if name is None or (0 <= index < len(self.ids) and self.ids[index] == name):
            return index
        return self._exact.get(name)
