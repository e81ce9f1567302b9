"""Images stand in the order of choice."""

import math

import numpy as np
import pytest
import torch

from lightning_al.plotting import selected_samples


def test_images_stand_in_the_order_of_choice_with_title_and_score():
    images = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 1, 4, 4)
    figure = selected_samples(
        images, [0.9, 0.8, 0.7, 0.6, 0.5, math.nan], list("abcdef"), columns=4, decimals=1
    )
    assert len(figure.axes) == 6
    assert [float(ax.images[0].get_array().max()) for ax in figure.axes] == [0, 1, 2, 3, 4, 5]
    assert [ax.get_title() for ax in figure.axes] == ["a\n0.9", "b\n0.8", "c\n0.7", "d\n0.6", "e\n0.5", "f"]
    assert {ax.images[0].get_clim() for ax in figure.axes} == {(0, 5)}


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ((4, 5), (4, 5)),
        ((1, 4, 5), (4, 5)),
        ((4, 5, 1), (4, 5)),
        ((3, 4, 5), (4, 5, 3)),
        ((4, 5, 3), (4, 5, 3)),
    ],
)
@pytest.mark.parametrize("make", [np.ones, torch.ones])
def test_grey_and_coloured_images_of_either_order_are_shown(shape, shown, make):
    figure = selected_samples([make(shape)], [0.5])
    assert figure.axes[0].images[0].get_array().shape == shown


@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 5, 3)])
@pytest.mark.parametrize(("scale", "shift"), [(255.0, 0.0), (4.0, -2.0)])
def test_coloured_images_beyond_0_and_1_are_shown_whole(shape, scale, shift):
    image = torch.linspace(0, 1, 60).reshape(shape)
    shown = selected_samples([image * scale + shift], [0.5]).axes[0].images[0].get_array()
    expected = image.numpy() if shape[-1] == 3 else np.moveaxis(image.numpy(), 0, -1)
    np.testing.assert_allclose(shown, expected, atol=1e-6)


def test_fractions_and_whole_numbers_of_colours_are_shown_as_they_are():
    for image in (np.full((4, 5, 3), 0.25), np.full((4, 5, 3), 7, np.uint8), np.full((4, 5, 3), 7)):
        assert (selected_samples([image], [0.5]).axes[0].images[0].get_array() == image).all()
    flat = selected_samples([np.full((4, 5, 3), 9.5)], [0.5]).axes[0].images[0].get_array()
    assert (flat == 0.5).all()


def test_wrong_images_are_named():
    with pytest.raises(ValueError, match=r"shape \(2, 8, 9\)"):
        selected_samples(torch.ones(1, 2, 8, 9), [0.5])
    with pytest.raises(ValueError, match=r"2 images, and \{'scores': 1, 'titles': 3\}"):
        selected_samples(torch.ones(2, 8, 9), [0.5], ["a", "b", "c"])
    with pytest.raises(ValueError, match="0 images"):
        selected_samples([], [])
    with pytest.raises(ValueError, match="`columns` is 0"):
        selected_samples(torch.ones(2, 8, 9), [0.5, 0.5], columns=0)


@pytest.mark.parametrize("scores", [None, 0.5, ["high", "low"], np.ones((2, 2))])
def test_what_are_no_scores_is_named(scores):
    with pytest.raises(TypeError, match=r"`scores` is .*; needed are numbers, one for every image"):
        selected_samples(torch.ones(2, 8, 9), scores)


def test_what_are_no_images_or_titles_is_named():
    for wrong in (None, 3):
        with pytest.raises(TypeError, match=f"`images` is {wrong}; needed are images"):
            selected_samples(wrong, [0.5])
    with pytest.raises(TypeError, match="`titles` is 3; needed is one for every image"):
        selected_samples(torch.ones(2, 8, 9), [0.5, 0.5], 3)
    sample = (torch.ones(1, 8, 9), 3)
    with pytest.raises(ValueError, match=r"An image is .*pass the image alone"):
        selected_samples([sample], [0.5])


def test_scores_may_be_tensors_one_by_one():
    figure = selected_samples(torch.ones(1, 8, 9), [torch.tensor(0.25)])
    assert figure.axes[0].get_title() == "0.25"
