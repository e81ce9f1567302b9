import pytest
import torch
from torch import nn

from lightning_al.callbacks.weights import StoredWeights, best_weights, redraw


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.MultiheadAttention(4, 2))


def copy_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def train(module):
    for value in module.state_dict().values():
        value.add_(1)


def two_rounds(folder, restart):
    """The weights of round 0, those it ended with, and those round 1 begins with."""
    module = net()
    stored = StoredWeights(folder, restart)
    stored.begin(module, 0, seed=7)
    first = copy_of(module)
    train(module)
    last = copy_of(module)
    stored.end(module, 0)
    train(module)  # what happens after the round does not count
    parameters = [p.data_ptr() for p in module.parameters()]
    stored.begin(module, 1, seed=8)
    assert [p.data_ptr() for p in module.parameters()] == parameters  # in place: an optimizer may hold them
    return first, last, copy_of(module), module


def test_initial_puts_back_the_weights_of_round_0(tmp_path):
    first, _, now, _ = two_rounds(tmp_path, "initial")
    assert equal(now, first)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["initial_weights.pt"]


def test_warm_goes_on_with_the_last_rounds(tmp_path):
    _, last, now, _ = two_rounds(tmp_path, "warm")
    assert equal(now, last)


def test_redraw_draws_anew_by_the_seed(tmp_path):
    first, last, now, module = two_rounds(tmp_path, "redraw")
    assert not torch.equal(now["0.weight"], first["0.weight"])
    assert not torch.equal(now["0.weight"], last["0.weight"])
    assert torch.equal(now["1.running_mean"], torch.zeros(3))
    redraw(module, 8)
    assert equal(now, copy_of(module))
    redraw(module, 9)
    assert not torch.equal(now["0.weight"], module[0].weight)


def test_shrink_and_perturb(tmp_path):
    _, last, now, module = two_rounds(tmp_path, "shrink_perturb")
    redraw(module, 8)
    for name, parameter in module.named_parameters():
        assert torch.allclose(now[name], 0.6 * last[name] + 0.01 * parameter)


@pytest.mark.parametrize("restart", ["initial", "warm", "redraw", "shrink_perturb"])
def test_round_0_begins_alike_when_it_is_begun_again(tmp_path, restart):
    stored, module = StoredWeights(tmp_path, restart), net()
    stored.begin(module, 0, seed=7)
    first = copy_of(module)
    train(module)
    stored.begin(module, 0, seed=7)
    assert equal(copy_of(module), first)


def test_a_fresh_module_stays_as_it_was_drawn(tmp_path):
    stored = StoredWeights(tmp_path, "redraw")
    stored.begin(net(0), 0, seed=0)
    module = net(1)
    drawn = copy_of(module)
    stored.begin(module, 1, seed=1, drawn=True)
    assert equal(copy_of(module), drawn)


def test_only_the_weights_that_a_round_may_begin_with_are_kept(tmp_path):
    stored, module = StoredWeights(tmp_path, "warm"), net()
    stored.begin(module, 0, seed=0)
    for number in range(4):
        stored.end(module, number)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "initial_weights.pt",
        "weights_2.pt",
        "weights_3.pt",
    ]


def test_another_model_is_refused(tmp_path):
    StoredWeights(tmp_path, "initial").begin(net(), 0, seed=0)
    with pytest.raises(
        RuntimeError, match=r"(?s)does not fit the weights in .*initial_weights.pt.*same model"
    ):
        StoredWeights(tmp_path, "initial").begin(nn.Linear(1, 1), 1, seed=0)


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.layer = nn.Linear(1, 1)


def test_what_cannot_be_drawn_anew_is_named_and_left_alone():
    module = nn.Sequential(Bare())
    before = copy_of(module)
    with pytest.raises(ValueError, match=r"cannot draw \['0.scale'\].*`reset_parameters`.*fit_rounds"):
        redraw(module, 0)
    assert equal(copy_of(module), before)


def test_redrawing_leaves_the_global_stream_alone():
    before = torch.get_rng_state()
    module = net()
    torch.set_rng_state(before)
    redraw(module, 3)
    assert torch.equal(torch.get_rng_state(), before)


class Trainer:
    def __init__(self, path):
        self.checkpoint_callback = type("Checkpoint", (), {"best_model_path": str(path)})


def test_the_best_weights_are_there_for_the_block_only(tmp_path):
    best, module = net(1), net(2)
    torch.save({"state_dict": best.state_dict()}, tmp_path / "best.ckpt")
    last = copy_of(module)
    with best_weights(Trainer(tmp_path / "best.ckpt"), module):
        assert equal(copy_of(module), best.state_dict())
    assert equal(copy_of(module), last)
    with pytest.raises(ZeroDivisionError), best_weights(Trainer(tmp_path / "best.ckpt"), module):
        _ = 1 / 0
    assert equal(copy_of(module), last)


def test_no_best_checkpoint_says_so():
    with (
        pytest.raises(RuntimeError, match=r"found no best checkpoint.*Let its monitored"),
        best_weights(Trainer(""), net()),
    ):
        pass


class Partial(nn.Module):
    """Keeps its head alone, with something that is no tensor; the rest is loaded from elsewhere."""

    strict_loading = False

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(2, 3), nn.Linear(3, 2)
        self.words = ["a"]

    def state_dict(self, *args, **kwargs):
        state = super().state_dict(*args, **kwargs)
        return {name: value for name, value in state.items() if not name.startswith("body")}

    def get_extra_state(self):
        return {"words": self.words, "kind": Bare}

    def set_extra_state(self, state):
        self.words = state["words"]


@pytest.mark.parametrize("restart", ["initial", "warm"])
def test_a_state_that_is_not_whole_and_holds_more_than_tensors(tmp_path, restart):
    module, stored = Partial(), StoredWeights(tmp_path, restart)
    stored.begin(module, 0, seed=0)
    begun = module.head.weight.clone()
    with torch.no_grad():
        module.head.weight.add_(1)
    module.words = ["b"]
    stored.end(module, 0)
    with torch.no_grad():
        module.head.weight.add_(1)
    module.words = ["c"]
    stored.begin(module, 1, seed=1)
    assert torch.equal(module.head.weight, begun + (restart == "warm"))
    assert module.words == (["b"] if restart == "warm" else ["a"])


def test_the_best_of_a_state_that_is_not_whole(tmp_path):
    best, module = Partial(), Partial()
    best.words = ["best"]
    torch.save({"state_dict": best.state_dict()}, tmp_path / "best.ckpt")
    last = module.head.weight.clone()
    with best_weights(Trainer(tmp_path / "best.ckpt"), module):
        assert torch.equal(module.head.weight, best.head.weight)
        assert module.words == ["best"]
        module.words.append("changed while scoring")
    assert torch.equal(module.head.weight, last)
    assert module.words == ["a"]


@pytest.mark.parametrize("restart", ["warm", "shrink_perturb"])
def test_a_round_that_kept_no_weights_is_not_gone_on_from(tmp_path, restart):
    """Nor are those of the round before it, which are not the last round's."""
    module = net()
    StoredWeights(tmp_path, restart).begin(module, 0, seed=0)
    StoredWeights(tmp_path, restart).end(module, 0)
    StoredWeights(tmp_path, "initial").end(module, 1)
    with pytest.raises(RuntimeError, match=rf"{restart}.* begins round 2 .*none in .*that keeps none.*Use"):
        StoredWeights(tmp_path, restart).begin(module, 2, seed=0)


def test_warm_goes_on_with_the_newest_round_that_was_trained(tmp_path):
    """Round 1 may have been asked for by `query`, without a fit."""
    stored, module = StoredWeights(tmp_path, "warm"), net()
    stored.begin(module, 0, seed=0)
    train(module)
    last = copy_of(module)
    stored.end(module, 0)
    train(module)
    stored.begin(module, 2, seed=0)
    assert equal(copy_of(module), last)
