"""`lightning-al compare`: from YAML to tables and pictures, and how it ends."""

import csv

import pytest
import yaml

from lightning_al.cli import main

from .test_fit_rounds import CONFIG, PROJECT

ACQUISITION = "lightning_al.acquisition"


def settings(folder, **changed):
    own = {key: value for key, value in CONFIG.items() if key not in ("active", "rounds")}
    strategies = {
        "margin": {"class_path": f"{ACQUISITION}.Margin"},
        "BADGE": {"class_path": f"{ACQUISITION}.BADGE"},
    }
    return {
        **own, "strategies": strategies, "query_size": 3, "rounds": 2, "seeds": 2, "workers": 2,
        "state_dir": str(folder), **changed,
    }  # fmt: skip


@pytest.fixture
def compared(tmp_path, capsys):
    def compared(*flags, **changed):
        path = tmp_path / "compare.yaml"
        path.write_text(yaml.safe_dump(settings(tmp_path / "runs", **changed)))
        try:
            code = main(["compare", "--config", str(path), *flags])
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    return compared


def test_tables_and_pictures_come_of_a_file(compared, tmp_path, capsys):
    code, said, _ = compared("--figures", "--target", "0.5")
    assert code == 0
    assert "3 strategies, 2 seeds, 4 to 10 labels; test_acc, higher is better" in said
    assert "labels to 0.5" in said
    assert "beaten by  Random   BADGE  margin   mean" in said
    with (tmp_path / "runs" / "table.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 18
    names = ["class_balance.png", "learning_curves.png", "penalty_matrix.png", "time_split.png"]
    assert sorted(path.name for path in (tmp_path / "runs").glob("*.png")) == names
    assert not list((tmp_path / "runs").rglob("fit_rounds.yaml"))
    assert main(["compare", "--report", "--state_dir", str(tmp_path / "runs"), "--target", "0.5"]) == 0
    report = capsys.readouterr().out
    assert report.split("Every round")[0] == said.split("Every round")[0]


def test_other_settings_than_runs_were_made_with_are_one_message(compared, tmp_path):
    small = {"seeds": 1, "rounds": 1, "strategies": ["Margin"]}
    assert compared(**small)[0] == 0
    kept = (tmp_path / "runs" / "comparison.json").read_text()
    other = {"class_path": f"{PROJECT}.Net", "init_args": {"lr": 0.4}}
    batches = {**CONFIG["data"], "batch_size": 2}
    for seeds in (1, 2):  # also where nothing is left to do
        code, said, errors = compared(model=other, data=batches, **{**small, "seeds": seeds})
        assert (code, said) == (2, "")
        assert "lightning-al: error: The runs in " in errors
        assert "were made with data.batch_size = 4, now 2, model.init_args.lr = 0.1, now 0.4;" in errors
        assert "accept_changes" in errors
    assert (tmp_path / "runs" / "comparison.json").read_text() == kept
    quieter = {**CONFIG["trainer"], "log_every_n_steps": 3}
    assert compared(trainer=quieter, data={**CONFIG["data"], "num_workers": 0}, **small)[0] == 0
    code, said, _ = compared("--accept_changes", model=other, data=batches, **{**small, "seeds": 2})
    assert code == 0
    assert (
        "NOT ALIKE: not all rounds of all runs were trained with the same batch_size, optimizer.lr, "
        "data.batch_size, model.init_args.lr."
    ) in " ".join(said.split())


@pytest.mark.parametrize("where", ["training", "scoring"])
def test_sigterm_is_no_success_and_the_same_command_goes_on(compared, where):
    model = {"class_path": f"{PROJECT}.Net", "init_args": {"terminated_in": where}}
    alone = {"workers": 0, "seeds": 1, "rounds": 1}
    code, said, errors = compared(model=model, **alone)
    assert (code, said) == (143, "")
    assert errors.endswith(
        "lightning-al: ended by SIGTERM; no label is lost, and the same command goes on.\n"
    )
    assert compared("--accept_changes", **alone)[0] == 0


def test_a_report_while_one_seed_has_ended_is_told_without_penalties(compared, tmp_path, capsys):
    assert compared(seeds=1, rounds=1)[0] == 0
    path = tmp_path / "runs" / "comparison.json"
    path.write_text(path.read_text().replace('"seeds": [\n    0\n  ]', '"seeds": [0, 1]'))
    (tmp_path / "runs" / "table.csv").unlink()
    assert main(["compare", "--report", "--state_dir", str(tmp_path / "runs"), "--figures"]) == 0
    said = capsys.readouterr().out
    assert "NOT WHOLE: 3 of 6" in said
    assert "No penalties: 3 strategies have runs" in said
    assert "and 1 seeds have all of these" in said
    assert (tmp_path / "runs" / "table.csv").exists()
    assert not (tmp_path / "runs" / "penalty_matrix.png").exists()


def test_the_metric_and_its_direction_can_be_said(compared):
    code, _, errors = compared("--metric", "test_f1", seeds=1, rounds=1)
    assert code == 2
    assert "`metric` is 'test_f1'; needed is a metric that the module's `test_step` logs" in errors
    code, said, _ = compared("--higher_is_better", "false", seeds=2, rounds=1)
    assert code == 0
    assert "test_acc, lower is better" in said


def test_strategies_may_be_a_list_of_names(compared):
    code, said, _ = compared("--rounds", "1", strategies=["Margin", {"class_path": "Entropy"}], seeds=[3])
    assert code == 0
    assert [line.split()[0] for line in said.splitlines()[3:6]] == ["Random", "Margin", "Entropy"]


def test_a_run_that_fails_ends_with_one(compared):
    code, _, errors = compared(model={"class_path": f"{PROJECT}.Net", "init_args": {"fails": True}}, seeds=1)
    assert code == 1
    assert "3 run(s) failed" in errors
    assert "a mistake in training" in errors


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"query_size": 0}, "query_size"),
        ({"seeds": [1, 1]}, "different whole numbers"),
        ({"strategies": {"Random": {"class_path": f"{ACQUISITION}.Margin"}}}, "'Random' is another one"),
        ({"data": {**CONFIG["data"], "seed": 4}}, "every run has its own"),
        ({"state_dir": __file__}, "which is a file; needed is a folder"),
    ],
)
def test_wrong_arguments_end_with_two(compared, changed, message):
    code, said, errors = compared(**changed)
    assert code == 2
    assert message in errors
    assert not said


def test_a_report_says_which_flag_is_wrong_and_may_be_of_fewer_rounds(compared, tmp_path, capsys):
    assert compared(seeds=2, rounds=1)[0] == 0
    report = ["compare", "--report", "--state_dir", str(tmp_path / "runs")]
    with pytest.raises(SystemExit, match="2"):
        main([*report, "--metric", "nope"])
    assert "error: --metric: " in capsys.readouterr().err
    path = tmp_path / "runs" / "comparison.json"
    path.write_text(path.read_text().replace('"rounds": 1', '"rounds": 2'))  # asked for, and stopped at once
    with pytest.raises(SystemExit, match="2"):
        main(report)
    said = capsys.readouterr().err
    assert "lightning-al: error: Comparison(" in said
    assert "look at fewer rounds: `--report --rounds 1`" in said
    assert main([*report, "--rounds", "1"]) == 0
    assert "NOT WHOLE" not in capsys.readouterr().out


def test_a_folder_without_runs_is_told_of(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["compare", "--report", "--state_dir", str(tmp_path)])
    assert "holds no comparison" in capsys.readouterr().err
