"""Dropout that a model hides in eval mode is noticed, and looking for it leaves nothing behind."""

import random
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from lightning_al import MCDropout
from lightning_al.inference.look import look
from lightning_al.inference.posteriors import Draw

WIDTH = 8


class ByProbability(nn.Module):
    p = 0.5

    def forward(self, x):
        return functional.dropout(x, self.p if self.training else 0.0)


class ByBranch(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout()

    def forward(self, x):
        return self.drop(x) if self.training else x


class Attention(nn.Module):
    def forward(self, x):
        heads = x.reshape(-1, 1, WIDTH, 1)
        p = 0.5 if self.training else 0.0
        return functional.scaled_dot_product_attention(heads, heads, heads, dropout_p=p).flatten(1)


class Depth(nn.Module):
    """Stochastic depth, as torchvision writes it."""

    def forward(self, x):
        if not self.training:
            return x
        return x * torch.empty(len(x), 1).bernoulli_(0.5).div_(0.5)


class Both(nn.Module):
    """One dropout shows, the other does not."""

    def forward(self, x):
        x = functional.dropout(x, 0.5, self.training)
        return functional.dropout(x, 0.5 if self.training else 0.0)


HIDING = {kind.__name__: kind for kind in (ByProbability, ByBranch, Attention, Depth, Both)}


class Auxiliary(nn.Module):
    """In training mode a second head, with a dropout on which the logits do not depend."""

    def __init__(self):
        super().__init__()
        self.drop, self.aux, self.lost = nn.Dropout(), nn.Dropout(), None

    def forward(self, x):
        if self.training:
            self.lost = self.aux(x)
        return self.drop(x)


class Noisy(nn.Module):
    """Another branch in training mode, and randomness that is no dropout."""

    def forward(self, x):
        return x + torch.randn_like(x) if self.training else x


class NeedsTargets(nn.Module):
    def forward(self, x):
        if self.training:
            raise ValueError("in training mode targets must be passed")
        return x


class Warning_(nn.Module):
    def forward(self, x):
        if self.training:
            warnings.warn("of training", stacklevel=1)
        return x


class Counting(nn.Module):
    """Keeps a running mean of its own, notes what it was given, and draws."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.last = None

    def forward(self, x):
        if self.training:
            self.mean += x.mean(0)
            self.last = x
            random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
        return x


def beside_visible(*parts):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.3), *parts).eval()


def run(model, posterior, size=6):
    x = torch.randn(size, WIDTH, generator=torch.Generator().manual_seed(0))
    draw = Draw(1, torch.arange(size))
    with torch.no_grad():
        return torch.cat(list(posterior.passes(lambda module, batch: module(batch), model, x, draw)))


# Torch's, of attention without dropout under `torch.vmap`.
@pytest.mark.filterwarnings("ignore:There is a performance drop")
class TestHiddenDropout:
    @pytest.mark.parametrize("kind", HIDING)
    def test_is_named_once_where_other_dropout_shows(self, kind):
        model, posterior = beside_visible(HIDING[kind]()), MCDropout(3)
        with pytest.warns(
            UserWarning, match=rf"class \['{kind}'\] drop in training.*`MCDropout\(train=\({kind},\)\)`"
        ):
            run(model, posterior)
        run(model, posterior)
        run(beside_visible(HIDING[kind]()), posterior)

    @pytest.mark.parametrize("kind", HIDING)
    @pytest.mark.parametrize("by_name", [True, False])
    def test_drops_if_named_and_is_not_spoken_of(self, kind, by_name):
        model = beside_visible(HIDING[kind]())
        model[1].p = 0.0
        passes = run(model, MCDropout(9, train="2" if by_name else HIDING[kind]))
        assert passes.std(0).max() > 0.1

    def test_that_is_not_named_is_still_spoken_of(self):
        model = beside_visible(ByProbability(), Attention())
        with pytest.warns(UserWarning, match=r"class \['Attention'\]"):
            run(model, MCDropout(3, train=ByProbability))

    def test_is_named_where_nothing_shows(self):
        with pytest.raises(ValueError, match=r"those of class \['ByBranch'\].*train=\(ByBranch,\)"):
            run(nn.Sequential(ByBranch(), nn.Linear(WIDTH, 2)).eval(), MCDropout(3))


@pytest.mark.parametrize("part", [Auxiliary, Noisy, NeedsTargets, Warning_, nn.ReLU, nn.Dropout, nn.Identity])
def test_a_model_that_hides_no_dropout_is_left_in_peace(part):
    run(beside_visible(part()), MCDropout(3))  # a warning would be an error here


def test_a_part_in_torchscript_is_passed_over():
    run(beside_visible(torch.jit.script(nn.ReLU())), MCDropout(3))


def test_looking_leaves_statistics_streams_modes_and_attributes_alone():
    counting = Counting()
    model = beside_visible(nn.BatchNorm1d(WIDTH), counting, nn.InstanceNorm1d(1, track_running_stats=True))
    model[1].train()
    modes = [part.training for part in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert before["2.num_batches_tracked"] == 0
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

    def forward(module, batch):
        return module[:4](batch)

    with torch.no_grad():
        known = look(forward, model, torch.randn(6, WIDTH, generator=torch.Generator()), 6)
    assert known.hidden == []
    assert len(known.layouts) == 1
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # noqa: NPY002
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [len(p._forward_hooks) + len(p._forward_pre_hooks) for p in model.modules()] == hooks


def test_passes_leave_what_a_part_notes_in_training_mode_alone():
    model = beside_visible(Counting())
    run(model, MCDropout(3))
    assert model[2].last is None
    assert not model[2].mean.any()


class Summing(nn.Module):
    """In training mode it speaks to the other ranks."""

    def __init__(self, said):
        super().__init__()
        self.said = said

    def forward(self, x):
        if self.training:
            self.said.append("asked")
            dist.all_reduce(x.sum())
            self.said.append("answered")
        return x


@pytest.mark.parametrize("ranks", [1, 2])
def test_looking_never_waits_for_another_rank(ranks, monkeypatch):
    said = []
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(dist, "get_world_size", lambda group=None: ranks)
            run(beside_visible(Summing(said)), MCDropout(3))
    finally:
        dist.destroy_process_group()
    assert said == (["asked", "answered"] if ranks == 1 else ["asked"])
