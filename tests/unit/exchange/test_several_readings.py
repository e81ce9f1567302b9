"""Answers read again, with a name or without, and doubts beside answers: nothing doubled or dropped."""

import pytest

from lightning_al.exchange import import_answers, write_query
from lightning_al.ledger import Book
from lightning_al.ledger.state import STATUSES
from tests.unit.exchange.runs import content, labels, make


def two_agree(answers):
    values = [answer.value for answer in answers]
    return next((value for value in values if values.count(value) > 1), None)


@pytest.fixture
def ruled(tmp_path):
    """A run whose function makes labels of answers."""
    made = make(tmp_path / "run")
    made.ledger.set_meta(resolve="tests.two_agree")
    return Book(made.folder, resolve=two_agree)


def file(folder, *rows, name="a.csv"):
    path = folder / name
    path.write_text("index,label,skip,who\n" + "".join(f"{row}\n" for row in rows))
    return path


def said(book, index):
    return [(event.kind, event.who) for _, _, event in book.trails([index])[index] if event.kind != "asked"]


@pytest.mark.parametrize("names", [("Ada", None), (None, "Ada")])
def test_one_file_is_one_person_with_a_name_and_without(ruled, tmp_path, names):
    path = file(tmp_path, "7,cat,,", "5,dog,,")
    for who in names:
        import_answers(ruled, path, who=who)
    assert [len(ruled.answers(index)) for index in (7, 5)] == [1, 1]
    assert labels(ruled) == {}
    import_answers(ruled, file(tmp_path, "7,cat,,Bob", name="b.csv"))
    assert labels(ruled) == {7: 0}


def test_nobodys_answer_that_differs_is_another_one(ruled, tmp_path):
    import_answers(ruled, file(tmp_path, "7,cat,,"), who="Ada")
    import_answers(ruled, file(tmp_path, "7,dog,,", name="b.csv"))
    assert [(a.who, a.value) for a in ruled.answers(7)] == [("Ada", 0), ("b.csv", 1)]


@pytest.mark.parametrize("together", [True, False])
def test_a_skip_wipes_no_answers_out_that_a_rule_is_to_decide_on(ruled, tmp_path, together):
    rows = ["7,cat,,Ada", "7,,x,Bob", "7,cat,,Cem"]
    if together:
        import_answers(ruled, file(tmp_path, *rows))
    else:
        for number, row in enumerate(rows):
            import_answers(ruled, file(tmp_path, row, name=f"{number}.csv"))
    assert labels(ruled) == {7: 0}
    assert {who for _, who in said(ruled, 7)} == {"Ada", "Bob", "Cem", "resolve"}


def test_a_skip_alone_ignores_and_answers_that_agree_bring_it_back(ruled, tmp_path):
    import_answers(ruled, file(tmp_path, "7,,x,Bob"))
    assert STATUSES[ruled.state.status[7]] == "ignored"
    import_answers(ruled, file(tmp_path, "7,cat,,Ada", "7,cat,,Cem", name="b.csv"))
    assert labels(ruled) == {7: 0}


@pytest.mark.parametrize("rule", [None, two_agree])
def test_doubts_of_what_is_ignored_or_was_not_asked_for_are_kept_once(tmp_path, rule):
    book = make(tmp_path / "run")
    if rule is not None:
        book.ledger.set_meta(resolve="tests.two_agree")
    book = Book(book.folder, resolve=rule)
    path = file(tmp_path, "7,,x,Ada", "7,,x,Bob", "7,,?,Cem", "3,,?,Ada")
    found = import_answers(book, path)
    assert (found.skipped, found.beside, found.known) == (1, 3, 0)
    assert said(book, 7) == [("ignored", "Ada"), ("answered", "Bob"), ("answered", "Cem")]
    assert said(book, 3) == [("answered", "Ada")]
    assert [STATUSES[book.state.status[index]] for index in (7, 3)] == ["ignored", "pool"]
    before = content(book)
    again = import_answers(Book(book.folder, resolve=rule), path)
    assert (again.known, content(book)) == (4, before)


def test_an_export_refuses_to_put_answers_aside(tmp_path):
    book = make(tmp_path / "run")
    path = write_query(book)
    rows = path.read_text().splitlines()
    filled = [rows[0], rows[1].rsplit(",", 2)[0] + ",cat,", *rows[2:]]
    path.write_text("\n".join(filled) + "\n")
    with pytest.raises(ValueError, match="with 1 answers that are not on record"):
        write_query(book)
    path.write_text(path.read_text().replace("cat", "ctt"))
    with pytest.raises(ValueError, match=r"with answers that cannot be read(.|\n)*line 2"):
        write_query(book)
    path.write_text(path.read_text().replace("ctt", "cat"))
    assert import_answers(book, path).new == 1
    assert "cat" not in write_query(book).read_text()
    assert len(list(book.folder.glob("query_0*.csv"))) == 2


def test_doubts_that_were_read_under_a_name_are_on_record(tmp_path):
    book = make(tmp_path / "run")
    path = write_query(book)
    first, *rows = path.read_text().splitlines()
    filled = [f"{rows[0]}x", f"{rows[1]}?", *rows[2:]]
    path.write_text("\n".join([first, *filled]) + "\n")
    assert import_answers(book, path, who="Ada").skipped == 1
    write_query(book, path)
    path.write_text("\n".join([f"{first},who", f"{rows[0]}x,Ben", *rows[1:]]) + "\n")
    with pytest.raises(ValueError, match="with 1 answers that are not on record"):
        write_query(book, path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_of_samples_that_have_moved_an_index_alone_says_nothing(tmp_path, suffix):
    ids = [f"s{number}" for number in range(12)]
    book = make(tmp_path / "run", ids=ids)
    book.ledger.set_names(ids[::-1], {})
    path = tmp_path / f"a{suffix}"
    path.write_text("index,label\n7,cat\n" if suffix == ".csv" else '{"index": 7, "label": "cat"}\n')
    moved = Book(book.folder)
    with pytest.raises(ValueError, match="it has no `id`, and sample 7 may be another one by now"):
        import_answers(moved, path)
    path.write_text("id,label\ns7,cat\n" if suffix == ".csv" else '{"id": "s7", "label": "cat"}\n')
    assert import_answers(moved, path).new == 1
    assert labels(book) == {4: 0}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([7], "cat", "Ada"), "came with one, 'cat' `targets`"),
        (([7, 5], ["cat"], "Ada"), "2 `indices` came with 1 `targets`"),
        (([7], ["cat"], 5), "the annotator's name is 5; needed is text"),
        (([7], ["cat"], None), "the annotator's name is None; needed is text"),
        (([7], ["cat"], "dataset"), "stands for labels that no person gave"),
    ],
)
def test_wrong_arguments_are_one_message_without_other_advice(tmp_path, given, message):
    book = make(tmp_path / "run")
    indices, targets, who = given
    with pytest.raises(ValueError, match=message) as caught:
        book.label(indices, targets, who=who)
    assert "overwrite" not in str(caught.value)
    for act in (book.ignore, book.undo, book.unlabel, book.unsure):
        with pytest.raises(ValueError, match="the annotator's name is"):
            act([7], 5)
    assert labels(book) == {}


def test_a_sentence_of_a_terminal_is_shown_and_not_obeyed(tmp_path):
    book = make(tmp_path / "run")
    with pytest.raises(ValueError, match=r"line 2.*\\x1b\[2J") as caught:
        import_answers(book, file(tmp_path, "7,a\x1b[2J,,"))
    assert "\x1b" not in str(caught.value)
