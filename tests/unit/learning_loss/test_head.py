"""What a head's weights say of the layers that they are for."""

import copy

import pytest
import torch

from lightning_al.learning_loss.head import LossHead
from unit.learning_loss.nets import Net, ready


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


def test_a_state_dict_has_tensors_only():
    state = ready(Net()).state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    Net().load_state_dict({name: value.clone().float() for name, value in state.items()})
