"""RANKS: the processes of a group, and the exchanges in which they meet.

Each exchange begins with the headers of all. A rank that failed brings one that says so, to whichever
exchange the others come to next.
"""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_al.together.headers import Header, Kind, difference
from lightning_al.together.word import Word

__all__ = ["Ranks", "as_bytes", "is_broken", "known", "ranks_of", "text_of"]

#: Seconds between two looks at what a rank may have left.
_EVERY = 1.0
#: What an error carries: the message that all know, and in how many blocks they met because of it.
_TOLD, _MET = "_lightning_al_told", "_lightning_al_met"


def ranks_of(group: Any) -> Ranks:
    """Those of a process group; always the same object, so that exchanges are counted."""
    if isinstance(group, Ranks):
        return group
    if group not in _KNOWN:
        _KNOWN[group] = Ranks(group)
    return _KNOWN[group]


def is_broken(error: BaseException) -> bool:
    """Whether it is that of an exchange that failed, after which there are no more."""
    return vars(error).get(_MET) == 0


def known(error: BaseException, text: str, met: int | None = None) -> BaseException:
    """The error, of which others know, and that needs not be announced.

    Args:
        error: Any.
        text: What they know.
        met: In how many blocks they were when they met because of it; `None`: they did not.
    """
    vars(error)[_TOLD] = text
    if met is not None:
        vars(error)[_MET] = met
    return error


def text_of(error: BaseException) -> str:
    """An error in words."""
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return "\n".join([said, *getattr(error, "__notes__", [])])


class Ranks:
    """The processes of a group.

    Args:
        group: All of them come to every exchange, in the same order.
    """

    def __init__(self, group: Any) -> None:
        self.group, self.size, self.rank = group, dist.get_world_size(group), dist.get_rank(group)
        self.device = torch.device("cuda" if dist.get_backend(group) == "nccl" else "cpu")
        self.word = Word(group.group_name)
        #: What the blocks are called that this rank is in, the outermost first.
        self.within: list[str] = []
        self._number = 0  # of the next exchange
        self._looked = 0.0

    @property
    def doing(self) -> str:
        """The outermost block, for messages."""
        return self.within[0] if self.within else "A step"

    # ------------------------------------------------------------------ exchanges

    def gather(self, rows: Tensor, expected: Sequence[int] | None = None) -> Tensor:
        """Rows of all ranks, those of rank 0 first; each may bring another number of them.

        Args:
            rows: Of this rank.
            expected: How many each is known to bring.

        Raises:
            RuntimeError: If another rank failed, or brings something else.
        """
        local = rows.to(self.device).contiguous()
        counts = [header.size for header in self._meet(Header.of_rows(local))]
        brought = self._brought(local, counts)
        if expected is not None and list(expected) != counts:
            raise RuntimeError(
                f"the ranks bring {counts} rows, where rank {self.rank} expects {list(expected)}: they have "
                "chosen otherwise. Give all of them the same, and a `generator` in the same state."
            )
        return torch.cat(brought).to(rows.device)

    def gather_objects(self, value: Any) -> list[Any]:
        """One small Python object from every rank, in rank order; errors as in `gather`."""
        local = as_bytes(value)
        sizes = [header.size for header in self._meet(Header(Kind.OBJECT, len(local)))]
        return [_from_bytes(part) for part in self._brought(local.to(self.device), sizes)]

    def answer(self, payload: Tensor | None) -> Any:
        """What rank 0 brings, by `as_bytes`, on all; errors as in `gather`."""
        told = self._meet(Header(Kind.ANSWER, 0 if payload is None else len(payload)))
        local = torch.empty(told[0].size, dtype=torch.uint8) if payload is None else payload
        local = local.to(self.device)
        with self.unbroken():
            dist.broadcast(local, dist.get_global_rank(self.group, 0), group=self.group)
        return _from_bytes(local)

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """Tensors of the same shape and type from all ranks."""
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor, group=self.group)
        return parts

    def _brought(self, local: Tensor, counts: list[int]) -> list[Tensor]:
        longest = max(counts)
        if len(local) < longest:
            padded = local.new_zeros((longest, *local.shape[1:]))
            padded[: len(local)] = local
            local = padded
        if longest == 0:
            return [local] * self.size
        with self.unbroken():
            parts = self.all_gather(local)
        return [part[:count] for part, count in zip(parts, counts, strict=True)]

    # ------------------------------------------------------------------ failures

    def end(self, chosen: Tensor | None) -> None:
        """Of a block: none has failed in it, and all have chosen the same; errors as in `gather`."""
        self._meet(Header.of_end(chosen))

    def look(self) -> None:
        """Between two steps of long work without an exchange: has another rank failed? Asked once a second.

        Raises:
            RuntimeError: If so, with its message.
        """
        if time.monotonic() - self._looked < _EVERY:
            return
        self._looked = time.monotonic()
        text = self.heard()
        if text is not None:
            raise known(RuntimeError(text), text)

    def heard(self) -> str | None:
        """What another rank left that did not reach the next exchange, if one did."""
        return self.word.heard(self._number)

    def announce(self, error: BaseException, what: str, *, silent: bool = False) -> None:
        """Print an error of this rank, and leave it for those that are in no exchange; once."""
        if _TOLD in vars(error):
            return
        text = vars(error)[_TOLD] = f"{what} failed on rank {self.rank}: {text_of(error)}"
        if not silent:
            self.leave(text)

    def leave(self, text: str) -> None:
        """Print a message, and leave it."""
        print(text, file=sys.stderr, flush=True)
        self.word.leave(self._number, text)

    def fail(self, error: BaseException) -> None:
        """Come to the next exchange of the others with an error that was announced, unless they know of it.

        Raises nothing itself: whatever becomes of that, this rank is to end with its own error.
        """
        depth, number = len(self.within), self._number
        if vars(error).get(_MET, depth + 1) <= depth:
            return
        vars(error)[_MET] = depth
        with suppress(Exception):
            payload = as_bytes((vars(error)[_TOLD], _portable(error.__cause__)))
            told = self._meet(Header(Kind.FAILED, len(payload)), payload)
            # Of several that failed, one in the fewest blocks meets no more in these.
            vars(error)[_MET] = min(header.depth for header in told if header.kind == Kind.FAILED)
            self.word.take_back(number)

    def _meet(self, mine: Header, payload: Tensor | None = None) -> list[Header]:
        """Everybody's headers; raises what another rank failed with, or what is wrong with them."""
        row = torch.tensor(mine.packed(self._number, len(self.within)))
        with self.unbroken():
            told = [Header.unpacked(n) for n in torch.stack(self.all_gather(row.to(self.device))).tolist()]
        # Whoever was elsewhere, and has counted fewer, counts as the others do from here on.
        self._number = 1 + max(header.number for header in told)
        failed = [header for header in told if header.kind == Kind.FAILED]
        if failed:
            local = torch.empty(0, dtype=torch.uint8) if payload is None else payload
            sizes = [header.size if header in failed else 0 for header in told]
            parts = self._brought(local.to(self.device), sizes)
            if mine.kind != Kind.FAILED:
                text, cause = next(_from_bytes(part) for part in parts if len(part))
                raise known(RuntimeError(text), text, min(header.depth for header in failed)) from cause
            return told
        wrong = difference(told, self.doing)
        if wrong is not None:
            raise known(RuntimeError(wrong), wrong, max(header.depth for header in told))
        return told

    @contextmanager
    def unbroken(self) -> Iterator[None]:
        """An exchange that another rank does not come to ends with why it does not, if that is known.

        Raises:
            RuntimeError: If the exchange fails.
        """
        try:
            yield
        except RuntimeError as error:
            text = self._broken(error)
            raise known(RuntimeError(text), text, 0) from error

    def _broken(self, error: BaseException) -> str:
        """What a failed exchange means: what another rank left, or that nothing is known of it."""
        text = self.heard()
        if text is None:
            text = (
                f"{self.doing} failed on rank {self.rank}: an exchange with the other processes broke. Most "
                "likely one ended, and what it printed says why; or it was away for longer than the process "
                f"group waits, which `DDPStrategy(timeout=...)` sets. ({error})"
            )
            self.word.leave(self._number, text)
        return text


_KNOWN: WeakKeyDictionary[Any, Ranks] = WeakKeyDictionary()


def _portable(cause: BaseException | None) -> BaseException | None:
    """What can be told to others, if it can."""
    with suppress(Exception):
        pickle.loads(pickle.dumps(cause))
        return cause
    return None


def as_bytes(value: Any) -> Tensor:
    """A small Python object, `(n,)` in uint8."""
    return torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)


def _from_bytes(tensor: Tensor) -> Any:
    return pickle.loads(tensor.cpu().numpy().tobytes())
