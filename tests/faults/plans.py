"""Which kills there are: of every step at every moment, and at any instant, drawn by a seed."""

from __future__ import annotations

import random

from faults.command import Undisturbed
from faults.kills import INSTANT, SCENES, STEPS, Kill

#: Every step at every moment, and some at any instant, in an order in which neighbours differ.
SLOTS = [(step, moment) for step in STEPS for moment in ("before", "within", "after")]
SLOTS += [(INSTANT, "")] * 13
random.Random(0).shuffle(SLOTS)


def plan(seed: int, processes: int, undisturbed: dict[str, Undisturbed]) -> tuple[str, list[Kill]]:
    """The scene and the kills of a seed: one, or, of every fifth seed, three in three starts."""
    draw = random.Random(f"{seed} {processes}")
    step, moment = SLOTS[seed % len(SLOTS)]
    scene = draw.choice([s for s in SCENES if step == INSTANT or _places(step, undisturbed[s])])
    first = _kill(draw, step, moment, processes, undisturbed[scene])
    kills = [first]
    if seed % 5 == 4:
        for start in (first.start + 1, first.start + 2):
            step, moment = draw.choice(SLOTS)
            if step != INSTANT and not _places(step, undisturbed[scene]):
                step = INSTANT
            later = _kill(draw, step, moment, processes, undisturbed[scene], first_calls=True)
            kills.append(Kill(**{**vars(later), "start": start}))
    return scene, kills


def _places(step: str, undisturbed: Undisturbed) -> list[tuple[int, int]]:
    return [place for place, times in undisturbed.times.items() if step in times]


def _kill(
    draw: random.Random, step: str, moment: str, processes: int, undisturbed: Undisturbed,
    *, first_calls: bool = False,
) -> Kill:  # fmt: skip
    if step == INSTANT:
        start = draw.randrange(len(undisturbed.seconds))
        seconds = draw.uniform(0.02, 0.95) * undisturbed.seconds[start]
        return Kill(start, step, victim=draw.choice([-1, *range(processes)]), seconds=seconds)
    start, rank = draw.choice(_places(step, undisturbed))
    times = undisturbed.times[start, rank][step]
    call = draw.randint(1, min(len(times), 2) if first_calls else len(times))
    victim = rank if rank or draw.random() < 0.5 else -1
    seconds = draw.random() * times[call - 1] if moment == "within" else 0.0
    return Kill(start, step, moment, call, victim, seconds)
