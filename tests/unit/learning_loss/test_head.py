"""What a head's weights say of the layers that they are for."""

import copy

import pytest
import torch

from lightning_al import LearningLossOptions
from lightning_al.learning_loss.head import LossHead
from unit.learning_loss.nets import Net, Plain, batch, ready


@pytest.mark.parametrize("has_head", [False, True])
@pytest.mark.parametrize("names", [("net.2", "net.0"), ("net.0", "net.1")])
def test_weights_for_other_layers_of_the_same_widths_are_refused(names, has_head):
    other = Net()
    other.learning_loss_layers = names
    if has_head:
        ready(other)
    before = copy.deepcopy(other.net.state_dict())
    with pytest.raises(
        RuntimeError, match=r"a loss head for other layers.*trained with, \['net.0', 'net.2'\]"
    ):
        other.load_state_dict(ready(Net()).state_dict())
    assert all(torch.equal(value, before[name]) for name, value in other.net.state_dict().items())


@pytest.mark.parametrize("has_head", [False, True])
def test_weights_that_do_not_name_their_layers_are_loaded(has_head):
    state = ready(Net()).state_dict()
    assert LossHead.layers_in(state, "loss_head.") == ("net.0", "net.2")
    del state["loss_head._extra_state"]
    other = ready(Net()) if has_head else Net()
    other.load_state_dict(state)
    assert torch.equal(other.loss_head.out.weight, state["loss_head.out.weight"])
    assert LossHead.layers_in(other.state_dict(), "loss_head.") == ("net.0", "net.2")


def test_saved_weights_of_another_shape_replace_the_head_outside_of_a_fit():
    """As where a class has the defaults, and the module that was saved options of its own."""
    first, second = Net(), ready(Net())
    first.learning_loss_options = LearningLossOptions(hidden=16)
    second.load_state_dict(ready(first).state_dict())
    assert (second.loss_head.hidden, second.loss_head.widths) == (16, [8, 8])
    assert torch.equal(second.loss_head.out.weight, first.loss_head.out.weight)
    second.configure_model()  # nobody has changed anything since
    second.learning_loss_options = LearningLossOptions(hidden=16)
    second.configure_model()
    second.learning_loss_options = LearningLossOptions(hidden=32)
    with pytest.raises(RuntimeError, match=r"have hidden=32, but its loss head was made with hidden=16"):
        second.configure_model()


@pytest.mark.parametrize("strict", [True, False])
def test_weights_without_a_head_come_with_a_note_of_what_to_do(strict):
    module, plain = ready(Net()), Plain()
    if not strict:
        module.load_state_dict(plain.state_dict(), strict=False)
        return
    with pytest.raises(RuntimeError, match="Missing key") as error:
        module.load_state_dict(plain.state_dict())
    assert (
        "module without a loss head, and `Net` has one. Load them with `strict=" in error.value.__notes__[0]
    )
    with pytest.raises(RuntimeError, match="Missing key") as error:  # not where the head is no matter
        module.load_state_dict(module.loss_head.state_dict(prefix="loss_head."))
    assert not hasattr(error.value, "__notes__")


CHANGES = {
    "fewer layers": (
        "learning_loss_layers",
        ("net.0",),
        r"layers` are \['net.0'\], but .* made for \['net.0', ",
    ),
    "other layers": ("learning_loss_layers", ("net.0", "net.3"), r"layers` are \['net.0', 'net.3'\], but"),
    "order": ("learning_loss_layers", ("net.2", "net.0"), r"layers` are \['net.2', 'net.0'\], but"),
    "width": ("learning_loss_options", {"hidden": 16}, r"have hidden=16, but .* made with hidden=128"),
    "channels": (
        "learning_loss_options",
        {"channels": "last"},
        r"channels='last', but .*with channels='auto'",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_head_was_made_for_must_not_change(change):
    name, value, words = CHANGES[change]
    module = ready(Net())
    module.training_step(batch(), 0).backward()
    setattr(module, name, LearningLossOptions(**value) if isinstance(value, dict) else value)
    words += ".*`del module.loss_head` first, and fit again"
    for misused in (
        module.configure_model,
        lambda: module.training_step(batch(), 0),
        lambda: module.predicting_loss().__enter__(),
    ):
        with pytest.raises(RuntimeError, match=words):
            misused()
    del module.loss_head  # as it was advised
    ready(module).training_step(batch(), 0).backward()
    hooks = [hook for layer in module.net for hook in layer._forward_hooks.values()]
    assert len(hooks) == len(module.learning_loss_layers)


def test_other_options_may_change():
    module = ready(Net())
    for options in ({"weight": 0.0}, {"objective": "smooth"}, {"margin": 2}, {"log_ranking": True}):
        module.learning_loss_options = LearningLossOptions(**options)
        ready(module).training_step(batch(), 0).backward()


def test_a_state_dict_has_tensors_only():
    state = ready(Net()).state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    Net().load_state_dict({name: value.clone().float() for name, value in state.items()})
