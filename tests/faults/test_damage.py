"""A ledger cut short or changed anywhere: told of with the newest backup that is whole, or read as it was."""

import random
import re
import shutil
from functools import partial

import pytest

from faults.command import Command, Undisturbed, verdict
from lightning_al import Ledger
from lightning_al.ledger import Event, LedgerError
from lightning_al.ledger.book import Book

TRUTH = [
    Event("asked", i, id=f"s{i}", round=i // 9, strategy="Margin()", seed=1, score=i / 99, rank=i % 9)
    for i in range(60)
]
TRUTH += [Event("labeled", i, id=f"s{i}", value=str(i % 3), who="ann", round=i // 9) for i in range(60)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A ledger of some pages, with a backup that is whole and a newer one that is not."""
    ledger = Ledger(tmp_path_factory.mktemp("home") / "ledger.sqlite3")
    meta = {"size": 99, "samples": 99, "seed": 1, "label_kind": "class", "class_names": None}
    ledger.create(meta, TRUTH[:40], names=[f"s{i}" for i in range(99)])
    ledger.append(TRUTH[40:], round_row={"round": 0, "asked": 9, "test_acc": 0.5})
    ledger.backup("round_0")
    bad = ledger.backup("round_1")
    bad.write_bytes(bad.read_bytes()[:-4096])
    ledger.claim()
    ledger.release()
    return ledger


@pytest.fixture
def damaged(home, tmp_path):
    shutil.copytree(home.path.parent / "backups", tmp_path / "backups")

    def put(content):
        path = tmp_path / "ledger.sqlite3"
        path.with_name("ledger.sqlite3-journal").unlink(missing_ok=True)
        path.write_bytes(content)
        return Ledger(path)

    return put


def told(act):
    """What `act` refused with, if it did; anything but a `LedgerError` is a defect."""
    try:
        act()
    except LedgerError as error:
        return str(error)
    return None


def events(ledger):
    return [event for _, event in ledger.events()]


def look(ledger):
    """All that a run or a tool looks at, and what is wrong with it."""
    book = lambda: Book(ledger.path).state  # noqa: E731
    return [told(act) for act in (lambda: events(ledger), ledger.meta, ledger.rounds, ledger.last, book)]


def test_cut_at_any_length_it_is_read_whole_or_the_good_backup_is_named(home, damaged):
    content = home.path.read_bytes()
    lengths = [*range(0, len(content), 509), *range(0, len(content), 4096), len(content) - 1]
    for length in sorted(set(lengths)):
        ledger = damaged(content[:length])
        said = told(partial(events, ledger))
        assert said is not None, length
        assert "backups/round_0.sqlite3" in said, (length, said)
        for act in (partial(ledger.create, {}), partial(ledger.append, [Event("asked", 70)]), ledger.claim):
            assert told(act) is not None, length
        assert ledger.path.read_bytes() == content[:length]
    assert events(damaged(content)) == TRUTH


@pytest.mark.parametrize("seed", range(6))
def test_a_changed_byte_is_told_of_or_changes_no_label(home, damaged, seed):
    content, draw = home.path.read_bytes(), random.Random(seed)
    refused = 0
    for _ in range(120):
        flipped = bytearray(content)
        for _ in range(draw.choice([1, 1, 1, 4])):
            flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        ledger = damaged(bytes(flipped))
        refused += any(look(ledger))
        if told(partial(events, ledger)) is None:
            assert events(ledger) == TRUTH
    assert refused > 30


def test_who_writes_to_a_changed_ledger_writes_after_what_was_there_or_nothing(home, damaged):
    content, draw = home.path.read_bytes(), random.Random(9)
    new = Event("asked", 70, round=7, rank=0)
    for _ in range(60):
        flipped = bytearray(content)
        flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        ledger = damaged(bytes(flipped))
        if told(lambda ledger=ledger: Book(ledger.path).state) is None:  # as every run and tool does first
            wrote = told(partial(ledger.append, [new])) is None
            if told(partial(events, ledger)) is None:
                assert events(ledger) == TRUTH + [new] * wrote


def test_a_page_of_zeros_is_told_of_wherever_it_is_or_changes_no_label(home, damaged):
    content = home.path.read_bytes()
    refused = 0
    for begin in range(0, len(content), 4096):
        ledger = damaged(content[:begin] + bytes(4096) + content[begin + 4096 :])
        said = told(partial(events, ledger))
        refused += said is not None
        if said is None:
            assert events(ledger) == TRUTH
    assert refused > 5


def test_rows_that_are_missing_at_the_end_show(home, damaged):
    """A page may say that it has fewer rows than it has; no digest is wrong then."""
    content = bytearray(home.path.read_bytes())
    last = content.rindex(TRUTH[-1].id.encode() + TRUTH[-1].value.encode() + b"ann")
    page = last // 4096 * 4096
    assert content[page] == 0x0D  # a leaf of a table
    content[page + 4] -= 1
    with pytest.raises(LedgerError, match=r"Event 120 of .* is missing"):
        events(damaged(bytes(content)))


def test_the_backup_that_is_named_put_in_its_place_ends_the_run_as_if_undisturbed(tmp_path):
    undisturbed = Undisturbed.of(Command(tmp_path / "undisturbed", "dataset", 1))
    command = Command(tmp_path / "run", "dataset", 1)
    command.suffer([])
    path = command.state / "ledger.sqlite3"
    content = bytearray(path.read_bytes())
    content[content.rindex(b"labeled")] ^= 1
    path.write_bytes(content)
    named = re.search(r"newest backup that is whole is (\S+);", command.refused())
    assert named is not None, command.said()
    path.rename(path.with_name("damaged"))
    assert "is gone, but there are backups of it" in command.refused()
    path.write_bytes(b"")
    assert "is empty, but there are backups of it" in command.refused()
    shutil.copy(named[1], path)
    (command.folder / "accepted").unlink()
    command.suffer([])
    assert not any(verdict(command, undisturbed).values())
