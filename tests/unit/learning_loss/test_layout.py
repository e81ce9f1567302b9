"""Which axis of a layer's output holds the samples, and which the channels."""

import pytest
import torch
from torch import nn

from lightning_al import LearningLossOptions
from unit.learning_loss.nets import Own


def features_of(layer, x, *, rows=None, channels="auto"):
    """Its raw output, and what is made of it."""
    module = Own(layer, example=x)
    module.learning_loss_options = LearningLossOptions(channels=channels)
    module.configure_model()
    features = module._learning_loss.features
    with features.listen(), torch.no_grad():
        output = module(x)
        found = features.for_batch(len(x) if rows is None else rows)["layer"]
    return output, found


class PatchEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(1, 12, 4, 4)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class Position(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(12, 12, 3, padding=1)

    def forward(self, x):
        return x + self.conv(x.transpose(1, 2)).transpose(1, 2)


class Stage(nn.Module):
    """As in a Swin transformer: maps with their channels last."""

    def __init__(self):
        super().__init__()
        self.norm, self.linear, self.drop = nn.LayerNorm(12), nn.Linear(12, 12), nn.Dropout(0.0)

    def forward(self, x):
        return self.drop(self.linear(self.norm(x)))


class Residual(nn.Module):
    """As in a ResNet over one or two axes."""

    def __init__(self, axes):
        super().__init__()
        conv, norm = ((nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d))[axes - 1]
        self.conv, self.norm = conv(12, 12, 1), norm(12)

    def forward(self, x):
        return x + self.norm(self.conv(x)).relu()


class SqueezeExcite(nn.Module):
    """Linear layers inside, but a map with its channels first."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate = nn.Conv2d(12, 12, 1), nn.Linear(12, 12)

    def forward(self, x):
        x = self.conv(x)
        return x * self.gate(x.mean((2, 3))).sigmoid()[:, :, None, None]


FIRST, LAST = "first", "last"


@pytest.mark.parametrize(
    ("layer", "shape", "channels"),
    [
        (PatchEmbedding(), (2, 1, 28, 28), LAST),
        (Position(), (2, 49, 12), LAST),
        (Stage(), (2, 7, 7, 12), LAST),
        (nn.Sequential(nn.Conv2d(1, 12, 1), nn.Flatten(2)), (2, 1, 3, 3), FIRST),
        (nn.Sequential(Stage(), Stage()), (2, 7, 7, 12), LAST),
        (nn.Sequential(nn.Conv1d(12, 12, 1), nn.Linear(9, 5)), (2, 12, 9), LAST),
        (nn.Sequential(Stage(), nn.Linear(12, 5), nn.GELU(), nn.Dropout(0.0)), (2, 7, 7, 12), LAST),
        (nn.Embedding(5, 12), (2, 7), LAST),
        (Residual(1), (2, 12, 9), FIRST),
        (Residual(2), (2, 12, 9, 8), FIRST),
        (SqueezeExcite(), (2, 12, 9, 8), FIRST),
        (nn.Sequential(nn.Sequential(nn.Linear(9, 9), nn.Conv1d(12, 12, 1)), nn.ReLU()), (2, 12, 9), FIRST),
        (nn.Sequential(nn.Conv1d(12, 12, 1), nn.AdaptiveMaxPool1d(3)), (2, 12, 9), FIRST),
        (nn.GroupNorm(2, 12), (2, 12, 9), FIRST),
        (nn.Upsample(scale_factor=2), (2, 12, 9), FIRST),
    ],
)  # fmt: skip
def test_channels_are_where_the_layer_puts_them(layer, shape, channels):
    x = torch.randint(5, shape) if isinstance(layer, nn.Embedding) else torch.randn(shape)
    output, found = features_of(layer, x)
    assert torch.allclose(
        found, output.flatten(2).mean(2) if channels == FIRST else output.flatten(1, -2).mean(1), atol=1e-6
    )


class Turning(nn.Module):
    """Samples first outside; inside an attention that wants time first, turned for or not."""

    def __init__(self, *, turns):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2)
        self.turns = turns

    def forward(self, x):
        if self.turns:
            x = x.transpose(0, 1)
        x = self.attention(x, x, x)[0]
        return x.transpose(0, 1) if self.turns else x


@pytest.mark.parametrize("length", [5, 3])
def test_a_block_that_turns_its_axes_back_is_left_as_it_is(length):
    output, found = features_of(Turning(turns=True), torch.randn(3, length, 6))
    assert torch.allclose(found, output.mean(1))


def test_a_block_that_does_not_is_seen_by_the_number_of_samples():
    output, found = features_of(Turning(turns=False), torch.randn(5, 3, 6), rows=3)
    assert torch.allclose(found, output.mean(0))


def test_what_one_batch_has_shown_holds_for_the_next():
    module = Own(Turning(turns=False), example=torch.randn(5, 3, 6))
    module.configure_model()
    features = module._learning_loss.features
    for length in (5, 3):  # the second could be either
        x = torch.randn(length, 3, 6)
        with features.listen(), torch.no_grad():
            output = module(x)
            assert torch.allclose(features.for_batch(3)["layer"], output.mean(0))


def test_a_sequence_layer_that_ends_the_layer_tells_where_the_samples_are():
    layer = nn.Sequential(nn.Linear(6, 6), nn.TransformerEncoderLayer(6, 2, 8, 0.0), nn.Dropout(0.0))
    for length in (5, 3):
        output, found = features_of(layer, torch.randn(length, 3, 6), rows=3)
        assert torch.allclose(found, output.mean(0), atol=1e-6)


def test_channels_may_be_told_for_each_layer():
    class Two(Own):
        learning_loss_layers = ("layer.0", "layer.1")

    module = Two(nn.Sequential(nn.Identity(), nn.Identity()), example=torch.zeros(2, 3, 4, 5))
    module.learning_loss_options = LearningLossOptions(channels=("last", "first"))
    module.configure_model()
    assert [branch.in_features for branch in module.loss_head.branches] == [5, 3]

    module = Two(nn.Sequential(nn.Identity(), nn.Identity()), example=torch.zeros(2, 3))
    module.learning_loss_options = LearningLossOptions(channels=["last"])
    with pytest.raises(
        ValueError, match=r"has 1 values, but `learning_loss_layers` has 2 names.*one for all"
    ):
        module.configure_model()
    with pytest.raises(ValueError, match=r"`channels` is .*'middle'.*; needed is one of"):
        LearningLossOptions(channels=("last", "middle"))


class AddsTo(nn.Module):
    """A residual block: where its channels are shows by their number only."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):
        return x + self.part(x)


AMBIGUOUS = {
    "first": (lambda: nn.Conv1d(8, 8, 3, padding=1), lambda n: (2, 8, n), 2),
    "last": (lambda: nn.Linear(8, 8), lambda n: (2, n, n, 8), (1, 2)),
}


@pytest.mark.parametrize("channels", AMBIGUOUS)
def test_axes_that_are_equal_by_chance_are_read_as_those_before(channels):
    make, shape, places = AMBIGUOUS[channels]
    module = Own(AddsTo(make()), example=torch.randn(shape(5)))
    module.configure_model()
    features = module._learning_loss.features
    for size in (8, 5, 9, 8):
        with features.listen(), torch.no_grad():
            output = module(torch.randn(shape(size)))
            assert torch.allclose(features.for_batch(2)["layer"], output.mean(places), atol=1e-6)


@pytest.mark.parametrize("channels", AMBIGUOUS)
def test_axes_that_are_equal_from_the_start_are_told_of_once(channels):
    make, shape, places = AMBIGUOUS[channels]
    layer, x = AddsTo(make()), torch.randn(shape(8))
    module = Own(layer, example=x)
    with pytest.warns(UserWarning, match=r"Two axes of what `layer` .* are 8 wide.*Set `channels=`"):
        module.configure_model()
    features = module._learning_loss.features
    for size in (8, 8, 5, 8):  # a second warning would be an error
        with features.listen(), torch.no_grad():
            output = module(torch.randn(shape(size)))
            found = features.for_batch(2)["layer"]
    assert torch.allclose(found, output.mean(places), atol=1e-6)
    output, found = features_of(layer, x, channels=channels)  # as it was advised
    assert torch.allclose(found, output.mean(places), atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(8, 8), (2, 8, 8)),
        (nn.Conv2d(8, 8, 1), (2, 8, 8, 8)),
        (AddsTo(nn.Conv2d(8, 8, 1)), (2, 8, 8, 8)),
    ],
)
def test_equal_axes_that_the_layer_or_the_usual_order_tells_apart_are_no_matter(layer, shape):
    output, found = features_of(layer, torch.randn(shape))
    assert torch.allclose(found, output.mean(1) if len(shape) == 3 else output.mean((2, 3)), atol=1e-6)
