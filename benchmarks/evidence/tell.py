"""TELL: tables into files and onto the page.

Comparisons, Judged -> [write_study], [write_regret] -> benchmarks/results/evidence/*.csv, docs/evidence.md
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.evidence import draw
from benchmarks.evidence.class_tables import all_classes, class_rows, collapse_rows, fine_rows, rare_rows
from benchmarks.evidence.classes import acquired, fine_counts, mean_words
from benchmarks.evidence.data import Source
from benchmarks.evidence.regret import Judged
from benchmarks.evidence.studies import Study
from lightning_al import Comparison

__all__ = [
    "LIMIT",
    "Place",
    "processor_seconds",
    "write_costs",
    "write_regret",
    "write_study",
    "write_tuning",
]

#: Processor seconds that no run may take longer than.
LIMIT = 60.0


@dataclass(frozen=True)
class Place:
    """Where things go.

    Args:
        root: Of the repository, or of what stands for it.
    """

    root: Path

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a CSV file."""
        with self.file(name).open("w", newline="", encoding="utf-8") as file:
            columns = list(dict.fromkeys(key for row in rows for key in row))
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows({key: _short(value) for key, value in row.items()} for row in rows)

    def file(self, name: str) -> Path:
        """A table's file, whose folder is there."""
        folder = self.root / "benchmarks" / "results" / "evidence"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.csv"

    def picture(self, name: str, figure: Any) -> None:
        """Write a picture of the page."""
        folder = self.root / "docs" / "images"
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"evidence_{name}.png")

    def put(self, name: str, body: str) -> None:
        """Write on the page, between two marks of this name, if they are there."""
        path = self.root / "docs" / "evidence.md"
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if begin in text and end in text:
            before, after = text.split(begin)[0], text.split(end)[1]
            path.write_text(f"{before}{begin}\n{body}\n\n{end}{after}", encoding="utf-8")


# ---------------------------------------------------------------------- one study


def write_study(place: Place, study: Study, source: Source, comparison: Comparison) -> None:
    """Tables, pictures, and the block of the page."""
    name, metric = study.name, study.metric
    place.table(f"{name}_rounds", comparison.rows)
    summary = comparison.summary(metric, target="random")
    place.table(f"{name}_summary", summary.rows)
    target = comparison.reached_at_random(metric)
    place.picture(name, draw.curves(comparison, metric, study.title, target))
    said = f"```text\n{summary}\n```"
    if len(comparison.seeds) > 1:
        found = comparison.penalties(metric)
        place.table(
            f"{name}_penalties",
            [
                {"beaten": n, **dict(zip(found.names, row, strict=True)), "mean": found.means[n]}
                for n, row in zip(found.names, found.matrix.tolist(), strict=True)
            ],
        )
    place.put(name, said)
    _write_classes(place, study, source, comparison)


def _write_classes(place: Place, study: Study, source: Source, comparison: Comparison) -> None:
    classes = len(source.class_names)
    pool = np.bincount(source.train.targets.numpy(), minlength=classes)
    counts = acquired(all_classes(comparison, classes))
    place.table(f"{study.name}_classes", class_rows(counts, source.class_names))
    if study.name == "mnist":
        place.picture("collapse", draw.collapse(counts, pool, source.class_names, study.initial))
        place.put("collapse", _markdown(collapse_rows(counts, pool)))
    if source.fine is not None:
        fine = acquired(fine_counts(study, source, comparison))
        of_fine = np.bincount(source.fine.numpy())
        place.picture("sub_categories", draw.sub_categories(fine, of_fine, study.initial))
        rows = fine_rows(fine, counts, of_fine, pool, mean_words(study, source, comparison))
        place.table(f"{study.name}_fine", rows)
        place.put("sub_categories", _markdown(rows))
    if classes == 2:
        rows = rare_rows(comparison, counts, pool)
        place.table(f"{study.name}_rare", rows)
        place.put("rare_class", _markdown(rows))


# ---------------------------------------------------------------------- all studies


def processor_seconds(comparison: Comparison) -> dict[str, list[float]]:
    """Of every strategy, what its runs took, as far as they went."""
    found: dict[str, list[float]] = {}
    for table in comparison.tables:
        seconds = sum(row["processor_s"] for row in table.rows)
        found.setdefault(table.run.strategy, []).append(seconds)
    return found


def write_costs(place: Place, comparisons: Mapping[str, Comparison]) -> float:
    """Processor seconds a run; what the longest took."""
    rows: dict[str, dict[str, Any]] = {}
    every: list[dict[str, Any]] = []
    for title, comparison in comparisons.items():
        for name, seconds in processor_seconds(comparison).items():
            row = rows.setdefault(name, {"": name})
            row[title] = f"{median(seconds):.1f} ({max(seconds):.1f})"
            every += [
                {"study": title, "strategy": name, "run": run, "processor_s": second}
                for run, second in enumerate(seconds)
            ]
    place.table("runs", every)
    most, whole = max(row["processor_s"] for row in every), sum(row["processor_s"] for row in every)
    said = (
        f"{len(every)} runs took {whole / 60:.0f} minutes of processor time, the longest {most:.1f} seconds."
    )
    place.put("costs", f"{_markdown(list(rows.values()))}\n\n{said}")
    return float(most)


def write_regret(place: Place, judged: Judged, titles: Mapping[str, str]) -> None:
    """The table that the default was chosen by, and the choice."""
    place.table("regret", judged.rows)
    shown = []
    for row in judged.rows:
        cells = {"": row["strategy"]}
        for name, title in titles.items():
            cells[f"{title}: area"] = f"{row[f'{name}_aubc']:.4f}"
            cells[f"regret {title}"] = f"{row[f'{name}_regret']:.4f}"
        cells["worst regret"] = (
            f"**{row['worst']:.4f}** [{row['worst_ci_low']:.4f}, {row['worst_ci_high']:.4f}]"
        )
        interval = f"[{row['beyond_ci_low']:+.4f}, {row['beyond_ci_high']:+.4f}]"
        cells[f"beyond {judged.lowest}'s"] = f"{row['beyond_lowest']:+.4f} {interval}"
        cells["within noise"] = "yes" if row["within_noise"] else "no"
        cells["candidate"] = "yes" if row["candidate"] else "no"
        shown.append(cells)
    said = (
        f"Lowest worst case among the candidates: `{judged.lowest}`. Chosen by the rule: `{judged.chosen}`."
    )
    within = "is within noise of it too" if judged.random_within else "is not within noise of it"
    place.put("regret", f"{_markdown(shown)}\n\n{said} Random sampling {within}.")


def write_tuning(place: Place, rows: Sequence[Mapping[str, Any]]) -> None:
    """What the settings were chosen among."""
    place.table("tuning", rows)
    place.put("tuning", _markdown([{k: v for k, v in row.items() if k != "weight_decay"} for row in rows]))


# ---------------------------------------------------------------------- cells


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(key for row in rows for key in row))
    lines = [names, ["---"] * len(names), *([str(row.get(name, "")) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _short(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value
