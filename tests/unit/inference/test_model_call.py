from collections import UserDict
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_al.data.targets import TargetPlace
from lightning_al.inference.model_call import ModelCall

X = torch.arange(6.0).reshape(2, 3)
PAIR = TargetPlace(None, (X, 1))


class Recorder(nn.Module):
    """Tells how it was called."""

    def __init__(self, forward):
        super().__init__()
        self.forward = forward


def logits(module, batch, place=PAIR, **options):
    with ModelCall(module, place, **{"embedding_layer": None, "listen": False, **options}) as call:
        return call(batch).logits


class TwoInputs(nn.Module):
    def forward(self, image, mask, scale=1.0):
        return image + mask * scale


class Anything(nn.Module):
    def forward(self, **inputs):
        return inputs["a"] + inputs["b"]


class One(nn.Module):
    def forward(self, x):
        return x * 2


class Stepping(One):
    def active_step(self, batch, batch_idx):
        return batch["odd"][0] + batch_idx


@pytest.mark.parametrize(
    ("module", "batch", "expected"),
    [
        (TwoInputs(), {"image": X, "mask": X}, X * 2),  # a mapping of parameters
        (TwoInputs(), UserDict(image=X, mask=X, scale=3.0), X * 4),
        (Anything(), {"a": X, "b": X, "c": X}, X * 2),
        (One(), {"image": X, "name": ["a", "b"]}, X * 2),  # one tensor
        (TwoInputs(), (X, X, None), X * 2),  # a tuple without its target
        (One(), [X, None], X * 2),
        (One(), (X, torch.zeros(2)), None),  # the part that is not None is an input
        (One(), X, X * 2),  # a bare tensor
        (Stepping(), {"odd": (X,)}, X),
    ],
)
def test_how_a_module_is_called(module, batch, expected):
    place = TargetPlace(None, (X, X, 1)) if len(batch) == 3 and isinstance(batch, tuple) else PAIR
    if expected is None:
        with pytest.raises(TypeError, match="positional"):
            logits(module, batch, place)
    else:
        assert torch.equal(logits(module, batch, place), expected)


def test_a_target_in_front_is_left_out():
    assert torch.equal(logits(TwoInputs(), (None, X, X), TargetPlace(0, (1, X, X))), X * 2)


def test_active_step_counts_its_batches():
    with ModelCall(Stepping(), PAIR, embedding_layer=None, listen=False) as call:
        assert [float(call({"odd": (X,)}).logits[0, 0]) for _ in range(3)] == [0, 1, 2]


def test_an_unclear_call_shows_batch_and_signature():
    with pytest.raises(TypeError, match="How to call the module") as error:
        logits(One(), {"image": X, "mask": X, "name": ["a"]})
    for words in (
        "{'image': Tensor(2, 3), 'mask': Tensor(2, 3), 'name': [str]}", "(x)", "def active_step(self, batch",
    ):  # fmt: skip
        assert words in str(error.value)
    with pytest.raises(TypeError, match="the batch is str"):
        logits(One(), "text")


@pytest.mark.parametrize(
    "output", [X, {"logits": X}, UserDict(logits=X), SimpleNamespace(logits=X), X.double(), X.bfloat16()]
)
def test_logits_are_found_in_float32(output):
    found = logits(Recorder(lambda x: output), X)
    assert found.dtype == torch.float32
    assert torch.equal(found, X)


@pytest.mark.parametrize("output", [None, {"loss": X}, (X, X), torch.tensor(0.5), SimpleNamespace(logits=3)])
def test_what_holds_no_logits_is_described(output):
    with pytest.raises(TypeError, match=r"(?s)The module returned .*needed are logits \(B, C\).*active_step"):
        logits(Recorder(lambda x: output), X)


# ---------------------------------------------------------------- embeddings


class Deep(nn.Module):
    """An earlier linear layer has the shape of the last, and one comes after it that is not used."""

    def __init__(self, bias=True):
        super().__init__()
        self.last = nn.Linear(3, 3, bias=bias)
        self.first = nn.Linear(3, 3)
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        return self.last(self.first(x).relu())


class Twice(Deep):
    """The auxiliary head is called after the one that counts."""

    def forward(self, x):
        h = self.first(x).relu()
        out = self.last(h)
        self.unused(h)
        return {"logits": out}


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(1, 2, 1), nn.Flatten())
        self.head = nn.Sequential(nn.Dropout(), nn.Linear(6, 4))

    def forward(self, x):
        return self.head(self.body(x[:, None]))


def said(module, **options):
    module.eval()
    with (
        torch.no_grad(),
        ModelCall(module, PAIR, **{"embedding_layer": None, "listen": True, **options}) as call,
    ):
        call(X[:1])  # the layer is found once and kept
        return call(X)


@pytest.mark.parametrize(
    ("module", "last"),
    [(Deep(), "last"), (Deep(bias=False), "last"), (Twice(), "last"), (Head(), "head.1"),
     (nn.Sequential(nn.Linear(3, 1)), "0")],
)  # fmt: skip
def test_the_embedding_enters_the_linear_layer_that_made_the_logits(module, last):
    found = said(module)
    layer = module.get_submodule(last)
    weight, bias = found.classifier
    assert torch.equal(weight, layer.weight)
    assert torch.allclose(found.embeddings @ weight.T + bias, found.logits, atol=1e-5)
    assert found.embeddings.shape == (2, layer.in_features)


def test_in_bfloat16_too():
    module = Deep().eval()
    with (
        torch.no_grad(), torch.autocast("cpu", torch.bfloat16),
        ModelCall(module, PAIR, embedding_layer=None, listen=True) as call,
    ):  # fmt: skip
        found = call(X)
    assert found.embeddings.dtype == torch.float32
    assert found.classifier is not None


def test_a_named_layers_output_is_the_embedding():
    module = Head()
    found = said(module, embedding_layer="body")
    assert torch.equal(found.embeddings, module.body(X[:, None]))
    assert found.classifier[0].shape == (4, 6)


def test_a_modules_own_embeddings_win():
    module = Recorder(lambda x: {"logits": x, "embeddings": x.double() + 1})
    assert torch.equal(said(module).embeddings, X + 1)


def test_no_linear_layer_says_what_to_do():
    for module in (nn.Sequential(nn.Flatten()), nn.Sequential(nn.Linear(3, 3), nn.Softmax(-1))):
        with pytest.raises(ValueError, match=r"No `nn.Linear` .*needs an embedding.*`embedding_layer=`"):
            said(module)


def test_a_layer_that_is_not_there_or_not_used():
    with pytest.raises(ValueError, match=r"`embedding_layer` is 'neck'.*does not have.*'body'"):
        said(Head(), embedding_layer="neck")
    with pytest.raises(ValueError, match=r"`embedding_layer` 'unused' .*gave no tensor.*Name a layer"):
        said(Deep(), embedding_layer="unused")


def test_hooks_are_removed_even_after_an_error():
    module = Deep()
    said(module)
    with pytest.raises(ZeroDivisionError), ModelCall(module, PAIR, embedding_layer="last", listen=True):
        _ = 1 / 0
    assert not any(m._forward_hooks for m in module.modules())
