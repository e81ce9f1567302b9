"""What a committee is made of, and what is refused."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_al import Committee
from lightning_al.inference.member import Member
from lightning_al.inference.posteriors import Draw


def make_a(seed):
    torch.manual_seed(seed)
    return nn.Linear(2, 2)


def make_b(seed, width=3, layer=nn.Linear):
    torch.manual_seed(seed)
    return nn.Sequential(layer(2, width), layer(width, 2))


SHARED = make_a(0)
DRAW = Draw(0, torch.arange(1))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"size": 1}, ValueError, r"A committee of 1 cannot disagree; needed are at least two.*`size=5`"),
        ({"models": [make_a]}, ValueError, r"A committee of 1 cannot disagree"),
        ({"models": []}, ValueError, r"A committee of 0 cannot disagree"),
        ({"size": 0}, ValueError, r"A committee of 0 cannot disagree; needed are at least two.*`size=5`"),
        ({"size": -1}, ValueError, r"A committee of -1 cannot disagree"),
        ({"size": True}, TypeError, r"`size` is True; needed is a whole number"),
        ({"size": [make_a, make_b]}, TypeError, r"given as a `list`; needed.*`Committee\(models=\[...\]\)`"),
        ({"size": make_a}, TypeError, r"given as a `function`; needed is a whole number. Pass members"),
        ({"bootstrap": 1}, TypeError, r"`bootstrap` is 1; needed is `True` or `False`"),
        ({"models": [SHARED, make_b(0), SHARED]}, ValueError, r"one is given twice; a model cannot.* Give"),
        ({"models": ["a.pt", "b.pt", "a.pt"]}, ValueError, r"'a.pt'.*given twice; a model cannot.* Give"),
        ({"models": ["a.pt", Path("runs/../a.pt")]}, ValueError, r"given twice; a model cannot"),
        ({"models": [make_a, lambda: SHARED]}, TypeError, r"`<lambda>\(\)` takes no seed.*seed to a module"),
        ({"size": 2.5}, TypeError, r"`size` is 2.5; needed is a whole number"),
        ({"size": 3, "models": [make_a, make_b]}, ValueError, r"`size` is 3, but `models` are 2. Leave"),
        (
            {"models": [make_a, nn.Linear(2, 2)]}, TypeError,
            r"`models` are \['make_a', 'Linear'\]; needed are functions .* or modules, or paths",
        ),
        ({"models": ["a.ckpt", nn.Linear(2, 2)]}, TypeError, r"\[\"'a.ckpt'\", 'Linear'\]; needed"),
        ({"models": [make_a, "a.ckpt"]}, TypeError, r"all of one kind"),
        (
            {"models": [nn.Linear, nn.Linear]}, TypeError,
            r"classes \['Linear', 'Linear'\]; needed are functions.*`lambda seed: Linear\(\.\.\.\)`",
        ),
        ({"models": [1, 2]}, TypeError, r"`models` are \['int', 'int'\]; needed"),
        ({"models": "members.ckpt"}, TypeError, r"`models` is 'members.ckpt'; needed is a list"),
        ({"models": make_b(0)}, TypeError, r"`models` is a `Sequential`; needed is a list"),
        (
            {"models": [nn.Linear(2, 2), nn.Linear(2, 2)], "bootstrap": True}, ValueError,
            r"`bootstrap` is about the training of members, but the given ones are trained. Leave",
        ),
        ({"models": ["a", "b"], "bootstrap": True}, ValueError, r"`bootstrap` is about"),
    ],
)  # fmt: skip
def test_what_is_no_committee(arguments, error, words):
    with pytest.raises(error, match=words):
        Committee(**arguments)


def test_sizes_and_who_trains():
    assert Committee().num_samples == 5
    assert Committee(models=[make_a, make_b]).num_samples == 2
    assert Committee(2, models=[make_a, make_b], bootstrap=True).trains
    assert Committee(3).trains
    assert not Committee(models=[nn.Linear(1, 1), nn.Linear(1, 1)]).trains
    assert not Committee(models=["a", Path("b")]).trains
    assert Committee().consistent


def described():
    """Committees of functions, whose descriptions must be the same in every process."""
    functions = [
        make_a,
        partial(make_b, width=4, layer=nn.Linear),
        partial(make_b, 0),
        lambda seed: make_a(seed),
    ]
    return [
        repr(Committee(3)), repr(Committee(3, bootstrap=True)), repr(Committee(models=functions)),
        repr(Committee(models=[nn.Linear(1, 1), make_b(0)])), repr(Committee(models=["a", Path("b/c.ckpt")])),
    ]  # fmt: skip


def test_a_description_has_neither_weights_nor_addresses():
    assert described() == [
        "Committee(size=3)",
        "Committee(size=3, bootstrap=True)",
        "Committee(models=[make_a, partial(make_b, width=4, layer=Linear), partial(make_b, 0), "
        "described.<locals>.<lambda>])",
        "Committee(models=[Linear, Sequential])",
        "Committee(models=['a', 'b/c.ckpt'])",
    ]


def test_a_function_may_make_two_members():
    assert Committee(models=[make_a, make_a]).num_samples == 2  # each of them with a seed of its own


def test_a_description_stays_while_the_members_are_there(tmp_path):
    committee = Committee(2)
    before = repr(committee)
    with committee.seated([Member(tmp_path / "a"), None]):
        assert repr(committee) == before
        assert committee.trains
    assert repr(committee) == before
    with pytest.raises(ValueError, match="has no members yet"):
        committee.members(nn.Linear(1, 1))


def saved(module, path):
    torch.save({"state_dict": module.state_dict()}, path)
    return path


def test_members_are_of_the_structure_of_the_module_or_of_their_own(tmp_path):
    x = torch.randn(4, 2)
    first, second, scored = make_a(1), make_b(2), make_a(3)
    committee = Committee(3)
    members = [
        Member(saved(first, tmp_path / "a.pt")),
        Member(saved(second, tmp_path / "b.pt"), WithHead, seed=0),
        None,
    ]
    with committee.seated(members):
        passes = torch.cat(list(committee.passes(lambda m, x: m(x), scored, x, DRAW)))
        with committee.together(scored):
            again = torch.cat(list(committee.passes(lambda m, x: m(x), scored, x, DRAW)))
    assert torch.equal(passes, torch.stack([first(x), second(x), scored(x)]))
    assert torch.equal(again, passes)
    assert committee._loaded is None


class WithHead(nn.Sequential):
    """Has its last layers late."""

    def __init__(self, seed):
        super().__init__()

    def setup(self, stage):
        self.append(nn.Linear(2, 3))

    def configure_model(self):
        self.append(nn.Linear(3, 2))


def test_no_member_is_the_module_that_is_scored_nor_left_in_memory(tmp_path):
    scored = make_a(0)
    before = scored.weight.detach().clone()
    committee = Committee(models=[saved(make_a(1), tmp_path / "a"), saved(make_a(2), tmp_path / "b")])
    seen = []
    for block in committee.members(scored):
        with block as member:
            assert member is not scored
            seen.append(member.weight.detach().clone())
    assert torch.equal(scored.weight, before)
    assert not torch.equal(*seen)


def test_given_modules_are_put_back(tmp_path):
    members = [nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(2)) for _ in range(2)]
    members[0][1].eval()
    members[1].double()
    modes = [part.training for member in members for part in member.modules()]
    for block in Committee(models=members).members(make_a(0)):
        with block as member:
            assert not any(part.training for part in member.modules())
            assert all(p.dtype == torch.float32 for p in member.parameters())
    failing = Committee(models=members).members(make_a(0))[0]
    with pytest.raises(ArithmeticError), failing:
        raise ArithmeticError
    assert [part.training for member in members for part in member.modules()] == modes
    assert members[1][1].weight.dtype == torch.float64
