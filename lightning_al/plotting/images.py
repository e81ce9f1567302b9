"""The images that a strategy asked for, with their scores."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Sequence, Sized
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lightning_al.plotting.style import INK, new_figure, root_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure


def selected_samples(
    images: Any,
    scores: Sequence[float],
    titles: Sequence[Any] | None = None,
    *,
    columns: int = 5,
    decimals: int = 2,
    heading: str | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure:
    r"""The images that a strategy asked for, most wanted first, each with its score.

    Args:
        images: Grey `(H, W)` or `(1, H, W)`, or coloured `(H, W, 3)` or `(3, H, W)`: tensors or arrays.
            Grey ones share one range from black to white; coloured ones with numbers outside of 0 to 1, such
            as normalised ones, have one each.
        scores: One each; NaN: shown without.
        titles: A line above the score each, such as the label.
        columns: Images in a row.
        decimals: Of the scores.
        heading: Above all.
        figure: Where to draw; `None`: a figure of its own.

    Returns:
        The figure, one axes an image.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        TypeError: If `images`, `scores` or `titles` are not several.
        ValueError: If there is no image, an image has another shape, or the lengths differ.

    Example:
        >>> import torch
        >>> figure = selected_samples(torch.rand(3, 1, 8, 8), [0.9, 0.8, 0.75], titles=["a 3", "a 5", "an 8"])
        >>> figure.axes[0].get_title()
        'a 3\n0.90'
    """
    pictures = [_picture(image) for image in _each(images)]
    values = _as_scores(scores)
    _check_lengths(pictures, scores=values, titles=titles)
    if columns < 1:
        raise ValueError(f"`columns` is {columns}; needed is how many images stand in a row, 1 or more.")
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    figure = new_figure((1.15 * columns + 0.2, 1.5 * rows + 0.5)) if figure is None else figure
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    grey = [picture for picture in pictures if picture.ndim == 2]
    span = {"vmin": min(p.min() for p in grey), "vmax": max(p.max() for p in grey)} if grey else {}
    for place, (ax, picture) in enumerate(zip(panels, pictures, strict=False)):
        ax.imshow(picture, cmap="gray", interpolation="nearest", **(span if picture.ndim == 2 else {}))
        score = "" if math.isnan(values[place]) else f"{values[place]:.{decimals}f}"
        lines = [str(titles[place])] if titles is not None else []
        ax.set_title("\n".join([*lines, score]).strip("\n"), fontsize=10, color=INK, pad=3)
    for ax in panels:
        ax.set_axis_off()
    for ax in panels[len(pictures) :]:
        ax.remove()
    if heading:
        figure.suptitle(heading, fontsize=11, color=INK)
    return root_of(figure)


def _each(images: Any) -> Iterator[Any]:
    try:
        return iter(images)
    except TypeError:
        raise TypeError(
            f"`images` is {reprlib.repr(images)}; needed are images, one after the other. Pass a list of "
            "them, or an array (N, C, H, W)."
        ) from None


def _as_scores(scores: Any) -> list[float]:
    try:
        return [float(score) for score in scores]
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"`scores` is {reprlib.repr(scores)}; needed are numbers, one for every image. Pass a query's "
            "`scores`, or `[math.nan] * len(images)` for none."
        ) from None


def _as_array(image: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    except (TypeError, ValueError):
        raise ValueError(
            f"An image is {reprlib.repr(image)}; needed is an array (H, W), (1, H, W), (3, H, W) or (H, W, "
            "3). Of a sample with its target, pass the image alone."
        ) from None


def _picture(image: Any) -> npt.NDArray[Any]:
    picture = _as_array(image)
    if picture.ndim == 3 and picture.shape[0] == 1:
        picture = picture[0]
    elif picture.ndim == 3 and picture.shape[-1] not in (1, 3, 4) and picture.shape[0] in (3, 4):
        picture = np.moveaxis(picture, 0, -1)
    elif picture.ndim == 3 and picture.shape[-1] == 1:
        picture = picture[..., 0]
    if picture.ndim != 2 and not (picture.ndim == 3 and picture.shape[-1] in (3, 4)):
        raise ValueError(
            f"An image has the shape {tuple(np.shape(image))}; needed is (H, W), (1, H, W), (3, H, W) or "
            "(H, W, 3). Index or reduce it to one of these."
        )
    return picture if picture.ndim == 2 else _within(picture)


def _within(picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Fractions as they are; others by the image's own range, for beyond 0 and 1 all would be cut off."""
    if np.issubdtype(picture.dtype, np.integer) and picture.min() >= 0 and picture.max() <= 255:
        return picture
    colours = picture[..., :3].astype(np.float64)
    low, high = np.nanmin(colours), np.nanmax(colours)
    if low >= 0 and high <= 1:
        return picture.astype(np.float64)
    scaled = (colours - low) / (high - low) if high > low else np.full_like(colours, 0.5)
    return np.concatenate([scaled, picture[..., 3:].astype(np.float64).clip(0, 1)], axis=-1)


def _check_lengths(pictures: Sequence[Any], **others: Any) -> None:
    single = [name for name, values in others.items() if values is not None and not isinstance(values, Sized)]
    if single:
        raise TypeError(
            f"`{single[0]}` is {others[single[0]]!r}; needed is one for every image. Pass a list of as many."
        )
    lengths = {name: len(values) for name, values in others.items() if values is not None}
    if not pictures or any(length != len(pictures) for length in lengths.values()):
        raise ValueError(
            f"There are {len(pictures)} images, and {lengths}; needed is one image or more and one of each "
            "for every image. Take them all by the same indices."
        )
