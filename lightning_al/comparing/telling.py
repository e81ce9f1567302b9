"""TELLING: a summary as text, with what its numbers are and how far they can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from textwrap import wrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_al.comparing.summary import ComparisonSummary

__all__ = ["told", "told_of"]

_WIDE = 110


def told(summary: ComparisonSummary) -> str:
    """Two tables, and a line on each of their columns."""
    facts, rows = summary.facts, summary.rows
    way = "higher" if facts["higher"] else "lower"
    labels = f"{facts['first']} to {facts['last']} labels" if facts["points"] else "no label count in common"
    head = f"{len(rows)} strategies, {_seeds(rows)}, {labels}; {facts['metric']}, {way} is better"
    parts = [head, "", *_quality(summary), "", *_notes(summary), "", *_costs(summary)]
    warnings = _warnings(summary)
    return "\n".join(parts + (["", *warnings] if warnings else []))


def _seeds(rows: Sequence[dict[str, Any]]) -> str:
    counts = sorted({row["seeds"] for row in rows})
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _quality(summary: ComparisonSummary) -> list[str]:
    facts = summary.facts
    base, target = facts["baseline"], facts["target"]
    names = ["strategy", "area (AUBC)", "at the end"]
    names += [] if target is None else [f"labels to {target:g}", f"labels / {base}'s"]
    names += [f"area - {base}'s", "p", "p (Holm)"]
    table = [names]
    for row in summary:
        cells = [row["strategy"], _spread(row, "aubc", _number), _spread(row, "final", _number)]
        if target is not None:
            cells += [_spread(row, "labels_to_target", partial(_labels, budget=row["budget"])), _ratio(row)]
        if "aubc_gain" in row:
            sign = 1 if facts["higher"] else -1  # shown as the difference that it is
            ends = sorted(sign * row[f"aubc_gain_ci_{end}"] for end in ("low", "high"))
            gain = "-" if math.isnan(row["aubc_gain"]) else f"{sign * row['aubc_gain']:+.4f}"
            cells += [gain if math.isnan(ends[0]) else f"{gain} [{ends[0]:+.4f}, {ends[1]:+.4f}]"]
            cells += [_p(row["p"]), _p(row["p_holm"])]
        else:
            cells += ["", "", ""]
        table.append(cells)
    return aligned(table)


def _notes(summary: ComparisonSummary) -> list[str]:
    facts = summary.facts
    base, tested = facts["baseline"], [row for row in summary if not math.isnan(row.get("p", math.nan))]
    tests = len(tested)
    over = f"from {facts['first']} to {facts['last']} labels" if facts["points"] else "where all have one"
    notes = [
        f"area: mean height of the curve {over}; median over seeds [quartiles]. Labels are those that a "
        "model was trained on, the initial ones included."
    ]
    if facts["target"] is not None:
        whose = f" The target is {base}'s median in the last round but one; name your own by `target`."
        most = str(facts["budgets"][0]) if len(facts["budgets"]) == 1 else "its last round's"
        notes.append(
            "labels to: at the first of two consecutive rounds at the target; a seed without such needed "
            f"more than {most}.{whose if facts.get('of_random') else ''}"
        )
    notes.append(
        f"against {base}: paired by seed; [95 %, {facts['resamples']:,} bootstrap resamples of the seeds]."
        + (" An end that hangs on a miss is not known: ?" if facts["target"] is not None else "")
    )
    if tests:
        smallest = min(row["smallest_p"] for row in tested)
        notes.append(
            f"p: exact sign-flip test of the areas; with so many seeds none can be below {smallest:.2g}. "
            f"Holm: corrected for {tests} test{'s' * (tests > 1)}."
        )
    return [line for note in [*notes, _validation(facts)] for line in wrap(note, _WIDE)]


def _validation(facts: dict[str, Any]) -> str:
    if facts["val"] == "0":
        return "Validation: none, so no further labels were used."
    if facts["val"] is None:
        return "Validation: whether labels were used for it is not known; they are not counted above."
    return f"Validation: {facts['val']} further labels were used by every run, and are NOT counted above."


def _costs(summary: ComparisonSummary) -> list[str]:
    names = ["seconds a round", "train", "test", "score", "select", "all"]
    entropies = summary.facts["classes"] is not None
    table = [names + (["class entropy of acquired labels"] if entropies else [])]
    for row in summary:
        times = [row[key] for key in ("train_s", "test_s", "score_s", "select_s", "round_s")]
        cells = [row["strategy"], *(_number(value) if not math.isnan(value) else "-" for value in times)]
        table.append(cells + ([_spread(row, "acquired_entropy", _number)] if entropies else []))
    lines = aligned(table)
    if entropies:
        most = math.log(summary.facts["classes"]) if summary.facts["classes"] else 0.0
        lines.append(f"Entropy in nats; {most:.3f} is an even share of each of {summary.facts['classes']}.")
    return lines


def _warnings(summary: ComparisonSummary) -> list[str]:
    facts, found = summary.facts, []
    pairs = min((row["pairs"] for row in summary if "pairs" in row), default=0)
    if pairs < facts["few"]:
        found.append(
            f"TOO FEW SEEDS: {pairs} pairs; intervals and p-values need {facts['few']} or more, claims ten."
        )
    if facts["points"] < facts["most_points"]:
        found.append(
            f"AREAS are over the {facts['points']} label counts that all runs have, of "
            f"{facts['most_points']} that some have."
        )
    if facts["lacking"]:
        found += wrap(f"LEFT OUT, without {facts['metric']}: {told_of(facts['lacking'])}.", _WIDE)
    if facts["unlike"]:
        found += wrap(
            f"NOT ALIKE: not all rounds of all runs were trained with the same {', '.join(facts['unlike'])}.",
            _WIDE,
        )
    missing = facts["asked_for"] - facts["runs"]
    if missing:
        found.append(
            f"NOT WHOLE: {missing} of {facts['asked_for']} runs have not ended and are left out"
            + (f"; {facts['failed']} failed." if facts["failed"] else ".")
        )
    return found


def told_of(lacking: Mapping[tuple[str, int], Sequence[int]]) -> str:
    """Rounds by strategy and seed, in words.

    Example:
        >>> told_of({("BADGE", 1): [3], ("Margin", 0): [2, 4]})
        'BADGE with seed 1 in round 3; Margin with seed 0 in rounds 2, 4'
    """
    return "; ".join(
        f"{name} with seed {seed} in round{'s' * (len(rounds) > 1)} {', '.join(map(str, rounds))}"
        for (name, seed), rounds in lacking.items()
    )


# ---------------------------------------------------------------------- cells


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width, text at the left."""
    wide = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(f"{cell:<{n}}" for cell, n in zip(row, wide, strict=True)).rstrip() for row in table]


def _spread(row: dict[str, Any], name: str, shown: Any) -> str:
    middle = shown(row[name])
    ends = [shown(row[f"{name}{end}"]) for end in ("_q1", "_q3")]
    return middle if row["seeds"] < 2 else f"{middle} [{', '.join(ends)}]"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}" if abs(value) >= 10 else f"{value:.3f}"


def _labels(value: float, budget: float) -> str:
    return f"> {budget:g}" if math.isinf(value) else f"{value:g}"


def _ratio(row: dict[str, Any]) -> str:
    if "label_ratio_low" not in row:
        return ""
    low, high = row["label_ratio_low"], row["label_ratio_high"]
    if low == high:
        middle = f"{low:.2f}"
    elif low == 0 and math.isinf(high):
        middle = "?"
    else:
        middle = f"< {high:.2f}" if low == 0 else f"> {low:.2f}"
    ends = row["label_ratio_ci_low"], row["label_ratio_ci_high"]
    if math.isnan(ends[0]):
        return middle
    # Nothing is known of how far beyond the budget a miss is: an end that hangs on it has no number.
    shown = ["?" if end == 0 or math.isinf(end) else f"{end:.2f}" for end in ends]
    return f"{middle} [{shown[0]}, {shown[1]}]"


def _p(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}" if value >= 0.0001 else f"{value:.1e}"
