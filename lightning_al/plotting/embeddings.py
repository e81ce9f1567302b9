"""Where in the space of embeddings a strategy asks: pool, labelled and asked, round by round."""

from __future__ import annotations

import math
import os
import reprlib
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lightning_al.plotting.given import numbers
from lightning_al.plotting.style import INK, new_figure, root_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

Array = npt.NDArray[np.float32]

_POOL, _LABELED, _ASKED = "#D0D4D8", "#0072B2", "#D55E00"
#: Points of the pool that are drawn; more would only be a larger file.
_MOST = 20_000


def embedding_map(
    embeddings: Any,
    queries: Mapping[int, Sequence[int]] | Any,
    *,
    rounds: Sequence[int] | None = None,
    columns: int = 4,
    heading: str | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure:
    """Where a strategy asks: the pool in grey, what was labelled, and what the round's query asked for.

    The plane is that of the two principal components of all embeddings, the same in every panel; how much of
    the embeddings' variance it holds is said below. What lies apart in it is apart; what lies together need
    not be.

    Args:
        embeddings: Of every sample `(N, D)`, by its index in the data set.
        queries: The samples that came with every round, by its number, round 0 being the initial set; or the
            data module, or its state directory, which know.
        rounds: Which to show; `None`: the first eight that asked for anything.
        columns: Panels in a row.
        heading: Above all.
        figure: Where to draw; `None`: a figure of its own.

    Returns:
        The figure, one axes a round.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        TypeError: If `queries` tell nothing of rounds, or `rounds` is a single number.
        ValueError: If the embeddings are not `(N, D)`, or of one sample, a sample is none of theirs, no whole
            number, or twice in a round, or there is no such round.

    Example:
        >>> import torch
        >>> embeddings = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
        >>> figure = embedding_map(embeddings, {0: [0, 1, 2], 1: [3, 4, 5], 2: [6, 7]})
        >>> [ax.get_title(loc="left") for ax in figure.axes]
        ['round 1: 3 asked', 'round 2: 2 asked']
    """
    array = _as_rows(embeddings)
    came = _by_round(queries)
    _check(came, len(array))
    _check_rounds(rounds)
    chosen = [n for n in sorted(came) if n and len(came[n])][:8] if rounds is None else list(rounds)
    if not chosen or not all(n in came for n in chosen):
        raise ValueError(
            f"`rounds` is {rounds}, and there are queries of the rounds {sorted(came)}; needed is one of "
            "them after round 0, or more. Ask for labels first, or name others."
        )
    points, held = principal_plane(array)
    columns = max(1, min(columns, len(chosen)))
    rows = math.ceil(len(chosen) / columns)
    # The words below need 4 inches.
    figure = new_figure((max(4.0, 2.5 * columns + 0.2), 2.55 * rows + 0.7)) if figure is None else figure
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for ax, number in zip(panels, chosen, strict=False):
        _draw(ax, points, came, number)
    for ax in panels[len(chosen) :]:
        ax.remove()
    handles, labels = panels[0].get_legend_handles_labels()
    legend = figure.legend(
        handles, labels, loc="outside lower left", ncols=3, frameon=False, fontsize=9.5, labelcolor=INK,
        title=f"first two principal components, {held:.0%} of the variance".replace("%", " %"),
        title_fontsize=9, alignment="left", markerscale=1.5,
    )  # fmt: skip
    legend.get_title().set_color(INK)
    if heading:
        figure.suptitle(heading, x=0.01, ha="left", fontsize=12, color=INK)
    return root_of(figure)


def principal_plane(rows: Array) -> tuple[Array, float]:
    """The first two principal components of every row, and the share of the variance that they hold.

    By FAISS in Linux; by NumPy elsewhere, where FAISS beside torch may end the process (docs/faiss.md).

    Args:
        rows: `(N, D)`.

    Returns:
        `(N, 2)`, turned so that either axis has its longer tail at the right, or top; and the share.
    """
    centred = np.ascontiguousarray(rows - rows.mean(axis=0, dtype=np.float64).astype(np.float32))
    if centred.shape[1] == 1:
        centred = np.concatenate([centred, np.zeros_like(centred)], axis=1)
    points = _by_faiss(centred) if sys.platform == "linux" else _by_numpy(centred)
    tails = (points.astype(np.float64) ** 3).sum(axis=0)
    points = points * np.where(tails < 0, -1, 1).astype(np.float32)
    total = float((centred.astype(np.float64) ** 2).sum())
    held = float((points.astype(np.float64) ** 2).sum()) / total if total else 1.0
    return points, held


def _by_faiss(centred: Array) -> Array:
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # else it would wait for ever in a forked process
    try:
        plane = faiss.PCAMatrix(centred.shape[1], 2)
        plane.train(centred)
        points: Array = plane.apply(centred)
    finally:
        faiss.omp_set_num_threads(threads)
    return points


def _by_numpy(centred: Array) -> Array:
    wide = centred.astype(np.float64)
    _, axes = np.linalg.eigh(wide.T @ wide)
    points: Array = centred @ axes[:, :-3:-1].astype(np.float32)
    return points


def _draw(ax: Axes, points: Array, came: Mapping[int, Sequence[int]], number: int) -> None:
    before = [index for n, indices in came.items() if n < number for index in indices]
    asked = list(came[number])
    rest = np.setdiff1d(np.arange(len(points)), [*before, *asked])
    if len(rest) > _MOST:
        rest = np.random.default_rng(0).choice(rest, _MOST, replace=False)
    size = 7 if len(rest) < 3_000 else 3
    for indices, color, label, area, layer in (
        (rest, _POOL, "pool", size, 1), (before, _LABELED, "labelled", 11, 2),
        (asked, _ASKED, "asked", 18, 3),
    ):  # fmt: skip
        at = points[np.asarray(indices, np.int64)]
        edge = "white" if layer > 1 else "none"
        ax.scatter(
            at[:, 0], at[:, 1], s=area, color=color, label=label, zorder=layer, linewidth=0.3,
            edgecolor=edge, rasterized=layer == 1,
        )  # fmt: skip
    ax.set_title(f"round {number}: {len(asked)} asked", loc="left", fontsize=10, color=INK)
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_color("#E4E8EC")


def _as_rows(embeddings: Any) -> Array:
    given = embeddings.detach().cpu().float().numpy() if hasattr(embeddings, "detach") else embeddings
    found = numbers(given, np.float32)
    array = np.zeros(0, np.float32) if found is None else found
    if array.ndim == 2 and len(array) == 1:
        raise ValueError(
            "`embeddings` is of 1 sample; needed are two or more, for a plane to draw them in. Pass those of "
            "the whole data set."
        )
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        what = f"is a {type(given).__name__}" if found is None else f"has the shape {found.shape}"
        raise ValueError(
            f"`embeddings` {what}; needed is a row of finite numbers for every sample, (N, D). "
            "Flatten further axes, or reduce over them."
        )
    return array


def _by_round(queries: Any) -> dict[int, list[int]]:
    if isinstance(queries, Mapping):
        return dict(_whole_round(number, indices) for number, indices in queries.items())
    state = getattr(queries, "state", None)
    if state is None:
        if not isinstance(queries, str | os.PathLike):
            raise TypeError(
                f"`queries` is a {type(queries).__name__}; needed is a mapping from rounds to the samples "
                "that came with them, or the data module, or its state directory. Name them: `{1: [3, 4]}`."
            )
        from lightning_al.ledger.book import Book

        state = Book(queries).state
    found: dict[int, list[int]] = {}
    for index in np.flatnonzero(state.round >= 0).tolist():
        found.setdefault(int(state.round[index]), []).append(index)
    return found


def _whole_round(number: Any, indices: Any) -> tuple[int, list[int]]:
    """A round and the samples that came with it; JSON has texts as keys."""
    whole = _whole(int(number) if isinstance(number, str) and number.isdecimal() else number)
    samples = [_whole(index) for index in indices] if isinstance(indices, Iterable) else [None]
    found = [index for index in samples if index is not None]
    if whole is None or len(found) < len(samples):
        raise ValueError(
            f"`queries` has {number!r}: {reprlib.repr(indices)}; needed are whole numbers: a round's, and "
            "the indices in the data set of the samples that came with it. Name them: `{1: [3, 4]}`."
        )
    twice = [index for index, times in Counter(found).items() if times > 1]
    if twice:
        raise ValueError(
            f"`queries` has samples {twice[:5]} more than once in round {whole}; needed is each once, by its "
            "index in the data set. Leave the others out."
        )
    return whole, found


def _whole(value: Any) -> int | None:
    """Of any type that counts; `None` of what is no whole number, or true or false, as in a mask."""
    try:
        number = int(value)
        return number if number == value and not isinstance(value, bool | np.bool_) else None
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def _check_rounds(rounds: Any) -> None:
    if rounds is not None and (isinstance(rounds, str) or not isinstance(rounds, Iterable)):
        raise TypeError(
            f"`rounds` is {rounds!r}; needed are the numbers of those to show, or `None`. Pass a list, such "
            "as `[1, 2]`."
        )


def _check(came: Mapping[int, Sequence[int]], size: int) -> None:
    out = [index for indices in came.values() for index in indices if not 0 <= index < size]
    if out:
        raise ValueError(
            f"Samples {out[:5]} were asked for, but there are {size} embeddings; needed is one for every "
            "sample of the data set, in its order."
        )
