from types import SimpleNamespace

import pytest
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    SingleDeviceXLAStrategy,
    Strategy,
    XLAStrategy,
)
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_al.callbacks.checks import advise_configure_model, check_strategy


def trainer_of(kind):
    return SimpleNamespace(strategy=object.__new__(kind))


class Tuned(DDPStrategy):
    pass


class Foreign(Strategy):
    pass


@pytest.mark.parametrize(
    "kind", [SingleDeviceStrategy, DDPStrategy, Tuned, FSDPStrategy, ModelParallelStrategy]
)
def test_strategies_that_are_known_pass(kind):
    check_strategy(trainer_of(kind))


@pytest.mark.parametrize("kind", [DeepSpeedStrategy, XLAStrategy, SingleDeviceXLAStrategy, Foreign])
def test_other_strategies_are_refused_also_where_they_derive_from_known_ones(kind):
    kind = type(kind.__name__, (kind,), {})
    kind.__abstractmethods__ = frozenset()
    with pytest.raises(MisconfigurationException, match=f"The Trainer has a `{kind.__name__}`, .* Use one"):
        check_strategy(trainer_of(kind))


def test_a_module_that_is_whole_is_let_alone():
    module = nn.Linear(1, 1)
    advise_configure_model(module)
    assert "configure_model" not in vars(module)
