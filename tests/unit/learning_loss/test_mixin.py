"""The mixin, outside of any Trainer."""

import copy

import lightning as L
import pytest
import torch
from torch import nn

from lightning_al import LearningLossMixin, LearningLossOptions
from lightning_al.functional import pairwise_ranking_loss
from lightning_al.learning_loss.checks import check_values
from unit.learning_loss.nets import CLASSES, FEATURES, Net, Own, Plain, batch, losses_of, ready

# Most heads here are asked before they have learned.
pytestmark = pytest.mark.filterwarnings("ignore:The `loss_head` of .* has learned nothing yet:UserWarning")


def with_options(module, **options):
    module.learning_loss_options = LearningLossOptions(**options)
    return ready(module)


def heard(module, x):
    """Logits and predicted losses."""
    with module.predicting_loss():
        return module(x), module.predicted_loss(len(x))


@pytest.mark.parametrize("objective", ["hinge", "smooth", "mse"])
def test_the_loss_is_the_tasks_and_the_heads(objective):
    module = with_options(Net(), objective=objective, weight=0.3, margin=0.7).eval()
    module.net[3].p = 0.0
    module.net[1].momentum = 0.0
    x, y = batch(7)
    logits, predicted = heard(module.train(), x)
    losses = losses_of(logits, y)
    if objective == "mse":
        taught = (predicted - losses).square().mean()
    else:
        taught = pairwise_ranking_loss(predicted, losses, 0.7, form=objective)
    found = module.training_step((x, y), 0)
    assert torch.allclose(found, losses.mean() + 0.3 * taught)


def test_the_head_is_that_of_the_paper():
    module = ready(Net())
    x, _ = batch()
    _, predicted = heard(module.eval(), x)
    first = module.net[0](x)
    second = module.net[2](module.net[1](first))
    head = module.loss_head
    hidden = torch.cat([head.branches[0](first).relu(), head.branches[1](second).relu()], 1)
    assert hidden.shape == (6, 256)
    assert torch.allclose(head.out(hidden).squeeze(1), predicted, atol=1e-6)


def test_targets_are_detached_so_that_the_module_does_not_lose_on_purpose():
    """With one layer before any parameter, the head's loss moves the head alone."""
    module = Own(nn.Sequential(nn.Identity(), nn.Linear(4, 3)), example=torch.zeros(2, 4))
    module.learning_loss_layers = ("layer.0",)
    ready(module)
    x, y = batch(8)
    grads = []
    for weight in (0.0, 5.0):
        module.learning_loss_options = LearningLossOptions(weight=weight)
        module.zero_grad()
        with module._learning_loss.features.listen():
            module.learning_loss(losses_of(module(x), y)).backward()
        grads.append(module.layer[1].weight.grad.clone())
    assert torch.equal(grads[0], grads[1])
    assert bool((module.loss_head.out.weight.grad != 0).any())


def test_random_pairs_differ_from_flipped_ones():
    module = with_options(Net(), pairing="random")
    module.net[3].p = 0.0
    torch.manual_seed(0)
    found = {module.training_step(batch(8), 0).item() for _ in range(6)}
    assert len(found) > 1


def test_always_detached_the_head_learns_and_the_module_trains_as_without_it():
    module = with_options(Net(), detach_after=0)
    plain = Plain()
    plain.load_state_dict(module.state_dict(), strict=False)
    for net in (module, plain):
        net.net[3].p = 0.0
        net.train().training_step(batch(), 0).backward()
    for ours, expected in zip(module.net.parameters(), plain.net.parameters(), strict=True):
        assert torch.allclose(ours.grad, expected.grad)
    assert bool((module.loss_head.branches[0].weight.grad != 0).any())
    attached = ready(Net())
    attached.load_state_dict(module.state_dict())
    attached.net[3].p = 0.0
    attached.training_step(batch(), 0).backward()
    assert not torch.allclose(attached.net[0].weight.grad, module.net[0].weight.grad)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_an_odd_batch_leaves_one_sample_out_of_the_pairs_only(size):
    module = ready(Net())
    module.net[3].p = 0.0
    x, y = batch(size)
    found = []
    module.loss_head.register_forward_hook(
        lambda _, __, predicted: predicted.register_hook(found.append) and None
    )
    with module._learning_loss.features.listen():
        losses = losses_of(module(x), y)
        losses.retain_grad()
        module.learning_loss(losses).backward()
    assert torch.allclose(losses.grad, torch.full((size,), 1 / size))
    assert int((found[0] == 0).sum()) == size % 2


def test_one_sample_trains_the_task_and_keeps_the_head_in_the_graph():
    module = ready(Net())
    module.net[1].eval()
    module.net[3].p = 0.0
    x, y = batch(1)
    loss = module.training_step((x, y), 0)
    assert torch.allclose(loss, losses_of(module(x), y)[0])
    loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in module.loss_head.parameters())


def test_in_validation_and_tests_there_is_the_tasks_loss_alone_and_no_head_runs():
    module = ready(Net()).eval()
    module.loss_head.forward = None  # a call would fail
    losses = torch.rand(5)
    assert module.learning_loss(losses) == losses.mean()
    module(batch()[0])
    del module.loss_head
    assert module.learning_loss(losses) == losses.mean()


def test_a_task_loss_of_ones_own_is_what_is_minimised():
    module = ready(Net())
    module.net[3].p = 0.0
    x, y = batch()
    with module._learning_loss.features.listen():
        losses = losses_of(module(x), y)
        plain = module.learning_loss(losses)
        module(x)
        own = module.learning_loss(losses, 3 * losses.mean())
    assert torch.allclose(own - plain, 2 * losses.mean(), atol=1e-5)


class Consistent(Net):
    """A second pass over other samples in the same step."""

    def __init__(self, size, order="first"):
        super().__init__()
        self.size, self.order = size, order

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        if self.order == "first":
            loss = self.learning_loss(losses_of(logits, y))
        more = self(torch.ones(self.size, FEATURES)).square().mean()
        return (self.learning_loss(losses_of(logits, y)) if self.order == "last" else loss) + more


def test_of_two_passes_that_of_as_many_samples_is_used():
    for size, order in ((9, "last"), (9, "first"), (6, "first")):
        assert ready(Consistent(size, order)).training_step(batch(), 0).requires_grad


def test_of_two_passes_over_as_many_samples_the_only_one_with_a_graph_is_used():
    class Teacher(Net):
        def training_step(self, batch, batch_idx):
            losses = losses_of(self(batch[0]), batch[1])
            with torch.no_grad():
                self(batch[0] + 1)
            return self.learning_loss(losses)

    module, other = ready(Teacher()), ready(Net())
    other.load_state_dict(module.state_dict())
    for net in (module, other):
        net.net[3].p = 0.0
        net.training_step(batch(), 0).backward()
    assert torch.allclose(module.loss_head.out.weight.grad, other.loss_head.out.weight.grad)


def test_two_passes_over_as_many_samples_cannot_be_told_apart():
    with pytest.raises(RuntimeError, match=r"`net.0` ran 2 times on 6 samples.*right after the pass"):
        ready(Consistent(6, "last")).training_step(batch(), 0)


def test_a_step_that_calls_its_bases_step_is_one_step():
    class Below(Net):
        def training_step(self, batch, batch_idx):
            return 2 * super().training_step(batch, batch_idx)

    assert ready(Below()).training_step(batch(), 0).requires_grad


def test_a_step_that_comes_from_a_base_without_the_mixin():
    class Shared(L.LightningModule):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return self.learning_loss(losses_of(self(x), y))

    class Late(LearningLossMixin, Shared):
        learning_loss_layers = ("layer",)
        example_input_array = torch.zeros(1, FEATURES)

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(FEATURES, CLASSES)

        def forward(self, x):
            return self.layer(x)

    assert ready(Late()).training_step(batch(), 0).requires_grad
    assert not hasattr(Shared.training_step, "listens")


# ---------------------------------------------------------------------- other tasks


def step(module, x, losses_from):
    ready(module)
    with module._learning_loss.features.listen():
        loss = module.learning_loss(losses_from(module(x)))
    loss.backward()
    assert loss.ndim == 0
    assert bool((module.loss_head.out.weight.grad != 0).any())
    with module.eval().predicting_loss(), torch.no_grad():
        module(x)
        assert module.predicted_loss(len(x)).shape == (len(x),)


def test_regression():
    x, y = torch.randn(8, 4), torch.randn(8)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    step(Own(net, example=x), x, lambda out: (out.squeeze(1) - y).square())


def test_segmentation():
    x, y = torch.randn(4, 3, 8, 8), torch.randint(5, (4, 8, 8))
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 1))
    step(Own(net, example=x), x, lambda out: losses_of(out, y).flatten(1).mean(1))


def test_tokens():
    x, y = torch.randint(20, (4, 7)), torch.randint(5, (4, 7))
    net = nn.Sequential(nn.Embedding(20, 6), nn.TransformerEncoderLayer(6, 2, 8, batch_first=True))
    step(Own(net, example=x), x, lambda out: losses_of(out.movedim(2, 1), y).mean(1))


# ---------------------------------------------------------------------- the head's making


def test_the_head_is_made_once_and_the_dry_run_leaves_no_trace():
    module = Net()
    module.net[1].eval()
    modes = [part.training for part in module.modules()]
    state = copy.deepcopy(module.state_dict())
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)

    module.configure_model()
    assert torch.equal(torch.rand(1), expected)
    del module.loss_head
    module.configure_model()
    head = module.loss_head
    module.configure_model()
    assert module.loss_head is head
    del module.loss_head
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), state.values(), strict=True))
    assert all(len(module.net[i]._forward_hooks) == 1 for i in (0, 2))


@pytest.mark.parametrize("kind", ["tensor", "tuple", "dict", "half"])
def test_examples_of_every_kind(kind):
    class Two(Net):
        def forward(self, x, scale=None):
            return self.net(x if scale is None else x * scale)

    module = Two()
    x = torch.zeros(2, FEATURES)
    given = {"tensor": x, "tuple": (x, x), "dict": {"x": x, "scale": x}, "half": x}
    module.example_input_array = given[kind]
    if kind == "half":
        module.to(torch.bfloat16)
    module.configure_model()
    assert module.loss_head.out.weight.dtype == module.net[0].weight.dtype


def test_without_example_or_data_there_is_no_head_yet():
    module = Net()
    module.example_input_array = None
    module.configure_model()
    with pytest.raises(RuntimeError, match=r"`Net` has no `loss_head` yet.*super\(\).configure_model\(\)"):
        module.train().training_step(batch(), 0)
    with pytest.raises(RuntimeError, match="has no `loss_head` yet"), module.predicting_loss():
        pass


def test_the_head_is_made_from_the_shapes_of_saved_weights():
    first = with_options(Net(), hidden=5)
    second = Net()
    second.example_input_array = None
    second.load_state_dict(first.state_dict())
    x, _ = batch()
    assert torch.equal(heard(first.eval(), x)[1], heard(second.eval(), x)[1])
    inside = nn.ModuleDict({"net": Net()})
    inside.load_state_dict(nn.ModuleDict({"net": first}).state_dict())
    assert torch.equal(inside["net"].loss_head.out.weight, first.loss_head.out.weight)
    plain = Net()
    plain.load_state_dict(Plain().state_dict())
    assert "loss_head" not in dict(plain.named_children())


def test_saved_weights_for_other_layers():
    other = Net()
    other.learning_loss_layers = ("net.0",)
    with pytest.raises(RuntimeError, match=r"a loss head for 2 layers, but `Net.*\['net.0'\]. Name those"):
        other.load_state_dict(ready(Net()).state_dict())


def test_the_head_is_where_the_module_is():
    """Also where the Trainer has set another default device for what is made in `configure_model`."""
    module = Net()
    with torch.device("meta"):
        module.configure_model()
    assert module.loss_head.out.weight.device.type == "cpu"
    meta = Net().to("meta")
    meta.configure_model()
    assert meta.loss_head.out.weight.device.type == "meta"
    assert meta.loss_head.branches[0].in_features == 8


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("names", "kind", "words"),
    [
        ("net.0", TypeError, r"is 'net.0'; needed is a tuple.*\(\"net.layer1\",\)"),
        ((), ValueError, r"is \(\); needed are names of submodules"),
        (("net.0", "net.0"), ValueError, "each once"),
        (("net.11",), ValueError, r"names 'net.11', which the module does not have; near it.*'net.1'"),
        (("nett",), ValueError, r"near it .*'net'.*Name submodules as `named_modules\(\)` does"),
        (("weird",), ValueError, r"near it are \['net', 'net.0'"),
    ],
)
def test_layers_that_are_none(names, kind, words):
    module = Net()
    module.learning_loss_layers = names
    with pytest.raises(kind, match=words):
        module.configure_model()


def test_a_layer_that_does_not_run():
    module = Net()
    module.unused = nn.Linear(2, 2)
    module.learning_loss_layers = ("net.0", "unused")
    with pytest.raises(RuntimeError, match=r"`unused` of `learning_loss_layers` gave nothing") as error:
        module.configure_model()
    assert "dry run of `Net`" in error.value.__notes__[0]
    assert "example_input_array" not in error.value.__notes__[0]  # it could be called


def test_an_example_that_does_not_fit():
    module = Net()
    module.example_input_array = torch.zeros(2, 99)
    with pytest.raises(RuntimeError, match="cannot be multiplied") as error:
        module.configure_model()
    assert "dry run of `Net`" in error.value.__notes__[0]
    assert "set `example_input_array`: a tensor" in error.value.__notes__[0]


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        (torch.tensor(1.0), r"a tensor \(\); needed is one loss a sample.*reduction=\"none\""),
        (torch.ones(0), r"a tensor \(0,\); needed.*batch is empty: leave out"),
        (torch.ones(6), r"losses without a graph.*Leave out `.detach\(\)`"),
        (1.0, "a float; needed is one loss a sample"),
        (torch.ones(6, 2), r"a tensor \(6, 2\).*`losses.flatten\(1\).mean\(1\)`"),
        (torch.ones(6) * float("nan"), r"NaN for rows \[0, 1, 2, 3, 4\] of a batch of 6.*learning rate"),
        (torch.ones(4), r"of \[6\] samples .*; or name a layer with one row a sample"),
        (
            torch.ones(5),
            r"losses of 5 samples, but `net.0` gave features of \[6\] samples.*one loss for each",
        ),
    ],
)
def test_losses_that_do_not_fit(losses, words):
    module = ready(Net())
    with module._learning_loss.features.listen():
        module(batch()[0])
        with pytest.raises(ValueError, match=words):
            module.learning_loss(losses)


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (
            torch.int64,
            r"losses of torch.int64; needed are real .*Are these labels\? .*0/1 errors pass `.float",
        ),
        (torch.bool, r"losses of torch.bool; needed are real numbers"),
        (torch.complex64, r"losses of torch.complex64; needed .*complex numbers their size, `.abs\(\)`"),
    ],
)
def test_labels_are_no_losses(dtype, words):
    module = ready(Net())
    for mode in (True, False):
        with pytest.raises(TypeError, match=words):
            module.train(mode).learning_loss(torch.ones(6).to(dtype), torch.ones((), requires_grad=True))


def test_negative_losses_with_the_smooth_objective_are_told_in_words_of_the_options():
    module = with_options(Net(), objective="smooth")
    losses = torch.tensor([1.0, -1.0, 2.0, 0.0], requires_grad=True)
    with pytest.raises(
        ValueError, match=r"below 0 for rows \[1\] of a batch of 4, but `objective=\"smooth\"`"
    ):
        module.learning_loss(losses)


def test_a_task_loss_that_is_nan_or_has_no_graph_is_told_in_its_own_step():
    class Terms(Net):
        def training_step(self, batch, batch_idx):
            losses = losses_of(self(batch[0]), batch[1])
            return self.learning_loss(losses, self.change(losses.mean()))

    module = ready(Terms())
    module.change = lambda loss: loss * float("nan")
    with pytest.raises(ValueError, match=r"`task_loss` is NaN, .*Look at the terms"):
        module.training_step(batch(), 0)
    module.change = torch.Tensor.detach
    with pytest.raises(
        ValueError, match=r"`task_loss` has no graph, though the losses have one.*`.detach\(\)`"
    ):
        module.training_step(batch(), 0)
    module.net.requires_grad_(False)
    module.training_step(batch(), 0).backward()


@pytest.mark.parametrize("objective", ["hinge", "smooth", "mse"])
def test_predictions_that_are_nan_are_told_from_losses(objective):
    class Broken(Net):
        def training_step(self, batch, batch_idx):
            x, y = batch
            self.net[2](self.net[0](x) * float("nan"))
            return self.learning_loss(losses_of(self.net[4](torch.ones(6, 8)), y))

    module = with_options(Broken(), objective=objective)
    with pytest.raises(ValueError, match=r"head of `Broken` predicts NaN for rows .* of 6: `net.2` gave NaN"):
        module.training_step(batch(), 0)
    module = with_options(Net(), objective=objective)
    nn.init.constant_(module.loss_head.out.bias, float("nan"))
    with pytest.raises(ValueError, match=r"predicts NaN .* of a batch of 6: so its weights are"):
        module.training_step(batch(), 0)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (0, r"given losses that are NaN, or negative .*"),
        (1, "head of `Net` predicted NaN"),
        (2, "`task_loss` was NaN"),
    ],
)
def test_what_is_seen_at_the_end_of_an_epoch_only(place, words):
    """On devices that nobody waits for."""
    module = ready(Net())
    flags = [torch.tensor([number == place for number in range(3)]), torch.zeros(3, dtype=torch.bool)]
    for flag in flags:
        bad = module._learning_loss.record.bad
        module._learning_loss.record.bad = flag if bad is None else bad | flag
    with pytest.raises(ValueError, match=f"In this epoch .*{words}; what has no value") as error:
        module.on_train_epoch_end()
    assert " and " not in str(error.value).split(";")[0]


@pytest.mark.parametrize("task_loss", [False, True])
def test_other_devices_than_the_cpu_are_not_waited_for(task_loss):
    """A tensor that has no values cannot be looked at."""
    losses = torch.zeros(4, device="meta")
    record = ready(Net())._learning_loss.record
    for objective in ("hinge", "smooth"):
        check_values(losses, losses.mean(), objective)
        record.watch(losses, losses, torch.zeros(()) if task_loss else None, objective)
    assert record.bad.shape == (3,)


def test_a_number_of_samples_that_is_none_or_not_that_of_the_pass():
    module, (x, _) = ready(Net()).eval(), batch()
    with module.predicting_loss():
        module(x)
        with pytest.raises(
            ValueError, match=r"`predicted_loss\(5\)` was called, but `net.0` .*Pass how many"
        ):
            module.predicted_loss(5)
        for samples in ("6", x, 6.0, None):
            with pytest.raises(TypeError, match=r"needed is how many samples.*predicted_loss\(len\(x\)\)`"):
                module.predicted_loss(samples)
        assert module.predicted_loss(torch.tensor(6)).shape == (6,)
        module(x)
        with pytest.raises(
            RuntimeError, match=r"ran 2 times on 6 samples.*Open a `with module.predicting_loss"
        ):
            module.predicted_loss(6)


def test_features_of_another_width_than_in_the_dry_run():
    module = ready(Own(nn.Flatten(), example=torch.zeros(2, 1, 4)))
    words = r"`layer` gave features 9 wide, but the loss head was made for 4, as in the dry run.*Name a layer"
    with module._learning_loss.features.listen():
        module(torch.zeros(3, 1, 9))
        with pytest.raises(ValueError, match=words):
            module.learning_loss(torch.ones(3, requires_grad=True))
    with module.eval().predicting_loss():
        module(torch.zeros(3, 1, 9))
        with pytest.raises(ValueError, match=words):
            module.predicted_loss(3)


@pytest.mark.parametrize(
    ("task_loss", "kind", "words"),
    [
        (torch.ones(6), ValueError, r"`task_loss` has shape \(6,\); needed is a single number.*`.mean\(\)`"),
        (1.0, TypeError, "`task_loss` is a float; needed is a tensor"),
    ],
)
def test_a_task_loss_that_does_not_fit(task_loss, kind, words):
    module = ready(Net())
    for mode in (True, False):
        with pytest.raises(kind, match=words):
            module.train(mode).learning_loss(torch.ones(6), task_loss)


def test_a_module_of_which_only_the_head_learns_has_losses_without_a_graph():
    module = ready(Net())
    module.net.requires_grad_(False)
    module.training_step(batch(), 0).backward()
    assert bool((module.loss_head.out.weight.grad != 0).any())


@pytest.mark.parametrize("options", [{"hidden": 3}, None, LearningLossOptions])
def test_options_that_are_none(options):
    module = Net()
    module.learning_loss_options = options
    with pytest.raises(TypeError, match=r"`Net.learning_loss_options` is .*; needed are settings, such as"):
        module.configure_model()


def test_infinite_losses_have_a_place_in_the_order():
    module = ready(Net())
    with module._learning_loss.features.listen():
        module(batch()[0])
        found = module.learning_loss(torch.tensor([1.0, float("inf"), 0, float("inf"), 2, 3]), torch.ones(()))
    assert bool(found.isfinite())


def test_it_takes_one_name_of_a_module_beside_the_documented_ones():
    """Whatever a user calls their own attributes."""

    class Empty(LearningLossMixin, L.LightningModule):
        pass

    own = set(dir(Empty)) - set(dir(L.LightningModule))
    names = {"learning_loss", "learning_loss_layers", "learning_loss_options", "predicting_loss"}
    assert {name for name in own if not name.startswith("__")} == names | {"predicted_loss", "_learning_loss"}
    before = set(vars(Plain()))
    module = with_options(Net(), pairing="random", log_ranking=True)
    module.training_step(batch(), 0).backward()
    assert set(vars(module)) - before == {"_learning_loss", "learning_loss_options"}


def test_a_loss_head_of_the_users_own():
    class Mine(Net):
        def __init__(self):
            super().__init__()
            self.loss_head = nn.Linear(8, 1)

    words = r"`Mine.loss_head` is a Linear; under that name `LearningLossMixin` keeps.*another name"
    with pytest.raises(TypeError, match=words):
        Mine().configure_model()
    with pytest.raises(TypeError, match=words):
        Mine().load_state_dict(ready(Net()).state_dict())
    with pytest.raises(TypeError, match=words), Mine().predicting_loss():
        pass


def test_a_call_outside_of_the_training_step():
    module = ready(Net())
    losses = losses_of(module(batch()[0]), batch()[1])
    with pytest.raises(RuntimeError, match=r"called outside of `Net.training_step`.*Call it in"):
        module.learning_loss(losses)


def test_a_step_without_a_forward_pass():
    class Without(Net):
        def training_step(self, batch, batch_idx):
            return self.learning_loss(batch[0].square().mean(1))

    with pytest.raises(RuntimeError, match=r"`net.0` .* gave nothing.*torch._dynamo.reset\(\)"):
        ready(Without()).training_step(batch(), 0)
