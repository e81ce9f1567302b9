import subprocess
import sys

import pytest

import lightning_al

HEAVY = ("torch", "lightning", "lightning_fabric", "torchmetrics", "faiss", "lightning_al.data")


def loaded_by(code):
    command = f"{code}\nimport sys\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    ).stdout.split()


def test_ledger_and_exchange_are_used_without_torch():
    assert loaded_by("import lightning_al, lightning_al.ledger, lightning_al.exchange") == []
    assert loaded_by("from lightning_al import Ledger, LedgerError, AwaitingLabels") == []


def test_what_needs_torch_is_imported_when_it_is_first_used():
    assert {"torch", "lightning"} <= set(loaded_by("import lightning_al; lightning_al.fit_rounds"))
    assert "torch" in loaded_by("from lightning_al import acquisition as acq, functional as F")


@pytest.mark.parametrize("name", lightning_al.__all__)
def test_every_public_name_is_there_before_and_after_its_first_use(name):
    assert name in dir(lightning_al)
    assert getattr(lightning_al, name) is getattr(lightning_al, name)


def test_a_name_that_is_none_is_an_error_of_attributes():
    with pytest.raises(AttributeError, match="nothing"):
        _ = lightning_al.nothing
