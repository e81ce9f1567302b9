"""Two processes and something goes wrong on one: the ranks write down what each was told."""

import sys
from pathlib import Path

import numpy as np
import torch
from integration.small import Net, blobs, margin, pool, quiet

import lightning_al.data.book as book
from distributed.launch import note, rank
from lightning_al import ActiveDataModule, ActiveLearning, Committee, LedgerError, fit_rounds
from lightning_al import acquisition as acq

OPTIONS = {"devices": 2, "strategy": "ddp", "max_epochs": 1}


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


def selection_fails(on):
    class Broken(acq.Margin):
        def select(self, *args, **kwargs):
            if rank() == on:
                raise ArithmeticError("the strategy cannot count")
            return super().select(*args, **kwargs)

    active = ActiveLearning(Broken(), query_size=8)
    quiet(callbacks=[active], **OPTIONS).fit(Net(), datamodule=pool(Path("broken")))


def other_data(on):
    samples = blobs(seed=rank())
    data = ActiveDataModule(samples, initial=12, batch_size=4, state_dir="other")
    quiet(callbacks=[margin()], **OPTIONS).fit(Net(), datamodule=data)


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


CAUGHT = {
    "other_data": (other_data, None),
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
    "no_dropout": (no_dropout, None),
}
UNCAUGHT = {"nan": (nan, 1), "waiting": (waiting, None), "selection": (selection_fails, 1)}

if __name__ == "__main__":
    if sys.argv[1] == "caught":
        for name, (way, on) in CAUGHT.items():
            try:
                way(on)
            except (Exception, SystemExit) as error:
                note(name, f"{type(error).__name__}: {error}")
    else:
        way, on = UNCAUGHT[sys.argv[1]]
        way(on)
