"""Answers that do not say what they seem to: damaged by spreadsheets, of another run, or contradicting."""

import json

import pytest

from lightning_al.exchange import import_answers, write_query
from lightning_al.exchange.answers import collect
from lightning_al.exchange.csv import read_csv
from lightning_al.ledger import Book, Event, Ledger
from lightning_al.ledger.label_values import NoLabel
from lightning_al.ledger.state import ASKED, IGNORED, LABELED
from tests.unit.exchange.runs import content, labels, make

PETS = ["cat", "dog", "ox"]


@pytest.fixture
def book(tmp_path):
    return make(tmp_path / "run", names=PETS)


def csv(tmp_path, *lines, name="answers.csv"):
    path = tmp_path / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def refused(book, path, message, **options):
    before = content(book)
    with pytest.raises(ValueError, match=message):
        import_answers(book, path, **options)
    assert content(book) == before


# ---------------------------------------------------------------- skip and unsure


@pytest.mark.parametrize(
    "no",
    [
        "False",
        "0",
        "0.0",
        "no",
        "N",
        "None",
        "nan",
        "-",
        " ",
        "FALSE",
        "FALSCH",
        "nein",
        "Non",
        "faux",
        "NA",
        "N/A",
    ],
)
@pytest.mark.parametrize("column", ["skip", "unsure"])
def test_what_programs_write_for_no_is_neither_skip_nor_doubt(book, tmp_path, no, column):
    path = csv(tmp_path, f"index,label,{column}", f"7,cat,{no}", f"5,,{no}")
    assert import_answers(book, path).new == 1
    assert book.state.status[5] == ASKED
    assert not book.state.unsure


@pytest.mark.parametrize(
    ("column", "text", "kind"),
    [("skip", yes, "ignored") for yes in ("True", "1", "x", "yes", "smudged")]
    + [("skip", "?", "unsure"), ("skip", "Unsure", "unsure"), ("unsure", "TRUE", "unsure"),
       ("unsure", "x", "unsure")],
)  # fmt: skip
def test_anything_else_is_one(book, tmp_path, column, text, kind):
    import_answers(book, csv(tmp_path, f"index,label,{column}", f"7,,{text}"))
    assert [event.kind for _, event in book.ledger.events()][-1] == kind


@pytest.mark.parametrize("column", ["skip", "unsure"])
@pytest.mark.parametrize("given", ["dog", "Dog", " dog "])
def test_a_class_that_was_typed_one_cell_too_far_ignores_no_sample(book, tmp_path, column, given):
    path = csv(tmp_path, f"index,label,{column}", "5,cat,", f"7,,{given}")
    refused(
        book, path, f"line 3: its `{column}` says '[Dd]og', which is a class; needed is the class in `label`"
    )


@pytest.mark.parametrize(
    ("names", "text", "status"),
    [
        (["true", "false"], "True", IGNORED), (["true", "false"], "true", IGNORED),
        (["False", "True"], "True", IGNORED), (["no", "yes"], "Yes", IGNORED), (["y", "n"], "Y", IGNORED),
        (["sure", "unsure"], "unsure", ASKED), (["0", "1", "2"], "2", None), (["0", "1", "2"], "0", ASKED),
        (["0", "1", "2"], "1", IGNORED), (["0", "1", "2"], "1.0", IGNORED), (["x", "o"], "o", None),
        (["cat", "x"], "x", IGNORED), (["cat"], "x", IGNORED),
    ],
)  # fmt: skip
def test_a_word_for_yes_or_no_may_be_a_class_too(tmp_path, names, text, status):
    book = make(tmp_path / "run", names=names)
    path = csv(tmp_path, "index,label,skip", f"7,,{text}")
    if status is None:
        refused(book, path, "line 2: its `skip` says")
    else:
        import_answers(book, path)
        assert book.state.status[7] == status


@pytest.mark.parametrize("automatic", [True, False])
def test_what_an_older_version_took_for_a_skip_is_on_record(book, tmp_path, automatic):
    book.write([book.event("ignored", 7, who="answers.csv"), book.event("unsure", 5, who="Ada")])
    path = csv(tmp_path, "index,round,label,skip,unsure,who", "7,0,,dog,,", "5,0,,,ox,Ada", "9,0,cat,,,")
    intake = collect(book, read_csv(path), path, automatic=automatic)
    assert [(event.kind, event.sample) for event in intake.events] == [("labeled", 9)]
    refused(book, csv(tmp_path, "index,label,unsure,who", "5,,ox,Ben"), "line 2: its `unsure` says 'ox'")


def test_who_is_unsure_and_skips_is_unsure(book, tmp_path):
    import_answers(book, csv(tmp_path, "index,label,skip,unsure", "7,,x,x"))
    assert book.state.status[7] == ASKED
    assert book.state.unsure == {7: ["answers.csv"]}


# ---------------------------------------------------------------- rows and their header


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["index,label", "7,cat,dog,ox"], "line 2: 'dog' is beyond the last column"),
        (["index,label,,", "7,cat,dog,"], "line 2: 'dog' is beyond the last column"),
        (["index,label,label", "7,cat,dog"], "the column 'label' 2 times"),
        (["index,who,label,who", "7,a,dog,b"], "the column 'who' 2 times"),
        (["note,index,label", "cat"], "line 2: it ends before `label`"),
        (["index,round,label", "7,cat"], "line 2: its round is 'cat'"),
        (["index,rank,label", "7,cat,"], "line 2: its rank is 'cat'"),
        (["index,rank,score,label", "7,0,cat,"], "line 2: its score is 'cat'; needed is a number or nothing"),
        (["index,rank,score,label", "7,0,Cat,", "5,1,0.9,ox"], "line 2: its score is 'Cat'; needed is"),
        (["index,rank,score,label", "7,0,cat,ox"], "line 2: its score is 'cat'; needed is a number or noth"),
        (["index,run,label,Skip", "7,,,", "5,,,x"], "the column 'Skip', and none that is called 'skip'"),
        (["index,Who,label", "7,Ada,cat"], "the column 'Who', and none that is called 'who'"),
        (["index,label,Skip", "7,,x"], "the column 'Skip', and none that is called 'skip'"),
        (["index,label, WHO", "7,cat,Ada"], "the column 'WHO', and none that is called 'who'"),
    ],
)
def test_rows_that_do_not_fit_their_header_are_refused(book, tmp_path, lines, message):
    refused(book, csv(tmp_path, *lines), message)


@pytest.mark.parametrize(
    "score",
    ["", "0.9", "0,9", "-1", "9.00E-01", "1.234,5", "nan", "inf", "02. Mai", "2. May", "Mai 25", "2-May",
     "05/02/2026", "####", "#DIV/0!", "n/a", "2月5日", "12 %", "0.12%", "\N{MINUS SIGN}0.5",
     "5. Feb 2026 00:00:00", "Feb/05", "∞", "0.12 €"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["class", "text"])
def test_a_score_may_be_what_a_spreadsheet_leaves_of_it(tmp_path, score, kind):
    book = make(tmp_path / "run", kind=kind)
    assert import_answers(book, csv(tmp_path, "index;rank;score;label", f"7;0;{score};cat")).new == 1


def test_a_score_may_be_called_as_a_class_that_is_a_number(tmp_path):
    book = make(tmp_path / "run", names=["0.0", "1.0", "nan"])
    path = csv(tmp_path, "index,rank,score,label", "7,0,1.0,0.0", "5,1,nan,")
    assert import_answers(book, path).new == 1


def test_without_class_names_a_word_is_no_score(tmp_path):
    book = make(tmp_path / "run", kind="text")
    refused(book, csv(tmp_path, "index,rank,score,label", "7,0,red,"), "line 2: its score is 'red'; needed")


def test_a_label_in_the_wrong_cell_does_not_matter_once_the_sample_has_one(book, tmp_path):
    path = csv(
        tmp_path, "index,run,round,rank,score,label", "7,,0,0,cat,", "99,,0,1,cat,", "5,run-x,0,1,cat,"
    )
    book.label([7], ["cat"], who="Ada")
    assert len(collect(book, read_csv(path), path, automatic=True)) == 0
    book.undo([7], "Ada")
    with pytest.raises(ValueError, match="its score is 'cat'"):
        collect(book, read_csv(path), path, automatic=True)


def test_columns_that_an_older_version_exported_of_a_sample_are_no_answers(book, tmp_path):
    """It left names in capitals as they are; its files are read at every start."""
    path = csv(tmp_path, "index,run,round,rank,score,Who,Skip,label,skip", "7,,0,0,,Poe,never,cat,")
    assert len(collect(book, read_csv(path), path, automatic=True)) == 1
    path = csv(tmp_path, "index,label,Who,Unsure", "5,cat,, ", "9,dog")
    assert import_answers(book, path).new == 2


def test_columns_of_somebodys_own_may_have_any_name_and_words_for_scores(book, tmp_path):
    path = csv(tmp_path, "index,ID,Score,score,label,Label,skip,Skip", "7,a,high,low,cat,Cat,,?")
    assert import_answers(book, path).new == 1


def test_what_is_shown_is_never_called_as_one_of_ours_in_capitals(tmp_path):
    shown = {"Skip": "x", "Who": "a", "ID": "7"}
    book = make(tmp_path / "run", names=PETS, shown=dict.fromkeys(range(4), shown))
    path = write_query(book, tmp_path / "query.csv")
    assert "sample_Skip,sample_Who,sample_ID," in path.read_text()
    assert import_answers(book, path).new == 0


# ---------------------------------------------------------------- what programs write for nothing


@pytest.mark.parametrize("nothing", ["nan", "NaN", "None", "NA", "N/A", "#N/A", "<NA>", "-"])
@pytest.mark.parametrize("kind", ["text", None])
def test_what_programs_write_for_nothing_is_no_text(tmp_path, nothing, kind):
    book = make(tmp_path / "run", kind=kind)
    what = "line .: '.*' is no label"
    refused(book, csv(tmp_path, "index,label", f"7,{nothing}"), what)
    line = json.dumps({"index": 7, "label": nothing})  # a program writes null
    assert import_answers(book, csv(tmp_path, line, name="a.jsonl")).new == 1
    book.label([5], [nothing], who="Ada")  # who means it
    assert labels(book) == {7: nothing, 5: nothing}
    if nothing.lower() != "nan" or kind is not None:
        assert import_answers(book, csv(tmp_path, "index,label", f"9,{nothing}")).new == 1  # it is one now


def test_a_text_for_nothing_that_an_older_version_read_is_on_record(tmp_path):
    book = make(tmp_path / "run", kind="text")
    path = csv(tmp_path, "index,round,label", "7,0,None", "5,0,red")
    book.write([book.event("labeled", 7, value='"None"', who=path.name, round=0)])
    book.label([7], ["blue"], who="Ada")
    assert '"None"' not in book.state.values.values()
    assert len(collect(book, read_csv(path), path, automatic=True)) == 1
    refused(book, csv(tmp_path, "index,label", "7,NA"), "line 2: 'NA' is no label")


def test_truth_that_an_older_version_read_is_on_record(tmp_path):
    book = make(tmp_path / "run", kind=None)
    path = csv(tmp_path, "index,round,label", "7,0,True")
    book.write([book.event("labeled", 7, value="true", who=path.name, round=0)])
    assert len(collect(book, read_csv(path), path, automatic=True)) == 0


def test_a_class_that_is_called_so_is_one(tmp_path):
    book = make(tmp_path / "run", names=["NA", "None", "-"])
    import_answers(book, csv(tmp_path, "index,label", "7,None", "5,-", "9,NA"))
    assert labels(book) == {7: 1, 5: 2, 9: 0}
    texts = make(tmp_path / "texts", kind="text")
    assert import_answers(texts, csv(tmp_path, "index,label", "7,none", "5,Nancy", "9,na")).new == 3


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_truth_is_no_first_label(tmp_path, suffix):
    book = make(tmp_path / "run", kind=None)
    lines = ["index,label", "7,true"] if suffix == ".csv" else ['{"index": 7, "label": true}']
    refused(
        book, csv(tmp_path, *lines, name=f"a{suffix}"), "line .: true is no label where none is known yet"
    )


# ---------------------------------------------------------------- names of people


def test_outer_spaces_of_a_persons_name_mean_nothing(book, tmp_path):
    import_answers(book, csv(tmp_path, "index,label", "7,cat"), who="Ada ")
    assert book.state.who == {7: "Ada"}
    book.label([5], ["dog"], who=" Ada")
    assert book.state.who == {7: "Ada", 5: "Ada"}
    with pytest.raises(ValueError, match="sample 7 is labelled cat already, not dog"):
        import_answers(book, csv(tmp_path, "index,label,who", "7,dog,Ada"))


@pytest.mark.parametrize("nobody", ["nan", "None", "<NA>"])
def test_a_name_that_is_none_is_the_files_or_the_one_given(book, tmp_path, nobody):
    path = csv(tmp_path, "index,label,who", f"7,cat,{nobody}", "5,dog,Nan")
    import_answers(book, path, who="Ada")
    assert book.state.who == {7: "Ada", 5: "Nan"}


def test_empty_cells_at_the_end_may_be_missing_and_a_first_column_without_a_name(book, tmp_path):
    path = csv(tmp_path, ",index,label,skip,note", "0,7,cat", "1,5,,x", "2,9", "3,1,dog,,,,", ",,")
    found = import_answers(book, path)
    assert (found.new, found.skipped) == (2, 1)
    assert labels(book) == {7: 0, 1: 1}


def test_columns_of_others_may_be_there_twice(book, tmp_path):
    assert import_answers(book, csv(tmp_path, "index,note,note,label", "7,a,b,cat")).new == 1


@pytest.mark.parametrize("shown", [{"run": "12"}, {" label": "a"}, {"unsure": "yes", "who ": "a"}])
def test_what_is_shown_never_stands_in_a_column_of_ours(tmp_path, shown):
    book = make(tmp_path / "run", names=PETS, shown=dict.fromkeys(range(4), shown))
    path = write_query(book, tmp_path / "query.csv")
    assert import_answers(book, path).new == 0
    assert not book.state.unsure


# ---------------------------------------------------------------- whose rows they are


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_rows_of_another_run_are_refused(book, tmp_path, suffix):
    other = make(tmp_path / "other", names=PETS)
    path = write_query(other, tmp_path / f"query{suffix}")
    text = path.read_text()
    answered = text.replace('"label": null', '"label": "cat"', 1)
    if suffix == ".csv":
        answered = text.replace("0,0,,,", "0,0,,cat,")
    assert answered != text
    path.write_text(answered)
    ours, theirs = book.state.run_id, other.state.run_id
    refused(book, path, f"line .: it is of run '{theirs}', and this ledger is of run '{ours}'")
    assert import_answers(other, path).new == 1


def test_a_spreadsheet_takes_no_run_for_a_number(tmp_path):
    Ledger(tmp_path / "ledger.sqlite3").create(
        {"size": 3, "class_names": PETS, "label_kind": "class", "run_id": "123456e78901"},
        [Event("asked", 0, round=0, rank=0)],
    )
    rows = write_query(Book(tmp_path), tmp_path / "q.csv").read_text().splitlines()
    assert rows[1].split(",")[1] == "run-123456e78901"


def test_a_file_of_another_run_that_was_left_here_is_no_query_of_this_one(book, tmp_path):
    path = csv(tmp_path, "index,run,round,label", "7,run-other,0,cat", "5,,0,dog")
    intake = collect(book, read_csv(path), path, automatic=True)
    assert [event.sample for event in intake.events] == [5]


@pytest.mark.parametrize("number", ["1", "17", "9" * 60])
def test_a_query_that_does_not_exist_is_refused(book, tmp_path, number):
    path = csv(tmp_path, "index,round,label", f"7,{number},cat")
    refused(book, path, f"line 2: there is no query '{number[:40]}'; the newest is 0")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["id,label", "s7,cat"],
            "it has the id 's7' alone, and the samples of this run have no ids; needed is an",
        ),
        (["index,label", "99999,cat"], "there is no sample '99999'; needed is an `index` from 0 to 11"),
        (["index,label", ",cat"], "it does not say which sample it is of; needed is an `index` from 0 to 11"),
    ],
)
def test_a_sample_that_cannot_be_told_says_what_is_needed(book, tmp_path, rows, message):
    refused(book, csv(tmp_path, *rows), f"line 2: {message}")


def test_a_class_of_many_digits_is_refused_without_advice_on_python(book, tmp_path):
    with pytest.raises(ValueError, match="line 2: '9999") as caught:
        import_answers(book, csv(tmp_path, "index,label", f"7,{'9' * 5000}"))
    assert "sys." not in str(caught.value)


@pytest.mark.parametrize("given", ["1,5", " -,25", "1,5e3"])
def test_a_decimal_comma_is_refused_with_the_point_that_is_needed(tmp_path, given):
    book = make(tmp_path / "run", kind="number")
    path = csv(tmp_path, "index;label", f"7;{given}")
    refused(book, path, f"line 2: '{given.strip()}' is no number, .*; decimals need a point, not a comma")
    refused(book, csv(tmp_path, "index;label", "7;a, b"), "'a, b' is no number, as the other targets are\n")


def test_labels_that_nobody_asked_for_are_counted(book, tmp_path):
    found = import_answers(book, csv(tmp_path, "index,label", "7,cat", "2,dog", "3,ox"))
    assert (found.new, found.unasked) == (3, 2)
    assert str(found).startswith("3 new labels (2 of them not asked for), ")
    assert "not asked for" not in str(import_answers(book, csv(tmp_path, "index,label", "5,cat")))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_an_id_and_an_index_that_contradict_each_other_are_refused(tmp_path, suffix):
    ids = ["007", "7", *(f"s{i}" for i in range(10))]
    book = make(tmp_path / "run", names=PETS, ids=ids)
    path = csv(tmp_path, "index,id,label", "0,7,cat")
    if suffix == ".jsonl":
        path = csv(tmp_path, json.dumps({"index": 0, "id": "7", "label": "cat"}), name="a.jsonl")
    refused(book, path, "line .: id '7' is sample 1, and not '0', as its index says")
    rows = csv(tmp_path, "index,id,label", "0.0,007,cat", ",7,dog", "2,s0,ox")
    assert import_answers(book, rows).new == 3
    assert labels(book) == {0: 0, 1: 1, 2: 2}


def test_of_samples_that_have_moved_the_id_counts(tmp_path):
    ids = [f"s{i}" for i in range(12)]
    book = make(tmp_path / "run", names=PETS, ids=ids)
    book.ledger.set_names(ids[::-1], {})
    path = csv(tmp_path, "index,id,label", "7,s7,cat")
    book = Book(tmp_path / "run")
    assert import_answers(book, path).new == 1
    assert labels(book) == {4: 0}


# ---------------------------------------------------------------- names that look like numbers


@pytest.mark.parametrize(
    ("names", "given", "place"),
    [
        (["001", "002", "003"], "1", 0),
        (["001", "002", "003"], "3.0", 2),
        (["1.0", "2.0"], "1", 0),
        (["1e5", "cat"], "100000", 0),
        (["1e5", "cat"], "1.00E+05", 0),
        (["cat", "true"], "TRUE", 1),
        (["0,5", "1,5"], "1.5", 1),
        (["1", "01"], "01", 1),
        (["1", "01"], "1", 0),
        (["0", "1", "2"], "2.0", 2),
        (["cat", "dog"], "1.0", 1),
        (["2026-01-02", "2026-01-03"], "2026-01-03", 1),
    ],
)
def test_a_name_is_known_again_after_a_spreadsheet(tmp_path, names, given, place):
    book = make(tmp_path / "run", names=names)
    import_answers(book, csv(tmp_path, "index,label", f'7,"{given}"'))
    assert labels(book) == {7: place}


@pytest.mark.parametrize(
    ("names", "given"),
    [
        (["001", "002", "003"], "0"),
        (["01", "001"], "1"),
        (["cat", "dog", "10"], "1"),
        (["cat", "true"], "1"),
        (["2026-01-02", "2026-01-03"], "1"),
        (["2026-01-02", "2026-01-03"], "02.01.2026"),
        (["1e5", "cat"], "1"),
    ],
)
def test_a_number_that_may_be_a_name_is_no_place(tmp_path, names, given):
    book = make(tmp_path / "run", names=names)
    refused(book, csv(tmp_path, "index,label", f"7,{given}"), "line 2: .*not exactly one of the classes")


def test_a_number_in_json_that_is_the_name_of_another_class_is_refused(tmp_path):
    book = make(tmp_path / "run", names=["001", "002", "003"])
    path = csv(tmp_path, json.dumps({"index": 7, "label": 1}), name="a.jsonl")
    refused(book, path, "line 1: 1 is class '002' by its number, and by name another")
    path = csv(tmp_path, json.dumps({"index": 7, "label": "1"}), name="a.jsonl")
    import_answers(book, path)
    assert labels(book) == {7: 0}
    book.label([5], [1], who="Ada")  # in Python a number is the class's
    assert labels(book)[5] == 1


# ---------------------------------------------------------------- beside a label


def test_who_cannot_tell_what_is_labelled_is_on_record_beside_the_label(book, tmp_path):
    book.label([7], ["dog"], who="Ada")
    path = csv(tmp_path, "index,label,skip,who", "7,,x,Ben", "7,,?,Cem")
    found = import_answers(book, path)
    assert (found.beside, found.known) == (2, 0)
    said = [(answer.who, answer.value) for answer in book.answers(7)]
    assert said == [("Ada", 1), ("Ben", NoLabel("skip")), ("Cem", NoLabel("unsure"))]
    assert (book.state.status[7], labels(book)) == (LABELED, {7: 1})
    again = import_answers(book, path)
    assert (again.beside, again.known) == (0, 2)
    book.ledger.verify()


def test_an_old_doubt_that_is_read_again_says_nothing_of_a_later_label(book, tmp_path):
    path = csv(tmp_path, "index,label,skip,who", "7,,?,Ada", "5,,x,Ada")
    import_answers(book, path)
    book.label([7, 5], ["dog", "dog"], who="Ada")
    assert import_answers(book, path).known == 2
    assert [answer.value for answer in book.answers(7)] == [1]


def test_a_rule_does_not_see_doubts_and_the_earlier_answer_of_who_has_them_no_more(tmp_path):
    seen = []

    def rule(answers):
        seen.append([(answer.who, answer.value) for answer in answers])
        return answers[0].value

    make(tmp_path / "run", names=PETS)
    book = Book(tmp_path / "run", resolve=rule)
    book.label([7], ["dog"], who="Ada")
    book.label([7], ["cat"], who="Ben")
    import_answers(book, csv(tmp_path, "index,label,unsure,who", "7,,x,Cem", "7,,x,Ada"))
    assert seen == [[("Ada", 1)], [("Ada", 1), ("Ben", 0)], [("Ben", 0)]]
    assert labels(book) == {7: 0}


def test_the_newest_answer_is_the_label_though_a_doubt_is_newer(book, tmp_path):
    rows = [
        {"index": 7, "label": "dog", "who": "Ada", "at": "2026-01-01"},
        {"index": 7, "unsure": True, "who": "Ben", "at": "2026-01-03"},
    ]
    import_answers(book, csv(tmp_path, *map(json.dumps, rows), name="a.jsonl"))
    later = {"index": 7, "label": "ox", "who": "Cem", "at": "2026-01-02"}
    import_answers(book, csv(tmp_path, json.dumps(later), name="b.jsonl"))
    assert labels(book) == {7: 2}


def test_no_label_is_given_by_the_name_that_the_ledger_has_for_none(tmp_path):
    book = make(tmp_path / "run", kind="json")
    path = csv(tmp_path, json.dumps({"index": 7, "label": {"__no_label__": "skip"}}), name="a.jsonl")
    refused(book, path, "'__no_label__' is no name in a label")


# ---------------------------------------------------------------- taken back


def test_what_was_taken_back_comes_again_only_by_overwrite(book, tmp_path):
    path = csv(tmp_path, "index,label,skip", "7,cat,", "5,,x")
    import_answers(book, path)
    book.undo([7, 5])
    for automatic in (True, False):
        assert not collect(book, read_csv(path), path, automatic=automatic).events
    found = import_answers(book, path)
    assert (found.new, found.skipped, found.known, found.taken_back) == (0, 0, 0, 2)
    assert "2 taken back here before, which only `overwrite` brings back" in str(found)
    assert import_answers(book, csv(tmp_path, "index,label", "7,dog", name="b.csv")).new == 1
    path = csv(tmp_path, "index,label,skip", "5,,x")
    assert import_answers(book, path, overwrite=True).skipped == 1
    assert book.state.status[5] == IGNORED


def test_an_answer_that_stands_beside_the_label_was_not_taken_back(book, tmp_path):
    path = csv(tmp_path, "index,label", "7,cat")
    import_answers(book, path, who="Ada")
    book.label([7], ["dog"], who="Ben", overwrite=True)
    book.undo([7])
    book.undo([7])  # Ben's answer is the label again, and Ada's stands beside it
    found = import_answers(book, path)
    assert (found.known, found.taken_back) == (1, 0)
    book.undo([7])
    ben = csv(tmp_path, "index,label", "7,dog", name="b.csv")
    assert (import_answers(book, ben).known, import_answers(book, ben).taken_back) == (0, 1)


def test_an_answer_like_one_that_was_taken_back_is_another_persons_own(book, tmp_path):
    path = csv(tmp_path, "index,label,who", "7,cat,Ada")
    import_answers(book, path)
    book.undo([7])
    assert import_answers(book, csv(tmp_path, "index,label,who", "7,cat,Ben")).new == 1


# ---------------------------------------------------------------- read again by itself


def undecided(answers):
    """No label."""


@pytest.mark.parametrize("how", ["unsure", "file", "skip", "correct"])
def test_an_answer_that_waits_for_a_rule_and_was_replaced_is_not_argued_with(tmp_path, how):
    make(tmp_path / "run", names=PETS)
    book = Book(tmp_path / "run", resolve=undecided)
    path = csv(tmp_path, "index,round,label,who", "7,0,cat,Ada", "5,0,,", name="query_0.csv")

    def read():
        return book.take(collect(book, read_csv(path), path, automatic=True))

    assert (read(), read()) == (1, 0)
    if how == "unsure":
        book.unsure([7], "Ada")
    elif how == "correct":
        book.label([7], ["dog"], who="Ada", overwrite=True)
    else:
        mark = "?" if how == "file" else "x"
        import_answers(book, csv(tmp_path, "index,skip,label,who", f"7,{mark},,Ada"))
    then = book.answers(7)
    assert (read(), book.answers(7), book.state.status[7]) == (0, then, ASKED)
    csv(tmp_path, "index,round,label,who", "7,0,cat,Ben", name="query_0.csv")  # another's is new
    assert read() == 1
    csv(tmp_path, "index,round,label,who", "7,0,ox,Ada", name="query_0.csv")
    with pytest.raises(ValueError, match="was answered by Ada with"):
        read()


def test_an_answer_does_not_come_again_once_its_sample_is_ignored(tmp_path):
    make(tmp_path / "run", names=PETS)
    book = Book(tmp_path / "run", resolve=undecided)
    path = csv(tmp_path, "index,round,label,who", "7,0,cat,Ada", "5,0,,", name="query_0.csv")
    book.take(collect(book, read_csv(path), path, automatic=True))
    book.ignore([7], "Ben")
    assert len(collect(book, read_csv(path), path, automatic=True)) == 0
    assert book.state.status[7] == IGNORED
