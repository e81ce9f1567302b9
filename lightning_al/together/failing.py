"""FAILING: a block that ends on every rank if it fails on one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from lightning_al.together.ranks import Ranks

__all__ = ["Ending", "failing", "together"]

_Errors = type[BaseException] | tuple[type[BaseException], ...]


class Ending:
    """What a block ends with."""

    #: Positions that must be the same on every rank, `(k,)`; `None`: nothing was chosen.
    chosen: Tensor | None = None


@contextmanager
def together(ranks: Ranks | None, what: str, *, forgiven: _Errors = ()) -> Iterator[Ending]:
    """What fails in the block on one rank ends it on all, with its message; every rank must come here.

    In the block ranks may exchange what they like by a `Shard`, and in no other way: who is in another
    exchange does not hear of a failure before the process group's time is up.

    Args:
        ranks: `None`: there are no others.
        what: Is done, for the message, if this is in no other block.
        forgiven: Causes of failures that whoever catches them goes on after; they are not printed.

    Raises:
        Exception: What this rank raised, also `SystemExit` and `KeyboardInterrupt`.
        RuntimeError: If another rank failed, exchanges something else, or chose otherwise.
    """
    ending = Ending()
    if ranks is None or ranks.size == 1:
        yield ending
        return
    with failing(ranks, what, forgiven=forgiven):
        yield ending
        # Here and not after it: this may find that they chose otherwise, of which all then know.
        ranks.end(ending.chosen)


@contextmanager
def failing(ranks: Ranks, what: str, *, forgiven: _Errors = ()) -> Iterator[None]:
    """As `together`, but ranks that are well go on to the next exchange and do not meet before."""
    ranks.within.append(what)
    try:
        yield
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        # Before the meeting, in which a backend may end the process.
        ranks.announce(error, ranks.within[0], silent=isinstance(error.__cause__, forgiven))
        ranks.fail(error)
        raise
    finally:
        ranks.within.pop()
