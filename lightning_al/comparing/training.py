"""TRAINING: what a run is trained with, as far as it shows; all runs of a comparison must be alike in it.

Trainer, module, data module -> [training_of] -> names and values -> [Training] -> run.json, or a refusal

What does not show is not compared: a loss, an augmentation, a pre-trained file's content.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import lightning as L
import torch
from torch.optim import Optimizer

from lightning_al.comparing.settings import RefusedError, Run
from lightning_al.data import ActiveDataModule
from lightning_al.randomness import preserved_rng
from lightning_al.whole_file import replacing

__all__ = ["Known", "Training", "known_training", "training_of"]

Facts = Mapping[str, str]
Known = Mapping[Run, Mapping[int, Facts]]

_OF_DATA = ("batch_size", "steps_per_epoch", "drop_last")
_OF_TRAINER = (
    "max_epochs", "min_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "precision",
    "limit_train_batches", "limit_test_batches",
)  # fmt: skip


def training_of(
    trainer: L.Trainer, module: L.LightningModule, data: ActiveDataModule, *, with_module: bool = True
) -> dict[str, str]:
    """What a fit that is about to begin trains with.

    Args:
        trainer: With its optimizers.
        module: What is trained.
        data: What it is trained on.
        with_module: Whether the module and its optimizers are of it; not for a committee of several kinds.

    Returns:
        Values by name.
    """
    found = {name: str(getattr(data, name, None)) for name in _OF_DATA}
    found |= _trainer(trainer)
    if not with_module:
        return found
    found["module"] = _module(module)
    for number, optimizer in enumerate(trainer.optimizers):
        found |= _optimizer(optimizer, f"optimizer{number or ''}")
    schedulers = [type(one.scheduler).__name__ for one in trainer.lr_scheduler_configs]
    return {**found, "lr_schedulers": ", ".join(schedulers) or "none"}


def _trainer(trainer: L.Trainer) -> dict[str, str]:
    return {name: str(getattr(trainer, name, None)) for name in _OF_TRAINER}


def _module(module: L.LightningModule) -> str:
    """Its layers as they print themselves, and the shapes of its parameters; where they lie says nothing."""
    layers = [f"{name} {layer!r}" for name, layer in module.named_children()]
    lazy = torch.nn.parameter.is_lazy
    shapes = [
        (name, "lazy" if lazy(p) else tuple(p.shape), p.requires_grad)
        for name, p in module.named_parameters()
    ]
    text = re.sub(r" at 0x[0-9a-f]+", "", "\n".join([*layers, *map(str, shapes)]))
    count = sum(p.numel() for p in module.parameters() if not lazy(p))
    return f"{count:,} parameters in layers {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _optimizer(optimizer: Optimizer, name: str) -> dict[str, str]:
    """What it was made with; a schedule may have changed the rate since, and keeps what it was."""
    optimizer = getattr(optimizer, "optimizer", optimizer)  # Lightning's wrapper holds the user's
    rates = [group.get("initial_lr", group.get("lr")) for group in optimizer.param_groups]
    found = {f"{name}.{key}": str(value) for key, value in optimizer.defaults.items()}
    return {
        **found,
        name: type(optimizer).__name__,
        f"{name}.lr": str([float(r) if r is not None else r for r in rates]),
    }


def known_training(runs: Iterable[Run]) -> Known:
    """Of every run, what the rounds that it has finished were trained with."""
    return {
        run: {int(n): facts for n, facts in run.known().get("training", {}).items() if int(n) < finished}
        for run in runs
        if (finished := len(run.rows()))
    }


class Training:
    """What one run trains with, and its refusal if that is not what the others were trained with.

    A round is held against the same one of other runs. One that none has reached may differ from those before
    it, by plan; it may also be that something was changed. It is a plan if a round that there is would be
    trained today as it was.

    Args:
        run: Which.
        data: Its samples.
        sizes: How many samples of `val` and `test`; `None` where that does not show.
        known: What all runs were trained with so far.
        make_trainer: From the number of a round to a Trainer.
        with_module: See `training_of`.
        made_with: What else its rounds are said to be made with.
        accept_changes: Note what is otherwise in a run that goes on, in place of a refusal.
    """

    def __init__(
        self,
        run: Run,
        data: ActiveDataModule,
        sizes: Mapping[str, int | None],
        known: Known,
        make_trainer: Callable[[int], L.Trainer],
        *,
        with_module: bool,
        made_with: Mapping[str, Any] | None = None,
        accept_changes: bool = False,
    ) -> None:
        self.run, self.data, self.with_module = run, data, with_module
        self.made_with, self.accept_changes = dict(made_with or {}), accept_changes
        self.facts, self.make_trainer = run.known(), make_trainer
        self.own, self.goes_on = known.get(run, {}), run in known
        # A run goes on as it began; a new one is held against those of its seed, if there are any.
        same_seed = [rounds for one, rounds in known.items() if one.seed == run.seed and one != run]
        self.others = same_seed or [rounds for one, rounds in known.items() if one != run]
        self.unchanged: set[str] = set()
        self.accepted: list[str] = []
        if self.goes_on:
            before = {name: str(self.facts[name]) for name in sizes if name in self.facts}
            self.accepted = self._other({name: str(size) for name, size in sizes.items()}, before)
        self.facts |= sizes
        self._write()

    def begins(self, trainer: L.Trainer, module: L.LightningModule, number: int) -> None:
        """A round's first step is next.

        Raises:
            RefusedError: If the rounds that there are were trained otherwise, and that is not accepted.
        """
        found = training_of(trainer, module, self.data, with_module=self.with_module)
        other = self._other(found, self._expected(found, number))
        if found != self.facts.get("training", {}).get(str(number)) or self.accepted:  # else it is done again
            # What a new run is trained with shows beside the others; of one that goes on, only this tells it
            # from rounds that are to differ.
            self._note("accepted", number, [*self.accepted, *other] if self.goes_on else [])
        self._note("training", number, found)
        self._note("made_with", number, self.made_with)
        if number == 0:
            self.facts["batches"] = str(trainer.num_training_batches)
        self._write()

    def _note(self, what: str, number: int, value: Any) -> None:
        self.facts.setdefault(what, {})[str(number)] = value

    def _other(self, now: Facts, then: Facts) -> list[str]:
        """Names of what is otherwise, if that is accepted."""
        if not self.accept_changes:
            _refuse_other(now, then)
        return _other_than(now, then)

    def _expected(self, found: Facts, number: int) -> Facts:
        """As that round was; where none has been there, as those before it, but for what differs by plan."""
        held = self._same_round(number)
        if held:
            then = _common(held)
            self.unchanged = {name for name in found if found[name] == then.get(name)}
            return then
        then = _common((self.own or _joined(self.others)).values())
        if set(_other_than(found, then)) - self.unchanged:
            self.unchanged |= self._trainers_unchanged()
        return {name: value for name, value in then.items() if name not in self.unchanged}

    def _same_round(self, number: int) -> list[Facts]:
        """The run's own, or those of the others that were trained like it so far."""
        if number in self.own:
            return [self.own[number]]
        return [
            rounds[number]
            for rounds in self.others
            if number in rounds and all(rounds.get(n) == facts for n, facts in self.own.items())
        ]

    def _trainers_unchanged(self) -> set[str]:
        """Names of what `make_trainer` gives the last round that there is as it did then."""
        rounds = self.own or _joined(self.others)
        last = max(rounds)
        with preserved_rng():
            now = _trainer(self.make_trainer(last))
        return {name for name in now if now[name] == rounds[last].get(name)}

    def _write(self) -> None:
        with replacing(self.run.facts, "What is known of the run") as part:
            part.write_text(json.dumps(self.facts), encoding="utf-8")


def _common(rounds: Iterable[Facts]) -> Facts:
    """What all say that say anything of it."""
    values: dict[str, set[str]] = {}
    for facts in rounds:
        for name, value in facts.items():
            values.setdefault(name, set()).add(value)
    return {name: found.pop() for name, found in values.items() if len(found) == 1}


def _joined(runs: Sequence[Mapping[int, Facts]]) -> dict[int, Facts]:
    """Of several runs one, with what they have in common in each round."""
    numbers = {number for rounds in runs for number in rounds}
    return {number: _common(rounds[number] for rounds in runs if number in rounds) for number in numbers}


def _other_than(now: Facts, then: Facts) -> list[str]:
    return [name for name in now if name in then and now[name] != then[name]]


def _refuse_other(now: Facts, then: Facts) -> None:
    other = _other_than(now, then)
    if other:
        shown = "; ".join(f"{name} = {then[name]}, now {now[name]}" for name in other)
        raise RefusedError(
            f"The runs that are there were trained with {shown}; all that are compared must be alike. Set it "
            "as it was, use another `state_dir`, or pass `accept_changes=True` to compare them nevertheless."
        )
