"""The command: run what is missing, then write tables, pictures and the page's blocks of what there is.

python -m benchmarks.evidence --data-root DIR             # all; stopped and started again, it goes on
python -m benchmarks.evidence --data-root DIR --report    # of what there is, while runs go on too
python -m benchmarks.evidence --data-root DIR --tune      # how the settings of the training were chosen
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

# Runs go side by side: one thread each is quicker than all of them sharing every core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.evidence import draw
from benchmarks.evidence.data import Source
from benchmarks.evidence.regret import areas_of, judge
from benchmarks.evidence.studies import STUDIES, Study, quick, run, tune
from benchmarks.evidence.tell import LIMIT, Place, write_costs, write_regret, write_study, write_tuning
from lightning_al import Comparison
from lightning_al.comparing import FailedRunsError

__all__ = ["main"]

#: What the default is chosen on: studies of the same strategies. MNIST is only looked at.
DEVELOPMENT = ("fashion_mnist", "trec", "pneumonia")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status says whether all runs have ended, and none took longer than promised."""
    options = _options(arguments)
    studies = {name: _chosen(STUDIES[name], options) for name in options.studies}
    sources = {name: study.read(options.data_root) for name, study in studies.items()}
    place = Place(options.into)
    if options.tune:
        rows = [
            row
            for name, study in studies.items()
            for row in tune(study, sources[name], options.state / "tuning" / name, workers=options.workers)
        ]
        write_tuning(place, rows)
        return 0
    found = {}
    for name, study in studies.items():
        comparison = _comparison(study, sources[name], options)
        if comparison is not None and comparison.ended:
            found[name] = comparison
            write_study(place, study, sources[name], comparison)
            print(f"\n{study.title}\n{comparison.summary(study.metric, target='random')}")
    return _report(place, studies, found)


def _comparison(study: Study, source: Source, options: argparse.Namespace) -> Comparison | None:
    folder = options.state / study.name
    if options.report:
        return Comparison.load(folder) if (folder / "comparison.json").exists() else None
    try:
        return run(study, source, folder, seeds=options.seeds, workers=options.workers)
    except KeyboardInterrupt:
        sys.exit("Interrupted: the same command goes on from here.")
    except FailedRunsError as error:
        print(error, file=sys.stderr)
        return error.comparison


def _report(place: Place, studies: Mapping[str, Study], found: Mapping[str, Comparison]) -> int:
    """What is of all studies together."""
    if not found:
        print("No run has ended yet, so there is nothing to tell. Give the command without --report.")
        return 1
    most = write_costs(place, {studies[name].title: comparison for name, comparison in found.items()})
    same = {name: found[name] for name in DEVELOPMENT if name in found}
    if len(same) == len(DEVELOPMENT) and min(len(one.seeds) for one in same.values()) > 1:
        titles = {name: studies[name].title for name in same}
        areas = {
            name: areas_of(one, studies[name].metric, list(studies[name].strategies))
            for name, one in same.items()
        }
        judged = judge(areas)
        write_regret(place, judged, titles)
        place.picture(
            "penalties",
            draw.penalties({titles[name]: (one, studies[name].metric) for name, one in same.items()}),
        )
        print(f"\nLowest worst-case regret: {judged.lowest}; chosen for the default: {judged.chosen}.")
    print(f"The longest run took {most:.1f} processor seconds; promised are {LIMIT:g}.")
    ended = all(len(one.ended) == len(one.strategies) * len(one.seeds) for one in found.values())
    return 0 if most <= LIMIT and ended and len(found) == len(studies) else 1


def _chosen(study: Study, options: argparse.Namespace) -> Study:
    """With fewer strategies, or tiny, as asked for."""
    if options.strategies:
        kept = {
            name: one for name, one in study.strategies.items() if name in {*options.strategies, "Random"}
        }
        study = replace(study, strategies=kept, extra={})
    return quick(study) if options.quick else study


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evidence", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--data-root", type=Path, default=Path(os.environ.get("LIGHTNING_AL_DATA", "data")),
        help="folder that holds mnist/, fashion_mnist/, trec/ and pneumonia_mnist/; else LIGHTNING_AL_DATA",
    )  # fmt: skip
    parser.add_argument("--studies", nargs="+", choices=list(STUDIES), default=list(STUDIES))
    parser.add_argument("--strategies", nargs="+", help="only these, and Random; default: all of a study")
    parser.add_argument("--seeds", type=int, default=10, help="runs of every strategy")
    parser.add_argument("--workers", type=int, help="runs side by side; default: one a core")
    parser.add_argument("--state", type=Path, default=Path("runs/evidence"), help="where runs are kept")
    parser.add_argument("--into", type=Path, default=Path(), help="where benchmarks/results and docs lie")
    parser.add_argument("--report", action="store_true", help="tables and pictures of what there is; no run")
    parser.add_argument("--tune", action="store_true", help="how the settings were chosen")
    parser.add_argument("--quick", action="store_true", help="so small that it only shows that it runs")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
