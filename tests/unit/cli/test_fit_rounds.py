"""`lightning-al fit-rounds`: from YAML and flags to rounds, and how it ends."""

import json
import re

import pytest
import yaml

from lightning_al.cli import main
from lightning_al.history import History
from lightning_al.ledger import Book
from tests.unit.exchange.runs import labels

PROJECT = "tests.unit.cli.project"
CONFIG = {
    "data": {
        "train_set": {"class_path": f"{PROJECT}.Points"},
        "test_set": {"class_path": f"{PROJECT}.Points", "init_args": {"size": 10}},
        "initial": 4,
        "batch_size": 4,
    },
    "model": {"class_path": f"{PROJECT}.Net"},
    "active": {"acquisition": {"class_path": "lightning_al.acquisition.Margin"}, "query_size": 3},
    "trainer": {
        "max_epochs": 1, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False, "accelerator": "cpu", "devices": 1,
    },
    "rounds": 1,
}  # fmt: skip


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def train(config, folder, capsys):
    def train(*flags, config=config):
        code = main(["fit-rounds", "--config", str(config), "--data.state_dir", str(folder), *flags])
        return code, capsys.readouterr().out

    return train


def test_rounds_go_on_and_the_configuration_is_kept(train, folder):
    assert train() == (0, "2 rounds are finished, the last on 7 labels.\n")
    first = (folder / "fit_rounds.yaml").read_text()
    assert yaml.safe_load(first)["active"]["query_size"] == 3
    assert train()[0] == 0  # nothing to do, nothing new to keep
    assert sorted(path.name for path in folder.glob("*.yaml")) == ["fit_rounds.yaml"]
    assert train("--rounds", "2", config=folder / "fit_rounds.yaml")[1].startswith("3 rounds are finished")
    assert (folder / "fit_rounds.old1.yaml").read_text() == first
    assert yaml.safe_load((folder / "fit_rounds.yaml").read_text())["rounds"] == 2
    assert History.of(folder).column("labeled") == [4, 7, 10]


def test_a_stopping_criterion_ends_the_rounds_and_none_goes_on(train, folder, tmp_path):
    stop = {"class_path": "lightning_al.StablePredictions", "init_args": {"agreement": 0.1, "rounds": 1}}
    stopping = tmp_path / "stopping.yaml"
    learns = {"model": {"class_path": f"{PROJECT}.Net", "init_args": {"lr": 9.0}}}
    stopping.write_text(yaml.safe_dump(CONFIG | learns | {"rounds": 5, "stop": [stop]}))
    ended = train(config=stopping)[1]
    done = len(History.of(folder))
    assert 2 <= done < 6
    assert History.of(folder).column("stopped")[-1]
    assert train(config=stopping)[1] == ended, "it stays so"
    assert train("--rounds", str(done))[1].startswith(f"{done + 1} rounds are finished")
    flags = ("--stop=StablePredictions", "--stop.agreement=0.1", "--stop.rounds=1")
    assert train("--rounds", "9", *flags, config=stopping)[0] == 0
    assert len(History.of(folder)) < 10


def test_a_wrong_criterion_is_one_message(train, capsys):
    with pytest.raises(SystemExit, match="2"):
        train("--stop", "StablePredictions", "--stop.agreement", "7")
    assert "agreement" in capsys.readouterr().err


UNLABELED = ["--data.train_set.init_args.labels", "false", "--data.class_names", "[left, right]"]
PEOPLE = [*UNLABELED, "--data.oracle", "people"]


@pytest.mark.parametrize(("where", "labeled"), [("training", 4), ("scoring", 7)])
def test_sigterm_is_no_success_and_the_same_command_goes_on(train, folder, capsys, where, labeled):
    long = ("--trainer.max_epochs", "9")
    assert train(*long, "--model.terminated_in", where)[0] == 143
    assert len(Book(folder).state.values) == labeled
    assert main(["fit-rounds", "--config", str(folder / "fit_rounds.yaml")]) == 143
    assert capsys.readouterr().err.count("the same command goes on") == 1
    assert train(*long) == (0, "2 rounds are finished, the last on 7 labels.\n")


def test_a_stopping_metric_that_no_fit_logs_is_one_message(train, folder, capsys):
    with pytest.raises(SystemExit) as end:
        train("--stop", "Plateau", "--stop.metric", "nope")
    assert end.value.code == 2
    assert re.match(
        r"lightning-al: error: The rounds are to stop by `nope`, which .* did not log; it logged .*\n$",
        capsys.readouterr().err.splitlines(keepends=True)[-1],
    )


def test_whoever_forgets_that_people_label_is_told_so(train, folder, capsys):
    with pytest.raises(SystemExit) as end:
        train(*UNLABELED)
    assert end.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "--data.oracle is dataset, but the data set has no label for samples [" in said
    assert "Give `--data.oracle people`" in said
    assert not (folder / "ledger.sqlite3").exists()
    assert train(*PEOPLE)[0] == 0


def test_a_budget_is_told_of_from_the_start_and_is_spent_when_it_is(train, folder, capsys):
    flags = [*PEOPLE, "--active.budget", "7", "--rounds", "5"]

    def ends_with():
        code, said = train(*flags)
        return code, said.splitlines()[-1]

    def answer():
        book = Book(folder)
        book.label(
            book.state.indices(1), ["left", "right", "left", "right"][: book.waiting().count], who="Ada"
        )

    def budget():
        assert main(["status", str(folder), "--json"]) == 0
        return json.loads(capsys.readouterr().out)["budget"]

    assert ends_with() == (0, "0 rounds are finished.")
    assert budget() == 7
    answer()
    assert ends_with() == (0, "1 rounds are finished, the last on 4 labels.")
    answer()
    assert ends_with() == (
        0, "2 rounds are finished, the last on 7 labels; the budget of 7 labels is spent.",
    )  # fmt: skip
    assert train(*flags, "--active.budget", "9")[1].endswith("finished, the last on 7 labels.\n")
    assert budget() == 9


def test_labels_from_people_with_a_rule_of_ones_own(train, folder, capsys, tmp_path):
    flags = [
        "--data.train_set.init_args.labels", "false", "--data.oracle", "people", "--data.resolve",
        f"{PROJECT}.oldest", "--data.min_answered", "0.5", "--data.class_names", "[left, right]",
    ]  # fmt: skip
    assert train(*flags) == (0, "0 rounds are finished.\n")
    assert (folder / "fit_rounds.yaml").exists()
    book = Book(folder)
    first, second = book.state.indices(1).tolist()[:2]
    answers = tmp_path / "a.jsonl"
    answers.write_text(
        f'{{"index": {first}, "label": "right", "who": "Ada"}}\n'
        f'{{"index": {first}, "label": "left", "who": "Bob"}}\n'
        f'{{"index": {second}, "label": "left", "who": "Ada"}}\n'
    )
    assert main(["import", str(folder), str(answers)]) == 0
    assert "0 new labels" in capsys.readouterr().out
    assert train(*flags) == (0, "1 rounds are finished, the last on 2 labels.\n")
    assert labels(book) == {first: 1, second: 0}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data.initial", "100"], "--data: `initial` is 100, but the data set has 40 samples"),
        (["--data.min_answered", "3"], "--data: `min_answered` is 3"),
        (["--active.query_size", "0"], "--active: `query_size` is 0"),
        (["--trainer.max_epochs", "-3"], "--trainer: `max_epochs` must be"),
        (["--rounds", "0"], "--rounds is '0'; needed is a number >0"),
        (["--rounds", "x"], "rounds"),
        (
            ["--data.train_set", "nothing.Here"],
            "--data.train_set: Problem with given class_path 'nothing.Here'",
        ),
        (["--nope", "3"], "nope"),
        (
            ["--active.acquisition", "Margni"],
            "is the import path of a class or a function. Do you mean Margin?",
        ),
        (["--trainer.max_epochs", "x"], "--trainer.max_epochs is 'x'; needed is a whole number."),
        (["--trainer.max_epoch", "3"], "--trainer.max_epoch: not an argument;"),
        (["--seed_everything", "3"], "Give it as --data.seed."),
        (["--seed_everything", "0"], "Give it as --data.seed."),
        (["--resume", "no"], "--resume is 'no'; needed is one of 'restart', 'checkpoint'."),
    ],
)
def test_a_mistake_in_the_arguments_is_one_message(train, folder, capsys, flags, message):
    with pytest.raises(SystemExit) as end:
        train(*flags)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert said.partition("error: ")[2].count("\n") == 1
    assert message.startswith("--trainer") or not (folder / "ledger.sqlite3").exists()


def test_what_the_ledger_refuses_is_one_message(train, folder, capsys):
    train()
    before = (folder / "fit_rounds.yaml").read_text()
    assert main(["fit-rounds", "--config", str(folder / "fit_rounds.yaml"), "--data.seed", "5"]) == 1
    said = capsys.readouterr().err
    assert "lightning-al: error: " in said
    assert "was made with seed 0, this run has 5" in said
    assert (folder / "fit_rounds.yaml").read_text() == before


def test_an_annotators_typo_is_one_message(train, folder, capsys):
    flags = [
        "--data.train_set.init_args.labels", "false", "--data.oracle", "people", "--data.class_names",
        "[left, right]",
    ]  # fmt: skip
    train(*flags)
    (query,) = folder.glob("query_*.csv")
    good = query.read_text()
    header, row, *rest = good.splitlines()
    cells = row.split(",")
    cells[header.split(",").index("label")] = "lefft"
    query.write_text("\n".join([header, ",".join(cells), *rest]) + "\n")
    assert main(["fit-rounds", "--config", str(folder / "fit_rounds.yaml")]) == 1
    said = capsys.readouterr().err
    assert said.count("lightning-al: error: ") == 1
    assert "'lefft'" in said
    assert "`import --overwrite` lets a new answer win" in said
    assert Book(folder).current().values == {}
    for content, message in ((good.encode("utf-16"), "encoding"), (b"a,b\n1,2\n", "has columns [a,b]")):
        query.write_bytes(content)
        assert main(["fit-rounds", "--config", str(folder / "fit_rounds.yaml")]) == 1
        assert message in capsys.readouterr().err.partition("lightning-al: error: ")[2]


def test_mistakes_in_the_users_code_keep_their_traceback(train):
    with pytest.raises(ValueError, match="my own mistake"):
        train("--data.train_set", f"{PROJECT}.Broken")
    with pytest.raises(ValueError, match="a mistake in training"):
        train("--model.fails", "true")


def test_every_argument_of_the_data_module_can_be_given(capsys):
    import inspect

    from lightning_al import ActiveDataModule

    with pytest.raises(SystemExit):
        main(["fit-rounds", "--help"])
    said = capsys.readouterr().out
    for name in inspect.signature(ActiveDataModule).parameters:
        assert f"--data.{name}" in said
