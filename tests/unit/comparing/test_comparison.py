import csv
import math
import subprocess
import sys

import numpy as np
import pytest

from lightning_al import Comparison
from lightning_al.comparing.settings import folder_of

from .tables import CURVES, comparison, rows


def by_name(summary):
    return {row["strategy"]: row for row in summary}


def test_the_summary_has_areas_ends_and_what_was_gained():
    found = by_name(comparison(CURVES).summary("test_acc"))
    assert list(found) == ["Random", "Margin"]
    assert found["Random"]["aubc"] == pytest.approx((0.4 + 0.9) / 3)
    assert found["Margin"]["final"] == 0.7
    assert (found["Margin"]["final_q1"], found["Margin"]["final_q3"]) == pytest.approx((0.65, 0.75))
    # Seeds 0 to 2: areas 1.55, 1.75, 1.6 against 1.3, 1.45, 1.05, each over 3.
    assert found["Margin"]["aubc_gain"] == pytest.approx((0.25 + 0.3 + 0.55) / 9)
    assert found["Margin"]["p"] == found["Margin"]["smallest_p"] == found["Margin"]["p_holm"] == 0.25
    assert "p" not in found["Random"]


def test_labels_to_a_target_need_two_rounds_and_misses_are_infinite():
    found = by_name(comparison(CURVES).summary("test_acc", target=0.6))
    # Random: never twice, 30, never. Margin: 30, 20, 30.
    assert found["Random"]["labels_to_target"] == math.inf
    assert found["Random"]["missed"] == 2
    assert (found["Margin"]["labels_to_target"], found["Margin"]["missed"]) == (30, 0)
    assert (found["Margin"]["label_ratio_low"], found["Margin"]["label_ratio_high"]) == (0, 0.75)


def test_a_metric_that_falls_is_better_lower():
    losses = {name: [[1 - v for v in seed] for seed in seeds] for name, seeds in CURVES.items()}
    falling = comparison(losses, metric="test_loss")
    found = by_name(falling.summary(target=0.4))
    rising = by_name(comparison(CURVES).summary(target=0.6))
    assert found["Margin"]["aubc_gain"] == pytest.approx(rising["Margin"]["aubc_gain"])
    assert found["Margin"]["aubc"] == pytest.approx(1 - rising["Margin"]["aubc"])
    assert found["Margin"]["labels_to_target"] == rising["Margin"]["labels_to_target"] == 30
    text = str(falling.summary(target=0.4))
    assert "lower is better" in text
    assert f"{-rising['Margin']['aubc_gain']:+.4f}" in text
    assert by_name(falling.summary(higher_is_better=True))["Margin"]["aubc_gain"] < 0


def test_the_text_says_what_is_missing_and_how_little_three_seeds_say():
    text = str(comparison(CURVES).summary(target=0.6))
    assert "2 strategies, 3 seeds, 10 to 40 labels; test_acc, higher is better" in text
    assert "> 40 [> 40, > 40]" in text
    assert "< 0.75 [?, 0.75]" in text
    assert "corrected for 1 test." in text
    assert "none can be below 0.25" in text
    assert "TOO FEW SEEDS: 3 pairs" in text
    assert "NOT WHOLE" not in text
    five = {name: seeds + seeds[:2] for name, seeds in CURVES.items()}
    assert "TOO FEW" not in str(comparison(five))


def test_a_run_that_has_not_ended_is_left_out_and_told_of():
    cut = {**CURVES, "Margin": [*CURVES["Margin"][:2], [0.2, 0.5]]}
    found = comparison(cut)
    assert by_name(found.summary())["Margin"]["seeds"] == 2
    assert by_name(found.summary())["Margin"]["pairs"] == 2
    assert "NOT WHOLE: 1 of 6 runs have not ended and are left out." in str(found)
    assert len(found.rows) == 22


def test_printing_takes_a_target_that_random_just_reaches():
    found = comparison(CURVES)
    assert found.reached_at_random() == 0.5
    assert "labels to 0.5" in str(found)
    assert "The target is Random's median in the last round but one" in " ".join(str(found).split())
    assert "The target is" not in str(found.summary(target=0.5))


def test_penalties_say_who_is_beaten_by_whom():
    curves = {
        "Random": [[0.5, 0.5 + s / 100] for s in range(5)],
        "Margin": [[0.5, 0.6 + s / 90] for s in range(5)],
    }
    found = comparison(curves).penalties()
    assert found.matrix.tolist() == [[0, 0.5], [0, 0]]
    assert found.means == {"Random": 0.5, "Margin": 0}
    with pytest.raises(ValueError, match="Run more seeds"):
        comparison({name: seeds[:1] for name, seeds in curves.items()}).penalties()


def test_the_table_has_the_same_columns_as_a_file_and_as_a_frame(tmp_path):
    found = comparison(CURVES, train_s=1.5)
    found.write_csv(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open() as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == list(found.to_frame().columns) == found.columns
    assert found.columns[:6] == ["strategy", "seed", "round", "labeled", "asked", "test_acc"]
    assert len(read) == len(found.to_frame()) == 24
    assert [float(row["test_acc"]) for row in read] == [row["test_acc"] for row in found.rows]


def test_parquet_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pandas pyarrow"):
        comparison(CURVES).write_parquet(tmp_path / "table.parquet")


def test_parquet_is_written_whole(tmp_path, monkeypatch):
    import pandas

    monkeypatch.setitem(sys.modules, "pyarrow", object())
    monkeypatch.setattr(pandas.DataFrame, "to_parquet", lambda self, path: self.to_csv(path))
    comparison(CURVES).write_parquet(tmp_path / "table.parquet")
    assert [file.name for file in tmp_path.iterdir()] == ["table.parquet"]


NAN = math.nan


def test_a_run_without_the_metric_in_a_round_has_no_area_and_is_named():
    whole = by_name(comparison(CURVES).summary("test_acc", target=0.6))
    for broken in ([0.2, 0.5, 0.7, NAN], [0.2, NAN, 0.7, 0.6], [NAN, 0.5, 0.7, 0.6]):
        found = comparison({**CURVES, "Margin": [*CURVES["Margin"][:2], broken]})
        summary = found.summary("test_acc", target=0.6)
        rows_of = by_name(summary)
        assert rows_of["Random"]["aubc"] == whole["Random"]["aubc"]
        assert (rows_of["Margin"]["seeds"], rows_of["Margin"]["pairs"]) == (2, 2)
        assert rows_of["Margin"]["final"] == pytest.approx(0.75)
        assert rows_of["Margin"]["aubc_gain"] == pytest.approx((0.25 + 0.3) / 6)
        where = [math.isnan(value) for value in broken].index(True)
        said = f"LEFT OUT, without test_acc: Margin with seed 2 in round {where}."
        assert said in str(summary)
        assert found.lacking("test_acc") == {("Margin", 2): [where]}
        assert len(found.penalties().names) == 2
    assert "LEFT OUT" not in str(comparison(CURVES))


def test_where_nothing_can_be_paired_nothing_is_said():
    apart = {"Random": [[0.2, NAN, 0.5], [0.2, 0.4, 0.5]], "Margin": [[0.2, 0.4, 0.6], [0.3, 0.6, NAN]]}
    summary = comparison(apart).summary("test_acc", target=0.4)
    assert "p" not in by_name(summary)["Margin"]
    text = str(summary)
    assert "nan" not in text
    assert "LEFT OUT, without test_acc: Random with seed 0 in round 1; Margin with seed 1 in round 2." in text
    with pytest.raises(ValueError, match="Random with seed 0 in round 0; Margin with seed 0 in rounds 0, 1"):
        comparison({"Random": [[NAN, 0.2]], "Margin": [[NAN, NAN]]}).summary("test_acc")
    assert "none has 'test_acc' in every round" in str(comparison({"Random": [[NAN, 0.2]]}))


def test_a_mistyped_metric_of_many_runs_is_told_in_few_words():
    many = comparison({name: [[0.1, 0.2, NAN]] * 5 for name in ("Random", *"ABCDEFG")})
    for refused in (many.summary, many.penalties, many.curves, many.reached_at_random):
        with pytest.raises(
            ValueError, match=r"^No run logs 'acc'; there are \['test_acc'\]\. Name one"
        ) as told:
            refused("acc")
        assert len(str(told.value)) < 120
    with pytest.raises(ValueError, match=r"seed 2 in round 2; nor in 37 more runs\. Needed are runs") as told:
        many.summary("test_acc")
    assert len(str(told.value)) < 400


def test_areas_say_over_which_label_counts_they_are():
    other = rows({"Margin": CURVES["Margin"]}, first=20)
    found = Comparison.of_rows(rows({"Random": CURVES["Random"]}) + other).summary("test_acc")
    assert "20 to 40 labels; test_acc" in str(found)
    assert "AREAS are over the 3 label counts that all runs have, of 4 that some have." in str(found)
    assert "AREAS" not in str(comparison(CURVES))
    none = Comparison.of_rows(
        rows({"Random": CURVES["Random"]}) + rows({"Margin": CURVES["Margin"]}, first=15)
    )
    text = str(none.summary("test_acc"))
    assert "no label count in common" in text
    assert "nan" not in text
    with pytest.raises(ValueError, match="no number of labels in common"):
        none.penalties("test_acc")
    assert "p: exact" not in text
    assert "+nan" not in text
    assert math.isnan(by_name(none.summary("test_acc"))["Margin"]["p"])


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("rows.csv", TypeError, "Row 0 is 'rows.csv'; needed are mappings"),
        (None, TypeError, "Row 0 is None; needed are mappings"),
        ([["Random", 0]], TypeError, r"Row 0 is \['Random', 0\]; needed are mappings"),
        ([{"strategy": "Random", "seed": 0, "round": 0}], ValueError, r"Row 0 lacks \['labeled'\]"),
        (
            [{"strategy": "Random", "seed": "0", "round": 0, "labeled": "10"}],
            ValueError, r"has \{'seed': '0', 'labeled': '10'\}; needed are .*numbers",
        ),
        ([{"strategy": 3, "seed": 0, "round": 0, "labeled": 9}], ValueError, "has 3; needed are the name"),
    ],
)  # fmt: skip
def test_what_are_no_rows(given, error, message):
    with pytest.raises(error, match=message):
        Comparison.of_rows(given)


def test_what_is_empty_in_rows_is_missing():
    table = rows(CURVES)
    table[-1] = {**table[-1], "test_acc": None}
    assert Comparison.of_rows(table).lacking("test_acc") == {("Margin", 2): [3]}


@pytest.mark.parametrize("target", ["rand", NAN, math.inf, [0.5]])
def test_what_is_no_target(target):
    with pytest.raises(ValueError, match=r"`target` is .*; needed is a number"):
        comparison(CURVES).summary(target=target)


def test_a_column_of_text_is_no_metric():
    with pytest.raises(ValueError, match=r"No run logs 'strategy'; there are \['test_acc'\]"):
        comparison(CURVES).summary("strategy")


def test_a_target_that_float32_just_misses_is_reached():
    nine_of_ten = float(np.float32(0.9))
    assert nine_of_ten < 0.9
    found = by_name(comparison({"Random": [[0.5, nine_of_ten, nine_of_ten]]}).summary("test_acc", target=0.9))
    assert found["Random"]["labels_to_target"] == 20


def test_a_round_is_in_a_table_once():
    with pytest.raises(ValueError, match="two rows of 'Random' with seed 0 in round 0; needed is one"):
        Comparison.of_rows(rows(CURVES) * 2)


def test_rounds_about_one_that_is_missing_are_not_consecutive():
    table = rows({"Random": [[0.5, 0.9, 0.6, 0.9, 0.6], [0.5, 0.6, 0.6, 0.6, 0.9]]})
    del table[2]
    found = Comparison.of_rows(table)
    assert found.lacking("test_acc") == {("Random", 0): [2]}
    assert "LEFT OUT, without test_acc: Random with seed 0 in round 2." in str(found.summary(target=0.8))


def test_a_miss_is_one_of_the_runs_own_budget():
    table = rows({"Random": [[0.1, 0.2, 0.3, 0.4]] * 2})
    found = Comparison.of_rows(table + rows({"Margin": [[0.1, 0.5, 0.6, 0.7]] * 2}, step=20))
    summary = found.summary("test_acc", target=0.5)
    row = by_name(summary)["Margin"]
    assert (row["label_ratio_low"], row["label_ratio_high"]) == (0, 30 / 40)
    text = str(summary)
    assert "> 40 [> 40, > 40]" in text
    assert "a seed without such needed more than its last round's" in " ".join(text.split())


@pytest.mark.parametrize(
    "name",
    [
        "test_acc",
        "interrater_kappa",
        "terrain_iou",
        "test_f1",
        "auroc",
        "merged_acc",
        "recall",
        "piece_score",
    ],
)
def test_metrics_that_rise(name):
    assert Comparison.rises(name)


@pytest.mark.parametrize(
    "name",
    ["test_loss", "testloss", "valLoss", "test/MSELoss", "wer", "test_fpr", "hamming_distance", "mape", "bce",
     "top1_error", "err@5", "nll", "MeanSquaredError", "test_loss/dataloader_idx_0", "cross_entropy"],
)  # fmt: skip
def test_metrics_that_fall(name):
    assert not Comparison.rises(name)


def test_rows_without_the_baseline_and_metrics_that_are_not_there_are_errors():
    with pytest.raises(ValueError, match="'Random' too"):
        Comparison.of_rows(rows({"Margin": CURVES["Margin"]}))
    with pytest.raises(ValueError, match=r"^No run logs 'test_f1'; there are \['test_acc'\]"):
        comparison(CURVES).summary("test_f1")
    with pytest.raises(ValueError, match="No round has a test metric"):
        _ = Comparison([], strategies=["Random"], seeds=[0], rounds=1, baseline="Random").metric
    with pytest.raises(ValueError, match="not classes"):
        _ = comparison(CURVES).classes


def test_the_metric_meant_is_the_first_accuracy():
    table = [{**row, "test_loss": 1.0} for row in rows(CURVES)]
    assert Comparison.of_rows(table).metric == "test_acc"
    assert Comparison.of_rows([{k: v for k, v in r.items() if k != "test_acc"} for r in table]).metric == (
        "test_loss"
    )


def test_folders_are_safe_and_apart():
    names = ["BADGE", "a/b", "a b", "..", ".hidden", "a_b", "", "x" * 80, "x" * 81, "Größe", "table.csv"]
    folders = [folder_of(name) for name in names]
    assert folders[0] == "BADGE"
    assert len(set(folders)) == len(names)
    assert not {"table.csv", "comparison.json"} & {*folders, folder_of("comparison.json")}
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
               and name and not name.startswith(".") and len(name) < 80 for name in folders)  # fmt: skip


def test_a_comparison_is_read_told_and_drawn_without_torch():
    code = (
        "import sys; from lightning_al import Comparison; from lightning_al.plotting import learning_curves\n"
        "rows = [{'strategy': 'Random', 'seed': s, 'round': r, 'labeled': r, 'acc': r} "
        "for s in (0, 1) for r in (1, 2)]\n"
        "found = Comparison.of_rows(rows + [{**row, 'strategy': 'Margin'} for row in rows])\n"
        "print(found, found.summary(target=1), file=sys.stderr); learning_curves(found)\n"
        "print(*{'torch', 'lightning', 'torchmetrics'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
