"""Answers of several annotators in any order, against plain Python: nothing lost, everything taken back."""

import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lightning_al.ledger import Answer, Book, Event, Ledger, Opinion
from lightning_al.ledger.label_values import decode
from lightning_al.ledger.state import STATUSES
from lightning_al.ledger.trail import standing, steps

SIZE = 5
INDEX, WHO, VALUE = st.integers(0, SIZE - 1), st.sampled_from(["Ada", "Ben", "Cem"]), st.integers(0, 2)


def two_agree(answers):
    """The label that two annotators have in common."""
    found = [value for value, count in Counter(a.value for a in answers).items() if count >= 2]
    return found[0] if found else None


class Sample:
    """What is known of one."""

    def __init__(self, status):
        self.status, self.value, self.who, self.unsure, self.said, self.answered = (
            status,
            None,
            None,
            (),
            (),
            False,
        )
        self.before = []

    def now(self):
        return self.status, self.value, self.who, self.unsure, self.said, self.answered

    def restore(self, how):
        self.status, self.value, self.who, self.unsure, self.said, self.answered = how

    def changes(self):
        self.before.append(self.now())

    def newest(self):
        found = {}
        for who, value in self.said:
            found.pop(who, None)
            found[who] = value
        return found

    def label(self, value, who):
        self.status, self.value, self.who, self.unsure = "labeled", value, who, ()


class Several(RuleBasedStateMachine):
    resolve = "newest"

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp())
        first = [Event("asked", i, round=0, rank=i) for i in range(SIZE - 1)]
        self.ledger = Ledger(self.folder / "ledger.sqlite3")
        meta = {"size": SIZE, "class_names": ["a", "b", "c"], "resolve": str(self.resolve)}
        self.ledger.create(meta, first)
        self.samples = [Sample("asked") for _ in range(SIZE - 1)] + [Sample("pool")]
        for sample in self.samples[:-1]:
            sample.before = [("pool", None, None, (), (), False)]
        self.open()

    def teardown(self):
        shutil.rmtree(self.folder)

    def changed(self, act, allowed):
        if allowed:
            return act()
        last = self.ledger.last()
        with pytest.raises(ValueError, match="ample"):
            act()
        assert self.ledger.last() == last
        return None

    @rule()
    def open(self):
        self.book = Book(self.folder, resolve=self.resolve)

    @rule(index=INDEX, who=WHO, value=VALUE, overwrite=st.booleans(), alone=st.booleans())
    def say(self, index, who, value, overwrite, alone):
        sample, by_rule = self.samples[index], self.resolve != "newest"
        book = Book(self.folder) if alone else self.book  # the ledger alone does not know the rule
        own = sample.newest().get(who)
        beside = by_rule or sample.status == "labeled"
        allowed = not beside or own in (None, value) or overwrite
        new = self.changed(lambda: book.label([index], [value], who=who, overwrite=overwrite), allowed)
        if not allowed or (beside and own == value):
            assert not new
            return
        assert new == 1
        sample.changes()
        sample.said = (*sample.said, (who, value))
        if not beside or (not by_rule and value != sample.value):
            sample.label(value, who)
        else:
            sample.answered = True
        if by_rule and not alone:
            self.decide(sample)

    def decide(self, sample):
        newest = [Answer(value, who, "") for who, value in sample.newest().items()]
        value = self.resolve(newest) if sample.answered else None
        if value is not None and (sample.status != "labeled" or sample.value != value):
            sample.label(value, "resolve")

    @rule()
    def the_run_opens(self):
        self.book.current()
        self.book.decide()
        if self.resolve != "newest":
            for sample in self.samples:
                self.decide(sample)

    @rule(index=INDEX)
    def undo(self, index):
        sample = self.samples[index]
        self.changed(lambda: self.book.undo([index], who="Eve"), bool(sample.before))
        if sample.before:
            how = sample.before[-1]
            sample.changes()
            sample.restore(how)

    @rule(index=INDEX, who=WHO)
    def doubt(self, index, who):
        sample = self.samples[index]
        self.changed(lambda: self.book.unsure([index], who), sample.status == "asked")
        if sample.status == "asked" and who not in sample.unsure:
            sample.changes()
            sample.unsure = (*sample.unsure, who)

    @rule(index=INDEX)
    def ignore(self, index):
        sample = self.samples[index]
        allowed = sample.status in ("pool", "asked")
        self.changed(lambda: self.book.ignore([index], "Eve"), allowed)
        if allowed:
            sample.changes()
            sample.restore(("ignored", None, None, (), (), False))

    @rule(index=INDEX)
    def unlabel(self, index):
        sample = self.samples[index]
        allowed = sample.status != "pool"
        self.changed(lambda: self.book.unlabel([index]), allowed)
        if allowed:
            sample.changes()
            sample.restore(("pool", None, None, (), (), False))

    @invariant()
    def all_agree(self):
        self.book.current()
        fresh = Book(self.folder)
        for state in (self.book.state, fresh.state):
            assert state.seq == self.ledger.verify()
            for index, sample in enumerate(self.samples):
                assert STATUSES[state.status[index]] == sample.status
                value = state.target(index) if sample.status == "labeled" else None
                who = state.who.get(index)
                assert (value, who) == (sample.value, sample.who)
                assert tuple(state.unsure.get(index, ())) == sample.unsure
                assert (index in state.answered) == sample.answered
                assert state.round[index] == (0 if sample.status in ("asked", "labeled") else -1)
        assert self.book.state.digest() == fresh.state.digest()
        for index, sample in enumerate(self.samples):
            assert [(a.who, a.value) for a in fresh.answers(index)] == list(sample.said)
        assert all(standing(t) == steps(t)[-1].said for t in fresh.trails(range(SIZE)).values())
        with closing(sqlite3.connect(self.ledger.path)) as db:
            rows = {i: rest for i, *rest in db.execute("SELECT sample, status, value, who FROM state")}
        seen = {i: s for i, s in enumerate(self.samples) if s.status != "pool"}
        assert {i: status for i, (status, *_) in rows.items()} == {i: s.status for i, s in seen.items()}
        labeled = {i: (decode(v), who) for i, (status, v, who) in rows.items() if status == "labeled"}
        assert labeled == {i: (s.value, s.who) for i, s in seen.items() if s.status == "labeled"}


class ByFunction(Several):
    """The same where a function makes the labels, and answers also come in without it."""

    resolve = staticmethod(two_agree)


TestNewest = Several.TestCase
TestNewest.settings = settings(max_examples=10, stateful_step_count=25, deadline=None)
TestByFunction = ByFunction.TestCase
TestByFunction.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)


@pytest.fixture
def book(tmp_path):
    Ledger(tmp_path / "ledger.sqlite3").create({"size": 9}, [Event("asked", 4, round=0, rank=0)])
    return Book(tmp_path)


def said(book, who, value, at):
    intake = book.intake()
    intake.add(Opinion(4, "label", str(value), who, named=True, said=f"2026-11-28T{at}:00.000000+00:00"))
    return book.take(intake)


def test_the_newest_by_the_annotators_clock_counts_in_whatever_order_answers_come_in(book):
    assert said(book, "Ada", 1, "14:00") == 1
    assert said(book, "Ben", 2, "13:00") == 1  # older, so an opinion only
    assert book.state.target(4) == 1
    assert said(book, "Cem", 0, "15:00") == 1
    assert book.state.target(4) == 0
    assert [(a.who, a.value) for a in book.answers(4)] == [("Ben", 2), ("Ada", 1), ("Cem", 0)]


def test_a_changed_answer_of_a_later_time_needs_no_leave(book):
    said(book, "Ada", 1, "14:00")
    assert said(book, "Ada", 1, "14:00") == 0
    with pytest.raises(ValueError, match="sample 4 is labelled 1 already"):
        said(book, "Ada", 2, "14:00")
    assert said(book, "Ada", 2, "14:05") == 1
    assert said(book, "Ada", 1, "14:00") == 0  # read again
    assert said(book, "Ada", 0, "13:00") == 1  # kept, as what she said before
    assert book.state.target(4) == 2
    assert [a.value for a in book.answers(4)] == [0, 1, 2]


def test_several_in_one_intake_are_ordered_by_their_times(book):
    intake = book.intake()
    for who, value, at in (("Ada", 1, "14"), ("Ben", 2, "13"), ("Cem", 0, "12")):
        intake.add(Opinion(4, "label", str(value), who, True, f"2026-11-28T{at}:00:00.000000+00:00"))
    with pytest.raises(ValueError, match="sample 4 is there twice"):
        intake.add(Opinion(4, "label", "1", "Ada", True))
    assert book.take(intake) == 3
    assert book.state.target(4) == 1
    assert [a.who for a in book.answers(4)] == ["Cem", "Ben", "Ada"]


def test_what_no_annotator_gave_is_not_overruled_unasked(tmp_path):
    first = [
        Event("labeled", 0, value="1", who="dataset", round=0),
        Event("labeled", 1, value="1", who="user", round=0),
    ]
    Ledger(tmp_path / "ledger.sqlite3").create({"size": 9}, first)
    book = Book(tmp_path)
    with pytest.raises(ValueError, match=r"sample 0 is labelled 1 already.*overwrite=True"):
        book.label([0], [2], who="Ada")
    book.label([0], [2], who="Ada", overwrite=True)
    book.label([1], [2], who="Ada")
    assert [book.state.target(i) for i in (0, 1)] == [2, 2]


def test_a_rule_that_gives_no_label_of_this_run_is_refused_and_nothing_is_lost(tmp_path):
    Ledger(tmp_path / "ledger.sqlite3").create(
        {"size": 9, "class_names": ["cat", "dog"], "label_kind": "class", "resolve": "mine"},
        [Event("asked", 4, round=0, rank=0)],
    )
    Book(tmp_path).label([4], ["dog"], who="Ada")
    book = Book(tmp_path, resolve=lambda answers: 7)
    with pytest.raises(ValueError, match="7 is none of the classes"):
        book.decide()
    assert [a.value for a in Book(tmp_path).answers(4)] == [1]
