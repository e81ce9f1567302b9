"""A file that is replaced: whole or not at all, and no other file is touched."""

import os
import socket
import subprocess
import sys

import pytest

from lightning_al.whole_file import replacing


def write(path, text="new", **options):
    with replacing(path, "The table", **options) as part:
        part.write_text(text)
        return part


def test_files_of_a_users_that_are_named_alike_stay(tmp_path):
    (tmp_path / "q.part").write_text("mine")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "h.part").symlink_to(victim)
    write(tmp_path / "q.csv")
    write(tmp_path / "h.csv")
    assert (tmp_path / "q.part").read_text() == "mine"
    assert victim.read_text() == "precious"
    assert (tmp_path / "h.part").is_symlink()


def test_two_writers_have_a_file_each(tmp_path):
    with replacing(tmp_path / "q.csv", "The table") as one, replacing(tmp_path / "q.jsonl", "It") as other:
        with replacing(tmp_path / "q.csv", "The table") as again:
            assert len({one, other, again}) == 3
            for part in (one, other, again):
                assert part.name.startswith(".q.")
                assert part.name.endswith(".part")
                part.write_text(part.name)
        assert (tmp_path / "q.csv").read_text() == again.name
    assert (tmp_path / "q.csv").read_text() == one.name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q.csv", "q.jsonl"]


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_nothing_is_left_of_a_block_that_fails(tmp_path, error):
    path = tmp_path / "q.csv"
    path.write_text("old")

    def fail(part):
        part.write_text("half")
        raise error("no")

    with pytest.raises(error), replacing(path, "The table", keep_old=True) as part:
        fail(part)
    assert [file.name for file in tmp_path.iterdir()] == ["q.csv"]
    assert path.read_text() == "old"


def test_what_a_killed_process_left_is_removed_by_the_next_and_nothing_else_is(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from lightning_al.whole_file import replacing\n"
        "with replacing(Path(sys.argv[1]), 'It') as part: os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "q.csv")], check=False)
    (left,) = tmp_path.iterdir()
    others = [
        tmp_path / left.name.replace(".q.csv.", ".other.csv."),
        tmp_path / left.name.replace(socket.gethostname()[:1], "elsewhere-", 1),
        tmp_path / f".q.csv.{os.getpid()}.part",
    ]
    for path in others:
        path.write_text("")
    with replacing(tmp_path / "q.csv", "It") as mine:
        mine.write_text("mine")
        write(tmp_path / "q.csv")  # passes over what somebody writes to now
        assert mine.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"q.csv", *(path.name for path in others)}


def test_what_another_host_left_is_removed_after_a_day(tmp_path):
    young, old = (tmp_path / f".q.csv.elsewhere-7-0000000{n}.part" for n in (1, 2))
    for path in (young, old):
        path.write_text("")
    os.utime(old, (0, 0))
    write(tmp_path / "q.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"q.csv", young.name}


def test_an_old_file_is_kept_under_a_name_that_is_free(tmp_path):
    path = tmp_path / "q.csv"
    (tmp_path / "q.old1.csv").symlink_to(tmp_path / "nowhere")
    path.write_text("old")
    write(path, keep_old=True)
    assert (tmp_path / "q.old2.csv").read_text() == "old"
    assert (tmp_path / "q.old1.csv").is_symlink()
    write(path, "newer")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["q.csv", "q.old1.csv", "q.old2.csv"]


def test_rights_are_those_of_any_new_file_and_long_names_can_be_written(tmp_path):
    (tmp_path / "any").write_text("")
    path = tmp_path / f"{'é' * 120}.csv"
    write(path)
    assert path.stat().st_mode == (tmp_path / "any").stat().st_mode
