"""Hundreds of kills: `make faults`; what was done is in runs/faults/kills.jsonl and is not done again.

python -m faults.many [--kills 200] [--processes 1 2] [--folder runs/faults] [--report docs/faults.md]
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from faults.command import Command, RunFailedError, Undisturbed, verdict
from faults.kills import INSTANT, SCENES, STEPS
from faults.plans import plan

FAULTS = ("lost", "doubled", "moved", "queries different", "measurements different", "history different")
BEGIN, END = "<!-- kills: begin -->\n", "<!-- kills: end -->\n"

Record = dict[str, Any]


def one(folder: Path, seed: int, processes: int, undisturbed: dict[str, Undisturbed]) -> Record:
    """A run that is killed as the seed says, and what became of it."""
    scene, kills = plan(seed, processes, undisturbed)
    command = Command(Path(mkdtemp(prefix=f"{processes}_{seed}_", dir=folder)), scene, processes)
    record: Record = {"processes": processes, "seed": seed, "scene": scene, "kills": [], "failed": ""}
    try:
        record["kills"] = [vars(kill) for kill in command.suffer(kills)]
        record |= verdict(command, undisturbed[scene])
    except RunFailedError as error:
        record |= {"kills": [vars(kill) for kill in kills], "failed": str(error)}
    if survived(record):
        shutil.rmtree(command.folder)
    return record


def survived(record: Record) -> bool:
    """Whether the run went on and ended as if nobody had disturbed it."""
    return not record["failed"] and not any(record[fault] for fault in FAULTS)


def known(file: Path) -> list[Record]:
    """What is done; what failed is to be done again."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [record for record in map(json.loads, lines) if survived(record)]


def work(folder: Path, processes: int, wanted: int) -> Iterator[Record]:
    """Kill until so many kills took place: those at any instant may come too late."""
    file = folder / "kills.jsonl"
    done = [record for record in known(file) if record["processes"] == processes]
    took_place, seeds = sum(len(record["kills"]) for record in done), {record["seed"] for record in done}
    yield from done
    if took_place >= wanted:
        return
    begun, before = time.monotonic(), took_place
    print(f"{processes} process(es): {took_place} of {wanted} kills are done", flush=True)
    home = Path(mkdtemp(prefix="undisturbed_", dir=folder))
    undisturbed = {scene: Undisturbed.of(Command(home / scene, scene, processes)) for scene in SCENES}
    shutil.rmtree(home)
    for seed in count():
        if took_place >= wanted:
            return
        if seed in seeds:
            continue
        record = one(folder, seed, processes, undisturbed)
        with file.open("a") as lines:
            lines.write(json.dumps(record) + "\n")
        took_place += len(record["kills"])
        left = (wanted - took_place) * (time.monotonic() - begun) / max(1, took_place - before)
        steps = ", ".join(f"{kill['moment']} {kill['step']}" for kill in record["kills"]) or "too late"
        what = "survived" if survived(record) else f"NOT SURVIVED {record}"
        print(f"{processes}: {took_place}/{wanted}, {left / 60:.0f} min left: {steps}: {what}", flush=True)
        yield record


def table(records: list[Record]) -> str:
    """Kills by step, and what came of the runs that suffered them."""
    names = [*STEPS, INSTANT]
    counted = {name: [r for r in records for kill in r["kills"] if kill["step"] == name] for name in names}
    counted = {name: found for name, found in counted.items() if found}
    counted["**all**"] = [r for found in counted.values() for r in found]
    lines = [
        "| killed at | 1 process | 2 processes | survived | labels lost | doubled | moved | other queries | "
        "other measurements |",
        "| --- |" + " ---: |" * 8,
    ]
    for name, found in counted.items():
        ranks = [sum(r["processes"] == n for r in found) for n in (1, 2)]
        faults = [sum(r.get(fault, 0) for r in found) for fault in FAULTS]
        cells = [*ranks, sum(map(survived, found)), *faults[:4], sum(faults[4:])]
        lines.append(f"| {name} | " + " | ".join(map(str, cells)) + " |")
    several = sum(len(r["kills"]) > 1 for r in records)
    return "\n".join(lines) + (
        f"\n\nThese were {len(records)} runs, {several} of them killed two or three times; those in which no "
        f"kill took place, since the run had ended, are not among them.\n"
    )


def write_report(file: Path, text: str) -> None:
    """Put the table between its marks."""
    before, _, rest = file.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    file.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="for each number of processes")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/faults"))
    parser.add_argument("--report", type=Path, help="the page whose table is replaced")
    options = parser.parse_args()
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    records = [record for n in options.processes for record in work(folder, n, options.kills)]
    text = table([record for record in records if record["kills"]])
    print(text)
    if options.report:
        write_report(options.report, text)
    return not all(map(survived, records))


if __name__ == "__main__":
    sys.exit(main())
