"""How losses are ranked that nothing was learned from: logged in validation and tests, if switched on."""

import copy
import pickle

import lightning.pytorch.callbacks as callbacks
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics.functional import spearman_corrcoef

from integration.small import FEATURES, Net, blobs, pool, quiet
from lightning_al import ActiveLearning, LearningLossMixin, LearningLossOptions, MCDropout, fit_rounds
from lightning_al import acquisition as acq
from lightning_al.functional import ranking_accuracy
from lightning_al.learning_loss.head import LossHead

ON = LearningLossOptions(log_ranking=True)
HELD_OUT = blobs(50, 2)
NAMES = ["val_loss_ranking_accuracy", "val_loss_spearman"]


def losses_of(logits, y):
    return nn.functional.cross_entropy(logits, y, reduction="none")


class Predicting(LearningLossMixin, Net):
    """The same line in every step."""

    learning_loss_layers = ("net.0", "net.2")
    learning_loss_options = ON

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.learning_loss(losses_of(self(x), y))

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx), sync_dist=True)


class Off(Predicting):
    learning_loss_options = LearningLossOptions()


class Judged(Predicting):
    """In the test, too."""

    def test_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.log("test_acc", (logits.argmax(1) == y).float().mean())
        self.learning_loss(losses_of(logits, y))


def expected_of(module, samples=HELD_OUT):
    x, y = samples.tensors
    modes = [part.training for part in module.modules()]
    with module.eval().predicting_loss(), torch.no_grad():
        losses = losses_of(module(x), y)
        predicted = module.predicted_loss(len(x))
    for part, mode in zip(module.modules(), modes, strict=True):
        part.training = mode
    return [float(ranking_accuracy(predicted, losses)), float(spearman_corrcoef(predicted, losses))]


def logged(trainer, names=NAMES):
    return [float(trainer.callback_metrics[name]) for name in names]


def fitted(module=None, val=None, **options):
    trainer = quiet(**{"max_epochs": 3, "num_sanity_val_steps": 2, **options})
    module = module or Predicting()
    val = DataLoader(HELD_OUT, 8) if val is None else val
    trainer.fit(module, DataLoader(blobs(), 8), val)
    return trainer, module


# ---------------------------------------------------------------------- the numbers


def test_in_training_what_the_head_minimises_is_logged_without_its_weight():
    expected = {}

    class Watched(Predicting):
        learning_loss_options = LearningLossOptions(log_ranking=True, weight=0.3)

        def training_step(self, batch, batch_idx):
            losses = losses_of(self(batch[0]), batch[1])
            found = self.learning_loss(losses)
            if self.trainer.training:
                ranking = (found - losses.mean()).item() / 0.3
                expected.setdefault(self.current_epoch, []).append((ranking, len(losses)))
            return found

    logged_steps = []
    steps = LambdaCallback(
        on_train_batch_end=lambda t, *_: logged_steps.append(
            float(t.callback_metrics["train_ranking_loss_step"])
        )
    )
    trainer, _ = fitted(Watched(), callbacks=[steps])
    every = [value for epoch in expected.values() for value, _ in epoch]
    assert logged_steps == pytest.approx(every, abs=1e-5)
    mean = sum(value * size for value, size in expected[2]) / sum(size for _, size in expected[2])
    assert float(trainer.callback_metrics["train_ranking_loss_epoch"]) == pytest.approx(mean, abs=1e-5)
    trainer, _ = fitted(Off())
    assert not any("train_ranking" in name for name in trainer.callback_metrics)


def test_after_every_epoch_they_are_those_of_the_whole_validation_set_and_no_other():
    """Neither of batches one by one, nor of the sanity check, nor of the epoch before."""
    found = []

    def compare(trainer, module):
        if not trainer.sanity_checking:
            found.append(logged(trainer))
            assert found[-1] == pytest.approx(expected_of(module), abs=1e-5)

    fitted(callbacks=[LambdaCallback(on_validation_end=compare)])
    assert len(found) == 3
    assert found[0] != found[2]
    assert 0.5 < found[2][0] < 1


def test_the_loss_returned_is_the_tasks_mean_as_without():
    trainer, module = fitted()
    x, y = HELD_OUT.tensors
    with torch.no_grad():
        expected = losses_of(module.eval()(x), y).mean()
    assert float(trainer.callback_metrics["val_loss"]) == pytest.approx(float(expected), abs=1e-5)


def test_switched_off_no_head_runs_and_nothing_is_kept_or_logged(monkeypatch):
    calls = []
    own = LossHead.forward
    monkeypatch.setattr(LossHead, "forward", lambda self, f: calls.append(len(f[0])) or own(self, f))
    trainer, module = fitted(Off())
    assert calls == [8] * 7 * 3 + [4] * 3 or calls == ([8] * 7 + [4]) * 3
    assert not set(NAMES) & set(trainer.callback_metrics)
    assert not module._learning_loss.ranking._metrics
    assert list(module.state_dict()) == list(fitted()[1].state_dict())


def test_in_mixed_precision_predictions_are_float32(tmp_path):
    trainer, module = fitted(precision="bf16-mixed")
    assert logged(trainer) == pytest.approx(expected_of(module), abs=0.02)
    trainer, _ = fitted(precision="64-true", max_epochs=1)
    assert 0 <= logged(trainer)[0] <= 1


def test_every_loader_has_numbers_of_its_own():
    class Two(Predicting):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.learning_loss(losses_of(self(batch[0]), batch[1]))

    other = blobs(30, 5)
    trainer, module = fitted(Two(), [DataLoader(HELD_OUT, 8), DataLoader(other, 8)])
    for place, samples in enumerate((HELD_OUT, other)):
        names = [f"{name}/dataloader_idx_{place}" for name in NAMES]
        assert logged(trainer, names) == pytest.approx(expected_of(module, samples), abs=1e-5)


def test_validations_and_tests_apart_from_a_fit():
    _, module = fitted(Judged())
    trainer = quiet()
    other = blobs(30, 5)
    for _ in range(2):
        found = trainer.validate(module, DataLoader(other, 8), verbose=False)[0]
        assert [found[name] for name in NAMES] == pytest.approx(expected_of(module, other), abs=1e-5)
    found = trainer.test(module, DataLoader(HELD_OUT, 8), verbose=False)[0]
    names = ["test_loss_ranking_accuracy", "test_loss_spearman"]
    assert [found[name] for name in names] == pytest.approx(expected_of(module), abs=1e-5)


def test_a_validation_that_was_interrupted_leaves_nothing_to_the_next_one():
    class Stopped(Predicting):
        fails = True

        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            if self.fails and batch_idx == 3:
                raise OSError("the disk is full")

    module = Stopped()
    fitted(module, num_sanity_val_steps=0, limit_val_batches=2)
    with pytest.raises(OSError, match="disk"):
        quiet().validate(module, DataLoader(blobs(50, 7), 8), verbose=False)
    module.fails = False
    found = quiet().validate(module, DataLoader(HELD_OUT, 8), verbose=False)[0]
    assert [found[name] for name in NAMES] == pytest.approx(expected_of(module), abs=1e-5)


def test_a_single_sample_has_nothing_to_be_compared_with():
    trainer, _ = fitted(val=DataLoader(blobs(1, 2), 8), max_epochs=1)
    assert torch.isnan(trainer.callback_metrics[NAMES[0]])


# ---------------------------------------------------------------------- steps of every kind


def test_a_second_pass_over_other_samples_or_after_the_line():
    class Consistent(Predicting):
        def validation_step(self, batch, batch_idx):
            x, y = batch
            self(x[:1])
            self.learning_loss(losses_of(self(x), y))
            self(x + 1)

    trainer, module = fitted(Consistent())
    assert logged(trainer) == pytest.approx(expected_of(module), abs=1e-5)

    class Twice(Predicting):
        def validation_step(self, batch, batch_idx):
            losses = losses_of(self(batch[0]), batch[1])
            self(batch[0] + 1)
            self.learning_loss(losses)

    with pytest.raises(RuntimeError, match=r"`net.0` ran 2 times on 8 samples.*right after the pass"):
        fitted(Twice())


def test_a_step_without_a_batch_index_or_of_a_base_that_knows_of_no_head():
    class Short(Predicting):
        def validation_step(self, batch):
            self.learning_loss(losses_of(self(batch[0]), batch[1]))

    class Base(Net):
        def validation_step(self, batch, batch_idx):
            self.learning_loss(losses_of(self(batch[0]), batch[1]))

    class Below(LearningLossMixin, Base):
        learning_loss_layers = ("net.0",)
        learning_loss_options = ON
        training_step = Predicting.training_step

    for module in (Short(), Below()):
        trainer, module = fitted(module)
        assert logged(trainer) == pytest.approx(expected_of(module), abs=1e-5)


def test_a_module_that_logs_metrics_of_its_own_and_is_in_training_mode():
    """Lightning looks up metrics among the module's parts, once."""
    from torchmetrics import MeanMetric

    class Own(Predicting):
        def __init__(self):
            super().__init__()
            self.mean = MeanMetric()

        def validation_step(self, batch, batch_idx):
            self.mean.update(batch[0])
            self.log("mean", self.mean)
            self.train()
            super().validation_step(batch, batch_idx)

    trainer, module = fitted(Own())
    assert logged(trainer) == pytest.approx(expected_of(module), abs=1e-5)
    assert float(trainer.callback_metrics["val_loss"]) < 10


def test_a_step_called_without_a_trainer():
    _, module = fitted()
    module = copy.deepcopy(module)
    module._trainer = None
    assert module.eval().learning_loss(torch.rand(5)).ndim == 0
    with pytest.warns(UserWarning, match="`self.trainer` reference is not registered"):
        module.validation_step(HELD_OUT[:6], 0)


# ---------------------------------------------------------------------- rounds, copies, files


@pytest.mark.parametrize("restart", ["initial", "redraw", "warm"])
def test_in_rounds_history_has_those_of_the_tests(tmp_path, restart):
    validated = []
    last = LambdaCallback(on_validation_end=lambda t, m: validated.append((logged(t), expected_of(m))))
    data = pool(tmp_path, val_set=HELD_OUT, test_set=HELD_OUT)
    active = ActiveLearning(acq.LearningLoss(), query_size=8, restart=restart)
    module = Judged()
    options = {"callbacks": [last], "num_sanity_val_steps": 0}
    history = fit_rounds(module, lambda r: quiet(**options), data, active, rounds=1)
    assert len(validated) == 4
    for found, expected in validated:
        assert found == pytest.approx(expected, abs=1e-5)
    rows = [history.column(f"test_loss_{name}") for name in ("ranking_accuracy", "spearman")]
    assert [rows[0][1], rows[1][1]] == pytest.approx(expected_of(module), abs=1e-5)
    assert rows[0][0] != rows[0][1]


def test_a_test_of_the_mean_of_passes_has_no_prediction_to_compare(tmp_path):
    class Dropping(Judged):
        def __init__(self):
            super().__init__(dropout=0.3)

    data = pool(tmp_path, val_set=HELD_OUT, test_set=HELD_OUT)
    active = ActiveLearning(acq.LearningLoss(), query_size=8, test_posterior=MCDropout(3))
    history = fit_rounds(Dropping(), lambda r: quiet(), data, active, rounds=1)
    assert 0 <= history.column("test_acc")[0] <= 1
    assert "test_loss_spearman" not in history.rows[0]


def test_averaged_weights_are_what_is_ranked_by(tmp_path):
    if not hasattr(callbacks, "EMAWeightAveraging"):
        pytest.skip("Lightning 2.6 has it")
    module, expected, found = Judged(), [], []
    watch = LambdaCallback(
        on_validation_epoch_end=lambda t, m: expected.append(expected_of(m)),
        on_validation_end=lambda t, m: found.append(logged(t)),
    )

    def trainer(number):
        averaging = callbacks.EMAWeightAveraging(decay=0.5)
        return quiet(callbacks=[watch, averaging], num_sanity_val_steps=0)

    data = pool(tmp_path, val_set=HELD_OUT, test_set=HELD_OUT)
    active = ActiveLearning(acq.LearningLoss(), query_size=8)
    with pytest.warns(UserWarning, match="overrides the configure_model"):
        history = fit_rounds(module, trainer, data, active, rounds=1)
    tested = history.column("test_loss_ranking_accuracy")[1]
    assert tested == pytest.approx(expected_of(module)[0], abs=1e-5)
    assert len(found) == 4
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
def test_checkpoints_are_the_same_with_and_without(tmp_path):
    for number, (first, second) in enumerate(
        ((Predicting, Off), (Off, Predicting), (Predicting, Predicting))
    ):
        checkpoint = ModelCheckpoint(tmp_path / str(number))
        fitted(first(), callbacks=[checkpoint], enable_checkpointing=True)
        assert not any("ranking" in name for name in torch.load(checkpoint.best_model_path)["state_dict"])
        again = second.load_from_checkpoint(checkpoint.best_model_path)
        trainer = quiet(max_epochs=5)
        trainer.fit(
            again, DataLoader(blobs(), 8), DataLoader(HELD_OUT, 8), ckpt_path=checkpoint.best_model_path
        )
        assert trainer.current_epoch == 5
        if second is Predicting:
            assert logged(trainer) == pytest.approx(expected_of(again), abs=1e-5)


def test_a_copy_and_a_pickle_have_numbers_of_their_own():
    _, module = fitted()
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module.cpu()))):
        trainer, other = fitted(other, max_epochs=1)
        assert logged(trainer) == pytest.approx(expected_of(other), abs=1e-5)


def test_they_can_be_monitored(tmp_path):
    best = ModelCheckpoint(tmp_path, monitor=NAMES[0], mode="max")
    stop = EarlyStopping(NAMES[1], mode="max", patience=1)
    fitted(callbacks=[best, stop], enable_checkpointing=True, max_epochs=4)
    assert float(best.best_model_score) > 0.5


# ---------------------------------------------------------------------- bad input


def test_a_validation_step_that_never_calls_it_is_noticed_in_the_sanity_check():
    class Forgetful(Predicting):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", losses_of(self(batch[0]), batch[1]).mean())

    with pytest.raises(RuntimeError, match=r"`Forgetful.validation_step` never called.*Call .*there too"):
        fitted(Forgetful())

    class Sometimes(Forgetful):
        def validation_step(self, batch, batch_idx):
            return (Predicting if batch_idx else Forgetful).validation_step(self, batch, batch_idx)

    fitted(Sometimes())


def test_losses_in_validation_that_do_not_fit():
    class Wrong(Predicting):
        def validation_step(self, batch, batch_idx):
            losses = losses_of(self(batch[0]), batch[1])
            self.learning_loss(losses * float("nan") if batch_idx else losses[1:])

    with pytest.raises(ValueError, match=r"losses of 7 samples, but `net.0` gave features of \[8\] samples"):
        fitted(Wrong())

    class Never(Predicting):
        def validation_step(self, batch, batch_idx):
            self.learning_loss(losses_of(self(batch[0]), batch[1]) * float("nan"))

    with pytest.raises(ValueError, match=r"given NaN for rows \[0, 1, 2, 3, 4\] of a batch of 8"):
        fitted(Never())


def test_a_module_without_a_head_cannot_be_validated():
    with pytest.raises(RuntimeError, match=r"`Predicting` has no `loss_head` yet"):
        quiet().validate(Predicting(), DataLoader(HELD_OUT, 8), verbose=False)
    module = Predicting()
    module.example_input_array = torch.zeros(1, FEATURES)
    assert quiet().validate(module, DataLoader(HELD_OUT, 8), verbose=False)
