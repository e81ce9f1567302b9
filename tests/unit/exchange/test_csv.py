import csv

import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_al import ActiveDataModule

SIZE = 12
DATA = TensorDataset(torch.arange(SIZE).float()[:, None], torch.arange(SIZE) % 3)


@pytest.fixture
def make(tmp_path):
    def make(**options):
        options = {"initial": [3, 0], "oracle": "people", "state_dir": tmp_path / "run", **options}
        return ActiveDataModule(options.pop("train_set", DATA), **options)

    return make


@pytest.fixture
def data(make):
    """Two samples of the first set labelled, three asked for."""
    data = make(class_names=["cat", "dog", "cow"])
    data.label([3, 0], ["cat", "dog"])
    data.ask([7, 5, 9], scores=[0.9, 0.5, float("nan")])
    return data


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def fill(path, answers, column="label"):
    """Write `answers`, from the index of a sample, into a column of the file."""
    rows = read(path)
    for row in rows:
        row[column] = answers.get(int(row["index"]), row[column])
    write(path, rows)
    return path


def write(path, rows, encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_query_is_exported_in_its_order(data):
    path = data.state_dir / "query_1.csv"
    rows = read(path)  # written by `ask` itself
    assert [(r["index"], r["rank"], r["score"], r["label"], r["skip"]) for r in rows] == [
        ("7", "0", "0.9", "", ""), ("5", "1", "0.5", "", ""), ("9", "2", "", "", ""),
    ]  # fmt: skip
    assert data.export_query(data.state_dir / "mine.csv").read_text() == path.read_text()


def test_what_the_annotator_sees(make):
    data = make(describe=lambda i: {"path": f"img/{i}.png", "size": i, "tensor": torch.zeros(1)})
    data.ignore([11])
    data.answer()
    assert [(r["path"], r["size"]) for r in read(data.state_dir / "query_0.csv")] == [
        ("img/3.png", "3"), ("img/0.png", "0"),
    ]  # fmt: skip
    assert "tensor" not in read(data.state_dir / "query_0.csv")[0]
    text = make(describe=str)
    assert read(text.export_query(data.state_dir / "q.csv"))[0]["sample"] == "3"


def test_answers_come_back_by_name_or_number(data):
    path = fill(data.state_dir / "query_1.csv", {7: "cow", 5: " 0 "})
    assert data.import_labels() == 2
    assert [data.state.target(i) for i in (7, 5)] == [2, 0]
    assert data.asked_indices.tolist() == [9]
    events = data.ledger.verify()
    assert data.import_labels(path) == 0  # as often as one likes
    assert data.ledger.verify() == events
    who = [event.who for _, event in data.ledger.events() if event.kind == "labeled"]
    assert who == ["user", "user", "query_1.csv", "query_1.csv"]
    assert fill(path, {9: "dog"}) == path
    assert data.import_labels(who="Ada") == 1
    assert list(data.ledger.events())[-1][1].who == "Ada"


def test_a_skipped_sample_is_never_asked_for_again(data):
    path = fill(data.state_dir / "query_1.csv", {7: "x"}, "skip")
    assert data.import_labels(path) == 1
    assert data.ignored_indices.tolist() == [7]
    assert data.import_labels(path) == 0
    assert data.asked_indices.tolist() == [5, 9]


def test_a_row_with_a_label_and_a_skip_is_refused(data):
    path = fill(fill(data.state_dir / "query_1.csv", {7: "dog"}), {7: "x"}, "skip")
    with pytest.raises(ValueError, match="line 2: it has the label 'dog' and `skip`; needed is one"):
        data.import_labels(path)
    assert data.asked_indices.tolist() == [7, 5, 9]


def test_a_changed_answer_needs_overwrite(data):
    path = fill(data.state_dir / "query_1.csv", {7: "cow"})
    data.import_labels()
    fill(path, {7: "dog"})
    with pytest.raises(
        ValueError, match=r"line 2: sample 7 is labelled cow already, not dog\n.*overwrite=True"
    ):
        data.import_labels()
    assert data.import_labels(overwrite=True) == 1
    assert data.state.target(7) == 1


def test_a_wrong_file_is_taken_over_in_no_part(data):
    path = data.state_dir / "query_1.csv"
    rows = read(path)
    blank = {**rows[0], "label": "cat"}
    write(path, [
        {**blank, "index": "5"}, {**blank, "label": "bird"}, {**blank, "index": "99"},
        {**blank, "index": "x"},
        {**blank, "index": "5"}, {**blank, "index": "-1"}, {**blank, "index": ""},
    ])  # fmt: skip
    events = data.ledger.verify()
    with pytest.raises(ValueError, match="was not read, no label was taken over") as error:
        data.import_labels()
    for line in (
        "line 3: 'bird' is none of the classes ['cat', 'dog', 'cow']", "line 4: there is no sample '99'",
        "line 5: there is no sample 'x'", "line 6: sample 5 is there twice",
        "line 7: there is no sample '-1'", "line 8: it does not say which sample it is of",
        "Mend these lines",
    ):  # fmt: skip
        assert line in str(error.value)
    assert "line 2" not in str(error.value)
    assert data.ledger.verify() == events
    assert data.asked_indices.tolist() == [7, 5, 9]


@pytest.mark.parametrize("text", ["", "name,age\na,3\n", "index\n7\n", "label\ncat\n"])
def test_a_file_of_something_else(data, tmp_path, text):
    path = tmp_path / "other.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"has columns \[.*needed are `label` and `index` or `id`.*Fill in"):
        data.import_labels(path)


def test_a_file_that_is_not_there(data, tmp_path):
    with pytest.raises(ValueError, match=r"none.csv cannot be read.*Check the path"):
        data.import_labels(tmp_path / "none.csv")


def test_what_spreadsheets_do_to_a_file(data, tmp_path):
    """A byte order mark, columns in another order or without a name, short rows, empty lines."""
    path = tmp_path / "q.csv"
    path.write_text("\ufeffnote,index,label,,\nhm,7,cow,,\n\n,5,dog\n,9\n,,,,\n", encoding="utf-8")
    assert data.import_labels(path) == 2
    assert [data.state.target(i) for i in (7, 5)] == [2, 1]


def test_samples_that_nobody_asked_for_may_be_labelled_too(data, tmp_path):
    path = tmp_path / "more.csv"
    path.write_text("index,label\n10,cat\n")
    assert data.import_labels(path) == 1
    assert 10 in data.labeled_indices


def test_files_name_samples_by_id(make, tmp_path):
    names = [f"s{i}" for i in range(SIZE)]
    data = make(ids=names)
    data.ask([7, 5], scores=[0.9, 0.5])
    assert [(r["id"], r["score"]) for r in read(data.state_dir / "query_1.csv")] == [
        ("s3", ""), ("s0", ""), ("s7", "0.9"), ("s5", "0.5"),
    ]  # fmt: skip
    moved = make(ids=names[::-1], train_set=TensorDataset(*(t.flip(0) for t in DATA.tensors)))
    rows = read(moved.export_query(tmp_path / "q.csv"))
    assert [(r["id"], r["index"], r["score"]) for r in rows] == [
        ("s3", "8", ""), ("s0", "11", ""), ("s7", "4", "0.9"), ("s5", "6", "0.5"),
    ]  # fmt: skip
    write(tmp_path / "q.csv", [{**row, "label": row["id"][1:]} for row in rows])
    assert moved.import_labels(tmp_path / "q.csv") == 4
    assert [moved.state.target(i) for i in (8, 11, 4, 6)] == [3, 0, 7, 5]
    write(tmp_path / "q.csv", [{**rows[0], "id": "s99", "label": "1"}])
    with pytest.raises(ValueError, match="there is no sample with id 's99'"):
        moved.import_labels(tmp_path / "q.csv")


def test_an_export_keeps_a_file_that_was_there(data):
    path = fill(data.state_dir / "query_1.csv", {7: "cow"})
    filled = path.read_text()
    with pytest.raises(
        ValueError, match=r"query_1.csv is there already, with 1 answers that are not on record"
    ):
        data.export_query()
    assert path.read_text() == filled
    data.import_labels()
    data.export_query()
    data.export_query()
    assert (data.state_dir / "query_1.old1.csv").read_text() == filled
    assert "cow" not in path.read_text()
    assert (data.state_dir / "query_1.old2.csv").exists()
    assert not list(data.state_dir.glob("*.part"))


def test_answers_to_samples_that_another_process_labelled_meanwhile(data, make):
    path = fill(data.state_dir / "query_1.csv", {7: "cow"})
    make(class_names=["cat", "dog", "cow"]).label([7], ["dog"])
    with pytest.raises(ValueError, match="sample 7 is labelled dog already, not cow"):
        data.import_labels(path)


# ---------------------------------------------------------------- columns of the user's own


def test_a_description_overwrites_no_column_of_ours(make):
    def describe(i):
        return {
            "index": (i + 1) % SIZE,
            "label": 2,
            "id": "x",
            "round": 9,
            "score": 1,
            "skip": "s",
            7: "seven",
        }

    data = make(describe=describe, initial=[3, 0])
    data.ignore([11])
    data.answer()
    path = data.state_dir / "query_0.csv"
    assert [(r["index"], r["label"], r["skip"], r["round"], r["score"]) for r in read(path)] == [
        ("3", "", "", "0", ""), ("0", "", "", "0", ""),
    ]  # fmt: skip
    assert [(r["sample_index"], r["sample_label"], r["7"]) for r in read(path)] == [
        ("4", "2", "seven"), ("1", "2", "seven"),
    ]  # fmt: skip
    assert data.import_labels(path) == 0  # nobody has labelled anything
    data.import_labels(fill(path, {3: "1"}))
    assert data.labeled_indices.tolist() == [3]


def test_a_description_with_both_names_keeps_both(make):
    data = make(describe=lambda i: {"label": "mine", "sample_label": "too"})
    data.ignore([11])
    row = read(data.export_query())[0]
    assert (row["label"], row["sample_label"], row["sample_label_"]) == ("", "too", "mine")


# ---------------------------------------------------------------- which files are read


def waits_in(data):
    return str(data.waiting_message()).split("column `label` of ")[1].split(", then")[0]


def test_a_query_that_is_made_again_with_other_samples_is_written_again(make):
    data = make(initial=0)
    data.ask([7, 5])
    path = fill(data.state_dir / "query_0.csv", {7: "1", 5: "2"})
    data.unlabel([7, 5])
    assert data.ask([5, 9]) == 0
    assert data.labeled_indices.tolist() == [5]  # asked again in the same round, and answered there
    assert [r["index"] for r in read(path)] == ["9"]
    assert 7 in data.pool_indices
    fill(path, {9: "0"})
    data.answer()
    assert not len(data.asked_indices)


def test_answers_in_the_file_of_an_older_query_are_read(make):
    data = make(initial=0)
    data.ask([1, 2])
    data.ask([3, 4])
    assert waits_in(data) == str(data.state_dir / "query_1.csv")  # which holds all four
    fill(data.state_dir / "query_0.csv", {1: "0"})
    fill(data.state_dir / "query_1.csv", {4: "1"})
    data.answer()
    assert data.labeled_indices.tolist() == [1, 4]
    assert not list(data.state_dir.glob("*.old*"))


def test_the_message_names_the_file_that_holds_what_waits(make):
    data = make(initial=0)
    data.ask([1, 2])
    data.ask([3, 4])
    (data.state_dir / "query_0.csv").unlink()
    fill(data.state_dir / "query_1.csv", {3: "0", 4: "0"})
    data.answer()
    assert data.asked_indices.tolist() == [1, 2]
    assert waits_in(data) == str(data.state_dir / "query_1.csv")
    assert not (data.state_dir / "query_0.csv").exists()


def test_a_waiting_sample_that_is_in_no_file_is_written_to_one(make):
    data = make(initial=0)
    data.ask([7, 5])
    path = data.state_dir / "query_0.csv"
    write(path, [{**row, "label": "1"} for row in read(path) if row["index"] == "7"])
    data.answer()
    assert data.labeled_indices.tolist() == [7]
    assert [r["index"] for r in read(path)] == ["5"]
    data.answer()
    assert not (data.state_dir / "query_0.old2.csv").exists()  # once is enough


def test_an_answer_that_was_taken_back_does_not_come_again(make):
    data = make(initial=0)
    data.ask([7, 5])
    fill(data.state_dir / "query_0.csv", {7: "1"})
    data.answer()
    data.unlabel([7])
    data.answer()  # the file still says 1
    assert 7 in data.pool_indices
    data.ask([7])
    assert data.asked_indices.tolist() == [5, 7]


def test_a_changed_answer_in_a_file_that_still_waits_is_refused(make):
    data = make(initial=0)
    data.ask([7, 5])
    path = fill(data.state_dir / "query_0.csv", {7: "1"})
    data.answer()
    fill(path, {7: "2"})
    with pytest.raises(ValueError, match="sample 7 is labelled 1 already, not 2"):
        data.answer()


def test_a_file_that_nothing_waits_in_is_left_alone(make):
    """A label corrected since then is not held against the answer in it."""
    data = make(initial=0)
    data.ask([7, 5])
    fill(data.state_dir / "query_0.csv", {7: "1", 5: "1"})
    data.answer()
    data.label([7], [2], overwrite=True)
    data.ask([9])
    data.answer()
    assert data.state.target(7) == 2
    assert data.asked_indices.tolist() == [9]


def test_a_file_that_cannot_be_read_is_not_put_aside(make):
    data = make(initial=0)
    data.ask([7, 5])
    path = data.state_dir / "query_0.csv"
    path.write_text("number;answer\n7;1\n")
    with pytest.raises(ValueError, match="needed are `label`"):
        data.answer()
    assert path.read_text() == "number;answer\n7;1\n"
    assert [p.name for p in data.state_dir.glob("*.csv")] == ["query_0.csv"]


# ---------------------------------------------------------------- what spreadsheets do


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_may_be_parted_otherwise(data, tmp_path, delimiter):
    path = tmp_path / "q.csv"
    path.write_text(delimiter.join(["index", " label"]) + "\n" + delimiter.join(["7", "cow"]) + "\n")
    assert data.import_labels(path) == 1
    assert data.state.target(7) == 2


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_another_encoding_is_named(data, tmp_path, encoding):
    path = tmp_path / "q.csv"
    path.write_text("index,note,label\n7,fünf,cow\n", encoding=encoding)
    with pytest.raises(ValueError, match=r"q.csv is in another encoding than UTF-8.*Save it again"):
        data.import_labels(path)


def test_a_field_that_never_ends_is_named(data, tmp_path):
    path = tmp_path / "q.csv"
    path.write_text('index,label\n7,"' + "x" * 200_000)
    with pytest.raises(ValueError, match=r"q.csv is no CSV file .line 2: .*Mend that line\.$"):
        data.import_labels(path)


@pytest.mark.parametrize("cell", ['"see note', '"cat" or dog'])
def test_a_quote_that_is_not_closed_takes_no_other_row_with_it(data, tmp_path, cell):
    path = tmp_path / "q.csv"
    path.write_text(f"index,label,skip\n7,cat,\n2,,{cell}\n4,dog,\n")
    with pytest.raises(ValueError, match=r"q.csv is no CSV file \(line 3: .*a quote that opens"):
        data.import_labels(path)
    assert data.state.values.get(7) is None


def test_a_quote_that_closes_too_late_takes_no_other_row_with_it(data, tmp_path):
    path = tmp_path / "q.csv"
    path.write_text('index,label,skip\n7,cat,\n2,,"see note\n4,dog,"\n')
    with pytest.raises(ValueError, match=r"line 4: its skip has several lines, 'see note"):
        data.import_labels(path)


def test_a_header_in_quotes_with_another_delimiter(data, tmp_path):
    path = tmp_path / "q.csv"
    path.write_text('"index";"label"\n7;"cow"\n')
    assert data.import_labels(path) == 1


@pytest.mark.parametrize("options", [{}, {"class_names": ["cat", "dog", "cow"]}])
def test_whole_numbers_may_have_got_a_decimal_point(make, tmp_path, options):
    data = make(**options)
    path = tmp_path / "q.csv"
    path.write_text("index,label\n7.0,1.0\n5,2.00\n")
    assert data.import_labels(path) == 2
    assert [data.state.values[i] for i in (7, 5)] == ["1", "2"]
    path.write_text("index,label\n8,1.5\n")
    with pytest.raises(ValueError, match=r"line 2: '?1\.5'? is no"):
        data.import_labels(path)


def test_outer_spaces_of_names_do_not_matter(make, tmp_path):
    names = [f"s{i} " for i in range(SIZE)]
    data = make(ids=names, class_names=["cat ", " dog", "cow"])
    data.ask([7, 5])
    path = fill(data.state_dir / "query_1.csv", {7: "dog", 5: "cat "})
    assert data.import_labels(path) == 2
    path = tmp_path / "stripped.csv"
    path.write_text("id,label\ns3, cow\n s0 ,cat\n")
    assert data.import_labels(path) == 2
    assert [data.state.target(i) for i in (7, 5, 3, 0)] == [1, 0, 2, 0]


def test_names_that_differ_by_outer_spaces_alone_stay_apart(make, tmp_path):
    names = ["a ", " a", *(f"s{i}" for i in range(2, SIZE))]
    data = make(ids=names, initial=0)
    path = tmp_path / "q.csv"
    path.write_text("id,label\n a,1\n")
    data.import_labels(path)
    assert data.labeled_indices.tolist() == [1]
    path.write_text("id,label\na,1\n")
    with pytest.raises(ValueError, match="there is no sample with id 'a'"):
        data.import_labels(path)


# ---------------------------------------------------------------- one kind of label


def test_the_first_label_says_whether_labels_are_text_or_numbers(make, tmp_path):
    bare = TensorDataset(DATA.tensors[0])
    path = tmp_path / "q.csv"
    numbers = make(train_set=bare)
    path.write_text("index,label\n3,1\n0,x\n")
    with pytest.raises(ValueError, match=r"line 3: 'x' is no number, as the other targets are"):
        numbers.import_labels(path)
    path.write_text("index,label\n3,1\n0,2.5\n")
    assert numbers.import_labels(path) == 2
    texts = make(train_set=bare, state_dir=tmp_path / "texts")
    path.write_text("index,label\n3,cat\n0,7\n")
    assert texts.import_labels(path) == 2
    assert [texts.state.target(i) for i in (3, 0)] == ["cat", "7"]


def test_answers_whose_samples_cannot_be_told_are_not_put_aside(tmp_path):
    names = [f"{i:05d}" for i in range(len(DATA))]
    data = ActiveDataModule(DATA, initial=[2, 3], ids=names, oracle="people", state_dir=tmp_path)
    data.open()
    path = tmp_path / "query_0.csv"
    rows = path.read_text().splitlines()
    broken = [rows[0], *(row.replace("0000", "", 1) for row in rows[1:])]
    path.write_text("\n".join(row[:-1] + "1," if row is not broken[0] else row for row in broken))
    before = path.read_text()
    with pytest.raises(ValueError, match=r"(?s)no sample with id '[23]'.*Mend these lines"):
        data.open()
    assert path.read_text() == before
    assert not list(tmp_path.glob("*.old*"))


def test_a_file_that_was_read_does_not_argue_with_a_correction(tmp_path):
    data = ActiveDataModule(DATA, initial=[2, 3], oracle="people", state_dir=tmp_path)
    data.open()
    path = tmp_path / "query_0.csv"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0], rows[1][:-1] + "1,", rows[2]]))
    data.open()
    first = int(data.labeled_indices[0])
    data.label([first], [0], overwrite=True)
    data.open()
    assert data.state.target(first) == 0
    assert len(data.asked_indices) == 1
