"""Where the samples of a batch are in a tensor."""

import pytest
import torch

from lightning_al.inference.layout import Layout, Seen, without_first

SAMPLES = 4


def of_samples(samples, layout, shape):
    """A tensor that holds, under `layout`, numbers of each of the given samples."""
    generator = torch.Generator().manual_seed(0)
    if layout.axis is None:
        return torch.randn(shape, generator=generator)
    split, axis = layout.split(shape, SAMPLES)
    values = torch.randn(split, generator=generator).movedim(axis, 0)[samples].movedim(0, axis)
    merged = list(shape)
    merged[layout.axis] = shape[layout.axis] // SAMPLES * len(samples)
    return values.reshape(merged)


def seen(whole, fewer):
    return Layout.seen(Seen.of(whole, SAMPLES), Seen.of(fewer, SAMPLES - 1), SAMPLES)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((4, 3), Layout(0)), ((4, 4, 4), Layout(0)), ((4, 4, 4), Layout(1)), ((4, 4, 4), Layout(2)),
        ((12, 5), Layout(0)), ((12, 5), Layout(0, minor=True)), ((3, 8), Layout(1, minor=True)),
        ((4, 4), Layout(None)), ((7,), Layout(None)), ((4,), Layout(0)), ((4, 12), Layout(1)),
    ],
)  # fmt: skip
def test_is_seen_by_leaving_one_out(shape, layout):
    assert seen(of_samples([0, 1, 2, 3], layout, shape), of_samples([3, 2, 1], layout, shape)) == layout


def test_is_not_seen_where_shapes_tell_nothing():
    assert seen(torch.ones(4, 3), torch.ones(2, 3)) is None
    assert seen(torch.ones(4, 4), torch.ones(3, 3)) is None  # two axes are shorter
    assert seen(torch.ones(4, 4), torch.ones(3)) is None


def test_neither_like_samples_nor_like_sums_nor_wrong_numbers_deceive():
    assert seen(torch.ones(4, 4), torch.ones(4, 3)) == Layout(1)
    nan = torch.full((8, 3), float("nan"))
    assert seen(nan, nan[:6]) == Layout(0)
    layout = Layout(0, minor=True)
    whole, fewer = (of_samples(s, layout, (8, 6)) for s in ([0, 1, 2, 3], [3, 2, 1]))
    assert seen(*(v - v.mean(-1, keepdim=True) for v in (whole, fewer))) == layout  # behind a LayerNorm


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 3), Layout(0)), ((3, 4, 5), Layout(1)), ((4, 4, 5), Layout(0)), ((12, 5), Layout(0)),
        ((5, 3), None), ((), None), ((3, 5, 4), None), ((0, 3), None),
    ],
)  # fmt: skip
def test_is_guessed_by_shape_where_it_cannot_be_seen(shape, expected):
    assert Layout.guessed(shape, SAMPLES) == expected


def test_a_sample_is_left_out_where_a_batch_holds_the_samples():
    x, y = torch.arange(4), torch.arange(8).reshape(4, 2)
    fewer = without_first({"x": (x, None), "y": [y, "text"], "scale": torch.ones(3)}, 4)
    assert fewer["x"][0].tolist() == [3, 2, 1]
    assert fewer["y"][0].tolist() == y[1:].flip(0).tolist()
    assert fewer["scale"].tolist() == [1, 1, 1]
    assert without_first((torch.ones(3), "text"), 4) is None
    assert without_first(torch.ones(1, 3), 1) is None
