"""Two processes and something goes wrong on one: the ranks write down what each was told."""

import dataclasses
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from integration.small import Net, blobs, margin, pool, quiet
from lightning.pytorch.strategies import DDPStrategy

import lightning_al.data.book as book
from distributed.launch import note, rank
from lightning_al import ActiveDataModule, ActiveLearning, Committee, LedgerError, MCDropout, fit_rounds
from lightning_al import acquisition as acq

OPTIONS = {"devices": 2, "strategy": "ddp", "max_epochs": 1}
#: Of processes that wait for each other for so many seconds only, also when they meet on a busy machine.
SHORT = 10


class Failing(Net):
    """What is wrong is wrong while scoring and on one rank only."""

    def __init__(self, what: str, on: int) -> None:
        super().__init__()
        self.what, self.on = what, on

    def active_step(self, batch, batch_idx):
        early = self.trainer.global_step == 0
        if rank() == self.on and self.what == ("rehearsal" if early else "exception"):
            raise ArithmeticError("the model cannot count")
        logits = self(batch[0])
        bad = self.what == ("nan early" if early else "nan")
        return logits * torch.nan if rank() == self.on and bad else logits


def nan(on):
    quiet(callbacks=[margin()], **OPTIONS).fit(Failing("nan", on), datamodule=pool(Path("nan")))


def exception(on):
    fit_rounds(Failing("exception", on), lambda r: quiet(**OPTIONS), pool(Path("error")), margin(), rounds=1)


def rehearsal(on):
    """Known before the first step, on all ranks."""

    def trainer(number):
        made.append(quiet(**OPTIONS))
        return made[-1]

    made = []
    try:
        fit_rounds(Failing("rehearsal", on), trainer, pool(Path("early")), margin(), rounds=1)
    finally:
        note("steps", made[-1].global_step)


def not_writable(on):
    """The disk of rank 0 refuses the query."""

    def refuse(*args, **kwargs):
        raise LedgerError("the disk is full")

    append = book.Ledger.append

    class Full(acq.Margin):
        def select(self, *args, **kwargs):
            if rank() == 0:
                book.Ledger.append = refuse
            return super().select(*args, **kwargs)

    try:
        active = ActiveLearning(Full(), query_size=8)
        quiet(callbacks=[active], **OPTIONS).fit(Net(), datamodule=pool(Path("full")))
    finally:
        book.Ledger.append = append


class Counts(acq.CoreSet):
    """Exchanges something, and then may fail."""

    def __init__(self, on=0, what=""):
        super().__init__()
        self._on, self._what = on, what

    def select(self, pool, *args, **kwargs):
        here = rank() == self._on
        if here and self._what == "before":
            raise ArithmeticError("the strategy cannot count")
        found = super().select(pool, *args, **kwargs)
        if here and self._what == "after":
            raise ArithmeticError("the strategy cannot count")
        if here and self._what == "exit":
            sys.exit("the strategy gives up")
        if here and self._what == "fewer":
            found = dataclasses.replace(found, positions=found.positions[:-1])
        if here and self._what == "once more":
            pool.shard.gather(torch.zeros(1))
        if here and self._what == "otherwise":
            found = dataclasses.replace(found, positions=found.positions.flip(0))
        if self._what == "kind":
            pool.shard.gather_objects("x") if here else pool.shard.gather(torch.zeros(3, 2))
        if self._what == "shape":
            pool.shard.gather(torch.zeros(3, 2 + here))
        if self._what == "type":
            pool.shard.gather(torch.zeros(3, dtype=torch.float64 if here else torch.float32))
        if self._what == "counts":
            pool.shard.gather(torch.zeros(2 + here), [2, 2])
        if self._what == "own":
            dist.all_reduce(torch.ones(3)) if not here else [][0]
        return found


def selection_fails(on, what="before"):
    active = ActiveLearning(Counts(on, what), query_size=8)
    options = {**OPTIONS, "strategy": short()} if what == "own" else OPTIONS
    quiet(callbacks=[active], **options).fit(Net(), datamodule=pool(Path(f"select {what} {on}")))


class Keeps(acq.CoreSet):
    """What is kept of a sample depends on the rank."""

    def __init__(self, what):
        super().__init__()
        self._what = what

    def summarize(self, outputs):
        found = super().summarize(outputs)
        rows = found["embeddings"]
        if rank():
            found = {
                "names": {**found, "more": rows},
                "shape": {"embeddings": rows[:, 1:]},
                "type": {"embeddings": rows.half()},
            }[self._what]
        return found


def summaries(on, what):
    active = ActiveLearning(Keeps(what), query_size=8)
    quiet(callbacks=[active], **OPTIONS).fit(Net(), datamodule=pool(Path(f"keeps {what}")))


def short():
    return DDPStrategy(timeout=timedelta(seconds=SHORT))


class Slow(Net):
    """One rank fails at once; the others need longer for the scoring than processes wait."""

    def __init__(self, on: int) -> None:
        super().__init__()
        self.on = on

    def active_step(self, batch, batch_idx):
        if self.trainer.global_step:
            if rank() == self.on:
                raise ArithmeticError("the model cannot count")
            time.sleep(SHORT / 4)
        return self(batch[0])


def slow_scoring(on):
    data = pool(Path("slow scoring"), size=12 + 2 * 6 * 8, pool_batch_size=8)
    quiet(callbacks=[margin()], **{**OPTIONS, "strategy": short()}).fit(Slow(on), datamodule=data)


def slow_selection(on):
    """The others come to their first exchange when it is too late to be told there."""

    class Late(acq.Margin):
        def select(self, *args, **kwargs):
            if rank() == on:
                raise ArithmeticError("the strategy cannot count")
            time.sleep(1.5 * SHORT)
            return super().select(*args, **kwargs)

    active = ActiveLearning(Late(), query_size=8)
    data = pool(Path("slow selection"))
    quiet(callbacks=[active], **{**OPTIONS, "strategy": short()}).fit(Net(), datamodule=data)


def selection_of_two(on):
    """The second strategy of two; the rows of the first are a shard of their own."""
    strategy = acq.TwoStage(acq.Margin(), then=Counts(on, "before"), keep=20)
    active = ActiveLearning(strategy, query_size=8)
    quiet(callbacks=[active], **OPTIONS).fit(Net(), datamodule=pool(Path("select two")))


def other(name, *, samples=None, query_size=8, strategy=acq.Margin, rounds=0, **options):
    """Something is not the same on both."""
    samples = blobs() if samples is None else samples
    options = {"initial": 12, "batch_size": 4, "state_dir": Path("other") / name, **options}
    data, active = ActiveDataModule(samples, **options), ActiveLearning(strategy(), query_size=query_size)
    if rounds:
        fit_rounds(Net(), lambda r: quiet(**OPTIONS), data, active, rounds=rounds)
        return
    trainer = quiet(callbacks=[active], **OPTIONS)
    try:
        trainer.fit(Net(), datamodule=data)
    finally:
        note(f"steps of {name}", trainer.global_step)


class Gone(torch.utils.data.TensorDataset):
    """Most files are on one machine only."""

    def __getitem__(self, index):
        if rank() and index:
            raise FileNotFoundError(f"there is no image_{index}.png")
        return super().__getitem__(index)


class Augmented(torch.utils.data.TensorDataset):
    """Other samples on every rank, with noise."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + 9 * rank() + torch.randn(4), y


def given():
    return acq.CoreSet(embeddings=torch.full((60, 3), 1.0 + rank()))


def other_labels(on):
    """Between two fits one is given labels that the other is not."""
    data = pool(Path("other") / "labels")
    trainer = quiet(callbacks=[margin()], **OPTIONS)
    trainer.fit(Net(), datamodule=data)
    steps = trainer.global_step
    data.label(data.pool_indices[:2])  # on both
    data.label(data.pool_indices[[rank()]])
    try:
        trainer.fit(Net(), datamodule=data)
    finally:
        note("steps of labels", trainer.global_step - steps)


def few_labels(on):
    quiet(callbacks=[margin()], **OPTIONS).fit(Net(), datamodule=pool(Path("few"), initial=1))


def oracle_fails(on):
    def oracle(indices: np.ndarray):
        raise ArithmeticError("the oracle cannot count")

    data = ActiveDataModule(blobs(), initial=range(4), oracle=oracle, batch_size=4, state_dir="oracle")
    quiet(callbacks=[margin()], **OPTIONS).fit(Net(), datamodule=data)


def waiting(on):
    data = ActiveDataModule(blobs(), initial=12, oracle="people", batch_size=4, state_dir="people")
    quiet(callbacks=[margin()], **OPTIONS).fit(Net(), datamodule=data)


def member(on, what="exception"):
    committee = Committee(models=[Net(), Failing(what, on), Net()])
    active = ActiveLearning(acq.BALD(committee), query_size=8)
    data = pool(Path(f"member {what}"))
    quiet(callbacks=[active], **OPTIONS).fit(Net(), datamodule=data)
    note(f"member {what}", f"asked {len(active.last_query)}")


def member_nan(on):
    member(on, "nan")


def member_nan_early(on):
    member(on, "nan early")


class FailingPasses(Net):
    """It can be tried, and makes some passes of the scoring; then it cannot go on, on one rank."""

    def __init__(self, on: int) -> None:
        super().__init__(dropout=0.3)
        self.on, self.passes = on, []

    def active_step(self, batch, batch_idx):
        if self.trainer.global_step and rank() == self.on:
            self.passes.append(batch_idx)
            if len(self.passes) > 5:
                raise ArithmeticError("the model cannot count")
        return self(batch[0])


def passes(on, strategy=acq.BALD, **options):
    """In the middle of the passes of MC dropout, where the others make theirs."""
    active = ActiveLearning(strategy(MCDropout(4, **options)), query_size=8)
    data = pool(Path(f"passes {strategy.__name__}"))
    fit_rounds(FailingPasses(on), lambda r: quiet(**OPTIONS), data, active, rounds=1)


def trained_member(on):
    """The second of three that `fit_rounds` trains; it fails when it is to be scored."""
    makers = [lambda seed: Net(), lambda seed: Failing("exception", on), lambda seed: Net()]
    active = ActiveLearning(acq.BALD(Committee(models=makers)), query_size=8)
    fit_rounds(None, lambda r: quiet(**OPTIONS), pool(Path("trained member")), active, rounds=1)


def maker(on):
    """It fails when the member is to be scored, on one rank."""

    def make(seed):
        made.append(seed)
        if len(made) > 1 and rank() == on:
            raise ArithmeticError("the function cannot count")
        return Net()

    made = []
    committee = Committee(models=[make, lambda seed: Net()])
    active = ActiveLearning(acq.BALD(committee), query_size=8)
    fit_rounds(None, lambda r: quiet(**OPTIONS), pool(Path("maker")), active, rounds=1)


def no_dropout(on):
    quiet(callbacks=[ActiveLearning(acq.BALD(), query_size=8)], **OPTIONS).fit(
        Net(), datamodule=pool(Path("no"))
    )


OTHER = {
    "data": lambda: {"samples": blobs(seed=rank())},
    "length": lambda: {"samples": blobs(60 + rank())},
    "ids": lambda: {"ids": [f"image_{number + rank()}" for number in range(60)]},
    "files": lambda: {"samples": Gone(*blobs().tensors)},
    "seed": lambda: {"seed": rank()},
    "initial": lambda: {"initial": range(12 + rank())},
    "steps": lambda: {"steps_per_epoch": 3 + rank()},
    "augmented": lambda: {"query_view": Augmented(*blobs().tensors)},
    "embeddings": lambda: {"strategy": given},
    "embeddings of a stage": lambda: {"strategy": lambda: acq.TwoStage(acq.Margin(), given(), keep=20)},
    "strategy": lambda: {"strategy": [acq.Margin, acq.Entropy][rank()]},
    "query_size": lambda: {"query_size": 8 + rank()},
    "rounds": lambda: {"rounds": 1 + rank()},
    "strategy of rounds": lambda: {"rounds": 1, "strategy": [acq.Margin, acq.Entropy][rank()]},
}


def differing(name, on):
    other(name, **OTHER[name]())


OTHERWISE = ("exit", "otherwise", "kind", "shape", "type", "counts")
CAUGHT = {
    **{f"other {name}": (partial(differing, name), None) for name in OTHER},
    "other labels": (other_labels, None),
    "select before on 1": (selection_fails, 1),
    "select before on 0": (selection_fails, 0),
    "select after on 1": (partial(selection_fails, what="after"), 1),
    "select fewer on 1": (partial(selection_fails, what="fewer"), 1),
    "select once more on 1": (partial(selection_fails, what="once more"), 1),
    "select two on 1": (selection_of_two, 1),
    **{f"select {what}": (partial(selection_fails, what=what), 1) for what in OTHERWISE},
    **{f"keeps {what}": (partial(summaries, what=what), None) for what in ("names", "shape", "type")},
    "few_labels": (few_labels, None),
    "oracle_fails": (oracle_fails, 0),
    "nan_on_0": (nan, 0),
    "nan_on_1": (nan, 1),
    "exception_on_1": (exception, 1),
    "rehearsal_on_1": (rehearsal, 1),
    "not_writable": (not_writable, 0),
    "waiting": (waiting, None),
    "member_on_1": (member, 1),
    "member_on_0": (member, 0),
    "member_nan_on_1": (member_nan, 1),
    "member_nan_early": (member_nan_early, 1),
    "maker_on_1": (maker, 1),
    "trained_member_on_0": (trained_member, 0),
    "passes_on_1": (passes, 1),
    "passes_on_0": (partial(passes, strategy=acq.VoteEntropy, consistent=False), 0),
    "no_dropout": (no_dropout, None),
}
LATE = {"slow scoring": (slow_scoring, 1), "slow selection": (slow_selection, 1)}
UNCAUGHT = {
    "nan": (nan, 1),
    "waiting": (waiting, None),
    "selection": (selection_fails, 1),
    "own": (partial(selection_fails, what="own"), 1),
}

if __name__ == "__main__":
    if sys.argv[1] in ("caught", "late"):
        for name, (way, on) in (CAUGHT if sys.argv[1] == "caught" else LATE).items():
            try:
                way(on)
            except (Exception, SystemExit) as error:
                note(name, f"{type(error).__name__}: {error}")
    else:
        way, on = UNCAUGHT[sys.argv[1]]
        way(on)
