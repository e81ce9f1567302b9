"""Full disks, and what cannot be written: nothing accepted is lost, one message, and then the run goes on.

A full disk is a limit on the size of files, which any user may set; where somebody may mount one, it is a
small disk too.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from faults.command import Command, Undisturbed, verdict
from faults.kills import SCENES, Kill


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    home = tmp_path_factory.mktemp("undisturbed")
    return {scene: Undisturbed.of(Command(home / scene, scene, 1)) for scene in SCENES}


LEDGER = (
    r"LedgerError: Writing or reading \S+ledger.sqlite3 failed .*What was written before is safe.*Free disk"
)
FILE = r"OSError: .* cannot be written to \S+{} \(.*needed is .*free disk space.*run the same command again"
BACKUP = r"LedgerError: The backup \S+ cannot be written .*needed before every training.*free disk space"
#: Who labels; the start, step and call at which the disk is full; what is left of it; what the user is told.
FULL = {
    "ledger creation": ("dataset", Kill(0, "ledger creation", room=0), LEDGER),
    "ledger creation, half": ("dataset", Kill(0, "ledger creation", room=9000), LEDGER),
    "owner claim": ("dataset", Kill(0, "owner claim", room=0), LEDGER),
    "backup": ("dataset", Kill(0, "backup", call=2, room=0), BACKUP),
    "backup, half": ("dataset", Kill(0, "backup", call=2, room=9000), BACKUP),
    "weights file": ("dataset", Kill(0, "weights file", room=1000), FILE.format("initial_weights.pt")),
    "query commit": ("dataset", Kill(0, "query commit", room=0), LEDGER),
    "query commit, half": ("dataset", Kill(0, "query commit", room=9000), LEDGER),
    "label commit": ("dataset", Kill(0, "label commit", call=2, room=4096), LEDGER),
    "labels of people": ("people", Kill(1, "label commit", room=0), LEDGER),
    "query file": ("people", Kill(0, "query file", room=0), FILE.format("query_0.csv")),
    "query file, half": ("people", Kill(2, "query file", room=100), FILE.format("query_1.csv")),
    "history file": ("dataset", Kill(0, "history file", call=2, room=100), FILE.format("history.csv")),
    "stop set": ("stopping", Kill(0, "stop measured", call=2, room=100), FILE.format("round_1.npz")),
    "last weights": ("people", Kill(3, "weights replaced", room=0), LEDGER),
}


@pytest.mark.parametrize("case", FULL)
def test_a_full_disk_loses_nothing_and_the_run_goes_on_when_there_is_room(tmp_path, undisturbed, case):
    scene, full, message = FULL[case]
    command = Command(tmp_path / "run", scene, 1)
    told = []

    def start(kill=None, **options):
        ended = Command.start(command, kill, **options)
        if ended:
            told.append(command.said())
        return ended

    command.start = start
    assert command.suffer([full]) == [full]
    assert re.search(message, told[0]), told
    assert not any(verdict(command, undisturbed[scene]).values())


def mode(name, bits):
    """A file or folder whose permissions are other ones for a while."""

    @contextmanager
    def changed(state):
        before = (state / name).stat().st_mode
        (state / name).chmod(bits)
        yield
        (state / name).chmod(before)

    return changed


def replaced(name, *, by_file=False):
    """Something else in the place of a file or folder, for a while."""

    @contextmanager
    def changed(state):
        path, kept = state / name, state / "kept"
        if path.exists():
            path.rename(kept)
        path.write_text("") if by_file else path.mkdir()
        yield
        path.unlink() if by_file else path.rmdir()
        if kept.exists():
            kept.rename(path)

    return changed


READ_ONLY = r"LedgerError: \S+ledger.sqlite3 cannot be written .*a label must be on disk.*Make the file and"
UNWRITABLE = {
    "a folder": ("dataset", mode(".", 0o555), READ_ONLY),
    "the ledger": ("dataset", mode("ledger.sqlite3", 0o444), READ_ONLY),
    "the backups": ("dataset", mode("backups", 0o555), BACKUP),
    "a file for the backups": ("dataset", replaced("backups", by_file=True), BACKUP),
    "a folder for the ledger": (
        "dataset", replaced("ledger.sqlite3"), "is no file, but there are backups of it: .*copy the backup to"
    ),
    "a folder for the history": (
        "dataset", replaced("history.csv"), r"ValueError: \S+history.csv is no file; .*Ch"
    ),
    "a folder for the query": ("people", replaced("query_1.csv"), r"ValueError: \S+query_1.csv .*Ch\w+ "),
}  # fmt: skip


@pytest.mark.parametrize("case", UNWRITABLE)
def test_what_cannot_be_written_loses_nothing_and_the_run_goes_on_when_it_can(tmp_path, undisturbed, case):
    scene, changed, message = UNWRITABLE[case]
    command = Command(tmp_path / "run", scene, 1)
    if scene == "dataset":
        assert command.start(Kill(0, "training", call=15))
    else:
        for _ in range(2):
            command.start()
            command.annotate()
    with changed(command.state):
        assert re.search(message, command.refused()), command.said()
    command.check_accepted()
    command.suffer([])
    assert not any(verdict(command, undisturbed[scene]).values())


@contextmanager
def small_disk(folder, size) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def may_mount(folder) -> bool:
    tried = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=False, capture_output=True)
    return tried.returncode == 0 and subprocess.run(["umount", folder], check=True).returncode == 0


def test_a_small_disk_that_grows_whenever_it_is_full(tmp_path, undisturbed):
    if not may_mount(tmp_path):
        pytest.skip("nobody may mount here; the limits above are tried everywhere")
    command = Command(tmp_path / "run", "dataset", 1)
    told = []
    with small_disk(command.state, "8k"):
        for kilobytes in (8, 48, 64, 100, 140, 180, 220, 260, 10_000):
            resize = ["mount", "-o", f"remount,size={kilobytes}k", command.state]
            subprocess.run(resize, check=True)
            try:
                command.suffer([])
            except AssertionError:
                told.append(command.said())
                command.check_accepted()
        assert len(told) > 3
        assert not any(verdict(command, undisturbed["dataset"]).values())
    for message in told:
        assert re.search("|".join([LEDGER, BACKUP, FILE.format(""), "No space left|enforce fail"]), message)
