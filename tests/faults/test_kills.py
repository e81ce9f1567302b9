"""kill -9 at every named step and at any instant: the same command goes on, and ends as if undisturbed.

Two dozen of these here; `make faults` makes hundreds.
"""

import resource
import signal
from dataclasses import replace

import pytest
from warm import server

from faults.command import LIMIT, Command, RunFailedError, Undisturbed, verdict
from faults.kills import INSTANT, SCENES, STEPS, Spilling, die, spill
from faults.plans import SLOTS, plan
from lightning_al import Ledger
from lightning_al.ledger import Event

MOMENTS = ("before", "within", "after")


def seed_of(step, moment, number=0):
    return [seed for seed, slot in enumerate(SLOTS) if slot == (step, moment)][number]


#: Every step, on two processes where each of them takes it; and any instant.
CASES = [
    pytest.param(seed_of(step, MOMENTS[n % 3]), 1 + how.everywhere, id=f"{MOMENTS[n % 3]} {step}")
    for n, (step, how) in enumerate(STEPS.items())
] + [pytest.param(seed_of(INSTANT, "", n), 1 + n % 2, id=f"{INSTANT} {n}") for n in range(3)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """By the number of processes, then by scene; made when first wanted."""
    found = {}

    def of(processes):
        if processes not in found:
            home = tmp_path_factory.mktemp("undisturbed")
            found[processes] = {s: Undisturbed.of(Command(home / s, s, processes)) for s in SCENES}
        return found[processes]

    return of


@pytest.mark.parametrize(("seed", "processes"), CASES)
def test_after_a_kill_the_run_ends_as_if_undisturbed(tmp_path, undisturbed, seed, processes):
    scene, kills = plan(seed, processes, undisturbed(processes))
    command = Command(tmp_path / "run", scene, processes)
    done = command.suffer(kills)
    assert done or kills[0].step == INSTANT, f"{kills} never took place"  # an instant may come too late
    assert not any(verdict(command, undisturbed(processes)[scene]).values())


def test_what_is_lost_doubled_or_moved_is_found(tmp_path, undisturbed):
    """The judge of all these runs can say no."""
    command = Command(tmp_path / "run", "dataset", 1)
    command.suffer([])
    good = verdict(command, undisturbed(1)["dataset"])
    assert not any(good.values())
    with (command.folder / "accepted").open("a") as file:
        file.write("59 2\n")
    ledger = Ledger(command.state / "ledger.sqlite3")
    labeled = next(event for _, event in ledger.events())
    wrong = str((int(labeled.value) + 1) % 3)
    again = Event("labeled", labeled.sample, value=wrong, round=2)
    ledger.append([again, Event("asked", 59, round=3, rank=0)])
    found = verdict(command, undisturbed(1)["dataset"])
    assert {name: found[name] for name in ("lost", "doubled", "moved", "queries different")} == {
        "lost": 1, "doubled": 1, "moved": 1, "queries different": 1,
    }  # fmt: skip
    rows = [row | {"labeled": 0} for row in undisturbed(1)["dataset"].outcome["measurements"]]
    other = replace(
        undisturbed(1)["dataset"], outcome=undisturbed(1)["dataset"].outcome | {"measurements": rows}
    )
    assert verdict(command, other)["measurements different"] == 1
    with pytest.raises(RunFailedError, match=r"accepted and lost \[\(59, 2\)\]"):
        command.check_accepted()


def test_a_criterion_ends_the_run_that_is_to_be_killed_about_it(undisturbed):
    for processes in (1, 2):
        outcome = undisturbed(processes)["stopping"].outcome
        assert [bool(row["stopped"]) for row in outcome["measurements"]] == [False, True]
        assert list(outcome["queries"]) == [1]


# ---------------------------------------------------------------- inside of a commit

MANY = [Event("labeled", i, value="7" * 50, who="ann", round=1) for i in range(300)]


def killed_before_the_commit(path):
    """Half of the transaction is in the file, and SQLite's journal knows how it was."""
    spill()
    written = Spilling.execute
    Spilling.execute = lambda db, sql, *more: die() if sql == "COMMIT" else written(db, sql, *more)
    Ledger(path).append(MANY)


def killed_within_the_commit(path):
    """By the system, when SQLite's commit makes the file longer: its beginning is written by then."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, resource.RLIM_INFINITY))
    Ledger(path).append(MANY)


@pytest.mark.parametrize(
    ("work", "number"),
    [(killed_before_the_commit, signal.SIGKILL), (killed_within_the_commit, signal.SIGXFSZ)],
)
def test_half_a_commit_is_found_and_undone(tmp_path, work, number):
    path = tmp_path / "ledger.sqlite3"
    ledger, journal = Ledger(path), tmp_path / "ledger.sqlite3-journal"
    ledger.create({}, [Event("asked", 1), Event("labeled", 1, value="3")])
    before = path.read_bytes()
    process = server().Process(target=work, args=(path,))
    process.start()
    process.join(LIMIT)
    assert process.exitcode == -number
    assert path.read_bytes() != before
    assert journal.read_bytes()[:8] == bytes.fromhex("d9d505f920a163d7")  # one that is to be played back
    assert [event.sample for _, event in ledger.events()] == [1, 1]
    assert path.read_bytes() == before
    assert not journal.exists()
    ledger.append(MANY)
    assert ledger.verify() == 302
