import numpy as np
import pytest

from lightning_al import LearningLossOptions


def test_settings_can_be_told_apart_and_kept_in_a_set():
    """Also those that were given as a list."""
    given, other = (LearningLossOptions(channels=kind(["first", "last"])) for kind in (list, tuple))
    assert given == other
    assert len({given, other, LearningLossOptions()}) == 2


def test_defaults_are_the_papers():
    options = LearningLossOptions()
    assert (options.hidden, options.margin, options.weight) == (128, 1.0, 1.0)
    assert (options.pairing, options.objective, options.detach_after) == ("flip", "hinge", None)


@pytest.mark.parametrize(
    ("after", "epoch", "progress", "expected"),
    [
        (None, 10**6, 1.0, False), (120, 119, 1.0, False), (120, 120, 0.0, True), (0, 0, 0.0, True),
        (0.6, 119, 119 / 200, False), (0.6, 120, 120 / 200, True), (1, 0, 0.9, False), (1, 1, 0.1, True),
        (np.int64(120), 119, 1.0, False), (np.int64(120), 120, 0.0, True), (np.float32(0.5), 0, 0.5, True),
    ],
)  # fmt: skip
def test_when_the_head_stops_shaping_the_module(after, epoch, progress, expected):
    assert LearningLossOptions(detach_after=after).detaches(epoch, progress) is expected


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"hidden": 0}, ValueError, "`hidden` is 0; it must be at least 1"),
        ({"margin": -1}, ValueError, "`margin` is -1; needed is a number, 0 or more"),
        ({"weight": "1"}, TypeError, "`weight` is '1'; needed is a number"),
        ({"weight": float("nan")}, ValueError, "`weight` is nan; needed"),
        ({"pairing": "all"}, ValueError, '`pairing` is \'all\'; needed is one of "flip", "random"'),
        ({"objective": "mae"}, ValueError, '`objective` is \'mae\'; needed is one of "hinge", "smooth"'),
        ({"channels": 1}, ValueError, '`channels` is 1; needed is one of "auto", "first"'),
        ({"detach_after": 120.0}, ValueError, r"`detach_after` is 120.0.*Write 120 for an epoch, or 0.6"),
        ({"detach_after": 0.0}, ValueError, "`detach_after` is 0.0; an epoch is.*0 for from the start"),
        ({"detach_after": 1.0}, ValueError, "`detach_after` is 1.0; .*between.*None for never"),
        ({"detach_after": np.int64(-1)}, ValueError, "an epoch is a whole number, 0 or more"),
        ({"margin": float("nan")}, ValueError, "`margin` is nan; needed"),
        ({"detach_after": -1}, ValueError, "`detach_after` is -1"),
        ({"detach_after": float("nan")}, ValueError, "`detach_after` is nan"),
        ({"detach_after": True}, TypeError, "`detach_after` is True; needed is an epoch"),
        ({"detach_after": "0.5"}, TypeError, "`detach_after` is '0.5'; needed is an epoch"),
    ],
)
def test_settings_that_do_not_fit(options, kind, words):
    with pytest.raises(kind, match=words):
        LearningLossOptions(**options)
