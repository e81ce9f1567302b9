"""SETTINGS: where the runs of a comparison are, and what they were made with.

state_dir/comparison.json, state_dir/<strategy>/seed_<n>/ledger.sqlite3 <-> Settings, Run
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_al.ledger.ledger import Ledger
from lightning_al.whole_file import replacing

if TYPE_CHECKING:
    from lightning_al.comparing.comparison import Comparison

__all__ = ["FailedRun", "FailedRunsError", "RefusedError", "Run", "Settings", "folder_of"]

_FILE = "comparison.json"
#: Of files beside the folders of strategies.
_SUFFIXES = (".json", ".csv", ".parquet", ".png")


@dataclass(frozen=True)
class FailedRun:
    """A run that did not end.

    Args:
        strategy: Its strategy.
        seed: Its seed.
        reason: The traceback, or how its process ended.
        log: What it printed.
    """

    strategy: str
    seed: int
    reason: str
    log: Path | None = None

    def __str__(self) -> str:
        where = "" if self.log is None else f"\nIts log: {self.log}"
        return f"{self.strategy}, seed {self.seed}:\n{self.reason.rstrip()}{where}"


class FailedRunsError(RuntimeError):
    """Some runs of a comparison failed; the others went on to their ends.

    Args:
        failures: The runs.
        comparison: Of the runs that there are.
    """

    def __init__(self, failures: Sequence[FailedRun], comparison: Comparison | None = None) -> None:
        self.failures, self.comparison = list(failures), comparison
        alike: dict[str, list[FailedRun]] = {}
        for failure in failures:
            alike.setdefault(failure.reason.rstrip().rpartition("\n")[2], []).append(failure)
        parts = []
        for runs in alike.values():
            others = [f"{run.strategy} seed {run.seed}" for run in runs[1:]]
            more = f"\nThe same in {len(others)} more: {', '.join(others)}" if others else ""
            parts.append(f"{runs[0]}{more}")
        super().__init__(
            f"{len(failures)} run(s) failed. What they did until then is kept, and the same call tries them "
            "again.\n\n" + "\n\n".join(parts)
        )


class RefusedError(ValueError):
    """What a run shows, and is wrong with all of them: it ends all, with this one message."""


@dataclass(frozen=True)
class Run:
    """One strategy with one seed.

    Args:
        strategy: Its name.
        seed: Of data, weights and queries.
        folder: The run's state directory.
    """

    strategy: str
    seed: int
    folder: Path

    @cached_property
    def ledger(self) -> Ledger:
        """The file, which may not be there yet."""
        return Ledger(self.folder / "ledger.sqlite3")

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.folder / "log.txt"

    @property
    def facts(self) -> Path:
        """What else is known of its data."""
        return self.folder / "run.json"

    def known(self) -> dict[str, Any]:
        """What that file says."""
        try:
            found: dict[str, Any] = json.loads(self.facts.read_text("utf-8")) if self.facts.exists() else {}
        except ValueError:  # damaged: as if it were not there
            return {}
        return found

    @property
    def times(self) -> Path:
        """How long its rounds took."""
        return self.folder / "times.jsonl"

    def rows(self) -> list[dict[str, Any]]:
        """The rounds so far that were tested."""
        return [row for row in self.ledger.rounds() if row.get("tested")] if self.ledger.exists() else []

    def has_ended(self, rounds: int) -> bool:
        """Whether nothing is left to do for so many queries: all were made, or all there is is labelled."""
        rows = self.rows()
        if not rows or [row["round"] for row in rows] != list(range(len(rows))):
            return False
        if len(rows) > rounds:
            return True
        last, meta = rows[-1], self.ledger.meta()
        return bool(last["labeled"] >= int(meta.get("samples", meta["size"])))


@dataclass(frozen=True)
class Settings:
    """What all runs of a comparison have in common, and which there are.

    Args:
        strategies: Names, and what each was when it was first run.
        seeds: Of the runs.
        rounds: Queries a run.
        baseline: Name of random sampling.
        common: What every run is made with.
        made_with: What else the caller says that they are made with; `None`: named once, and no longer.
        metric: The test metric that is meant; `None`: none was named.
    """

    strategies: Mapping[str, str]
    seeds: Sequence[int]
    rounds: int
    baseline: str
    common: Mapping[str, Any] = field(default_factory=dict)
    made_with: Mapping[str, Any] = field(default_factory=dict)
    metric: str | None = None

    def runs(self, state_dir: Path) -> list[Run]:
        """Seed by seed: where a comparison was stopped, most seeds have all strategies."""
        return [
            Run(name, seed, state_dir / folder_of(name) / f"seed_{seed}")
            for seed in self.seeds
            for name in self.strategies
        ]

    def joined_to(self, state_dir: Path, *, accept_changes: bool = False) -> Settings:
        """With what earlier calls asked for.

        Args:
            state_dir: Folder of all runs.
            accept_changes: Let `made_with` be another one.

        Returns:
            Those of all calls together.

        Raises:
            ValueError: If those had other settings.
        """
        if not (state_dir / _FILE).exists():
            return self
        before = Settings.read(state_dir)
        # What has never run may still be changed.
        begun = {n: s for n, s in before.strategies.items() if _has_run(state_dir / folder_of(n))}
        if not begun:
            return self
        before = replace(before, strategies=begun)
        # What is no longer named is changed too: nobody says that it is as it was.
        made_with = {**dict.fromkeys(before.made_with), **self.made_with}
        now = {**self.common, **{f"strategies[{n!r}]": s for n, s in self.strategies.items()}}
        then = {**before.common, **{f"strategies[{n!r}]": s for n, s in begun.items()}}
        if not accept_changes:
            now, then = {**made_with, **now}, {**before.made_with, **then}
        # As text: a NaN is like itself.
        other = [name for name in now if name in then and json.dumps(now[name]) != json.dumps(then[name])]
        if self.baseline != before.baseline:
            other, now, then = ["baseline"], {"baseline": self.baseline}, {"baseline": before.baseline}
        if other:
            gone = made_with.keys() - self.made_with.keys()
            unnamed = {name for name in made_with if then.get(name) is None}
            shown = ", ".join(
                f"{name} = {'not named' if name in unnamed else repr(then[name])}, "
                f"now {'not named' if name in gone else repr(now[name])}"
                for name in other
            )
            accept = ", or pass `accept_changes=True`" if set(other) <= set(made_with) else ""
            raise ValueError(
                f"The runs in {state_dir} were made with {shown}; all that are compared must be alike. Set "
                f"it as it was, or use another `state_dir`{accept}."
            )
        return replace(
            self,
            strategies={**before.strategies, **self.strategies},
            seeds=sorted({*before.seeds, *self.seeds}),
            rounds=max(before.rounds, self.rounds),
            made_with=made_with,
            metric=before._logged_metric(state_dir) if self.metric is None else self.metric,
        )

    def _logged_metric(self, state_dir: Path) -> str | None:
        """The metric, unless no run has logged it: then it was refused, or may still be changed."""
        known = self.metric is not None and any(
            self.metric in row for run in self.runs(state_dir) for row in run.rows()[:1]
        )
        return self.metric if known else None

    def before_any_run(self, state_dir: Path) -> Settings:
        """As on record, for as long as no run is carried out with what is accepted as another `made_with`.

        Args:
            state_dir: Folder of all runs, whose settings were joined.
        """
        if not (state_dir / _FILE).exists():
            return self
        before = Settings.read(state_dir)
        if not any(_has_run(state_dir / folder_of(name)) for name in before.strategies):
            return self
        return replace(self, made_with={**self.made_with, **before.made_with})

    def is_noted_as(self, made_with: Any) -> bool:
        """Whether this is its `made_with`; a NaN is like itself."""
        own, other = (json.dumps(one, sort_keys=True) for one in (self.made_with, made_with))
        return own == other

    def note(self, runs: Sequence[Run]) -> None:
        """Let every round keep what it was made with that does not say so itself."""
        for run in runs:
            known, finished = run.known(), len(run.rows())
            said = {str(number): self.made_with for number in range(finished)} | known.get("made_with", {})
            if said != known.get("made_with", {}):
                with replacing(run.facts, "What is known of the run") as part:
                    part.write_text(json.dumps({**known, "made_with": said}), encoding="utf-8")

    def write(self, state_dir: Path) -> None:
        """For later calls."""
        with replacing(state_dir / _FILE, "The settings of the comparison") as part:
            part.write_text(json.dumps(vars(self), indent=2), encoding="utf-8")

    @classmethod
    def read(cls, state_dir: Path) -> Settings:
        """Of earlier calls.

        Raises:
            ValueError: If there was none, or the file is damaged.
        """
        path = state_dir / _FILE
        if not path.exists():
            raise ValueError(
                f"{state_dir} holds no comparison; needed is the `state_dir` of a call of `compare`. Run it "
                "first, or name the folder it wrote to."
            )
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path} cannot be read ({error}); needed is what `compare` wrote there. The runs beside it "
                "are files of their own: remove this one, and call `compare` with the same arguments again."
            ) from error


def _has_run(folder: Path) -> bool:
    return any(folder.glob("seed_*/ledger.sqlite3"))


def folder_of(name: str) -> str:
    """A strategy's name as that of a folder; one that had to be changed, or is a file's, ends with a digest.

    Example:
        >>> folder_of("BADGE"), folder_of("Power(BALD, 2)").rpartition("-")[0]
        ('BADGE', 'Power_BALD_2')
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:60]
    if safe == name != "" and Path(safe).suffix.lower() not in _SUFFIXES:
        return safe
    return f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".lstrip("-")
