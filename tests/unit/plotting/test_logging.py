"""Figures reach the loggers that take any."""

import lightning as L
import numpy as np
import pytest
import torch
from integration.small import Net, blobs, margin, pool, quiet
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment

from lightning_al import fit_rounds
from lightning_al.plotting import LogFigures, class_balance, log_figure


class Board(Logger):
    """As TensorBoard's."""

    name, version = "board", 0

    def __init__(self):
        super().__init__()
        self.figures = []

    @property
    @rank_zero_experiment
    def experiment(self):
        return self

    def add_figure(self, tag, figure, global_step=None, close=True):
        assert not close
        self.figures.append((tag, figure, global_step))

    def log_metrics(self, metrics, step=None): ...

    def log_hyperparams(self, params, *args, **kwargs): ...


class Pictures(Board):
    """As that of Weights & Biases."""

    add_figure = None

    def log_image(self, key, images, step=None, **kwargs):
        self.figures.append((key, images, step))


def test_boards_take_the_figure_others_its_pixels_and_the_rest_nothing(tmp_path):
    figure = class_balance({"Random": [1, 2]})
    board, pictures = Board(), Pictures()
    assert log_figure([board, pictures, CSVLogger(tmp_path)], "balance", figure, step=20) == 2
    assert board.figures == [("balance", figure, 20)]
    ((key, images, step),) = pictures.figures
    assert (key, step) == ("balance", 20)
    assert images[0].dtype == np.uint8
    assert images[0].shape == (round(3.3 * 150), round(6.4 * 150), 3)
    assert len(np.unique(images[0])) > 10
    assert log_figure(board, "again", figure, step=1) == 1
    assert log_figure(quiet(logger=pictures), "by trainer", figure, step=1) == 1
    assert log_figure(quiet(), "nowhere", figure, step=1) == 0


def test_what_is_no_figure_or_function_is_named():
    board = Board()
    with pytest.raises(TypeError, match="`figure` is 'balance'; needed is a figure of matplotlib"):
        log_figure(board, "x", "balance", step=1)
    assert not board.figures
    with pytest.raises(TypeError, match="`draw` is 'x'; needed is a function"):
        LogFigures("x")


def test_tensorboard_shows_the_figure(tmp_path):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = TensorBoardLogger(tmp_path, name="", version="")
    assert log_figure(quiet(logger=board), "balance", class_balance({"Random": [1, 2]}), step=20) == 1
    board.experiment.close()
    events = reading.EventAccumulator(str(tmp_path))
    events.Reload()
    (image,) = events.Images("balance")
    assert (image.step, image.height, image.width) == (20, round(3.3 * 150), round(6.4 * 150))


def draw(data):
    classes = torch.stack([blobs().tensors[1][i] for i in data.labeled_indices])
    return {"classes": class_balance({"labelled": np.bincount(classes, minlength=3)})}


def test_a_callback_draws_when_the_query_is_in(tmp_path):
    board = Board()
    fit_rounds(
        Net(), lambda number: quiet(logger=board, callbacks=[LogFigures(draw)]), pool(tmp_path), margin(),
        rounds=2,
    )  # fmt: skip
    assert [(tag, step) for tag, _, step in board.figures] == [
        ("active/classes", 20), ("active/classes", 28), ("active/classes", 28),
    ]  # fmt: skip


@pytest.mark.parametrize("options", [{"logger": False}, {"fast_dev_run": True}])
def test_nothing_is_drawn_where_nothing_is_logged(tmp_path, options):
    def never(data):
        pytest.fail("it was drawn")

    trainer = quiet(callbacks=[margin(), LogFigures(never)], **options)
    trainer.fit(Net(), datamodule=pool(tmp_path))
    assert isinstance(trainer, L.Trainer)
