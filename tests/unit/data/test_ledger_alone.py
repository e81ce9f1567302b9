"""What a run records is enough for those who have its state directory and nothing else."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_al import ActiveDataModule, LedgerError
from lightning_al.exchange import collect, place_of_answers, progress, read_csv, waiting_queries, write_csv
from lightning_al.ledger import Book
from lightning_al.ledger.answer import moment

SIZE = 12
X = torch.arange(float(SIZE))[:, None]
IDS = [f"scan {i}" for i in range(SIZE)]
NAMES = ["cat", "dog", "cow"]


@pytest.fixture
def make(tmp_path):
    def make(targets=None, **options):
        options = {"oracle": "people", "initial": [7, 5], "state_dir": tmp_path / "run", **options}
        return ActiveDataModule(TensorDataset(X) if targets is None else TensorDataset(X, targets), **options)

    return make


def ended(data):
    data.open()
    data.release()
    return Book(data.state_dir)


def test_a_query_is_exported_as_the_run_itself_exports_it(make, tmp_path):
    def describe(index):
        return {"path": tmp_path / f"{index}.png", "note": f'said "{index}"; é', "size": np.float32(index)}

    data = make(class_names=NAMES, ids=IDS, describe=describe)
    book = ended(data)
    own = (data.state_dir / "query_0.csv").read_text()
    assert write_csv(book, tmp_path / "alone.csv").read_text() == own
    assert [(q.index, q.id, q.rank) for q in waiting_queries(book)] == [(7, "scan 7", 0), (5, "scan 5", 1)]
    assert waiting_queries(book)[0].shown == {
        "path": str(tmp_path / "7.png"), "note": 'said "7"; é', "size": 7.0
    }  # fmt: skip
    data.ask([3], strategy="Margin()", scores=[0.25])
    query = waiting_queries(Book(data.state_dir))[-1]
    assert (query.index, query.score, query.strategy, query.round) == (3, 0.25, "Margin()", 1)
    assert query.shown["note"] == 'said "3"; é'


def test_a_query_and_what_is_shown_of_it_are_written_together_or_not_at_all(make):
    def describe(index):
        if index == 3:
            raise OSError("no such scan")
        return str(index)

    data = make(describe=describe)
    last = ended(data).ledger.last()
    with pytest.raises(OSError, match="no such scan"):
        data.ask([4, 3])
    assert data.ledger.last() == last
    assert data.asked_indices.tolist() == [7, 5]


@pytest.mark.parametrize(
    ("targets", "options", "kind", "good", "bad"),
    [
        (None, {"class_names": NAMES}, "class", ("cow", 2), "pig"),
        (torch.arange(SIZE), {}, "class", ("2.0", 2), "cow"),
        (torch.arange(SIZE), {"class_names": NAMES}, "class", ("1", 1), "7"),
        (torch.rand(SIZE), {}, "number", ("0.5", 0.5), "cow"),
        (torch.rand(SIZE, 3), {}, "array", ("[1, 0, 1]", [1, 0, 1]), "cow"),
        (None, {}, None, ("cow", "cow"), "null"),
    ],
)
def test_labels_are_validated_as_by_the_run(make, tmp_path, targets, options, kind, good, bad):
    book = ended(make(targets, **options))
    assert book.kind.name == kind
    path = tmp_path / "answers.csv"
    path.write_text(f'index;label\n7;"{bad}"\n')
    with pytest.raises(ValueError, match="line 2") as alone:
        collect(book, read_csv(path), path)
    with pytest.raises(ValueError, match="line 2") as by_the_run:
        make(targets, **options).import_labels(path)
    assert str(alone.value) == str(by_the_run.value)
    path.write_text(f'index;label\n7;"{good[0]}"\n')
    assert book.take(collect(book, read_csv(path), path, who="Ada")) == 1
    assert make(targets, **options).state.target(7) == book.state.target(7) == good[1]


def test_samples_are_found_by_name_also_those_that_were_never_asked_for(make, tmp_path):
    book = ended(make(ids=IDS, class_names=NAMES))
    path = tmp_path / "answers.csv"
    path.write_text("id,label,who\nscan 11 ,cow,Ada\nscan 7,cat,\n")
    assert book.take(collect(book, read_csv(path), path)) == 2
    data = make(ids=IDS, class_names=NAMES)
    assert (data.state.target(11), data.state.target(7)) == (2, 0)
    assert [(a.who, a.value) for a in data.answers(11)] == [("Ada", 2)]
    assert data.answers(7)[0].who == "answers.csv"


def test_names_follow_a_data_set_whose_order_has_changed(make):
    order = list(range(SIZE))
    random.Random(3).shuffle(order)
    data = make(ids=IDS, class_names=NAMES)
    data.label([7, 2], ["cow", "dog"], who="Ada")
    data.release()
    moved = make(ids=[IDS[i] for i in order], class_names=NAMES)
    book = ended(moved)
    assert {book.names[i]: book.state.target(i) for i in book.state.values} == {"scan 7": 2, "scan 2": 1}
    assert book.state.digest() == moved.state.digest()
    assert book.names.find("scan 5") == order.index(5) == book.state.indices(1)[0]
    book.undo([book.names.find("scan 7")])
    assert sorted(moved.book.current().indices(1).tolist()) == sorted([order.index(7), order.index(5)])


@pytest.mark.parametrize("count", [2, 200])  # many at once are taken over as arrays
def test_many_labels_follow_their_names_in_another_order(tmp_path, count):
    ids = [f"s{number}" for number in range(300)]
    order = np.random.default_rng(1).permutation(300).tolist()

    def make(names):
        samples = TensorDataset(torch.arange(300.0)[:, None])
        return ActiveDataModule(
            samples, oracle="people", ids=names, class_names=NAMES, initial=0, state_dir=tmp_path
        )

    first = make(ids)
    first.label(range(count), [i % 3 for i in range(count)], who="Ada")
    first.release()
    for names in ([ids[i] for i in order], ids):
        again = make(names)
        again.open()
        found = {names[i]: again.state.target(i) for i in again.labeled_indices.tolist()}
        assert found == {f"s{i}": i % 3 for i in range(count)}
        again.release()
        alone = Book(tmp_path)
        assert {alone.names[i]: alone.state.target(i) for i in alone.state.values} == found


def test_what_changes_of_the_run_is_recorded_when_it_opens_again(make):
    book = ended(make(class_names=NAMES))
    assert (book.min_answered, book.resolve, book.kind.class_names) == (1.0, "newest", NAMES)
    assert book.meta["oracle"] == "people"
    later = make(class_names=[*NAMES, "pig"], min_answered=0.5, resolve=max)
    assert ended(later).kind.class_names == [*NAMES, "pig"]
    assert (Book(later.state_dir).min_answered, Book(later.state_dir).resolve) == (0.5, None)
    assert Book(later.state_dir).meta["resolve"] == "builtins.max"


def test_classes_that_changed_places_are_refused_and_renamed_ones_are_not(make):
    ended(make(class_names=NAMES))
    with pytest.raises(
        LedgerError, match="class 'cat' as number 0, in this run's `class_names` it is number 1"
    ):
        make(class_names=["dog", "cat", "cow"]).open()
    ended(make(class_names=["Cat", "dog", "cow"]))
    ended(make(class_names=["dog", "Cat", "cow"], accept_changes=True))


def test_classes_that_are_gone_are_refused_and_none_named_takes_no_names_away(make):
    data = make(class_names=NAMES)
    data.open()
    data.label([7], ["cow"], who="Ada")
    data.release()
    with pytest.raises(
        LedgerError, match=r"class 'cow' as number 2, in this .* there are only 2: .*no class"
    ):
        make(class_names=["cat", "dog"]).open()
    assert ended(make()).kind.class_names == NAMES
    assert Book(data.state_dir).status().classes == {"cat": 0, "dog": 0, "cow": 1}
    assert ended(make(class_names=["cat", "dog"], accept_changes=True)).kind.class_names == ["cat", "dog"]


def test_what_waits_is_the_same_for_the_run_and_for_the_ledger_alone(make):
    data = make(class_names=NAMES, initial=[7, 5, 3, 1, 0], min_answered=0.8)
    data.open()
    data.label([7], ["cat"], who="Ada")
    data.ignore([1])
    data.unsure([5], who="Ada")
    book = Book(data.state_dir)
    waiting = book.waiting()
    assert waiting.at(data.waiting.place) == data.waiting
    assert place_of_answers(book) in data.waiting.place
    assert (waiting.count, waiting.total, waiting.answered, waiting.needed, waiting.unsure) == (3, 5, 2, 4, 1)
    assert waiting.blocks
    assert "2 of 5 answered, 4 are needed: 2 more" in str(waiting)
    data.label([3, 0], ["cat", "dog"], who="Ada")
    assert data.waiting
    assert not data.waiting.blocks
    assert "to be trained on when the same command is run again" in str(data.waiting)
    data.label([5], ["cat"], who="Ben")
    assert not data.waiting
    assert str(data.waiting) == "No sample waits for its label, 4 are labelled."


def test_with_all_answers_needed_older_samples_that_wait_are_waited_for_too(make):
    data = make(class_names=NAMES)
    data.label([7, 5], ["cat", "dog"], who="Ada")
    data.ask([3])
    data.label([3], ["cow"], who="Ada")
    data.undo([7])
    assert data.asked_indices.tolist() == [7]
    assert data.waiting.blocks
    assert (data.waiting.total, data.waiting.answered) == (2, 1)
    part = make(class_names=NAMES, min_answered=0.9)
    assert part.waiting
    assert not part.waiting.blocks


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"resolve": "majority"}, ValueError, "`resolve` is 'majority'; needed is \"newest\""),
        ({"min_answered": 0}, ValueError, "`min_answered` is 0; needed is a share above 0"),
        ({"min_answered": 16}, ValueError, "For 16 of 20 samples write 0.8"),
        ({"min_answered": "all"}, TypeError, "`min_answered` is 'all'"),
    ],
)
def test_wrong_options_are_refused(make, options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


def test_what_never_happened_cannot_be_taken_back_and_nothing_is(make):
    data = make(class_names=NAMES)
    data.label([7], ["cat"], who="Ada")
    with pytest.raises(ValueError, match="Nothing happened to sample 0 yet"):
        data.undo([7, 0])
    assert data.state.target(7) == 0


def test_times_are_compared_in_one_form():
    assert moment("2026-11-28T15:00:00+01:00") == moment("2026-11-28T14:00:00Z") == moment("2026-11-28 14:00")
    with pytest.raises(ValueError, match="'yesterday' is no time"):
        moment("yesterday")


def test_a_bar_is_drawn_for_many_rows_on_a_terminal_only(monkeypatch, capsys):
    rows = list(range(20_000))
    assert list(progress.with_progress(rows, "many")) == rows
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress.with_progress(rows[:100], "few")) == rows[:100]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress.with_progress(rows, "many.csv")) == rows
    assert "many.csv" in capsys.readouterr().err


def test_labels_come_in_and_out_of_a_process_without_torch(make, tmp_path):
    data = make(class_names=NAMES, ids=IDS, describe=str)
    ended(data)
    (tmp_path / "in.csv").write_text("id,label\nscan 7,cow\nscan 5,dog\n")
    code = f"""
import sys
from pathlib import Path
from lightning_al.exchange import collect, place_of_answers, read_csv, write_csv
from lightning_al.ledger import Book
book, path = Book({str(data.state_dir)!r}), Path({str(tmp_path / "in.csv")!r})
write_csv(book, path.with_name("out.csv"))
book.take(collect(book, read_csv(path), path, who="Ada"))
book.undo([5], who="Ada")
print(book.waiting(), book.ledger.verify(), place_of_answers(book))
assert not {{"torch", "lightning", "faiss"}} & set(sys.modules)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("1 sample waits for its label, 1 are labelled. 5 ")
    assert make(class_names=NAMES, ids=IDS).state.target(7) == 2
