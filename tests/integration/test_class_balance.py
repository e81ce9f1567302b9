"""Mode collapse is warned of once a round, by whom and with whatever labels, and mended."""

import csv
import math
import re
import warnings

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, Dataset, TensorDataset

from integration.small import CLASSES, Net, blobs, pool, quiet
from lightning_al import ActiveDataModule, ActiveLearning, ClassBalance, Committee, History, fit_rounds
from lightning_al import acquisition as acq


class Favours(acq.ScoreAcquisition):
    """Falls for class 0, and there for what the model is surest of."""

    needs = ("logits",)

    def score(self, outputs):
        return outputs.logits.amax(1) + 100 * (outputs.logits.argmax(1) == 0)


class Patient(Net):
    """Learns the clouds."""

    def __init__(self):
        super().__init__(lr=0.1)


def collapsing(base=None, **options):
    return ActiveLearning(base or Favours(), query_size=12, **options)


def watched(data, *, active=None, rounds=2, model=None, **options):
    """History, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = fit_rounds(
            model or (lambda seed: Patient()),
            lambda r: quiet(max_epochs=8, callbacks=[ClassBalance(**options)]),
            data, active or collapsing(), rounds=rounds,
        )  # fmt: skip
    return history, [str(w.message) for w in caught if "Mode collapse" in str(w.message)]


@pytest.mark.parametrize("reference", ["initial", "dataset", [1, 1, 1], {0: 1, 1: 1, 2: 1}], ids=str)
def test_a_collapse_is_warned_of_once_a_round_with_the_test_and_the_starved(tmp_path, reference):
    data = pool(tmp_path, size=240, initial=24)
    history, said = watched(data, reference=reference)
    assert len(said) == 2
    for number, text in enumerate(said, start=1):
        assert f"the 12 labels of query {number} fall on few classes" in text
        assert "Monte Carlo test, 9,999 draws" in text
        assert "p = " in text
        assert "below 0.01" in text
        assert "1 (" in text
        assert "`acq.ClassBalanced(...)`" in text
    entropies, ps = history.column("acquired_entropy"), history.column("balance_p")
    assert math.isnan(entropies[0])
    assert all(value < 0.5 for value in entropies[1:])
    assert all(value < 0.01 for value in ps[1:])
    assert History.of(data).column("balance_p")[1:] == ps[1:]
    with (tmp_path / "history.csv").open(newline="") as file:
        assert [row["balance_p"] for row in csv.DictReader(file)][1:] == [str(p) for p in ps[1:]]


def test_it_is_mended_by_the_wrapper_and_random_draws_are_no_collapse(tmp_path):
    for base in (acq.ClassBalanced(Favours()), acq.Random()):
        data = pool(tmp_path / type(base).__name__, size=240, initial=24)
        history, said = watched(data, active=collapsing(base))
        assert said == []
        assert all(value > 0.7 for value in history.column("acquired_entropy")[1:])


def test_a_run_that_is_repeated_finds_the_same_and_one_that_is_finished_says_nothing(tmp_path):
    first, _ = watched(pool(tmp_path / "a", size=240, initial=24))
    second, _ = watched(pool(tmp_path / "b", size=240, initial=24))
    assert first.column("balance_p")[1:] == second.column("balance_p")[1:]
    again, said = watched(pool(tmp_path / "b", size=240, initial=24))
    assert said == []
    assert list(again) == list(second)


def test_a_window_judges_several_queries_together(tmp_path):
    data = pool(tmp_path, size=240, initial=24)
    active = ActiveLearning(Favours(), query_size=2)
    alone, said = watched(data, active=active, rounds=6)
    assert said == []
    data = pool(tmp_path / "b", size=240, initial=24)
    _, said = watched(data, active=active, rounds=6, window=6)
    assert any("the 12 labels of queries 1 to 6" in text for text in said)
    assert min(alone.column("balance_p")[1:]) > 0.01


def test_repeated_fits_of_one_trainer(tmp_path):
    data, watch = pool(tmp_path, size=240, initial=24), ClassBalance()
    trainer = quiet(max_epochs=8, callbacks=[collapsing(), watch])
    module = Patient()
    trainer.fit(module, datamodule=data)
    assert watch.row == {}
    watch.window = 3  # of which there is one
    with pytest.warns(UserWarning, match="labels of query 1 fall on few classes"):
        trainer.fit(module, datamodule=data)
    assert set(watch.row) == {"acquired_entropy", "balance_p"}
    assert watch.balance.acquired.sum() == 12
    assert [("balance_p" in row) for row in History.of(data)] == [False, True]


def test_a_committee_is_warned_of_once(tmp_path):
    """Each member's fit begins with the same labels."""
    active = collapsing(acq.ClassBalanced(acq.VoteEntropy(Committee(2)), shares=[1, 0, 0]))
    history, said = watched(pool(tmp_path, size=240, initial=24), active=active, rounds=1)
    assert len(said) == 1
    assert history.column("balance_p")[1] < 0.01


class Animals(Dataset):
    """Blobs whose classes are words, for people to give."""

    def __init__(self, size=240):
        self.x, self.y = blobs(size).tensors

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return (self.x[index],)


WORDS = ["ape", "bee", "cat"]


class Worded(Patient):
    def training_step(self, batch, batch_idx):
        x, words = batch
        y = torch.tensor([WORDS.index(word) for word in words])
        return torch.nn.functional.cross_entropy(self(x), y)


@pytest.mark.parametrize("by_name", [True, False])
def test_people_and_classes_that_are_words(tmp_path, by_name):
    samples = Animals()

    def data():
        options = {"class_names": WORDS} if by_name else {}
        return ActiveDataModule(
            samples, initial=24, oracle="people", batch_size=4, state_dir=tmp_path, **options
        )

    def answer():
        one = data()
        asked = one.asked_indices
        one.label(asked, [WORDS[int(samples.y[i])] for i in asked])

    model = (lambda seed: Patient()) if by_name else (lambda seed: Worded())
    watched(data(), model=model)
    for _ in range(2):
        answer()
        _, said = watched(data(), model=model, reference={"ape": 1, "bee": 1, "cat": 1})
    assert len(said) == 1
    assert "bee (" in said[0]
    assert "query 1" in said[0]


class Numbers(Net):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.mse_loss(self(x)[:, 0], y.reshape(len(x), -1)[:, 0].float())


@pytest.mark.parametrize("kind", ["numbers", "several"])
@pytest.mark.parametrize("reference", ["initial", "dataset", [1, 1]], ids=str)
def test_labels_that_are_no_classes_are_not_watched_which_is_said_once(
    tmp_path, kind, reference, capsys, caplog
):
    x, y = blobs().tensors
    target = y.float() + 0.5 if kind == "numbers" else torch.nn.functional.one_hot(y, CLASSES)
    data = pool(tmp_path)
    data = ActiveDataModule(TensorDataset(x, target), initial=12, batch_size=4, state_dir=tmp_path)
    active = ActiveLearning(acq.Random(), query_size=8)
    caplog.set_level("INFO")
    history, said = watched(
        data, active=active, model=lambda seed: Numbers(), reference=reference
    )  # fmt: skip
    assert said == []
    assert "balance_p" not in history.columns
    assert caplog.text.count("no single classes") == 1


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ({"initial": range(12)}, "given by indices"),
        ({"initial_balanced": True}, "drawn class by class"),
        ({"initial": 0, "unlabeled_set": blobs(30, 5)}, "all of `train_set`"),
    ],
)
def test_an_initial_set_that_says_nothing_of_the_pool_is_refused_before_the_training(tmp_path, options, how):
    data = pool(tmp_path, **options)
    words = rf"needs an initial set that was drawn at random.*{how}.*Pass the shares"
    with pytest.raises(MisconfigurationException, match=words):
        quiet(callbacks=[ClassBalance()]).fit(Net(), datamodule=data)
    quiet(callbacks=[ClassBalance(reference=[1, 1, 1])]).fit(Net(), datamodule=data)


def test_what_people_are_asked_for_is_not_known_of_the_data_set(tmp_path):
    data = pool(tmp_path, oracle="people")
    with pytest.raises(MisconfigurationException, match=r"`oracle` is 'people': they are not known yet"):
        ClassBalance(reference="dataset").setup(_TrainerOf(data), None, "fit")


class _TrainerOf:
    def __init__(self, data):
        self.datamodule = data


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reference": "pool"}, r"`reference` is 'pool'; needed is \"initial\""),
        ({"reference": [0, 0]}, r"needed are shares of the classes"),
        ({"reference": {"a": -1}}, r"needed are shares of the classes"),
        (
            {"reference": 5},
            r"`reference` is 5; needed are shares of the classes.*`\{\"cat\": 2, \"dog\": 1\}`",
        ),
        ({"reference": {"a": "b"}}, r"`reference` is \{'a': 'b'\}; needed are shares of the classes"),
        ({"reference": None}, r"`reference` is None; needed are shares of the classes"),
        ({"reference": []}, r"`reference` is \[\]; needed are shares of the classes"),
        ({"reference": [1, float("nan")]}, r"needed are shares of the classes"),
        ({"level": 0}, r"`level` is 0; needed is the share of false alarms"),
        ({"draws": 50}, r"nothing would ever be warned of. Give 100 draws or more"),
        ({"window": 0}, r"`window`"),
    ],
)
def test_bad_arguments(options, words):
    with pytest.raises(ValueError, match=words):
        ClassBalance(**options)


@pytest.mark.parametrize(
    ("reference", "names", "wrong", "known"),
    [
        ({"cat": 1, "dog": 2}, None, "['cat', 'dog']", "[0, 1, 2]"),
        ({0: 1, "1": 2}, None, "['1']", "[0, 1, 2]"),
        ({"ape": 1, "dog": 2}, WORDS, "['dog']", str(WORDS)),
        ({0: 1, 3: 2}, WORDS, "[3]", str(WORDS)),
        ([1, 1, 1, 1], WORDS, "[3]", str(WORDS)),
        ({True: 1}, None, "[True]", "[0, 1, 2]"),
        ({-1: 1, 0: 1}, None, "[-1]", "[0, 1, 2]"),
        ({0.5: 1}, WORDS, "[0.5]", str(WORDS)),
    ],
    ids=str,
)
def test_shares_of_what_is_no_class_are_refused_before_the_training(tmp_path, reference, names, wrong, known):
    """Nothing would be expected of the classes that there are, and p would be 1 for ever."""
    data, module = pool(tmp_path, class_names=names), Patient()
    before = module.net[0].weight.clone()
    words = re.escape(f"has shares of {wrong}, but the classes of the labels are {known}; needed are")
    with pytest.raises(MisconfigurationException, match=words):
        quiet(callbacks=[ClassBalance(reference=reference)]).fit(module, datamodule=data)
    assert torch.equal(module.net[0].weight, before)


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize(
    "reference", [{"ape": 1, "bee": 1, "cat": 1}, [1, 1, 1], {0: 1, "bee": 1, 2: 1}], ids=str
)
def test_shares_by_name_and_by_number_mean_the_same_whatever_the_labels_are(tmp_path, text, reference):
    x, y = blobs(240).tensors
    target = [WORDS[i] for i in y.tolist()] if text else y
    samples = list(zip(x, target, strict=True))
    data = ActiveDataModule(samples, initial=24, batch_size=4, state_dir=tmp_path, class_names=WORDS)
    model = (lambda seed: Worded()) if text else (lambda seed: Patient())
    history, said = watched(data, rounds=1, model=model, reference=reference)
    assert len(said) == 1
    assert "bee (" in said[0]
    assert "ape (0" not in said[0]  # no class is counted twice, by its name and by its number
    assert history.column("balance_p")[1] < 0.01


def test_words_of_which_none_was_ever_a_label_are_refused_once_there_are_labels(tmp_path):
    samples = Animals()
    watch = ClassBalance(reference={"dog": 1, "eel": 1})
    data = ActiveDataModule(samples, initial=24, oracle="people", batch_size=4, state_dir=tmp_path)
    watch.setup(_TrainerOf(data), None, "fit")
    asked = data.asked_indices
    data.label(asked, [WORDS[int(samples.y[i])] for i in asked])
    with pytest.raises(
        MisconfigurationException, match=r"has shares of \['dog', 'eel'\], but the classes of"
    ):
        watch.setup(_TrainerOf(data), None, "fit")
    ClassBalance(reference={"ape": 1, "eel": 1}).setup(_TrainerOf(data), None, "fit")


def test_a_fit_without_the_data_module_is_refused_in_its_own_name():
    loader = DataLoader(blobs(), batch_size=4)
    with pytest.raises(MisconfigurationException, match=(
        r"^`ClassBalance` watches the labels.*plain data loaders.*or leave `ClassBalance` out"
    )):  # fmt: skip
        quiet(callbacks=[ClassBalance()]).fit(Net(), loader)


def test_generators_are_left_alone(tmp_path):
    """A run that is watched asks as one that is not."""
    asked = []
    for callbacks in ([], [ClassBalance(reference="dataset")]):
        data = pool(tmp_path / str(len(callbacks)), size=240, initial=24)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit_rounds(
                lambda seed: Patient(),
                lambda r, c=callbacks: quiet(callbacks=list(c)),
                data,
                collapsing(),
                rounds=2,
            )
        asked.append(data.labeled_indices.tolist())
    assert asked[0] == asked[1]
    assert isinstance(ClassBalance(), L.Callback)
