"""A run that waits for people ends; it does not fail."""

from __future__ import annotations

__all__ = ["AwaitingLabels"]


class AwaitingLabels(SystemExit):
    """Samples were asked for and are not labelled yet: the run ends here, with exit status 0.

    The same command goes on once the labels are there.

    Args:
        count: How many wait.
        place: Where their labels go.
        labeled: How many are labelled.
    """

    def __init__(self, count: int, place: str, labeled: int) -> None:
        self.count, self.place, self.labeled = count, place, labeled
        super().__init__(0)

    def __reduce__(self) -> tuple[type[AwaitingLabels], tuple[int, str, int]]:
        return AwaitingLabels, (self.count, self.place, self.labeled)

    def __str__(self) -> str:
        return (
            f"{self.count} samples wait for their labels, {self.labeled} are labelled: {self.place}, then "
            "run the same command again."
        )
