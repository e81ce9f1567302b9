"""The pool is scored in the Trainer's precision: inputs converted, forward in its context."""

from contextlib import nullcontext

import lightning as L
import pytest
import torch

from integration.small import Net, blobs, margin, pool, quiet
from lightning_al import acquisition as acq
from lightning_al import functional as F
from lightning_al import query


class Noting(Net):
    """What scoring gave the model, what it computed in, and what came out."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def active_step(self, batch, batch_idx):
        x = batch[0]
        logits = self(x)
        self.seen.add((x.dtype, torch.get_default_dtype(), torch.is_autocast_enabled("cpu"), logits.dtype))
        return logits


MIXED = {(torch.float32, torch.float32, True, torch.bfloat16)}
DOUBLE = {(torch.float64, torch.float64, False, torch.float64)}


def by_callback(module, data, trainer):
    active = margin()
    trainer.callbacks.append(active)
    trainer.fit(module, datamodule=data)
    return active.last_query


def by_query(module, data, trainer):
    return query(module, data, acq.Margin(), 8, trainer=trainer)


def margins(module, indices, context):
    x = blobs().tensors[0][indices]
    with torch.no_grad(), context:
        return F.margin(module(x.to(next(module.parameters()).dtype)).float().softmax(-1)).double()


@pytest.mark.parametrize("way", [by_callback, by_query])
def test_mixed_precision_scores_under_autocast(tmp_path, way):
    L.seed_everything(0, verbose=False)
    module, trainer = Noting(), quiet(precision="bf16-mixed")
    found = way(module, pool(tmp_path), trainer)
    assert module.seen == MIXED
    expected = margins(module.eval(), found.indices, torch.autocast("cpu", torch.bfloat16))
    assert torch.allclose(torch.from_numpy(found.scores), expected, atol=0.02)  # bfloat16 has 8 bits


def test_double_precision_scores_double_inputs_and_makes_double_tensors(tmp_path):
    module, trainer = Noting(), quiet(precision="64-true")
    found = by_callback(module, pool(tmp_path), trainer)
    assert module.seen == DOUBLE
    assert torch.get_default_dtype() == torch.float32
    expected = margins(module.eval(), found.indices, nullcontext())
    assert torch.allclose(torch.from_numpy(found.scores), expected)
