"""The evidence, whole, at a size that says nothing: published file formats, resuming, tables and pictures."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.evidence.__main__ import main
from benchmarks.evidence.classes import chance, fallen, fine_counts
from benchmarks.evidence.data import pad, read_images, read_questions, read_x_rays
from benchmarks.evidence.models import Settings, TextLayers
from benchmarks.evidence.regret import judge
from benchmarks.evidence.studies import STUDIES, indices_of, quick
from lightning_al import Comparison, Ledger

ROOT = Path(__file__).parents[2]
PAGE = "before\n<!-- {0} -->\nold\n<!-- end of {0} -->\nafter\n"
BLOCKS = (
    "mnist",
    "collapse",
    "trec",
    "sub_categories",
    "pneumonia",
    "rare_class",
    "regret",
    "costs",
    "tuning",
)


def idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def pictures(count, classes, seed):
    """A bright row for each class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = generator.integers(0, 60, (count, 28, 28))
    images[np.arange(count), 2 + 2 * labels] += 150
    return images.astype(np.uint8), labels.astype(np.uint8)


def questions(count):
    """Of three coarse classes and two finer ones of each."""
    words = ["who", "where", "when"]
    lines = []
    for n in range(count):
        coarse, fine = n % 3, n // 3 % 2
        rest = " ".join(["of", "caf\xe9", f"once{n}", "the"][: 1 + n % 4])
        lines.append(f"{['HUM', 'LOC', 'NUM'][coarse]}:{['a', 'b'][fine]} {words[coarse]} {rest} ?")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in ("mnist", "fashion_mnist"):
        (folder / name).mkdir()
        for part, count in (("train", 160), ("t10k", 40)):
            images, labels = pictures(count, 10, seed=len(part))
            idx(folder / name / f"{part}-images-idx3-ubyte.gz", images)
            idx(folder / name / f"{part}-labels-idx1-ubyte.gz", labels)
    (folder / "trec").mkdir()
    for part, count in (("train", 150), ("test", 30)):
        (folder / "trec" / f"TREC.{part}").write_text(questions(count), encoding="latin-1")
    (folder / "pneumonia_mnist").mkdir()
    held = {}
    for part, count in (("train", 150), ("val", 10), ("test", 30)):
        held[f"{part}_images"], labels = pictures(count, 4, seed=count)
        held[f"{part}_labels"] = (labels > 0).astype(np.uint8)[:, None]  # a quarter is normal
    np.savez(folder / "pneumonia_mnist" / "pneumoniamnist.npz", **held)
    return folder


@pytest.fixture(scope="module")
def done(root, tmp_path_factory):
    """One study, and then all, which does what is missing and writes the page."""
    place = tmp_path_factory.mktemp("evidence")
    (place / "docs").mkdir()
    page = place / "docs" / "evidence.md"
    page.write_text("".join(PAGE.format(name) for name in BLOCKS), encoding="utf-8")
    assert command(root, place, "--studies", "trec") == 0
    first = page.read_text(encoding="utf-8")
    before = (place / "state" / "trec" / "BADGE" / "seed_1" / "ledger.sqlite3").read_bytes()
    assert command(root, place) == 0
    assert (place / "state" / "trec" / "BADGE" / "seed_1" / "ledger.sqlite3").read_bytes() == before
    return place, first, page.read_text(encoding="utf-8")


def command(root, place, *options):
    return main([
        "--data-root", str(root), "--state", str(place / "state"), "--into", str(place), "--quick",
        "--seeds", "2", "--workers", "2", "--strategies", "BADGE", *options,
    ])  # fmt: skip


def table(place, name):
    with (place / "benchmarks" / "results" / "evidence" / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------------- the files


def test_images_are_read_with_the_mean_0_and_deviation_1_of_the_training_pixels(root):
    source = read_images(root, "mnist", [str(n) for n in range(10)])
    assert source.train.inputs.shape == (160, 1, 28, 28)
    assert len(source.test) == 40
    assert source.train.targets.tolist() == [n % 10 for n in range(160)]
    assert float(source.train.inputs.mean()) == pytest.approx(0, abs=1e-4)
    assert float(source.train.inputs.std()) == pytest.approx(1, abs=1e-4)
    # The image of class 3 has its bright row where it was written.
    assert int(source.train.inputs[3, 0].mean(1).argmax()) == 8


def test_x_rays_are_read_without_the_validation_part(root):
    source = read_x_rays(root)
    assert (len(source.train), len(source.test)) == (150, 30)
    assert source.train.targets.bincount().tolist() == [38, 112]
    assert source.class_names == ["normal", "pneumonia"]


def test_questions_have_coarse_classes_finer_ones_and_words_that_two_of_them_have(root):
    source = read_questions(root)
    assert source.class_names == ["HUM", "LOC", "NUM"]
    assert source.fine is not None
    assert source.fine.unique().tolist() == [0, 1, 2, 3, 4, 5]
    assert (source.fine // 2).tolist() == source.train.targets.tolist()
    # who where when of caf\xe9 the ?, after padding and the unknown; "once7" is one question's alone.
    assert source.words == 7 + 2
    assert int(source.train.inputs[2][-2]) == 1
    batch, targets = pad([source.train[0], source.train[3]])
    assert batch.shape == (2, 6)
    assert batch[0, 3:].tolist() == [0, 0, 0]
    assert targets.tolist() == [0, 0]


def test_a_file_that_is_not_there_is_named_with_what_to_do(tmp_path):
    with pytest.raises(SystemExit, match=r"TREC\.train is not there.*--data-root"):
        read_questions(tmp_path)


def test_padding_changes_no_prediction():
    torch.manual_seed(0)
    model = TextLayers(10, 3).eval()
    words = torch.tensor([[2, 3, 4, 5]])
    padded = torch.tensor([[2, 3, 4, 5, 0, 0, 0]])
    assert torch.allclose(model(words), model(padded), atol=1e-6)


# ---------------------------------------------------------------------- the command


def test_tables_hold_every_round_of_every_run(done):
    place, _, _ = done
    for name in STUDIES:
        strategies = {"Random", "BADGE"}
        rows = table(place, f"{name}_rounds")
        assert {(row["strategy"], row["seed"], row["round"], row["labeled"]) for row in rows} == {
            (s, seed, str(n), str(10 + 10 * n)) for s in strategies for seed in "01" for n in range(3)
        }
        assert all(0 < float(row["processor_s"]) < 60 for row in rows)
        assert {row["strategy"] for row in table(place, f"{name}_summary")} == strategies
    assert len(table(place, "runs")) == len(STUDIES) * 4
    assert all(0 <= float(row["test_auroc"]) <= 1 for row in table(place, "pneumonia_rounds"))


def test_the_page_is_written_between_its_marks(done):
    _, first, text = done
    assert text.count("before") == text.count("after") == len(BLOCKS)
    assert "<!-- mnist -->\nold\n" in first  # which had not been run
    assert "labels to" in text
    assert "old" not in text.split("<!-- tuning -->")[0]
    assert "fine classes found" in text
    assert "seeds below chance" in text


def test_pictures_are_drawn(done):
    place, _, _ = done
    found = {path.name for path in (place / "docs" / "images").glob("evidence_*.png")}
    names = [*STUDIES, "collapse", "sub_categories", "penalties"]
    assert found == {f"evidence_{name}.png" for name in names}


def test_the_default_is_chosen_from_the_tables_that_are_shown(done):
    place, _, text = done
    rows = table(place, "regret")
    assert {row["strategy"] for row in rows} == {"Random", "BADGE"}
    for row in rows:
        regrets = [float(row[f"{name}_regret"]) for name in ("fashion_mnist", "trec", "pneumonia")]
        assert max(regrets) == pytest.approx(float(row["worst"]))
        assert min(regrets) >= 0
        areas = [
            float(one["aubc"]) for one in table(place, "trec_summary") if one["strategy"] == row["strategy"]
        ]
        assert float(row["trec_aubc"]) == pytest.approx(areas[0], abs=1e-4)  # of two, the median is the mean
    assert "Chosen by the rule:" in text


def test_a_report_needs_no_run_and_says_the_same(root, done, capsys):
    place, _, text = done
    assert command(root, place, "--report", "--studies", "trec") == 0
    assert "2 strategies, 2 seeds, 10 to 30 labels" in capsys.readouterr().out
    after = (place / "docs" / "evidence.md").read_text(encoding="utf-8")
    assert after.split("<!-- costs -->")[0] == text.split("<!-- costs -->")[0]


def test_a_report_of_nothing_says_so(root, tmp_path, capsys):
    assert command(root, tmp_path, "--report") == 1
    assert "No run has ended yet" in capsys.readouterr().out


def test_settings_are_tried_on_random_sampling_and_seeds_of_their_own(root, done):
    place, _, _ = done
    assert command(root, place, "--tune", "--studies", "trec") == 0
    rows = table(place, "tuning")
    assert [row["steps"] for row in rows] == ["3", "4"]
    runs = {path.relative_to(place / "state" / "tuning" / "trec").parts[1:3] for path in
            (place / "state" / "tuning" / "trec").glob("*/*/seed_*/ledger.sqlite3")}  # fmt: skip
    assert runs == {("Random", "seed_100"), ("Random", "seed_101")}


@pytest.mark.parametrize("name", STUDIES)
def test_the_published_choice_of_settings_is_what_studies_are_run_with(name):
    study = STUDIES[name]
    rows = [row for row in table(ROOT, "tuning") if row["study"] == name]
    settings = [
        Settings(int(row["steps"]), float(row["learning_rate"]), float(row["weight_decay"])) for row in rows
    ]
    assert settings == list(study.tried)
    assert [one for one, row in zip(settings, rows, strict=True) if row["chosen"] == "True"] == [
        study.settings
    ]
    areas = {one: float(row["aubc"]) for one, row in zip(settings, rows, strict=True)}
    # The page: the fewest steps within 0.002 of the highest, and of MNIST those of 100 alone.
    allowed = [one for one in settings if name != "mnist" or one.steps == 100]
    near = [one for one in allowed if areas[one] >= max(areas[other] for other in allowed) - 0.002]
    fewest = [one for one in near if one.steps == min(other.steps for other in near)]
    assert max(fewest, key=areas.__getitem__) == study.settings
    page = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
    for row in rows:
        del row["weight_decay"]
        assert f"| {' | '.join(row.values())} |" in page


# ---------------------------------------------------------------------- what is said of classes


def test_finer_classes_are_counted_from_the_ledgers(root, done):
    place, _, _ = done
    study, source = quick(STUDIES["trec"]), read_questions(root)
    comparison = Comparison.load(place / "state" / "trec")
    counts = fine_counts(study, source, comparison)
    ledger = Ledger(place / "state" / "trec" / "BADGE" / "seed_1" / "ledger.sqlite3")
    order = indices_of(study, source, 1).tolist()
    asked = [
        order[event.sample] for _, event in ledger.events() if event.kind == "asked" and event.round == 2
    ]
    assert len(asked) == 10
    assert counts["BADGE"][1, 2].tolist() == np.bincount(source.fine[asked], minlength=6).tolist()
    # Finer classes add up to the coarse ones.
    coarse = comparison.class_counts()["BADGE"]
    assert (counts["BADGE"].reshape(*coarse.shape, 2).sum(-1) == coarse).all()


def test_chance_and_what_falls_below_it():
    pool = np.array([500, 500])
    low, middle, high = chance(pool, np.array([10, 400]))
    assert low[0] < low[1] < middle[1] <= high[1] <= np.log(2) + 1e-12
    runs = np.array([[[5, 5], [10, 10]], [[10, 0], [20, 0]], [[10, 0], [10, 10]]])
    assert fallen(runs, pool).tolist() == [2, 1]


def noisy(mean, spread, seed):
    return mean + spread * np.random.default_rng(seed).standard_normal(5)


def test_the_lowest_worst_case_wins_where_seeds_can_tell():
    flat = np.zeros(5)
    one = {"Random": flat + 0.5, "Margin": flat + 0.7, "BADGE": flat + 0.69, "BALD": flat + 0.8}
    two = {"Random": flat + 0.5, "Margin": flat + 0.4, "BADGE": flat + 0.60, "BALD": flat + 0.1}
    judged = judge({"one": one, "two": two})
    assert (judged.lowest, judged.chosen, judged.random_within) == ("BADGE", "BADGE", False)
    worst = {row["strategy"]: row["worst"] for row in judged.rows}
    assert worst == pytest.approx({"BADGE": 0.11, "Margin": 0.2, "Random": 0.3, "BALD": 0.5})


def test_within_noise_the_simplest_is_taken_and_random_is_none():
    areas = {
        name: noisy(mean, 0.05, seed)
        for seed, (name, mean) in enumerate([("BADGE", 0.705), ("Margin", 0.70), ("Random", 0.702)])
    }
    judged = judge({"one": areas, "two": areas})
    assert judged.chosen == "Margin"
    assert judged.random_within
