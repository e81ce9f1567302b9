"""Learning Loss in fits and rounds: the head is made, trained, reset, copied, saved, and asked by."""

import lightning as L
import lightning.pytorch.callbacks as callbacks
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, IterableDataset

from integration.small import CLASSES, FEATURES, Net, blobs, pool, quiet
from lightning_al import (
    ActiveDataModule,
    ActiveLearning,
    Committee,
    LearningLossMixin,
    LearningLossOptions,
    fit_rounds,
    query,
)
from lightning_al import acquisition as acq
from lightning_al.learning_loss.head import LossHead


def losses_of(logits, y):
    return nn.functional.cross_entropy(logits, y, reduction="none")


class Predicting(LearningLossMixin, Net):
    """Neither its optimizer nor its forward knows of the head."""

    learning_loss_layers = ("net.0", "net.2")

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.learning_loss(losses_of(self(x), y))


def asking(acquisition=None, **options):
    return ActiveLearning(acquisition or acq.LearningLoss(), **{"query_size": 8, **options})


def fitted(module=None, data=None, **options):
    module = module or Predicting()
    quiet(**options).fit(module, DataLoader(blobs(), 8) if data is None else data)
    return module


def head_of(module):
    return torch.cat([p.detach().flatten().clone() for p in module.loss_head.parameters()])


# ---------------------------------------------------------------------- asking


@pytest.mark.parametrize(
    ("acquisition", "options"),
    [
        (acq.LearningLoss(), {}),
        (acq.LearningLoss(), {"candidates": 20}),
        (acq.PowerSampling(acq.LearningLoss(), form="softrank"), {}),
        (acq.TwoStage(acq.LearningLoss(), acq.Margin(), 15), {}),
    ],
    ids=["top", "candidates", "softrank", "two stages"],
)
def test_rounds_of_every_form(tmp_path, acquisition, options):
    history = fit_rounds(
        Predicting(), lambda r: quiet(), pool(tmp_path), asking(acquisition, **options), rounds=2
    )
    assert history.column("labeled") == [12, 20, 28]


def test_the_highest_predictions_are_asked_for_whatever_the_batch(tmp_path):
    module = fitted(Predicting(batch_norm=True, dropout=0.3))
    data = pool(tmp_path)
    module.eval()
    with torch.no_grad(), module.predicting_loss():
        module(torch.stack([data.samples.all[i][0] for i in data.pool_indices]))
        expected = module.predicted_loss(len(data.pool_indices))
    found = query(module, data, acq.LearningLoss(), 5)
    best = expected.argsort(descending=True)[:5]
    assert found.indices.tolist() == data.pool_indices[best.numpy()].tolist()
    assert np.allclose(found.scores, expected[best], atol=1e-5)
    assert not module.training


def test_the_head_is_called_for_its_predictions_only(tmp_path, monkeypatch):
    calls = []
    own = LossHead.forward
    monkeypatch.setattr(LossHead, "forward", lambda self, f: calls.append(len(f[0])) or own(self, f))

    class Validated(Predicting):
        def validation_step(self, batch, batch_idx):
            x, y = batch
            self.log("val_loss", self.learning_loss(losses_of(self(x), y)), sync_dist=True)

    module = Validated()
    data = pool(tmp_path, val_set=blobs(9, 2), test_set=blobs(9, 3))
    trainer = quiet(max_epochs=1, callbacks=[asking(acq.Margin())])
    trainer.fit(module, datamodule=data)
    assert calls == [4, 4, 4]
    assert trainer.test(module, datamodule=data, verbose=False)[0]["test_acc"] <= 1
    trainer.predict(module, torch.zeros(4, FEATURES))
    query(module, data, acq.Entropy(), 3)
    assert calls == [4, 4, 4]
    query(module, data, acq.LearningLoss(), 3)
    assert sum(calls[3:]) == 40


class Detector(LearningLossMixin, L.LightningModule):
    """Its outputs are no logits at all."""

    learning_loss_layers = ("backbone",)

    def __init__(self):
        super().__init__()
        self.backbone, self.boxes = nn.Linear(FEATURES, 6), nn.Linear(6, 4)

    def forward(self, x):
        return [{"boxes": row} for row in self.boxes(self.backbone(x).relu())]

    def training_step(self, batch, batch_idx):
        boxes = torch.stack([found["boxes"] for found in self(batch[0])])
        return self.learning_loss((boxes - batch[0]).abs().mean(1))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_model_whose_outputs_are_no_logits(tmp_path):
    history = fit_rounds(Detector(), lambda r: quiet(), pool(tmp_path), asking(), rounds=1)
    assert history.column("asked") == [8, 0]


def test_the_loss_head_is_not_taken_for_the_classifier(tmp_path):
    """Not even where it gives what the classifier gives, a single logit."""

    class Single(LearningLossMixin, L.LightningModule):
        learning_loss_layers = ("first",)

        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(FEATURES, 128), nn.Linear(128, 1)
            self.example_input_array = torch.zeros(1, FEATURES)

        def forward(self, x):
            return self.last(self.first(x).relu())

    class Both(acq.ScoreAcquisition):
        needs = ("logits", "embeddings", "classifier", "predicted_loss")

        def score(self, outputs):
            weight, bias = outputs.classifier
            assert weight.shape == (1, 128)
            assert torch.equal(outputs.logits.squeeze(1), outputs.predicted_loss)
            assert torch.allclose(outputs.embeddings @ weight.T + bias, outputs.logits, atol=1e-5)
            return outputs.embeddings.sum(1)

    module = Single()
    module.configure_model()
    with torch.no_grad():
        module.loss_head.branches[0].weight.copy_(torch.eye(128))
        module.loss_head.branches[0].bias.zero_()
        module.loss_head.out.weight.copy_(module.last.weight)
        module.loss_head.out.bias.copy_(module.last.bias)
        module.loss_head.learned.fill_(True)
    query(module, pool(tmp_path), Both(), 3)


def test_a_committee_asks_by_its_last_members_head(tmp_path):
    strategy = acq.TwoStage(acq.LearningLoss(), acq.BALD(Committee(2)), 10)
    history = fit_rounds(Predicting(), lambda r: quiet(), pool(tmp_path), asking(strategy), rounds=1)
    assert history.column("asked") == [8, 0]


# ---------------------------------------------------------------------- training


def test_the_head_learns_with_an_optimizer_that_does_not_know_of_it():
    class Watched(Predicting):
        def on_train_start(self):
            self.begun = head_of(self)

    module = fitted(Watched())
    assert not torch.equal(head_of(module), module.begun)


def test_an_optimizer_without_the_head_is_an_error():
    class Half(Predicting):
        def configure_optimizers(self):
            return torch.optim.SGD(self.net.parameters(), 0.1)

    with pytest.raises(RuntimeError, match=r"No optimizer of `Half` has .*`self.loss_head`.*`self.param"):
        fitted(Half())

    class Two(Half):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            for optimizer in self.optimizers():
                optimizer.step()

        def configure_optimizers(self):
            own = torch.optim.Adam(self.loss_head.parameters())
            return [super().configure_optimizers(), own]

    fitted(Two())

    class Parts(Predicting):
        def configure_optimizers(self):
            parameters = [*self.net.parameters(), *self.loss_head.branches.parameters()]
            return torch.optim.SGD(parameters, 0.1)

    with pytest.raises(RuntimeError, match=r"No optimizer of `Parts` has \['out.weight', 'out.bias'\] of"):
        fitted(Parts())


def test_a_training_step_that_never_calls_it_is_noticed_in_the_first_epoch():
    steps = []

    class Forgetful(Predicting):
        def training_step(self, batch, batch_idx):
            steps.append(batch_idx)
            return Net.training_step(self, batch, batch_idx)

    with pytest.raises(RuntimeError, match=r"`Forgetful.training_step` never called.*Return `self.learn"):
        fitted(Forgetful())
    assert len(steps) == 8

    class Sometimes(Predicting):
        def training_step(self, batch, batch_idx):
            return Net.training_step(self, batch, batch_idx) if batch_idx else super().training_step(batch, 0)

    fitted(Sometimes())


class Manual(Predicting):
    """Steps by itself, and returns nothing."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss_of(batch))
        optimizer.step()

    def loss_of(self, batch):
        return self.learning_loss(losses_of(self(batch[0]), batch[1]))


class Forgetful(Predicting):
    def training_step(self, batch, batch_idx):
        return Net.training_step(self, batch, batch_idx)


class ManualForgetful(Manual):
    def loss_of(self, batch):
        return losses_of(self(batch[0]), batch[1]).mean()


@pytest.mark.parametrize(
    ("kind", "limits"), [(ManualForgetful, {}), (Forgetful, {"max_epochs": -1, "max_steps": 3})]
)
def test_a_head_that_is_never_taught_is_noticed_before_any_query(tmp_path, kind, limits):
    """With manual optimisation, and where a fit ends within its first epoch; in every fit anew."""
    with pytest.raises(RuntimeError, match="training_step` never called"):
        fitted(kind(), **limits)
    data = pool(tmp_path)
    with pytest.raises(RuntimeError, match="training_step` never called"):
        quiet(callbacks=[asking()], **limits).fit(kind(), datamodule=data)
    assert len(data.labeled_indices) == 12
    module = fitted(Manual())
    module.__class__ = kind
    if kind is Forgetful:
        module.automatic_optimization = True
    with pytest.raises(RuntimeError, match="training_step` never called"):
        fitted(module, **limits)


def test_hooks_of_ones_own_do_not_switch_the_check_off():
    class Own(Forgetful):
        def on_train_start(self):
            pass

        def on_train_epoch_end(self):
            pass

    with pytest.raises(RuntimeError, match="training_step` never called"):
        fitted(Own(), max_epochs=-1, max_steps=3)


class Wasteful(Predicting):
    """Throws away what it is given."""

    def training_step(self, batch, batch_idx):
        losses = losses_of(self(batch[0]), batch[1])
        self.learning_loss(losses)
        return losses.mean()


class ManualWasteful(Manual):
    def loss_of(self, batch):
        losses = losses_of(self(batch[0]), batch[1])
        self.learning_loss(losses)
        return losses.mean()


@pytest.mark.parametrize("kind", [Wasteful, ManualWasteful])
def test_a_result_that_is_thrown_away_is_noticed_before_any_query(tmp_path, kind):
    words = rf"`{kind.__name__}.training_step` called .* never reached `backward`.*Return it from .*manual_"
    module = kind()
    with pytest.raises(RuntimeError, match=words):
        fitted(module)
    assert not module.loss_head.learned
    data = pool(tmp_path)
    with pytest.raises(RuntimeError, match=words):
        quiet(callbacks=[asking()], max_epochs=-1, max_steps=3).fit(kind(), datamodule=data)
    assert len(data.labeled_indices) == 12


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("options", [{}, {"weight": 0.0}, {"detach_after": 0}, {"objective": "mse"}])
def test_a_result_that_reaches_backward_is_seen_in_fits_of_every_kind(options, precision):
    for kind in (Predicting, Manual):
        module = kind()
        module.learning_loss_options = LearningLossOptions(**options)
        accumulation = {} if kind is Manual else {"accumulate_grad_batches": 2}
        fitted(module, precision=precision, **accumulation)
        assert bool(module.loss_head.learned) == bool(options.get("weight", 1))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_result_that_reaches_backward_is_seen_where_layers_are_compiled():
    torch._dynamo.reset()
    module = Predicting()
    module.net.compile(backend="aot_eager")
    assert fitted(module).loss_head.learned
    torch._dynamo.reset()


def test_micro_batches_with_checkpoints_of_activations():
    """What they compute again in `backward` is no pass of its own."""
    found = []

    class Micro(Manual):
        checkpoints = True

        def forward(self, x):
            return checkpoint(self.net, x, use_reentrant=False) if self.checkpoints else self.net(x)

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            for x, y in zip(batch[0].chunk(2), batch[1].chunk(2), strict=True):
                self.manual_backward(self.loss_of((x, y)))
            optimizer.step()

    for Micro.checkpoints in (True, False):
        torch.manual_seed(0)
        found.append(head_of(fitted(Micro())))
    assert torch.allclose(*found, atol=1e-6)


def test_a_head_that_is_frozen_has_learned_nothing():
    class Frozen(Predicting):
        def on_train_start(self):
            self.loss_head.requires_grad_(False)

    assert not fitted(Frozen()).loss_head.learned


def test_steps_that_are_all_skipped_are_no_mistake():
    class Skipping(Predicting):
        def training_step(self, batch, batch_idx):
            return None

    class Late(Predicting):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)

    with pytest.warns(UserWarning, match="`training_step` returned `None`"):
        fitted(Skipping(), max_epochs=1)
    assert not fitted(Late(), max_epochs=1).loss_head.learned


@pytest.mark.filterwarnings("ignore:Found . module.s. in eval mode")
def test_a_module_in_eval_mode_teaches_its_head_in_a_fit():
    """The Trainer keeps the mode."""
    module = Predicting().eval()
    fitted(module)
    assert not module.training
    assert module.loss_head.learned
    before = head_of(module)
    fitted(module)
    assert not torch.equal(head_of(module), before)


def test_a_head_that_never_learned_says_so_when_it_is_asked(tmp_path):
    module = Predicting()
    module.example_input_array = torch.zeros(2, FEATURES)
    module.configure_model()
    with pytest.warns(
        UserWarning, match="`loss_head` of `Predicting` has learned nothing yet.*Fit the module"
    ):
        query(module, pool(tmp_path), acq.LearningLoss(), 3)
    fitted(module)
    query(module, pool(tmp_path), acq.LearningLoss(), 3)
    again = Predicting()
    again.load_state_dict(module.state_dict())
    query(again, pool(tmp_path), acq.LearningLoss(), 3)


def test_weights_of_a_version_that_did_not_say_whether_it_learned():
    state = fitted().state_dict()
    del state["loss_head.learned"]
    for module in (Predicting(), fitted()):
        module.load_state_dict(state)
        assert module.loss_head.learned


@pytest.mark.parametrize("learned", [False, True])
def test_weights_of_a_version_that_said_it_by_a_bool(learned):
    state = fitted().state_dict()
    state["loss_head.learned"] = torch.tensor(learned)
    for module in (Predicting(), fitted()):
        module.load_state_dict(state)
        assert bool(module.loss_head.learned) is learned
        assert module.loss_head.learned.is_floating_point()


def test_batches_of_one_sample_teach_nothing_and_are_told_of_once():
    with pytest.warns(UserWarning, match="All batches of `Predicting` had one sample.*two or more") as told:
        module = fitted(data=DataLoader(blobs(6), 1))
    assert sum("had one sample" in str(one.message) for one in told) == 1
    assert not module.loss_head.learned


@pytest.mark.parametrize("pairing", ["flip", "random"])
def test_a_head_that_only_looks_changes_nothing_of_the_module(pairing):
    """To the last bit, with dropout and shuffled batches: nothing is drawn that it would have drawn."""
    found = []
    for kind in (Net, Predicting):
        torch.manual_seed(0)
        module = kind(dropout=0.5)
        module.learning_loss_options = LearningLossOptions(detach_after=0, pairing=pairing)
        quiet(max_epochs=3).fit(module, DataLoader(blobs(), 8, shuffle=True))
        found.append(torch.cat([p.detach().flatten() for p in module.net.parameters()]))
    assert torch.equal(*found)


def test_random_pairs_are_the_same_for_the_same_seed():
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        module = Predicting()
        module.learning_loss_options = LearningLossOptions(pairing="random")
        module.example_input_array = torch.zeros(2, FEATURES)
        module.configure_model()
        torch.manual_seed(seed)
        heads.append(head_of(fitted(module)))
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize("objective", ["hinge", "smooth", "mse"])
def test_an_infinite_loss_leaves_finite_weights(objective):
    class Burst(Predicting):
        def training_step(self, batch, batch_idx):
            losses = losses_of(self(batch[0]), batch[1])
            burst = torch.ones(len(losses))
            burst[0] = float("inf")
            return self.learning_loss(losses * burst, losses.mean())

    module = Burst()
    module.learning_loss_options = LearningLossOptions(objective=objective)
    begun = head_of(fitted(module))
    assert bool(begun.isfinite().all())
    assert all(bool(p.isfinite().all()) for p in module.parameters())


def test_a_fit_in_bf16_with_accumulation_ranks_in_float32(tmp_path):
    found = []

    class Watched(Predicting):
        def learning_loss(self, losses, task_loss=None):
            loss = super().learning_loss(losses, task_loss)
            found.append((self(torch.zeros(2, FEATURES)).dtype, losses.dtype, loss.dtype))
            return loss

    options = {"precision": "bf16-mixed", "accumulate_grad_batches": 2}
    active = asking()
    trainer = quiet(callbacks=[active], **options)
    module = Watched()
    trainer.fit(module, datamodule=pool(tmp_path))
    assert {kinds[0] for kinds in found} == {torch.bfloat16}
    assert {kinds[2] for kinds in found} == {torch.float32}
    scores = active.last_query.scores
    assert any(score != float(torch.tensor(score).bfloat16()) for score in scores)
    assert module.loss_head.out.weight.dtype == torch.float32


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_fits_in_other_precisions(tmp_path, precision):
    history = fit_rounds(
        Predicting(), lambda r: quiet(precision=precision), pool(tmp_path), asking(), rounds=1
    )
    assert history.column("asked") == [8, 0]


@pytest.mark.parametrize(
    ("after", "limits", "expected"),
    [
        (0.5, {"max_epochs": 4}, [True, True, False, False]),
        (3, {"max_epochs": 4}, [True, True, True, False]),
        (0.5, {"max_epochs": -1, "max_steps": 12}, [True, True, False, False]),
        (0.5, {"max_epochs": 100, "max_steps": 12}, [True, True, False, False]),
        (0.5, {"max_epochs": 4, "max_steps": 1200}, [True, True, False, False]),
    ],
)
def test_after_a_share_of_the_round_the_head_stops_shaping_the_module(tmp_path, after, limits, expected):
    """In every round anew."""
    shaped = {}

    class Watched(Predicting):
        def training_step(self, batch, batch_idx):
            x, y = batch
            found = self.learning_loss(losses_of(self(x), y), torch.zeros((), requires_grad=True))
            grad = torch.autograd.grad(found, self.net[0].weight, allow_unused=True, retain_graph=True)[0]
            shaped.setdefault(self.round, {})[self.current_epoch] = grad is not None
            return found + losses_of(self(x), y).mean()

    module = Watched()
    module.learning_loss_options = LearningLossOptions(detach_after=after)
    data = pool(tmp_path, steps_per_epoch=3)
    trainer = quiet(callbacks=[asking()], **limits)
    for module.round in range(2):
        trainer.fit(module, datamodule=data)
    assert [list(epochs.values()) for epochs in shaped.values()] == [expected, expected]


def test_a_share_of_a_fit_without_an_end_is_an_error():
    module = Predicting()
    module.learning_loss_options = LearningLossOptions(detach_after=0.5)
    with pytest.raises(RuntimeError, match=r"share of the fit, but the Trainer has no end.*name an epoch"):
        fitted(module, max_epochs=-1)


AVERAGINGS = {
    "mean": lambda: callbacks.WeightAveraging(),
    "mean of parameters": lambda: callbacks.WeightAveraging(use_buffers=False),
    "exponential": lambda: callbacks.EMAWeightAveraging(),
    "own": lambda: callbacks.WeightAveraging(avg_fn=lambda a, b, n: a + (b - a) / (n + 1)),
}


@pytest.mark.filterwarnings("ignore:.*overrides the configure_model:UserWarning")
@pytest.mark.parametrize("way", AVERAGINGS)
def test_weights_may_be_averaged_in_every_way(tmp_path, way):
    if not hasattr(callbacks, "WeightAveraging"):
        pytest.skip("Lightning 2.6 has it")
    module = Predicting(batch_norm=True)
    trainers = lambda number: quiet(callbacks=[AVERAGINGS[way]()])  # noqa: E731
    history = fit_rounds(module, trainers, pool(tmp_path), asking(), rounds=1)
    assert history.column("asked") == [8, 0]
    assert module.loss_head.learned


@pytest.mark.filterwarnings("ignore:Swapping scheduler")
def test_stochastic_averaging_takes_a_head_that_was_made_before_the_fit():
    class Watched(Predicting):
        example_input_array = torch.zeros(2, FEATURES)

        def __init__(self):
            super().__init__()
            self.seen = []

        def on_train_epoch_end(self):
            self.seen.append(head_of(self))

    module = Watched()
    averaging = callbacks.StochasticWeightAveraging(1e-2, swa_epoch_start=2)
    with pytest.raises(
        RuntimeError, match=r"copied the module before .*call `model.configure_model\(\)` bef"
    ):
        fitted(module, callbacks=[averaging], max_epochs=6)
    assert not module.seen
    module = Watched()
    module.configure_model()
    averaging = callbacks.StochasticWeightAveraging(1e-2, swa_epoch_start=2)
    fitted(module, callbacks=[averaging], max_epochs=6)
    assert torch.equal(head_of(module), head_of(averaging._average_model))
    assert not torch.equal(head_of(module), module.seen[-1])


def test_averaged_weights_are_scored_by_an_averaged_head(tmp_path):
    if not hasattr(callbacks, "EMAWeightAveraging"):
        pytest.skip("Lightning 2.6 has it")

    ended = []
    module = Predicting()
    last = LambdaCallback(on_train_epoch_end=lambda t, m: ended.append(head_of(m)))

    def trainer(number):
        return quiet(callbacks=[callbacks.EMAWeightAveraging(decay=0.5), last])

    with pytest.warns(UserWarning, match="overrides the configure_model"):
        history = fit_rounds(module, trainer, pool(tmp_path), asking(), rounds=1)
    assert history.column("asked") == [8, 0]
    assert not torch.equal(ended[-1], head_of(module))
    assert all(len(module.net[place]._forward_hooks) == 1 for place in (0, 2))


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")
def test_a_checkpoint_holds_the_head(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path)
    module = fitted(callbacks=[checkpoint], enable_checkpointing=True)
    again = Predicting.load_from_checkpoint(checkpoint.best_model_path)
    assert torch.equal(head_of(again), head_of(module))
    data = pool(tmp_path / "pool")
    found, expected = (query(net, data, acq.LearningLoss(), 5) for net in (again, module))
    assert np.array_equal(found.indices, expected.indices)
    fitted(again, max_epochs=1)
    trainer = quiet(max_epochs=3, callbacks=[ModelCheckpoint(tmp_path)], enable_checkpointing=True)
    trainer.fit(Predicting(), DataLoader(blobs(), 8), ckpt_path=checkpoint.best_model_path)
    assert trainer.global_step == 3 * 8


def test_a_checkpoint_of_a_module_with_options_of_its_own(tmp_path):
    class Exemplary(Predicting):
        example_input_array = torch.zeros(2, FEATURES)

    for kind in (Exemplary, Predicting):
        module = kind()
        module.learning_loss_options = LearningLossOptions(hidden=16)
        checkpoint = ModelCheckpoint(tmp_path / kind.__name__)
        fitted(module, callbacks=[checkpoint], enable_checkpointing=True)
        again = kind.load_from_checkpoint(checkpoint.best_model_path)
        assert again.loss_head.hidden == 16
        assert torch.equal(head_of(again), head_of(module))
        fitted(again)
        with pytest.raises(
            RuntimeError, match=r"head of hidden=16 for features .*Before the fit, set .*=16\)`"
        ):
            quiet().fit(kind(), DataLoader(blobs(), 8), ckpt_path=checkpoint.best_model_path)
        assert kind.load_from_checkpoint(checkpoint.best_model_path).loss_head.hidden == 16


def test_a_checkpoint_without_a_head(tmp_path):
    class Exemplary(Predicting):
        example_input_array = torch.zeros(2, FEATURES)

    checkpoint = ModelCheckpoint(tmp_path)
    fitted(Net(), callbacks=[checkpoint], enable_checkpointing=True)
    with pytest.raises(RuntimeError, match="Missing key") as error:
        Exemplary.load_from_checkpoint(checkpoint.best_model_path)
    assert any("Load them with `strict=False`" in note for note in error.value.__notes__)
    with pytest.warns(UserWarning, match="in the model state dict but not in the checkpoint"):
        again = Exemplary.load_from_checkpoint(checkpoint.best_model_path, strict=False)
    fitted(again)


@pytest.mark.parametrize("way", ["drop-in", "fit_rounds"])
@pytest.mark.parametrize("restart", ["initial", "redraw", "warm"])
def test_a_round_begins_with_a_head_as_the_rest_of_the_module(tmp_path, way, restart):
    begun, ended = [], []

    class Watched(Predicting):
        def on_train_start(self):
            begun.append(head_of(self))

        def on_train_epoch_end(self):
            ended[len(begun) - 1 :] = [head_of(self)]

    module, data, active = Watched(), pool(tmp_path), asking(restart=restart)
    if way == "fit_rounds":
        fit_rounds(module, lambda r: quiet(), data, active, rounds=1)
    else:
        trainer = quiet(callbacks=[active])
        for _ in range(2):
            trainer.fit(module, datamodule=data)
    assert torch.equal(begun[1], begun[0]) == (restart == "initial")
    assert torch.equal(begun[1], ended[0]) == (restart == "warm")
    assert not torch.equal(ended[0], begun[0])


def test_the_same_seed_asks_the_same_again(tmp_path):
    found = []
    for name in ("a", "b"):
        torch.manual_seed(0)
        data = pool(tmp_path / name)
        fit_rounds(Predicting(), lambda r: quiet(), data, asking(), rounds=1)
        found.append(data.labeled_indices.tolist())
    assert found[0] == found[1]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_compiled_submodule_in_rounds(tmp_path):
    torch._dynamo.reset()

    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES)

        def forward(self, x):
            return self.last(self.first(x).relu())

    class Compiled(Predicting):
        learning_loss_layers = ("net.first",)

        def __init__(self):
            super().__init__()
            self.net = Body()
            self.net.compile(backend="eager")

    history = fit_rounds(Compiled(), lambda r: quiet(), pool(tmp_path), asking(), rounds=1)
    assert history.column("asked") == [8, 0]
    torch._dynamo.reset()


# ---------------------------------------------------------------------- where shapes come from


class Mapped(Predicting):
    """Called with parts of a mapping, prepared after the transfer."""

    def forward(self, image):
        return self.net(image)

    def training_step(self, batch, batch_idx):
        return self.learning_loss(losses_of(self(batch["image"]), batch["label"]))

    def on_after_batch_transfer(self, batch, place):
        assert not self.trainer.training or not torch.is_inference_mode_enabled()
        return {**batch, "image": batch["image"].flatten(1).float()}


@pytest.mark.filterwarnings("ignore:You have overridden `on_after_batch_transfer`:UserWarning")
def test_shapes_are_those_of_a_sample_as_it_is_scored(tmp_path):
    x, y = blobs().tensors
    samples = [
        {"image": a.double().reshape(2, 2), "label": int(b)} for a, b in zip(x, y.tolist(), strict=True)
    ]
    data = ActiveDataModule(samples, initial=12, batch_size=4, state_dir=tmp_path)
    fit_rounds(Mapped(), lambda r: quiet(), data, asking(), rounds=1)
    fitted(Mapped(), DataLoader(samples, 8))


def test_other_data_modules_and_modules_with_loaders_of_their_own():
    class Data(L.LightningDataModule):
        def train_dataloader(self):
            return DataLoader(blobs(), 8)

    class Self(Predicting):
        def train_dataloader(self):
            return DataLoader(blobs(), 8)

    module = Predicting()
    quiet().fit(module, datamodule=Data())
    own = Self()
    quiet().fit(own)
    assert module.loss_head.branches[0].in_features == own.loss_head.branches[0].in_features == 8


def test_how_to_call_a_module_is_advised_once():
    class Keyed(Predicting):
        def training_step(self, batch, batch_idx):
            return self.learning_loss((self(batch["x"]) - 1).square().mean(1))

    samples = [{"x": torch.randn(FEATURES), "id": number} for number in range(12)]
    with pytest.raises(TypeError, match="Give the module a method that says how") as error:
        fitted(Keyed(), DataLoader(samples, 4))
    assert not any("example_input_array" in note for note in error.value.__notes__)


def test_data_without_samples_by_index_needs_an_example():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(blobs(16))

    with pytest.raises(RuntimeError, match=r"shapes of `Predicting.*Set `self.example_input_array`"):
        fitted(data=DataLoader(Stream(), 8))
    module = Predicting()
    module.example_input_array = torch.zeros(1, FEATURES)
    fitted(module, data=DataLoader(Stream(), 8))


def test_a_configure_model_of_ones_own():
    class Late(Predicting):
        def __init__(self):
            super().__init__()
            self.net = None

        def configure_model(self):
            if self.net is None:
                self.net = nn.Sequential(nn.Linear(FEATURES, 6), nn.ReLU(), nn.Linear(6, CLASSES))
            super().configure_model()

    assert fitted(Late()).loss_head.branches[0].in_features == 6

    class Early(Late):
        def configure_model(self):
            LearningLossMixin.configure_model(self)
            Late.configure_model(self)

    with pytest.raises(ValueError, match=r"names 'net.0'.*before it calls `super\(\).configure_model"):
        fitted(Early())

    class Never(Late):
        def configure_model(self):
            self.net = nn.Sequential(nn.Linear(FEATURES, 6), nn.ReLU(), nn.Linear(6, CLASSES))

    with pytest.raises(RuntimeError, match=r"`Never` has no `loss_head` yet.*end with `super\(\)"):
        fitted(Never())


# ---------------------------------------------------------------------- bad input


def test_a_module_that_predicts_no_losses_is_refused_before_the_training(tmp_path):
    with pytest.raises(TypeError, match=r"needs predicted losses, but `Net` predicts none.*Derive it from"):
        quiet(callbacks=[asking()]).fit(Net(), datamodule=pool(tmp_path))


def test_a_module_without_a_head_yet(tmp_path):
    with pytest.raises(RuntimeError, match=r"`Predicting` has no `loss_head` yet.*load a checkpoint"):
        query(Predicting(), pool(tmp_path), acq.LearningLoss(), 3)


def test_predictions_that_are_not_finite_are_named(tmp_path):
    module = fitted()
    nn.init.constant_(module.loss_head.out.bias, float("nan"))
    with pytest.raises(ValueError, match=r"The predicted losses of samples \[\d+, .* are NaN or infinite"):
        query(module, pool(tmp_path), acq.LearningLoss(), 3)


def test_drawing_by_the_power_of_negative_predictions_is_refused_with_a_hint(tmp_path):
    module = fitted()
    nn.init.constant_(module.loss_head.out.bias, -100.0)
    with pytest.raises(ValueError, match="softrank"):
        query(module, pool(tmp_path), acq.PowerSampling(acq.LearningLoss()), 3)
