"""Many hostile files, from where it stopped; what came of them is written down.

python -m tests.fuzz --count 100000 --state runs/fuzz --summary docs/fuzz.md
"""

import argparse
import json
import platform
import sqlite3
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from tqdm import tqdm

from tests.fuzz.inputs import FORMATS, KINDS, case
from tests.fuzz.trying import Bench

OUTCOMES = ("refused", "accepted", "empty", "failed")
STEP = 500


def load(path):
    """What was done: the next number, counts by format and outcome, failures, seconds."""
    if path.exists():
        return json.loads(path.read_text())
    counts = {name: dict.fromkeys(OUTCOMES, 0) for name in FORMATS}
    return {"next": 0, "counts": counts, "failures": [], "seconds": 0.0}


def run(state, numbers, folder, found):
    """Some numbers; a file that breaks something is kept."""
    bench, began = Bench(folder), time.perf_counter()
    for number in numbers:
        format_ = FORMATS[number % len(FORMATS)]
        try:
            outcome = bench.try_number(number)
        except Exception as error:
            outcome = "failed"
            found.mkdir(parents=True, exist_ok=True)
            (found / f"{number}.{format_}").write_bytes(case(number, "f0c4").content)
            line = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(line.filename).name}:{line.lineno}"
            state["failures"].append([number, place, f"{type(error).__name__}: {error}"[:200]])
            bench.restore()
        state["counts"][format_][outcome] += 1
        state["next"] = number + 1
    state["seconds"] += time.perf_counter() - began


def summary(state):
    """A page of the documentation."""
    done, minutes = state["next"], f"{state['seconds'] / 60:,.0f} minutes"
    rows = "\n".join(f"| {f} | {sum(c.values()):,} | " + " | ".join(f"{c[o]:,}" for o in OUTCOMES) + " |"
                     for f, c in state["counts"].items())  # fmt: skip
    failures = "\n".join(f"- {n}: {place}, `{what}`" for n, place, what in state["failures"][:50])
    kinds = ", ".join(str(kind) for kind in KINDS if kind)
    return f"""# Hostile files

What people send back is read by `lightning-al import` and `data.import_labels`, so these are tried with
files that nobody should send. Valid ones, with labels of every kind ({kinds}, or none known
yet), with and without ids, are changed: bits are flipped, parts are cut out, doubled, inserted, recoded or
come from other files, and values become NaN, `1e999`, `10**400`, nested lists, halves of characters, NUL,
formulas, reserved names and more. The number of a file is its seed.

After each file it is checked that

- nothing but `ValueError` or `LedgerError` comes out;
- a file that is refused leaves the ledger as it was, byte for byte, and nothing else in its folder;
- what is accepted are labels that can be trained on (a class that exists, a finite number of at most 64 bits,
  text without NUL or halves of characters), of annotators with names that can be shown;
- the chain of digests verifies, and the same file read again adds nothing.

| format | files | {" | ".join(OUTCOMES)} |
|---|---|{"---|" * len(OUTCOMES)}
{rows}

{done:,} files in {minutes} (Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}).
"Empty" is a file that holds no answer. `make test` tries the first 2,000, `make fuzz` all of them, and goes
on where it stopped.
{"" if not failures else chr(10) + failures + chr(10)}"""


def main():
    """Try them, a step at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--state", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("--summary", type=Path, default=None)
    options = parser.parse_args()
    warnings.simplefilter("error")
    options.state.mkdir(parents=True, exist_ok=True)
    path = options.state / "state.json"
    state = load(path)
    with tqdm(total=options.count, initial=state["next"], unit=" files", mininterval=5) as bar:
        while state["next"] < options.count:
            numbers = range(state["next"], min(state["next"] + STEP, options.count))
            with tempfile.TemporaryDirectory() as folder:
                run(state, numbers, Path(folder), options.state / "found")
            part = path.with_suffix(".part")
            part.write_text(json.dumps(state))
            part.replace(path)
            bar.update(len(numbers))
    failed = sum(counts["failed"] for counts in state["counts"].values())
    print(json.dumps(state["counts"], indent=1))
    if options.summary is not None:
        options.summary.write_text(summary(state))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
