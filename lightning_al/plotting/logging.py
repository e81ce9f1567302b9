"""Figures on their way to a Trainer's loggers: TensorBoard, and any that takes images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LogFigures", "log_figure"]


def log_figure(loggers: Any, name: str, figure: Figure, *, step: int) -> int:
    """Send a figure to all loggers that take one: to TensorBoard's images, and to what has `log_image`.

    Args:
        loggers: A Trainer, one logger, or several. Those that take no images are passed over.
        name: Under which it is shown.
        figure: Of `lightning_al.plotting`, or any of matplotlib.
        step: Such as the number of labels.

    Returns:
        How many took it.

    Raises:
        TypeError: If it is no figure.

    Example:
        >>> from lightning_al.plotting import class_balance
        >>> class Logger:
        ...     def log_image(self, key, images, step):
        ...         print(key, images[0].shape[2], step)
        >>> log_figure(Logger(), "balance", class_balance({"Random": [1, 2]}), step=20)
        balance 3 20
        1
    """
    if not hasattr(figure, "savefig"):
        raise TypeError(
            f"`figure` is {figure!r}; needed is a figure of matplotlib. Pass what the functions of "
            "`lightning_al.plotting` return."
        )
    every: Any = loggers.loggers if isinstance(loggers, L.Trainer) else loggers
    taken = 0
    for logger in every if isinstance(every, Iterable) else [every]:
        experiment: Any = getattr(logger, "experiment", None)
        if callable(getattr(experiment, "add_figure", None)):
            experiment.add_figure(name, figure, global_step=step, close=False)
        elif callable(getattr(logger, "log_image", None)):
            logger.log_image(key=name, images=[_pixels(figure)], step=step)
        else:
            continue
        taken += 1
    return taken


def _pixels(figure: Figure) -> npt.NDArray[np.uint8]:
    """Red, green, blue `(H, W, 3)`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


class LogFigures(L.Callback):
    """Draws figures when a fit has ended, the query included, and sends them to the Trainer's loggers.

    Args:
        draw: From the `ActiveDataModule` to figures by name; called on rank 0.

    Raises:
        TypeError: If it is no function.

    Example:
        >>> import numpy as np
        >>> from lightning_al.plotting import class_balance
        >>> def draw(data):
        ...     counts = data.state.class_counts(data.labeled_indices)
        ...     return {"classes": class_balance({"labelled": [counts[c] for c in sorted(counts)]})}
        >>> callbacks = [LogFigures(draw)]
    """

    def __init__(self, draw: Callable[[Any], Mapping[str, Figure]]) -> None:
        if not callable(draw):
            raise TypeError(
                f"`draw` is {draw!r}; needed is a function from the data module to figures by name. Pass "
                '`lambda data: {"name": figure}`.'
            )
        self.draw = draw

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: D102
        if not trainer.is_global_zero or trainer.fast_dev_run or not trainer.loggers:  # type: ignore[attr-defined]
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        for name, figure in self.draw(data).items():
            log_figure(trainer, f"active/{name}", figure, step=len(data.labeled_indices))
