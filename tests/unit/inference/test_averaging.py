"""The mean prediction, and a test that is made of it."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_al import ActiveDataModule, Committee, MCDropout
from lightning_al.inference.averaging import AveragedTest, Targets, mean_prediction
from lightning_al.inference.outputs import probabilities

B, C, K = 6, 4, 5


def drawn(*shape, scale=3.0):
    return scale * torch.randn(K, *shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize("shape", [(B, C), (B, C, 3), (B, C, 3, 2)], ids=str)
def test_classes_have_the_cross_entropy_and_answers_of_the_mean_probabilities(shape):
    passes = drawn(*shape)
    probs = passes.softmax(2).mean(0)
    found = mean_prediction(passes, "classes")
    torch.testing.assert_close(found.softmax(1), probs)
    targets = torch.randint(C, (shape[0], *shape[2:]), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        functional.cross_entropy(found, targets), functional.nll_loss(probs.log(), targets)
    )
    assert torch.equal(found.argmax(1), probs.argmax(1))


@pytest.mark.parametrize(
    ("shape", "kind"), [((B,), "classes"), ((B, 1), "classes"), ((B, C), "labels"), ((B,), "labels")], ids=str
)
def test_sigmoids_are_averaged_where_every_logit_is_a_question_of_its_own(shape, kind):
    passes = drawn(*shape)
    found = mean_prediction(passes, kind)
    assert found.shape == shape
    torch.testing.assert_close(found.sigmoid(), passes.sigmoid().mean(0))
    targets = torch.ones(shape)
    torch.testing.assert_close(
        functional.binary_cross_entropy_with_logits(found, targets),
        functional.binary_cross_entropy(passes.sigmoid().mean(0), targets),
    )


@pytest.mark.parametrize("shape", [(B,), (B, 1), (B, C)], ids=str)
def test_numbers_are_averaged_as_they_are(shape):
    passes = drawn(*shape)
    torch.testing.assert_close(mean_prediction(passes, "numbers"), passes.mean(0))


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_very_sure_passes_stay_finite(kind):
    passes = torch.tensor([[[300.0, -300.0]], [[-300.0, 300.0]], [[300.0, -300.0]]])
    found = mean_prediction(passes, kind)
    assert torch.isfinite(found).all()
    probs = found.softmax(1) if kind == "classes" else found.sigmoid()
    torch.testing.assert_close(probs, torch.tensor([[2 / 3, 1 / 3]]))


def test_the_mean_of_equal_passes_says_what_each_says():
    passes = drawn(B, C)[:1].expand(K, B, C)
    torch.testing.assert_close(mean_prediction(passes, "classes").softmax(-1), passes[0].softmax(-1))
    torch.testing.assert_close(
        probabilities(mean_prediction(passes, "classes")), probabilities(passes[0]), atol=1e-6, rtol=1e-5
    )


WHOLE = torch.arange(20)


@pytest.mark.parametrize(
    ("targets", "shape", "kind"),
    [
        (WHOLE % 3, (3,), "classes"), (WHOLE % 3, (1,), "numbers"), (WHOLE % 3, (), "numbers"),
        (WHOLE % 2, (2,), "classes"), (WHOLE % 2, (1,), "labels"), (WHOLE % 2, (), "labels"),
        ((WHOLE % 2).float(), (), "labels"), ((WHOLE % 2).float(), (2,), "classes"),
        ((WHOLE % 2).bool(), (1,), "labels"),
        (WHOLE / 7, (), "numbers"), (WHOLE / 7, (1,), "numbers"), (torch.randn(20, 3), (3,), "numbers"),
        (torch.eye(20)[:, :3], (3,), "labels"), (torch.eye(20).long()[:, :3], (3,), "labels"),
        (WHOLE[:, None].expand(20, 4) % 3, (3, 4), "classes"),  # a class for each of 4 tokens
        (WHOLE[:, None].expand(20, 4) % 2, (2, 4), "classes"),
        (WHOLE[:, None].expand(20, 4) % 2, (1, 4), "labels"),
        (WHOLE[:, None].expand(20, 4) % 9, (4,), "numbers"),  # counts of four kinds
        (WHOLE[:, None, None].expand(20, 2, 2) % 3, (3, 2, 2), "classes"),
        ((WHOLE[:, None, None].expand(20, 2, 2) % 2).float(), (1, 2, 2), "labels"),
        (torch.randn(20, 1, 2, 2), (1, 2, 2), "numbers"), (torch.randn(20, 2, 2), (1, 2, 2), "numbers"),
        (["cat", "dog"] * 10, (2,), "classes"), (["cat", "dog"] * 10, (1,), "labels"),
        (np.linspace(0, 1, 20), (1,), "numbers"),
        (torch.zeros(20, 99, 99).long(), (3, 99, 99), "classes"),  # too large for the ledger
    ],
)  # fmt: skip
def test_targets_tell_what_outputs_are(tmp_path, targets, shape, kind):
    items = [(torch.zeros(2), target) for target in targets]
    data = ActiveDataModule(items, initial=range(20), state_dir=tmp_path)
    data.open_for_fit()
    data.release()
    assert Targets.of(data).kind_of(shape) == kind
    assert Targets.of(data, outputs="labels").kind_of(shape) == "labels"


Named = namedtuple("Named", ["logits", "hidden"])


@dataclass
class Fields:
    logits: torch.Tensor
    hidden: int


FORMS = {
    "tensor": lambda logits: logits,
    "mapping": lambda logits: {"logits": logits, "hidden": 1},
    "ordered": lambda logits: OrderedDict(logits=logits, hidden=1),
    "object": lambda logits: SimpleNamespace(logits=logits, hidden=1),
    "dataclass": lambda logits: Fields(logits, 1),
    "named tuple": lambda logits: Named(logits, 1),
}


class Net(nn.Module):
    """Returns its logits in some form, and takes its input in some."""

    def __init__(self, form="tensor", seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.net, self.form = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, C)), FORMS[form]
        self.trainer = SimpleNamespace(world_size=1, global_rank=0)

    def forward(self, x=None, inputs=None, attention_mask=None):
        x = inputs if x is None else x
        x = x["x"] if isinstance(x, dict) else x
        return self.form(self.net(x))

    def test_step(self, x):
        return self(x)


def logits_in(output):
    if isinstance(output, torch.Tensor):
        return output
    hidden = output["hidden"] if isinstance(output, dict) else output.hidden
    assert hidden == 1
    return output["logits"] if isinstance(output, dict) else output.logits


X = torch.randn(B, 3, generator=torch.Generator().manual_seed(1))


CLASSES = Targets(axes=0, binary=False)


def in_a_test(posterior, module, work, targets=CLASSES):
    averaged = AveragedTest(posterior, targets, seed=0)
    module.eval()
    with torch.inference_mode():
        averaged.on_test_start(module.trainer, module)
        try:
            return work()
        finally:
            averaged.on_test_end(module.trainer, module)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_output_is_given_back_with_the_mean(form):
    members = [Net(form, seed).eval() for seed in (1, 2)]
    found = in_a_test(Committee(models=members), members[0], lambda: members[0](X))
    assert type(found) is type(FORMS[form](X))
    expected = torch.stack([logits_in(member(X)) for member in members]).softmax(-1).mean(0)
    torch.testing.assert_close(logits_in(found).softmax(-1), expected)


@pytest.mark.parametrize("call", [lambda m: m(inputs=X), lambda m: m({"x": X}), lambda m: m(x={"x": X})])
def test_inputs_may_come_by_name_and_in_mappings(call):
    module = Net()
    found = in_a_test(MCDropout(50), module, lambda: call(module))
    assert found.shape == (B, C)
    assert not torch.allclose(found, module(X))


class Tokens(Net):
    """Hugging Face's order: (B, tokens, C)."""

    def __init__(self, seed):
        super().__init__(seed=seed)

    def forward(self, input_ids=None, attention_mask=None):
        return self.net(nn.functional.one_hot(input_ids, 3).float())


def test_tokens_before_classes_are_seen_by_the_attention_mask():
    ids = torch.randint(3, (B, 7), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    members = [Tokens(1).eval(), Tokens(2).eval()]
    found = in_a_test(
        Committee(models=members), members[0], lambda: members[0](**batch), Targets(axes=1, binary=False)
    )
    expected = torch.stack([member(**batch) for member in members]).softmax(-1).mean(0)
    assert found.shape == (B, 7, C)
    torch.testing.assert_close(found.softmax(-1), expected)


def test_the_kind_of_number_stays():
    module = Net().bfloat16()
    found = in_a_test(MCDropout(4), module, lambda: module(X.bfloat16()))
    assert found.dtype == torch.bfloat16


def test_samples_have_masks_of_their_own_wherever_they_are_dealt():
    """Two ranks of one sample each, and one rank of two: a sample's masks are those of its place."""
    module = Net()
    posterior = MCDropout(3, consistent=False)
    same = X[:1].expand(4, 3)
    whole = in_a_test(posterior, module, lambda: module(same))
    assert len(whole.unique(dim=0)) == 4
    again = in_a_test(posterior, module, lambda: torch.cat([module(same[:3]), module(same[:1])]))
    torch.testing.assert_close(again, whole)
    for rank in (0, 1):
        module.trainer = SimpleNamespace(world_size=2, global_rank=rank)
        shared = in_a_test(posterior, module, lambda: module(same[:2]))
        torch.testing.assert_close(shared, whole[rank::2])


def test_forward_is_put_back_after_an_exception_too():
    module = Net()
    averaged = AveragedTest(MCDropout(2), CLASSES, 0)
    averaged.on_test_start(module.trainer, module)
    assert "forward" in vars(module)
    averaged.on_exception(module.trainer, module, ArithmeticError())
    assert "forward" not in vars(module)
    own = lambda x: x  # noqa: E731
    module.forward = own
    averaged.on_test_start(module.trainer, module)
    averaged.on_test_end(module.trainer, module)
    assert module.forward is own
    averaged.on_exception(module.trainer, module, ArithmeticError())  # before the next test had begun
    assert module.forward is own


def test_a_test_step_that_bypasses_forward_is_told_what_to_do():
    module = Net()
    averaged = AveragedTest(MCDropout(2), CLASSES, 0)
    averaged.on_test_start(module.trainer, module)
    with pytest.raises(
        RuntimeError, match=r"stands in for `forward`, but `Net.test_step` does not.*Call `self"
    ):
        averaged.on_test_batch_end(module.trainer, module)
    module(X)
    averaged.on_test_batch_end(module.trainer, module)
    averaged.on_test_end(module.trainer, module)
