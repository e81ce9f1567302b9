"""DRIVER: what is asked for, what is missing, and how far it is.

strategies, seeds -> [compare] -> runs, side by side -> Comparison
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from tqdm.auto import tqdm

from lightning_al.acquisition import Acquisition
from lightning_al.callbacks import ActiveLearning
from lightning_al.comparing.arguments import (
    check_functions,
    count,
    described,
    folder,
    metric_name,
    named,
    numbers,
)
from lightning_al.comparing.comparison import Comparison
from lightning_al.comparing.processes import side_by_side
from lightning_al.comparing.run import Task, carry_out, try_data
from lightning_al.comparing.settings import FailedRunsError, Run, Settings
from lightning_al.comparing.starts import Starts
from lightning_al.comparing.training import known_training
from lightning_al.data import ActiveDataModule
from lightning_al.data.checks import check_flag, check_positive
from lightning_al.inference.posteriors import Posterior, SinglePass

__all__ = ["compare"]


def compare(
    strategies: Mapping[str, Acquisition] | Sequence[Acquisition],
    make_model: Callable[[int], L.LightningModule],
    make_trainer: Callable[[int], L.Trainer],
    make_data: Callable[[int, Path], ActiveDataModule],
    *,
    query_size: int,
    rounds: int,
    seeds: int | Sequence[int] = 5,
    state_dir: str | os.PathLike[str],
    candidates: int | None = None,
    restart: Literal["initial", "redraw", "shrink_perturb", "warm"] = "initial",
    score_with: Literal["last", "best"] = "last",
    embedding_layer: str | None = None,
    test_posterior: Posterior | None = None,
    metric: str | None = None,
    made_with: Mapping[str, Any] | None = None,
    accept_changes: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Comparison:
    """Run every strategy with every seed, and tell what may be said of them.

    For one seed all strategies have the same samples, initial set and weights, and all runs are trained and
    tested alike, as far as that shows; the guide says what is checked. `Random` is always among them. A run
    is a `fit_rounds` in a folder of its own, `state_dir/<strategy>/seed_<n>`: killed anywhere and called
    again, it ends with the same table. A later call with more strategies, seeds or rounds does what is
    missing; runs that have ended cost nothing.

    Runs go side by side in processes of one thread each, which are forked on Linux, so that functions may be
    closures. What they print is in `log.txt` in their folders, where logs of Trainers go too that are not
    told otherwise. A run that fails is told of at the end, and the others go on; Ctrl-C ends all.

    Args:
        strategies: By name, or a list, named by their classes.
        make_model: From a seed to a fresh module, as for `fit_rounds`.
        make_trainer: From the number of a round to a fresh `Trainer` on one device.
        make_data: From a seed and a folder to an `ActiveDataModule` with just these as `seed` and
            `state_dir`, and a test set.
        query_size: Samples a round.
        rounds: Queries a run.
        seeds: How many, from 0 on, or which. Five say little, ten are for claims.
        state_dir: Folder of all runs.
        candidates: As in `ActiveLearning`, like the four that follow.
        restart: What a round's training begins with.
        score_with: Which weights are scored and tested.
        embedding_layer: Layer whose output is the embedding.
        test_posterior: What is tested; `None`: one pass of one module, for a committee its last member's, so
            that nobody wins by being several.
        metric: Test metric that is meant, which every run must have; `None`: that of an earlier call, else an
            accuracy, if there is one.
        made_with: What else the runs are made with, such as `{"lr": 0.01}`: numbers and texts by name, which
            a later call with this `state_dir` is held against; what that one does not name is changed too.
        accept_changes: Add to runs that were trained otherwise, by `made_with` or by what shows of it. Such a
            comparison is of more than its strategies, and says so.
        workers: Runs side by side; `None`: 1 where there is a GPU, else one a core that this process may
            use; 0: one after another in this process, for a debugger.
        progress: Show a bar over the rounds of all runs.

    Returns:
        The comparison; print it.

    Raises:
        FailedRunsError: After all others have ended, if some runs failed; it holds the comparison of those.
        TypeError: If an argument is of another kind.
        ValueError: If the runs in `state_dir` were made or trained otherwise, strategies began differently,
            data or Trainers cannot be compared by, or round 0 has no test metric, not `metric`, or one that
            is named like a column of the table.

    Example:
        >>> import tempfile, torch
        >>> from lightning_al import acquisition as acq
        >>> class Net(L.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = torch.nn.Linear(1, 2)
        ...
        ...     def forward(self, x):
        ...         return self.layer(x)
        ...
        ...     def training_step(self, batch, batch_idx):
        ...         return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])
        ...
        ...     def test_step(self, batch, batch_idx):
        ...         self.log("test_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())
        ...
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), 0.5)
        >>> def make_trainer(number):
        ...     return L.Trainer(
        ...         max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        ...         enable_model_summary=False, accelerator="cpu", devices=1,
        ...     )
        >>> x = torch.linspace(-1, 1, 40)[:, None]
        >>> samples = torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long())
        >>> def make_data(seed, state_dir):
        ...     return ActiveDataModule(samples, test_set=samples, initial=4, seed=seed, state_dir=state_dir)
        >>> comparison = compare(
        ...     [acq.Margin()], lambda seed: Net(), make_trainer, make_data, query_size=4, rounds=2, seeds=2,
        ...     state_dir=tempfile.mkdtemp(), workers=1, progress=False,
        ... )
        >>> comparison.strategies, comparison.seeds, len(comparison.rows)
        (['Random', 'Margin'], [0, 1], 12)
    """
    check_positive(query_size=query_size, rounds=rounds)
    check_functions(make_model, make_trainer, make_data)
    chosen, baseline = named(strategies)
    options: dict[str, Any] = {
        "candidates": candidates, "restart": restart, "score_with": score_with,
        "embedding_layer": embedding_layer,
        "test_posterior": SinglePass() if test_posterior is None else test_posterior,
    }  # fmt: skip
    for acquisition in chosen.values():
        ActiveLearning(acquisition, query_size=query_size, **options)  # refuses what does not fit
    common = {"query_size": query_size, **options, "test_posterior": repr(options["test_posterior"])}
    shown = {name: repr(acquisition) for name, acquisition in chosen.items()}
    settings = Settings(
        shown, numbers(seeds), rounds, baseline, common, described(made_with), metric_name(metric)
    )
    place = folder(state_dir)
    workers = count(workers)
    check_flag(accept_changes=accept_changes)
    whole = settings.joined_to(place, accept_changes=accept_changes)
    kept = whole.before_any_run(place)
    changed = not whole.is_noted_as(kept.made_with)
    if changed:
        Settings.read(place).note(kept.runs(place))
    kept.write(place)
    task = Task(
        chosen, make_model, make_trainer, make_data, query_size, rounds, options,
        known_training(whole.runs(place)), whole.made_with, accept_changes,
    )  # fmt: skip
    starts = Starts(whole.metric, accept_changes=accept_changes)

    def made(run: Run, rounds: int) -> None:
        """A round that was made otherwise is behind, so the record is what it was made with."""
        nonlocal changed
        if changed and whole.is_noted_as(run.known().get("made_with", {}).get(str(rounds - 1))):
            whole.write(place)
            changed = False

    return _carry_out(task, replace(settings, metric=whole.metric), place, workers, progress, starts, made)


def _carry_out(
    task: Task,
    settings: Settings,
    place: Path,
    workers: int,
    progress: bool,
    starts: Starts,
    made: Callable[[Run, int], None],
) -> Comparison:
    runs = settings.runs(place)
    left = []
    for run in runs:
        if run.rows():
            starts.check(run)
        if not run.has_ended(settings.rounds):
            left.append(run)
    if len(left) < len(runs):
        rank_zero_info(f"compare: {len(runs) - len(left)} of {len(runs)} runs have ended before")
    failures = []
    if left:
        workers = min(workers, len(left))
        rank_zero_info(f"compare: {len(left)} runs, {workers or 1} at a time; logs in {place}")
        _try_another_seed(task, left, workers)
        with _Bar(runs, left, settings.rounds, show=progress) as bar:

            def told(run: Run, rounds: int) -> None:
                bar.show(run, rounds)
                made(run, rounds)
                if rounds:
                    starts.check(run)

            failures = side_by_side(left, partial(carry_out, task), workers, told)
            order = {(run.strategy, run.seed): n for n, run in enumerate(left)}
            failures.sort(key=lambda one: order[one.strategy, one.seed])  # not by which was quicker
    comparison = Comparison.of(settings, place, failures)
    if failures:
        raise FailedRunsError(failures, comparison)
    return comparison


def _try_another_seed(task: Task, left: Sequence[Run], workers: int) -> None:
    """One call of `make_data` too many, so that a seed it does not heed shows before others are trained."""
    others = [run for run in left if run.seed != left[0].seed and not run.ledger.exists()]
    if not others:  # the first run's own is looked at before it trains
        return
    with TemporaryDirectory(prefix="lightning_al-", ignore_cleanup_errors=True) as scratch:
        run = others[-1]
        place = Path(scratch).resolve() / run.folder.parent.name / run.folder.name
        # In a process as runs are, before which this one must not start threads or CUDA. What else fails
        # there is told of by the runs that it fails in.
        side_by_side(
            [replace(run, folder=place)], partial(try_data, task), min(workers, 1), lambda run, rounds: None
        )


class _Bar:
    """Rounds of all runs.

    Args:
        runs: All.
        left: Those that have not ended.
        rounds: Queries a run.
        show: Whether to show anything.
    """

    def __init__(self, runs: Sequence[Run], left: Sequence[Run], rounds: int, *, show: bool) -> None:
        self.rounds, self.count = rounds, len(runs)
        self.done = dict.fromkeys(runs, rounds + 1) | {run: len(run.rows()) for run in left}
        self.bar = _Quiet(
            total=(rounds + 1) * len(runs), initial=sum(self.done.values()), desc="Comparing", unit="round",
            disable=not show,
        )  # fmt: skip
        self._say()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.close()

    def show(self, run: Run, rounds: int) -> None:
        """So many rounds of a run are done."""
        self.done[run] = rounds
        self._say()
        self.bar.update(sum(self.done.values()) - self.bar.n)

    def _say(self) -> None:
        ended = sum(rounds > self.rounds for rounds in self.done.values())
        self.bar.set_postfix_str(f"{ended} of {self.count} runs done", refresh=False)


class _Quiet(tqdm):  # type: ignore[misc]
    """Without the thread that looks after slow bars, which would be there when processes are forked."""

    monitor_interval = 0
