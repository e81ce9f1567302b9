"""`lightning-al`: every command, what it says and how it ends."""

import json
import os
import re
import shlex
import socket
import sqlite3
import subprocess
import sys

import pytest

from lightning_al.cli import main
from lightning_al.ledger import Book, Ledger
from tests.unit.exchange.runs import content, labels, make

HEAVY = ("torch", "lightning", "faiss", "pandas", "lightning_al.data")
COMMANDS = (
    "fit-rounds", "status", "history", "plot", "export", "import", "push", "pull", "undo", "relabel",
    "ignore", "verify", "backup", "release",
)  # fmt: skip


@pytest.fixture
def book(tmp_path):
    return make(tmp_path / "run", names=["cat", "dog", "10"], scores=[0.9, 0.5, 0.25, 0.1])


@pytest.fixture
def run(capsys):
    """A command's exit code, what it said, and its errors."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def wrong(run, *arguments):
    """What a command says that ends with 1, in one message and without a traceback."""
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("lightning-al: error: ")
    assert "Traceback" not in err
    return err


# ---------------------------------------------------------------------- the program


def test_commands_of_the_ledger_load_neither_torch_nor_lightning(book, tmp_path):
    folder, answers = book.folder, tmp_path / "answers.jsonl"
    answers.write_text('{"index": 7, "label": "dog", "who": "Ada"}\n')
    Ledger(book.ledger.path).append([], round_row={"round": 0, "labeled": 4, "asked": 1, "test_acc": 0.5})
    lines = [
        f"status {folder}", f"history {folder}", f"history {folder} --sample 7", f"export {folder}",
        f"export {folder} --format label-studio", f"import {folder} {answers}",
        f"relabel {folder} --sample 7 --label cat --who Bob", f"undo {folder} --sample 7",
        f"ignore {folder} --sample 1", f"verify {folder}", f"backup {folder}", f"release {folder}",
        f"plot {folder} --to {tmp_path / 'c.png'}",
    ]  # fmt: skip
    code = (
        "import sys; from lightning_al.cli import main\n"
        f"for line in {lines!r}:\n"
        "    code = main(line.split())\n"
        f"    print('>', line.split()[0], code, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^> (.*)$", found, re.MULTILINE) == [f"{line.split()[0]} 0 []" for line in lines]


def test_the_script_is_installed_and_ends_as_it_should(book):
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="lightning-al")
    assert script.load() is main


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_help_says_what_it_does_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0
    assert said.startswith(f"usage: lightning-al {command} ")
    assert f"  lightning-al {command} " in said or f" lightning-al {command} runs/digits" in said
    assert "Example:" in said


def test_help_lists_all(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0
    assert all(re.search(rf"^    {command} ", said, re.MULTILINE) for command in COMMANDS)


@pytest.mark.parametrize(
    "line", ["", "nothing", "status", "relabel x --sample 3 --label 4", "undo x", "import x", "plot x",
             "status x y", "export x --format xml", "pull x --project five", "status x --token 3",
             "history x --csv h.csv --sample 5"]
)  # fmt: skip
def test_wrong_arguments_end_with_2(line, capsys):
    with pytest.raises(SystemExit) as end:
        main(line.split())
    assert end.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "usage", "message"),
    [
        ("import x", "import STATE_DIR PATH", "PATH: not given, and needed. The usage shows where."),
        ("import", "import STATE_DIR PATH", "STATE_DIR, PATH: not given, and needed. The usage shows where."),
        ("undo x", "undo STATE_DIR", "--sample: not given, and needed. The usage shows where."),
        (
            "export x --format xml",
            "export",
            "--format is 'xml'; needed is one of 'csv', 'jsonl', 'label-studio'.",
        ),
        (
            "history x --csv h.csv --sample 5",
            "history STATE_DIR",
            "--csv and --sample are both given; needed is one of them.",
        ),
        ("pull x --project five", "pull", "--project is 'five'; needed is a whole number."),
    ],
)
def test_a_wrong_argument_is_one_line_with_the_usage_of_its_command(line, usage, message, capsys):
    with pytest.raises(SystemExit):
        main(line.split())
    said = capsys.readouterr().err
    assert said.startswith(f"usage: lightning-al {usage}")
    assert said.endswith(f"\nerror: {message}\n")


@pytest.mark.parametrize("command", ["export", "import", "push"])
def test_help_speaks_of_no_types_of_python(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = capsys.readouterr().out
    assert not re.search(r"Literal|Optional|Union|null|\(\)", said)


@pytest.mark.parametrize("command", ["status", "history", "export", "verify", "backup", "release"])
def test_where_there_is_no_ledger(command, run, tmp_path):
    said = wrong(run, command, tmp_path)
    assert re.fullmatch(r"lightning-al: error: There is no ledger at .*; check `state_dir`\.\n", said)
    assert list(tmp_path.iterdir()) == []


def test_whoever_reads_the_output_may_stop(book):
    code = f"import sys; from lightning_al.cli import main; sys.exit(main(['status', {str(book.folder)!r}]))"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


# ---------------------------------------------------------------------- looking


def test_status(book, run):
    book.label([7, 5], ["dog", "10"], who="Ada")
    book.unsure([9], "Bob")
    code, said, _ = run("status", book.folder)
    assert code == 0
    for line in (
        "round      0 of 3; 0 finished; Margin()", "labelled   2 of a budget of 40", "waiting    2",
        "pool       8 of 12 samples", "cat  0", f"dog  1  {'#' * 30}", f"10   1  {'#' * 30}",
        "2 samples wait for their labels, 2 are labelled; of 1 an annotator could not tell yet.",
        "No run holds the ledger.",
    ):  # fmt: skip
        assert line in said.splitlines()
    found = json.loads(run("status", book.folder, "--json")[1])
    assert found["classes"] == {"cat": 0, "dog": 1, "10": 1}
    assert (found["labeled"], found["waiting"]["unsure"], found["holder"]) == (2, 1, None)
    assert str(book.status()) in said


def test_a_status_names_who_holds_the_ledger(book, run):
    Ledger(book.ledger.path).claim()
    assert (
        f"Process {os.getpid()} on {socket.gethostname()} holds the ledger since"
        in run("status", book.folder)[1]
    )
    assert json.loads(run("status", book.folder, "--json")[1])["holder"]["pid"] == os.getpid()


def test_names_that_would_steer_a_terminal_do_not(tmp_path, run):
    book = make(tmp_path / "run", names=["cat\x1b[2J", "dog\n#"])
    book.label([7], [0], who="Ada")
    said = run("status", book.folder)[1] + run("history", book.folder, "--sample", "7")[1]
    assert "\x1b" not in said
    assert r"cat\x1b[2J" in said
    assert "dog\\n#" in said


def test_history(book, run, tmp_path):
    assert run("history", book.folder)[1].startswith("No round is finished yet.")
    book.ledger.append(
        [], round_row={"round": 0, "labeled": 4, "asked": 2, "test_acc": 0.51234, "train_s": 1.0}
    )
    head, row, *_ = run("history", book.folder)[1].splitlines()
    assert head.split() == [
        "round", "labeled", "asked", "train_s", "score_s", "select_s", "label_entropy", "test_acc"
    ]  # fmt: skip
    assert row.split() == ["0", "4", "2", "1", "-", "-", "-", "0.5123"]
    path = tmp_path / "rounds.csv"
    assert run("history", book.folder, "--csv", path)[1] == f"{path}: 1 rounds.\n"
    assert path.read_text().splitlines()[1] == "0,4,2,1.0,,,,0.51234"


def test_history_of_a_sample_says_who_and_when(book, run):
    book.label([7], ["dog"], who="Ada")
    book.label([7], ["cat"], who="Ada", overwrite=True)
    book.undo([7], "Bob")
    _, said, _ = run("history", book.folder, "--sample", "7")
    lines = said.splitlines()
    assert lines[0] == "sample 7:"
    assert [re.sub(r"^\S+Z +", "", line).split("  ")[0] for line in lines[1:]] == [
        "asked for", "labelled dog", "labelled anew cat", "taken back, again labelled dog",
    ]  # fmt: skip
    assert "round 0, rank 0, score 0.9, by Margin()" in lines[1]
    assert lines[4].split()[-3:] == ["Bob", "round", "0"]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", lines[2])
    assert "nothing happened to it yet" in run("history", book.folder, "--sample", "3")[1]


def test_samples_by_id(tmp_path, run):
    book = make(tmp_path / "run", ids=[f"scan-{i}" for i in range(12)])
    assert run("history", book.folder, "--sample", "scan-7")[1].startswith("sample 7 (scan-7):")
    assert run("history", book.folder, "--sample", "7")[1].startswith("sample 7 (scan-7):")
    said = wrong(run, "history", book.folder, "--sample", "scan-99")
    assert "needed is an id, such as 'scan-0', or an index from 0 to 11" in said


def test_an_index_is_none_where_ids_are_numbers(tmp_path, run):
    book = make(tmp_path / "run", ids=[f"{i + 1:03}" for i in range(12)])
    assert run("history", book.folder, "--sample", "007")[1].startswith("sample 6 (007):")
    assert "needed is an id, such as '001'. Check" in wrong(run, "history", book.folder, "--sample", "0")


def test_plot(book, run, tmp_path):
    book.ledger.append([], round_row={"round": 0, "labeled": 4, "test_loss": 0.7, "test_acc": 0.5})
    book.ledger.append([], round_row={"round": 1, "labeled": 8, "test_loss": 0.5, "test_acc": 0.8})
    path = tmp_path / "curves.png"
    assert run("plot", book.folder, book.folder, "--to", path)[1] == f"{path}: test_acc of 2 runs.\n"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "No round of" in wrong(run, "plot", book.folder, "--to", path, "--metric", "nothing")
    for name in ("curves.xyz", "curves"):
        assert "which is no kind of picture" in wrong(run, "plot", book.folder, "--to", tmp_path / name)
    run("plot", book.folder, "--to", path, "--metric", "test_loss")
    assert sorted(file.name for file in tmp_path.glob("*.*")) == ["curves.old1.png", "curves.png"]


@pytest.mark.parametrize("command", ["history --csv", "plot --to", "export --to"])
@pytest.mark.parametrize("target", ["ledger.sqlite3", "backups/x.sqlite3", "weights_0.pt"])
def test_no_command_writes_over_what_a_run_keeps(book, run, command, target):
    book.ledger.append([], round_row={"round": 0, "labeled": 4, "test_acc": 0.5})
    book.ledger.backup("x")
    (book.folder / "weights_0.pt").write_bytes(b"weights")
    path, before = book.folder / target, content(book)
    kept = path.read_bytes()
    name, flag = command.split()
    assert "belongs to the ledger" in wrong(run, name, book.folder, flag, path)
    assert path.read_bytes() == kept
    assert content(book) == before


def test_a_history_keeps_the_file_that_was_there(book, run, tmp_path):
    path = tmp_path / "rounds.csv"
    path.write_text("mine")
    assert run("history", book.folder, "--csv", path)[0] == 0
    assert path.read_text().startswith("round,labeled")
    assert (tmp_path / "rounds.old1.csv").read_text() == "mine"


def test_plot_without_a_test_metric(book, run, tmp_path):
    assert "has no test metrics; needed is one" in wrong(run, "plot", book.folder, "--to", tmp_path / "c.png")


# ---------------------------------------------------------------------- exchanging


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json"])
def test_export(book, run, tmp_path, suffix):
    path = tmp_path / f"query.{suffix}"
    assert run("export", book.folder, "--to", path) == (0, f"{path}: 4 samples wait for their labels.\n", "")
    assert path.exists()
    other = tmp_path / "other.txt"
    format_ = {"csv": "csv", "jsonl": "jsonl", "json": "label-studio"}[suffix]
    run("export", book.folder, "--to", other, "--format", format_)
    assert other.read_bytes() == path.read_bytes()


def test_an_export_names_the_file_that_it_puts_aside(book, run):
    path = book.folder / "query_0.csv"
    run("export", book.folder)
    code, said, _ = run("export", book.folder)
    assert (code, said) == (
        0,
        f"{path}: 4 samples wait for their labels.\n"
        f"The file that was there is {book.folder / 'query_0.old1.csv'} now, and is not read again.\n",
    )
    path.write_text(path.read_text().replace(",,\n", ',"cat,\n', 1))
    assert "may hold answers, which cannot be read" in wrong(run, "export", book.folder)
    assert not (book.folder / "query_0.old2.csv").exists()


def test_answers_of_a_run_that_is_lost_are_read_where_that_is_said(book, run, tmp_path):
    lost = make(tmp_path / "lost", names=["cat", "dog", "10"])
    path = book.folder / "query_0.csv"
    run("export", lost.folder, "--to", path)
    path.write_text(path.read_text().replace(",,\n", ",cat,\n", 1))
    said = wrong(run, "export", book.folder)
    assert f"{path} holds 1 answers of another run" in said
    command = re.search(r"`lightning-al (import .*)`, in Python", said)[1].split()
    assert run(*command)[1].startswith(f"{path}: 1 new labels")
    assert labels(book) == {7: 0}
    assert "query_0.old1.csv" in run("export", book.folder)[1]


def test_export_of_nothing(tmp_path, run):
    book = make(tmp_path / "run", asked=())
    assert run("export", book.folder) == (0, "No sample waits for its label, 0 are labelled.\n", "")
    assert not (book.folder / "query_0.csv").exists()


def test_import_says_what_it_was(book, run, tmp_path):
    path = tmp_path / "answers.csv"
    path.write_text("index,label,skip\n7,dog,\n5,,?\n9,,blurred\n1,,\n")
    code, said, _ = run("import", book.folder, path, "--who", "Ada")
    assert code == 0
    assert said == (
        f"{path}: 1 new labels, 0 corrected, 1 skipped, 1 unsure, 0 already known\n"
        "2 samples wait for their labels, 1 are labelled; of 1 an annotator could not tell yet.\n"
    )
    path.write_text("index,label\n7,cat\n")
    said = wrong(run, "import", book.folder, path, "--who", "Ada")
    assert re.search(r"line 2: sample 7 is labelled .* already, not ", said)
    assert "`import --overwrite` lets a new answer win" in said
    assert "1 corrected" in run("import", book.folder, path, "--who", "Ada", "--overwrite")[1]


def test_annotators_of_an_export_of_label_studio_get_their_names(book, run, tmp_path):
    path, users = tmp_path / "export.json", tmp_path / "users.json"
    run("export", book.folder, "--to", path)
    tasks = json.loads(path.read_text())
    result = [{"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": ["dog"]}}]
    at = "2026-11-20T10:00:00Z"
    for place, task in enumerate(tasks):
        given = {"id": place, "completed_by": place, "result": result, "created_at": at, "updated_at": at}
        task |= {"id": place, "annotations": [given | {"was_cancelled": False}]}
    path.write_text(json.dumps(tasks[:2]))
    users.write_text('{"0": "Ada", "7": "Bob"}')
    code, said, _ = run("import", book.folder, path, "--users", users)
    assert (code, said) == (
        0,
        f"{path}: 2 new labels, 0 corrected, 0 skipped, 0 unsure, 0 already known\n"
        "2 samples wait for their labels, 2 are labelled.\n",
    )
    assert set(Book(book.folder).current().who.values()) == {"Ada", "user 1"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('["Ada"]', "is another kind of JSON; needed is one object from the numbers of accounts to names"),
        ('{"Ada": "1"}', "is another kind of JSON"),
        ('{"1": 1}', "is another kind of JSON"),
        ('{"1": "dataset"}', "cannot be used"),
        ('{"%s": "Ada"}' % ("9" * 5000), "is another kind of JSON"),
        ("{", "cannot be read"),
    ],
)
def test_a_file_of_users_that_is_none(book, run, tmp_path, content, message):
    path, users = tmp_path / "export.json", tmp_path / "users.json"
    users.write_text(content)
    assert message in wrong(run, "import", book.folder, path, "--users", users)


def test_users_are_for_exports_of_label_studio(book, run, tmp_path):
    users = tmp_path / "users.json"
    users.write_text("{}")
    for more in (["a.csv"], ["a.json", "--who", "Ada"]):
        assert "leave `--users` out" in wrong(run, "import", book.folder, *more, "--users", users)


def test_import_of_what_is_no_file_of_answers(book, run, tmp_path):
    before = content(book)
    assert "cannot be read" in wrong(run, "import", book.folder, tmp_path / "none.csv")
    assert "Export the project again" in wrong(
        run, "import", book.folder, book.ledger.path, "--format", "label-studio"
    )
    assert content(book) == before


def test_a_run_of_its_own_rule_decides_later(tmp_path, run):
    book = make(tmp_path / "run")
    book.ledger.set_meta(resolve="my_project.majority")
    path = tmp_path / "a.jsonl"
    path.write_text('{"index": 7, "label": "dog", "who": "Ada"}\n')
    said = run("import", book.folder, path)[1]
    assert "1 kept beside the label or until a rule decides" in said
    assert "The run's own function makes labels of answers, when it is started again." in said


# ---------------------------------------------------------------------- changing


def test_relabel_undo_and_ignore(book, run):
    book.label([7], ["dog"], who="Ada")
    assert (
        run("relabel", book.folder, "--sample", 7, "--label", "cat", "--who", "Bob")[1]
        == "sample 7: labelled cat\n"
    )
    assert labels(book) == {7: 0}
    assert run("undo", book.folder, "--sample", 7, "--who", "Bob")[1] == "sample 7: labelled dog\n"
    assert run("undo", book.folder, "--sample", 7)[1] == "sample 7: labelled cat\n"
    assert (
        run("ignore", book.folder, "--sample", 5, 3, "--who", "Bob")[1]
        == "sample 5: ignored\nsample 3: ignored\n"
    )
    assert run("undo", book.folder, "--sample", 5, 3)[1] == "sample 5: waiting\nsample 3: in the pool\n"
    whose = [
        event.who for _, event in book.ledger.events() if event.kind in ("relabeled", "reverted", "ignored")
    ]
    assert whose[:2] == ["Bob", "Bob"]
    assert all(whose)


@pytest.mark.parametrize("command", ["ignore", "undo"])
def test_samples_may_be_given_together_and_one_by_one(book, run, command):
    book.label([1, 5, 7, 9], ["dog"] * 4, who="Ada")
    book.unlabel([1, 5, 7, 9])
    said = run(command, book.folder, "--sample", 5, 1, "--sample", 9)[1]
    assert [line.split(":")[0] for line in said.splitlines()] == ["sample 5", "sample 1", "sample 9"]
    untouched = Book(book.folder).state.status[7]
    assert [Book(book.folder).state.status[i] != untouched for i in (5, 1, 9)] == [True] * 3


@pytest.mark.parametrize("command", ["history {}", "relabel {} --label cat --who Bob"])
def test_where_one_sample_is_meant_several_are_refused(book, run, command):
    book.label([5, 7], ["dog", "dog"], who="Ada")
    before = content(book)
    said = wrong(run, *command.format(book.folder).split(), "--sample", 5, "--sample", 7)
    assert "`--sample` was given 2 times, and needed is one sample at a time" in said
    assert content(book) == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("relabel {} --sample 5 --label cat --who Bob", "is waiting and has no label to correct"),
        ("relabel {} --sample 7 --label bird --who Bob", "'bird' is none of the classes"),
        ("relabel {} --sample 7 --label cat --who dataset", "stands for labels that no person gave"),
        ("undo {} --sample 3", "Nothing happened to sample 3 yet"),
        ("undo {} --sample 12", "There is no sample '12'"),
        ("undo {} --sample=-1", "There is no sample '-1'"),
        ("undo {} --sample 3", "See `lightning-al history --sample 3`, in Python"),
        ("ignore {} --sample 7", "sample 7 is labelled"),
        ("ignore {} --sample 7", "See `lightning-al history --sample 7`, in Python"),
        ("ignore {} --sample 3 --who resolve", "no person gave"),
    ],
)
def test_changes_that_are_refused(book, run, line, message):
    book.label([7], ["dog"], who="Ada")
    before = content(book)
    assert message in wrong(run, *line.format(book.folder).split())
    assert content(book) == before


# ---------------------------------------------------------------------- keeping


def damage(path, seq=2):
    db = sqlite3.connect(path)
    db.execute("UPDATE events SET who = 'Eve' WHERE seq = ?", (seq,))
    db.commit()
    db.close()


def test_verify(book, run):
    book.label([7], ["dog"], who="Ada")
    assert run("verify", book.folder)[:2] == (
        0, f"{book.ledger.path}: 5 events, 1 labels, all as they were written.\n",
    )  # fmt: skip


def test_verify_finds_the_newest_good_backup_and_the_commands_bring_it_back(book, run, tmp_path):
    book.label([7], ["dog"], who="Ada")
    good = Ledger(book.ledger.path).backup("round_1")
    book.label([5], ["cat"], who="Ada")
    bad = Ledger(book.ledger.path).backup("round_2")
    damage(bad)
    damage(book.ledger.path)
    os.utime(good, (1, 1))
    advice = f"The newest backup that is whole is {good}; to go on with it:"
    assert advice in wrong(run, "status", book.folder)
    code, said, _ = run("verify", book.folder)
    assert code == 1
    first, *lines = said.splitlines()
    assert lines[2] == advice
    assert (
        first
        == f"Event 2 of {book.ledger.path} was changed after it was written: the digests do not follow on."
    )
    assert lines[0] == f"  {bad}: damaged"
    assert lines[1] == f"  {good}: whole, 1 labels, lacks 1 labels of the ledger"
    commands = [line.strip() for line in lines if line.startswith(("  mv", "  cp"))]
    assert [shlex.split(command)[0] for command in commands] == ["mv", "cp"]
    for command in commands:
        subprocess.run(shlex.split(command), check=True)
    assert run("verify", book.folder)[0] == 0
    assert labels(Book(book.folder)) == {7: 1}
    assert (book.folder / "ledger.sqlite3.damaged").exists()


def test_verify_of_a_file_that_is_none_or_gone(book, run):
    good = Ledger(book.ledger.path).backup("round_1")
    book.ledger.path.write_bytes(b"no database at all" * 100)
    code, said, _ = run("verify", book.folder)
    assert code == 1
    assert f"cp {good} {book.ledger.path}" in said
    book.ledger.path.unlink()
    code, said, _ = run("verify", book.folder)
    assert code == 1
    assert "is gone" in said
    assert "mv " not in said
    assert f"cp {good} {book.ledger.path}" in said


@pytest.mark.parametrize("command", ["status", "export", "verify", "backup", "release"])
def test_a_file_of_answers_is_not_taken_for_a_ledger(book, run, command):
    Ledger(book.ledger.path).backup("round_0")
    path = book.folder / "query_0.csv"
    path.write_text("index,label\n7,dog\n")
    said = wrong(run, command, path)
    assert f"{path} is no ledger; needed is the state directory" in said
    assert f"Give the folder, {book.folder}." in said
    assert "backup" not in said
    assert "backup" not in wrong(run, command, book.folder / "nothing"), (
        "nothing there is no ledger that is gone"
    )


def test_a_ledger_by_its_file_whatever_it_is_called(book, run):
    assert run("verify", book.ledger.path)[0] == 0
    copy = book.ledger.path.rename(book.folder / "kept.db")
    assert run("verify", copy)[0] == run("status", copy)[0] == 0
    copy.rename(book.folder / "ledger.sqlite3.damaged").write_bytes(b"no database at all")
    assert run("verify", book.folder / "ledger.sqlite3.damaged")[0] == 1


def test_verify_without_a_good_backup(book, run):
    damage(book.ledger.path)
    code, said, _ = run("verify", book.folder)
    assert code == 1
    assert "There is no backup in" in said
    assert "cp " not in said


def test_a_backup_made_by_hand_stays(book, run):
    _, said, _ = run("backup", book.folder)
    assert re.search(r"backups/by_hand_\w+Z\.sqlite3: 4 events\.\n$", said)
    for number in range(6):
        Ledger(book.ledger.path).backup(f"round_{number}")
    kept = sorted(path.name for path in (book.folder / "backups").iterdir())
    assert len(kept) == 4
    assert kept[0].startswith("by_hand_")


def test_release(book, run):
    assert run("release", book.folder)[1] == "No run holds the ledger.\n"
    db = sqlite3.connect(book.ledger.path)
    db.execute("INSERT INTO owner VALUES (1, 'x', 'another-host', 77, NULL, NULL, 'yesterday')")
    db.commit()
    db.close()
    assert "lightning-al release --force" in wrong(run, "release", book.folder)
    assert "in use by process 77 on another-host" in wrong(run, "ignore", book.folder, "--sample", 3)
    assert (
        run("release", book.folder, "--force")[1]
        == "Released: process 77 on another-host held it since yesterday.\n"
    )
    assert run("ignore", book.folder, "--sample", 3)[0] == 0


def test_a_run_that_lives_is_not_released_by_force(book, run):
    Ledger(book.ledger.path).claim()
    said = wrong(run, "release", book.folder, "--force")
    assert "and it lives; two runs must not write one ledger" in said
    assert book.ledger.holder() is not None


def test_a_run_that_is_gone_is_released_without_force(book, run):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    db = sqlite3.connect(book.ledger.path)
    db.execute(
        "INSERT INTO owner VALUES (1, 'x', ?, ?, '1', NULL, 'yesterday')", (socket.gethostname(), process.pid)
    )
    db.commit()
    db.close()
    assert "held the ledger since yesterday and is gone" in run("status", book.folder)[1]
    assert run("release", book.folder)[0] == 0


def test_letters_that_a_terminal_lacks_are_written_out_and_the_answers_taken_over(tmp_path):
    book = make(tmp_path / "run", names=["Käse", "dog"])
    path = tmp_path / "qé.csv"
    path.write_text("index,label\n7,Käse\n", encoding="utf-8")
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    said = []
    for arguments in (["import", book.folder, path], ["status", book.folder]):
        command = [sys.executable, "-m", "lightning_al.cli", *map(str, arguments)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert (done.returncode, done.stderr) == (0, "")
        said.append(done.stdout)
    assert "q\\xe9.csv: 1 new labels" in said[0]
    assert "K\\xe4se" in said[1]
    assert labels(book) == {7: 0}


def test_a_history_of_a_ledger_that_was_changed_is_refused_as_by_every_other_command(book, run):
    book.label([7], ["dog"], who="Ada")
    assert "labelled dog" in run("history", book.folder, "--sample", "7")[1]
    with sqlite3.connect(book.ledger.path) as db:
        db.execute("UPDATE events SET value = '0' WHERE kind = 'labeled'")
    db.close()
    for command in (["status"], ["history"], ["history", "--sample", "7"], ["history", "--sample", "3"]):
        said = wrong(run, command[0], book.folder, *command[1:])
        assert "Event 5 of " in said
        assert "was changed after it was written" in said


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "fit-rounds --data.orcale people",
            "--data.orcale: not an argument; needed is one that `--help` lists. Do you mean --data.oracle?",
        ),
        (
            "fit-rounds --trainer.max_epoch=3 --zzz 4",
            "--trainer.max_epoch, --zzz: not an argument; needed is one that `--help` lists. Do you mean "
            "--trainer.max_epochs?",
        ),
        (
            "fit-rounds --config {file}",
            "--data.orcale: not an argument; needed is one that `--help` lists. Do you mean --data.oracle?",
        ),
        (
            "compare --sedes 3",
            "--sedes: not an argument; needed is one that `--help` lists. Do you mean --seeds?",
        ),
        (
            "status x --jsn",
            "--jsn: not an argument; needed is one that `--help` lists. Do you mean --json?",
        ),
        ("status x --zzz", "--zzz: not an argument; needed is one that `--help` lists."),
        ("status x y", "'y' is more than is needed; needed are the arguments that the usage shows."),
    ],
)
def test_an_argument_that_there_is_not_is_told_of_with_the_nearest(line, message, tmp_path, capsys):
    file = tmp_path / "run.yaml"
    net = "tests.unit.cli.project.Net"
    file.write_text(f"{{rounds: 1, model: {net}, active: {{query_size: 3}}, data: {{orcale: people}}}}")
    with pytest.raises(SystemExit) as end:
        main(line.format(file=file).split())
    assert end.value.code == 2
    *_, tip, said = capsys.readouterr().err.splitlines()
    assert re.match(r"tip: .* run: lightning-al [\w-]+ --help$", tip)
    assert said == f"error: {message}"
