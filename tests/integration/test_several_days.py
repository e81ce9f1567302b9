"""Labels from people over several days: few at a time, late ones, of several annotators, taken back."""

import csv
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from integration.small import CLASSES, Net, blobs, margin, queries, quiet
from lightning_al import ActiveDataModule, AwaitingLabels, fit_rounds
from lightning_al.exchange import collect, read_csv
from lightning_al.ledger import Book, LedgerError
from lightning_al.ledger.state import ASKED

X, Y = blobs(60).tensors
NAMES = ["red", "green", "blue"]


def people(folder, **options):
    options = {"initial": 10, "batch_size": 4, "test_set": blobs(20, seed=1), **options}
    return ActiveDataModule(TensorDataset(X), oracle="people", class_names=NAMES, state_dir=folder, **options)


def fill_in(path, indices, *, who=None, wrong=(), column="label", text=None):
    """Answers into the rows of some samples; in a column of their own the annotator's name."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        index = int(row["index"])
        if index in indices:
            row[column] = text or NAMES[(int(Y[index]) + (index in wrong)) % CLASSES]
            row["who"] = who or row.get("who", "")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]] + ([] if "who" in rows[0] else ["who"]), restval="")
        writer.writeheader()
        writer.writerows(rows)


def in_file(path):
    with path.open(newline="") as file:
        return [int(row["index"]) for row in csv.DictReader(file)]


def day(folder, *, rounds=3, make=lambda number: quiet(), budget=None, **options):
    data = people(folder, **options)
    return data, fit_rounds(Net(), make, data, margin(query_size=5, budget=budget), rounds=rounds)


def test_training_goes_on_with_most_of_a_query_and_late_answers_are_trained_on(tmp_path):
    data, history = day(tmp_path, min_answered=0.8)
    assert history.waiting.blocks
    assert (history.waiting.count, history.waiting.total, history.waiting.needed) == (10, 10, 8)
    first = in_file(tmp_path / "query_0.csv")
    fill_in(tmp_path / "query_0.csv", first[:6])
    fill_in(tmp_path / "query_0.csv", first[6:7], column="skip", text="smudged")
    fill_in(tmp_path / "query_0.csv", first[7:8], column="skip", text="?")
    data, history = day(tmp_path, min_answered=0.8)
    assert str(history.waiting).startswith(
        "3 samples wait for their labels, 6 are labelled; 7 of 10 answered, 8 are needed: 1 more; "
        "of 1 an annotator could not tell yet: fill in"
    )
    assert len(history) == 0
    fill_in(tmp_path / "query_0.csv", first[8:9])
    data, history = day(tmp_path, min_answered=0.8)
    assert history.column("labeled") == [7]
    assert data.asked_indices.tolist()[:2] == [first[7], first[9]]
    assert history.waiting.blocks
    assert (history.waiting.count, history.waiting.total, history.waiting.needed) == (7, 5, 4)
    # What was left over is answered beside the next query, the one that somebody was unsure of by another.
    second = [index for index in in_file(tmp_path / "query_1.csv") if index not in first]
    fill_in(tmp_path / "query_1.csv", [*second[:4], first[7]], who="Ben")
    data, history = day(tmp_path, min_answered=0.8)
    assert history.column("labeled") == [7, 12]
    assert first[7] in data.labeled_indices
    assert data.state.round[first[7]] == 1  # the first training that saw it
    assert [answer.who for answer in data.answers(first[7])] == ["Ben"]
    asked = [index for query in queries(tmp_path).values() for index in query]
    assert len(asked) == len(set(asked))


def test_leftovers_answered_after_the_last_query_are_trained_on_in_the_end(tmp_path):
    for _ in range(4):
        data, history = day(tmp_path, rounds=2, budget=20, min_answered=0.6)
        for path in sorted(tmp_path.glob("query_*.csv")):
            newest = [i for i in in_file(path) if data.state.status[i] == ASKED]
            fill_in(path, newest[: round(0.6 * len(newest) + 0.4)])
    spent = len(data.labeled_indices) + len(data.asked_indices)
    assert spent == sum(map(len, queries(tmp_path).values())) == 20
    assert len(data.asked_indices) > 0
    labeled = history.column("labeled")[-1]
    data, history = day(tmp_path, rounds=2, budget=20, min_answered=0.6)
    rest = data.asked_indices.tolist()
    data.label(rest, [NAMES[int(Y[i])] for i in rest], who="Ada")
    data, history = day(tmp_path, rounds=2, budget=20, min_answered=0.6)
    assert not history.waiting
    assert history.column("labeled")[-1] == 20 > labeled
    assert history.column("asked") == [5, 5, 0]


def test_a_round_trained_again_sees_the_labels_that_it_had_not_the_late_ones(tmp_path):
    day(tmp_path, min_answered=0.8)
    first = in_file(tmp_path / "query_0.csv")
    fill_in(tmp_path / "query_0.csv", first[:8])

    class Fails(Net):
        def on_test_start(self):
            raise RuntimeError("power is off")

    data = people(tmp_path, min_answered=0.8)
    with pytest.raises(RuntimeError, match="power"):
        fit_rounds(Fails(), lambda number: quiet(), data, margin(query_size=5), rounds=3)
    trained = data.ledger.rounds()[0]["trained"]
    asked = queries(tmp_path)
    assert list(asked) == [0, 1]  # the query is on record, round 0 lacks its test
    fill_in(tmp_path / "query_0.csv", first[8:])
    fill_in(tmp_path / "query_1.csv", asked[1])
    seen = {}

    class Sees(Net):
        def on_train_start(self):
            data = self.trainer.datamodule
            seen[data.round] = data.training.labeled.tolist()

    data = people(tmp_path, min_answered=0.8)
    history = fit_rounds(Sees(), lambda number: quiet(), data, margin(query_size=5), rounds=3)
    assert seen[0] == first[:8]
    assert sorted(seen[1]) == sorted([*first, *asked[1]])
    assert history.column("labeled")[:2] == [8, 15]
    assert data.ledger.rounds()[0]["trained"] == trained
    assert queries(tmp_path)[1] == asked[1]


def test_a_plain_fit_goes_on_with_most_of_a_query(tmp_path):
    def fit():
        data = people(tmp_path, min_answered=0.5, test_set=None)
        quiet(callbacks=[margin(query_size=5)]).fit(Net(), datamodule=data)
        return data

    with pytest.raises(AwaitingLabels, match="0 of 10 answered, 5 are needed: 5 more") as ended:
        fit()
    assert ended.value.waiting.missing == 5
    first = in_file(tmp_path / "query_0.csv")
    fill_in(tmp_path / "query_0.csv", first[:5])
    data = fit()
    assert (len(data.labeled_indices), len(data.asked_indices)) == (5, 10)
    with pytest.raises(AwaitingLabels, match=r"10 samples wait .*0 of 5 answered, 3 are needed: 3 more"):
        fit()


def two_of_three(answers):
    """The label that two annotators agree on."""
    for value, count in Counter(answer.value for answer in answers).items():
        if count >= 2:
            return value
    return None


def test_a_majority_of_three_decides_and_files_may_come_from_each(tmp_path):
    options = {"resolve": two_of_three, "initial": 6}
    data, history = day(tmp_path, rounds=1, **options)
    first = in_file(tmp_path / "query_0.csv")
    wrong = first[:1]
    for who, some in (("Ada", first), ("Ben", first)):
        sheet = tmp_path / f"{who}.csv"
        sheet.write_bytes((tmp_path / "query_0.csv").read_bytes())
        fill_in(sheet, some, who=who, wrong=wrong if who == "Ben" else ())
    # The answers of one come in without the run, whose rule is not at hand then.
    book = Book(tmp_path)
    assert book.resolve is None
    assert book.take(collect(book, read_csv(tmp_path / "Ada.csv"), tmp_path / "Ada.csv")) == 6
    assert len(book.state.values) == 0
    assert (book.waiting().count, book.waiting().undecided) == (6, 6)
    data, history = day(tmp_path, rounds=1, **options)
    assert len(data.labeled_indices) == 0
    data.import_labels(tmp_path / "Ben.csv")
    assert data.import_labels(tmp_path / "Ben.csv") == 0  # as often as one likes
    assert sorted(data.labeled_indices) == sorted(first[1:])
    assert data.waiting.undecided == 1
    data.label(wrong, [NAMES[int(Y[wrong[0]])]], who="Cem")
    data, history = day(tmp_path, rounds=1, **options)
    assert history.column("labeled") == [6]
    assert [data.state.target(i) for i in first] == Y[first].tolist()
    assert [(a.who, a.value == Y[wrong[0]]) for a in data.answers(wrong[0])] == [
        ("Ada", True), ("Ben", False), ("Cem", True),
    ]  # fmt: skip
    assert {event.who for _, event in data.ledger.events() if event.kind == "labeled"} == {"resolve"}


def two_agree(answers):
    found = [value for value, count in Counter(a.value for a in answers).items() if count >= 2]
    return found[0] if found else None


@pytest.fixture
def several(tmp_path):
    """A run whose rule is that two agree."""
    data = people(tmp_path / "run", resolve=two_agree)
    data.open()
    yield data
    data.release()


def test_a_rule_that_is_left_out_makes_no_labels_of_single_answers(several):
    asked = several.asked_indices.tolist()
    several.label(asked, [0] * 10, who="Ada")
    several.release()
    again = people(several.state_dir)
    with pytest.raises(LedgerError, match=r"by the function `.*two_agree`, and now `resolve` is \"newest\""):
        again.open()
    other = people(several.state_dir, resolve=two_agree)
    other.open()
    assert other.asked_indices.tolist() == asked
    other.release()
    changed = people(several.state_dir, accept_changes=True)
    changed.open()
    assert len(changed.labeled_indices) == 10, "whoever says so is believed"
    changed.release()


def test_a_label_that_corrected_answers_do_not_make_any_more_is_told_of(several):
    one = int(several.asked_indices[0])
    several.label(one, 0, who="Ada")
    several.label(one, 0, who="Ben")
    message = rf"1 samples have a label that `resolve` made of answers .* makes none now: \[{one}\]"
    with pytest.warns(UserWarning, match=message):
        several.label(one, 1, overwrite=True, who="Ada")
    assert several.state.target(one) == 0
    several.release()
    with pytest.warns(UserWarning, match=message):
        several.open()
    several.label(one, 1, overwrite=True, who="Ben")
    assert several.state.target(one) == 1


@pytest.mark.parametrize("how", ["python", "file"])
def test_who_cannot_tell_any_more_is_counted_with_no_earlier_answer(several, tmp_path, how):
    one = int(several.asked_indices[0])
    several.label(one, 0, who="Ada")
    if how == "python":
        several.unsure(one, who="Ada")
    else:
        path = tmp_path / "ada.csv"
        path.write_text(f"index,label,skip,who\n{one},,?,Ada\n")
        assert [several.import_labels(path) for _ in range(2)] == [1, 0]
    several.label(one, 0, who="Ben")
    assert one in several.asked_indices
    several.label(one, 0, overwrite=True, who="Ada")
    assert several.state.target(one) == 0
    assert one in several.labeled_indices


def test_who_can_tell_after_all_is_no_longer_counted_among_those_who_cannot(several):
    one = int(several.asked_indices[0])
    several.unsure(one, who="Ada")
    several.unsure(one, who="Ben")
    several.label(one, 0, who="Ada")
    assert several.state.unsure == {one: ["Ben"]}
    several.undo(one)
    assert several.state.unsure == {one: ["Ada", "Ben"]}
    several.label(one, 0, overwrite=True, who="Ada")
    several.label(one, 1, who="Ben")
    assert several.waiting.unsure == 0
    several.release()
    assert Book(several.state_dir).state.unsure == {}


@pytest.mark.parametrize("first", [None, "Ben"])
def test_an_answer_without_a_name_is_no_second_person(several, first):
    one, second = int(several.asked_indices[0]), "Ben" if first is None else None
    several.label(one, 0, who=first)
    several.label(one, 0, who=second)
    assert one in several.asked_indices, "one person's answer is that of two"
    assert len(several.answers(one)) == 2, "all that was said is kept"
    several.label(one, 0, who="Cem")
    assert one in several.labeled_indices


def test_who_doubts_again_after_an_answer_is_heard_again(several):
    one = int(several.asked_indices[0])
    for _ in range(2):
        several.unsure(one, who="Ada")
        several.unsure(one, who="Ada")
        several.label(one, 0, overwrite=True, who="Ada")
    several.unsure(one, who="Ada")
    assert several.waiting.unsure == 1
    several.label(one, 0, who="Ben")
    assert one in several.asked_indices
    several.release()
    assert Book(several.state_dir).state.unsure == several.state.unsure == {one: ["Ada"]}


def test_names_of_older_ledgers_are_the_same_with_spaces_around_them(several):
    one = int(several.asked_indices[0])
    several.book.write([several.book.event("answered", one, value="0", who="Ada ")])
    with pytest.raises(ValueError, match=f"sample {one} was answered by Ada with red already"):
        several.label(one, 0, who="Ada")
    several.label(one, 0, who="Ada", overwrite=True)
    assert one in several.asked_indices
    several.label(one, 0, who="Ben")
    assert one in several.labeled_indices


@pytest.mark.filterwarnings("error")
def test_what_is_told_of_one_sample_keeps_no_other_from_its_label(several):
    one, two = several.asked_indices.tolist()[:2]
    several.label(one, 0, who="Ada")
    several.label(one, 0, who="Ben")
    with pytest.raises(UserWarning, match="makes none now"):
        several.label([one, two], [1, 0], overwrite=True, who="Ada")
    with pytest.raises(UserWarning, match="makes none now"):
        several.label([one, two], [2, 0], overwrite=True, who="Ben")
    assert several.state.target(two) == 0


def test_a_contradiction_of_a_sample_that_waits_names_whose_answer_it_has(several):
    one = int(several.asked_indices[0])
    several.label(one, "red", who="Ada")
    with pytest.raises(ValueError, match=f"sample {one} was answered by Ada with red already. Nothing was"):
        several.label(one, "blue", who="Ada")


def test_a_rule_that_makes_what_is_no_label_is_named_and_no_answer_is_lost(several):
    one = int(several.asked_indices[0])
    several.book.resolve = lambda answers: "wolf"
    with pytest.raises(ValueError, match=rf"`resolve` \(.*\) made 'wolf' of the answers of sample {one}"):
        several.label(one, "red", who="Ada")
    several.book.resolve = two_agree
    assert [answer.who for answer in several.answers(one)] == ["Ada"]
    several.label(one, "red", who="Ben")
    assert several.state.target(one) == 0


def test_answers_that_were_read_are_in_a_backup_at_once(tmp_path):
    """There may be no training, and so no other backup, for days."""
    day(tmp_path)
    first = in_file(tmp_path / "query_0.csv")
    fill_in(tmp_path / "query_0.csv", first[:6])
    day(tmp_path)
    (backup,) = (tmp_path / "backups").glob("*.sqlite3")
    assert len(Book(backup).state.values) == 6


def test_a_file_that_is_put_aside_is_named(tmp_path, caplog):
    day(tmp_path)
    path = tmp_path / "query_0.csv"
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join(rows[:-1]))  # one sample is in no file
    caplog.set_level("INFO")
    day(tmp_path)
    assert (
        f"10 samples wait for their labels. The one before is kept as {tmp_path / 'query_0.old1.csv'}."
        in caplog.text
    )


def test_names_are_the_same_with_and_without_spaces_around_them(several):
    one = int(several.asked_indices[0])
    several.label(one, 0, who="Ada ")
    several.undo(one, who=" Ada")
    several.ignore(one, who="  Ada ")
    assert {event.who for _, event in several.ledger.events() if event.who} == {"Ada"}


def test_an_answer_taken_back_does_not_come_again_from_its_file(tmp_path):
    day(tmp_path)
    first = in_file(tmp_path / "query_0.csv")
    fill_in(tmp_path / "query_0.csv", first[:9])
    fill_in(tmp_path / "query_0.csv", first[9:], column="skip", text="x")
    data = people(tmp_path)
    data.open()
    assert not data.waiting
    data.undo([first[0], first[9]], who="Ada")
    data.release()
    data, history = day(tmp_path)
    assert sorted(data.asked_indices) == sorted([first[0], first[9]])
    assert history.waiting.count == 2
    fill_in(tmp_path / "query_0.csv", first[:1], wrong=first[:1])  # another answer is read
    data, history = day(tmp_path)
    assert data.asked_indices.tolist() == [first[9]]
    assert data.state.target(first[0]) == (int(Y[first[0]]) + 1) % CLASSES


def test_everything_is_in_the_ledger_after_weeks(tmp_path):
    for _ in range(8):
        data, history = day(tmp_path, rounds=3, min_answered=0.6)
        book = Book(tmp_path)
        assert book.state.digest() == data.state.digest()
        waiting = data.asked_indices.tolist()
        for path in sorted(tmp_path.glob("query_*.csv")):
            fill_in(path, [i for i in in_file(path) if i in waiting][::2])
    assert data.ledger.verify() > 0
    assert len(history) == 4
    assert Path(tmp_path / "history.csv").exists()
    assert torch.equal(
        Y[data.labeled_indices], torch.tensor([data.state.target(i) for i in data.labeled_indices])
    )
