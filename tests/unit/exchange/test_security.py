"""A file of answers is data: nothing in it is run, and nothing is read or written but what was asked for."""

import ast
import builtins
import codecs
import csv
import io
import json
import os
import pickle
import threading
from pathlib import Path

import pytest

import lightning_al
from lightning_al.exchange import import_answers, label_studio, read_csv, reading, write_query
from lightning_al.exchange.reading import check_answer, read_bytes
from tests.unit.exchange.runs import content, labels, make
from tests.unit.exchange.test_formats import chosen, studio_export

PACKAGE = Path(lightning_al.__file__).parent
ROOMS = ("ledger", "exchange", "cli")
#: Names that run or unpickle what they are given.
RUNS = {
    "pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "eval", "exec", "compile", "__import__",
    "system", "popen", "subprocess", "unsafe_load", "full_load", "allow_pickle", "loadtxt", "genfromtxt",
}  # fmt: skip


def names_in(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            whole = f"{getattr(node.value, 'id', '')}.{node.attr}"
            yield from [whole] if whole == "re.compile" else [whole, node.attr]  # a pattern is no code
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((node.module or "") if isinstance(node, ast.ImportFrom) else "").split(".")
            yield from (part for alias in node.names for part in alias.name.split("."))
        elif isinstance(node, ast.keyword):
            yield node.arg


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_that_runs_data_is_named(room):
    forbidden = RUNS | {"torch.load", "yaml.load", "np.load", "numpy.load"}
    for path in (PACKAGE / room).rglob("*.py"):
        found = set(names_in(ast.parse(path.read_text("utf-8"))))
        assert not found & forbidden, path


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("was unpickled",))


@pytest.fixture
def nothing_runs(monkeypatch):
    assert label_studio.read_export  # imported, which runs code
    codecs.lookup("utf-8-sig")  # and so does the first use of a codec

    def fail(*given, **more):
        raise AssertionError("was unpickled or run")

    for name in ("loads", "load", "Unpickler"):
        monkeypatch.setattr(pickle, name, fail)
    for name in ("eval", "exec"):
        monkeypatch.setattr(builtins, name, fail)
    monkeypatch.setattr(os, "system", fail)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json"])
def test_a_pickle_is_no_file_of_answers(tmp_path, nothing_runs, suffix):
    book = make(tmp_path / "run")
    before = content(book)
    path = tmp_path / f"a{suffix}"
    for bytes_ in (
        pickle.dumps(Bomb()),
        pickle.dumps(Bomb(), 0),
        b"\x80\x04.",
        b"PK\x03\x04",
        b"SQLite format 3\0",
    ):
        path.write_bytes(bytes_)
        with pytest.raises(ValueError, match=str(path)):
            import_answers(book, path)
    assert content(book) == before


@pytest.mark.parametrize(
    "label", ["!!python/object/apply:os.system ['x']", "__import__('os')", "cos\nsystem\n(S'x'\ntR."]
)
def test_code_as_a_label_is_text(tmp_path, nothing_runs, label):
    book = make(tmp_path / "run", kind="text")
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"index": 7, "label": label}))
    import_answers(book, path)
    assert labels(book) == {7: label}


# ---------------------------------------------------------------------- what is read


def test_no_task_of_label_studio_makes_us_read_a_file(tmp_path, monkeypatch):
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    book = make(tmp_path / "run")
    path = write_query(book, book.folder / "tasks.json")
    tasks = studio_export(book, [chosen("cat")] * 4)
    for task in tasks:
        task["data"] |= {"image": str(secret), "text": f"file://{secret}", "url": "http://127.0.0.1:9/x"}
        task["annotations"][0]["result"][0]["original"] = str(secret)
    path.write_text(json.dumps(tasks))
    opened = []
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda file, *more, **options: opened.append(str(file)) or real(file, *more, **options)
    )
    opens = io.open

    def open_descriptor(file, *more, **options):
        assert isinstance(file, int), f"{file} was opened"
        return opens(file, *more, **options)

    monkeypatch.setattr(io, "open", open_descriptor)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail(f"{self} was read"))
    assert import_answers(book, path).new == 4
    assert opened == [str(path)]


def test_devices_pipes_and_folders_are_no_files(tmp_path):
    book = make(tmp_path / "run")
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    done = threading.Event()

    def read():
        for path in (pipe, tmp_path, Path("/dev/zero")):
            with pytest.raises(ValueError, match=r"is no file|cannot be read"):
                import_answers(book, path, format="csv")
        done.set()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert done.wait(600), "waited for a pipe to be written"


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LARGEST_FILE", 100)
    path = tmp_path / "a.csv"
    path.write_bytes(b"x" * 100)
    assert len(read_bytes(path)) == 100
    path.write_bytes(b"x" * 101)
    with pytest.raises(ValueError, match=r"more than 0 MiB; needed is less"):
        read_bytes(path)


def test_lines_and_cells_that_are_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_al.exchange.jsonl._LONGEST_LINE", 100)
    book = make(tmp_path / "run", kind="text")
    path = tmp_path / "a.jsonl"
    path.write_text('{"index": 7, "label": "' + "x" * 100 + '"}')
    with pytest.raises(ValueError, match="line 1: has 125 letters; needed are at most 100"):
        import_answers(book, path)
    path = tmp_path / "a.csv"
    path.write_text(f"index,label\n7,{'x' * (csv.field_size_limit() + 1)}\n")
    with pytest.raises(ValueError, match=r"a cell of more than 131,072 letters in line 2; .*JSON lines"):
        import_answers(book, path)
    path.write_text('index,label\n7,"' + "see\n" * 40_000)
    with pytest.raises(
        ValueError, match=r"no CSV file .line 2: .* a quote that opens a cell has to close it"
    ):
        import_answers(book, path)


def test_more_rows_than_a_run_can_have(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_al.exchange.answers._ROWS_A_SAMPLE", 1)
    book = make(tmp_path / "run", size=12)
    path = tmp_path / "a.csv"
    path.write_text("index,label\n" + "7,cat\n" * 14)
    with pytest.raises(ValueError, match=r"has 14 rows for 12 samples; needed are at most 13"):
        import_answers(book, path)


@pytest.mark.parametrize("label", ["[" * 60_000, "[" * 60_000 + "]" * 60_000, '{"a":' * 20_000])
@pytest.mark.parametrize("kind", ["json", "number", "text", "class", None])
def test_nesting_in_a_cell(tmp_path, kind, label):
    book = make(tmp_path / "run", kind=kind)
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["index", "label"], ["7", label]])
    before = content(book)
    if kind == "text":
        assert import_answers(book, path).new == 1
        return
    try:
        import_answers(book, path)
    except ValueError as error:
        assert "line 2: " in str(error)  # noqa: PT017  # text may be a label of a run that has none yet
        assert content(book) == before
    else:
        assert labels(book) == {7: label}


@pytest.mark.parametrize(
    "value", [float("inf"), [float("nan")], 2**63, [-(2**63) - 1], {"a\0": 1}, {"\ud800": 1}]
)
def test_values_that_no_tensor_or_text_holds(value):
    with pytest.raises(ValueError, match=r"no label|holds"):
        check_answer(value)


@pytest.mark.parametrize("kind", ["number", "json", None])
def test_an_empty_text_in_quotes_is_no_label(tmp_path, kind):
    """Number 11295 of the hostile files: a cell that holds the JSON of an empty text."""
    book = make(tmp_path / "run", kind=kind)
    path = tmp_path / "a.csv"
    path.write_text('index,label\n7,""""""\n')
    with pytest.raises(ValueError, match=r"line 2: .* is no "):
        import_answers(book, path)


# ---------------------------------------------------------------------- what is written


@pytest.mark.parametrize(
    "target",
    ["ledger.sqlite3", "ledger.sqlite3-journal", "backups/x.csv", "backups/a/x.csv", "x/../ledger.sqlite3"],
)
@pytest.mark.parametrize("format", ["csv", "jsonl", "label-studio"])
def test_an_export_never_takes_the_place_of_the_ledger(tmp_path, target, format):
    book = make(tmp_path / "run")
    book.ledger.backup("x")
    (tmp_path / "run" / "x").mkdir()
    before = content(book)
    with pytest.raises(ValueError, match="belongs to the ledger"):
        write_query(book, book.folder / target, format=format)
    assert content(book) == before


def test_an_export_to_a_folder(tmp_path):
    book = make(tmp_path / "run")
    with pytest.raises(ValueError, match="is no file; needed is one to write the query to"):
        write_query(book, tmp_path, format="csv")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json"])
def test_links_are_replaced_and_not_followed(tmp_path, suffix):
    book = make(tmp_path / "run")
    victim, folder = tmp_path / "victim", tmp_path / "out"
    victim.write_text("precious")
    folder.mkdir()
    path = folder / f"query{suffix}"
    path.symlink_to(victim)
    parts = [path.with_suffix(".part"), folder / f".query{suffix}.part"]
    for part in parts:
        part.symlink_to(victim)
    write_query(book, path)
    assert victim.read_text() == "precious"
    assert not path.is_symlink()
    assert path.stat().st_size > 0
    assert {p.name for p in folder.iterdir()} == {
        f"query{suffix}", f"query.old1{suffix}", *(part.name for part in parts),
    }  # fmt: skip


def test_what_is_shown_names_no_place_to_write_to(tmp_path):
    shown = {0: {"../../x": "../../y.png", "/etc/x": "/etc/y.png"}}
    book = make(tmp_path / "run", shown=shown, ids=[f"../{i}" for i in range(12)])
    out = tmp_path / "a" / "b"
    out.mkdir(parents=True)
    for suffix in (".csv", ".jsonl"):
        write_query(book, out / f"query{suffix}")
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == [
        "a/b/query.csv", "a/b/query.jsonl", "run/ledger.sqlite3",
    ]  # fmt: skip


# ---------------------------------------------------------------------- formulas

FORMULAS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1",
    "\uff1d1",
    "=cmd|' /C calc'!A0",
    "'=1",
    "-",
]


def test_no_cell_of_a_table_is_a_formula(tmp_path):
    ids = [*FORMULAS]
    shown = {n: {"=head": text, "score": -1.5, "plain": "-1.5"} for n, text in enumerate(FORMULAS)}
    book = make(tmp_path / "run", ids=ids, size=12, asked=range(12), shown=shown, scores=[-1.5] * 12)
    path = write_query(book, tmp_path / "query.csv")
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert "'=head" in head
    for row in rows:
        cells = dict(zip(head, row, strict=True))
        assert cells["score"] == cells["plain"] == cells["sample_score"] == "-1.5"  # numbers stay numbers
        assert cells["id"].startswith("'")
        assert cells["'=head"].startswith("'")
    assert [given.id for given in read_csv(path)] == ids


def test_names_with_formulas_get_their_labels(tmp_path):
    book = make(tmp_path / "run", ids=FORMULAS, size=12, asked=range(12))
    path = write_query(book, tmp_path / "query.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for place, row in enumerate(rows):
        row["label"] = "cat" if place % 2 else "=sum"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    import_answers(book, path)
    assert labels(book) == {place: 0 if place % 2 else 7 for place in range(12)}


def test_a_file_by_the_name_of_the_data_set_is_not_the_data_set(tmp_path):
    book = make(tmp_path / "run")
    path = tmp_path / "dataset"
    path.write_text("index,label\n7,cat\n")
    import_answers(book, path)
    assert book.state.who[7] == "file dataset"
    assert not book.state.supplied[7]
