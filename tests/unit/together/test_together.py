"""How ranks that are threads end together. True processes: tests/distributed/test_failing.py."""

from contextlib import suppress

import pytest
import torch
import torch.distributed as dist

from lightning_al.together import together
from lightning_al.together.headers import Header
from lightning_al.together.word import Word
from unit.ranks import on_ranks


def said_by(world_size, work):
    """What `work` raises on every rank, and on which rank it goes on."""

    def run(shard):
        try:
            return work(shard.ranks)
        except BaseException as error:
            return f"{type(error).__name__}: {error}"

    return on_ranks(world_size, 9, 1, run)


FAILED = "RuntimeError: Work failed on rank 1: ValueError: no"


def test_without_others_a_block_is_a_block():
    with together(None, "Work") as end:
        end.chosen = torch.arange(3)
    with pytest.raises(ValueError, match="no"), together(None, "Work"):
        raise ValueError("no")


@pytest.mark.parametrize("exchange", ["gather", "objects", "answer", "end"])
def test_a_failure_is_heard_wherever_the_others_are(exchange, capsys):
    def work(ranks):
        with together(ranks, "Work"):
            if ranks.rank == 1:
                raise ValueError("no")
            if exchange == "gather":
                ranks.gather(torch.zeros(2))
            elif exchange == "objects":
                ranks.gather_objects("x")
            elif exchange == "answer":
                ranks.answer(None)

    assert said_by(3, work) == [FAILED, "ValueError: no", FAILED]
    assert capsys.readouterr().err == "Work failed on rank 1: ValueError: no\n"


def test_after_a_failure_that_all_know_of_ranks_meet_again():
    def work(ranks):
        found = []
        for number in range(6):
            with suppress(ValueError, RuntimeError), together(ranks, "Work"):
                ranks.gather_objects("before")
                if number % 3 == ranks.rank:
                    raise ValueError(number)
                found += ranks.gather_objects(number)
        return found, ranks.gather_objects(ranks.rank), ranks._number

    assert said_by(2, work) == [([2, 2, 5, 5], [0, 1], said_by(2, work)[0][2])] * 2


def test_of_several_that_fail_the_others_hear_of_the_first():
    def work(ranks):
        with together(ranks, "Work"):
            if ranks.rank:
                raise ValueError("no")

    assert said_by(4, work) == [FAILED, *["ValueError: no"] * 3]


@pytest.mark.parametrize("deeper", [False, True])
def test_blocks_in_blocks(deeper, capsys):
    """Ranks may be in other blocks of the same one when one of them fails."""

    def work(ranks):
        with together(ranks, "Work"):
            if ranks.rank == 1 and not deeper:
                raise ValueError("no")
            if ranks.rank == 1 or not deeper:
                with together(ranks, "Part of it"):
                    if ranks.rank == 1:
                        raise ValueError("no")
        return "went on"

    assert said_by(3, work) == [FAILED, "ValueError: no", FAILED]
    assert capsys.readouterr().err == "Work failed on rank 1: ValueError: no\n"


def test_one_that_catches_its_own_error_and_goes_on_does_not_wait_for_the_others():
    def work(ranks):
        with together(ranks, "Work"):
            with suppress(ValueError), together(ranks, "Part of it"):  # of others it is a `RuntimeError`
                if ranks.rank == 1:
                    raise ValueError("no")
            ranks.gather(torch.zeros(3))

    assert said_by(3, work) == [FAILED] * 3


def test_all_that_catch_it_go_on():
    def work(ranks):
        with together(ranks, "Work"):
            with suppress(ValueError, RuntimeError), together(ranks, "Part of it"):
                if ranks.rank == 1:
                    raise ValueError("no")
            return ranks.gather_objects(ranks.rank)

    assert said_by(3, work) == [[0, 1, 2]] * 3


def test_what_caused_it_is_the_cause_on_all_ranks_and_a_forgiven_one_is_not_printed(capsys):
    def work(ranks):
        try:
            with together(ranks, "Work", forgiven=KeyError):
                if ranks.rank == 1:
                    raise ValueError("no") from KeyError("why")
        except (ValueError, RuntimeError) as error:
            return repr(error.__cause__)

    assert said_by(2, work) == ["KeyError('why')"] * 2
    assert capsys.readouterr().err == ""


class Stubborn(Exception):
    """Cannot be made anew from its text."""

    def __init__(self, one, two):
        super().__init__(one)


def test_a_cause_that_cannot_be_told_is_left_out():
    def work(ranks):
        with together(ranks, "Work"):
            if ranks.rank == 1:
                raise ValueError("no") from Stubborn(1, 2)

    assert said_by(2, work) == [FAILED, "ValueError: no"]


def test_an_exchange_that_breaks_leaves_each_with_its_own_error_and_says_what_it_may_be():
    def work(ranks):
        with together(ranks, "Work"):
            ranks.gather_objects("x")
            if ranks.rank == 1:
                ranks.meeting.barrier.abort()
                raise ValueError("no")
            ranks.gather_objects("y")

    first, second = said_by(2, work)
    assert first.startswith(
        "RuntimeError: Work failed on rank 0: an exchange with the other processes broke."
    )
    assert second == "ValueError: no"


def test_what_was_left_in_the_store_is_heard_by_those_of_the_same_exchange_only():
    store = dist.HashStore()

    def look(ranks):
        ranks._looked = float("-inf")
        ranks.look()

    def work(ranks):
        ranks.word._store, heard = store, []
        for number in range(3):
            try:
                with together(ranks, "Work"):
                    look(ranks)
                    if ranks.rank == number == 1:
                        raise ValueError("no")
                    while ranks.rank != number == 1:  # in no exchange
                        look(ranks)
            except (ValueError, RuntimeError) as error:
                heard.append((number, f"{type(error).__name__}: {error}"))
        return heard

    assert said_by(3, work) == [[(1, FAILED)], [(1, "ValueError: no")], [(1, FAILED)]]
    assert store.num_keys() == 0


def test_a_store_that_is_gone_is_a_store_that_says_nothing():
    class Gone:
        def __getattr__(self, name):
            raise RuntimeError("Broken pipe")

    for store in (Gone(), None):
        word = Word("x")
        word._store = store
        word.leave(1, "text")
        assert word.heard(1) is None
        word.take_back(1)


def test_what_is_brought_is_told_by_as_many_numbers_whatever_it_is():
    shapes = [(3,), (0, 2), (1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 6, 7, 8)]
    headers = [Header.of_rows(torch.zeros(shape)) for shape in shapes]
    headers += [Header.of_end(None), Header.of_end(torch.arange(2)), Header.of_end(torch.arange(2**10))]
    packed = [header.packed(7, 2) for header in headers]
    assert len({len(numbers) for numbers in packed}) == 1
    assert all(-(2**63) <= one < 2**63 for numbers in packed for one in numbers)
    for header, numbers in zip(headers, packed, strict=True):
        again = Header.unpacked(numbers)
        assert (again.kind, again.size, again.detail) == (header.kind, header.size, header.detail)
        assert (again.number, again.depth) == (7, 2)
    assert Header.of_end(torch.tensor([1, 2, 3, 4])) != Header.of_end(torch.tensor([1, 2, 3, 5]))
