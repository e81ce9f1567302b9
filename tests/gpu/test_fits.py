"""Rounds on a GPU: they train, score, ask and end, and leave what they found as it was."""

import gc

import pytest
import torch
from integration.small import Net, blobs, pool, queries, quiet

from gpu.devices import DEVICE, IS_GPU, NEEDS_A_DEVICE
from gpu.test_queries import STRATEGIES, Images, Predicting, on_device, seeded
from lightning_al import ActiveDataModule, ActiveLearning, Committee, MCDropout, fit_rounds, query
from lightning_al import acquisition as acq
from lightning_al.metrics import LossRankingAccuracy

pytestmark = NEEDS_A_DEVICE

FAMILIES = {
    "random": STRATEGIES["random"],
    "margin": STRATEGIES["margin"],
    "hyperplane": STRATEGIES["hyperplane"],
    "power": STRATEGIES["power"],
    "bald": STRATEGIES["bald"],
    "independent": STRATEGIES["bald, independent"],
    "batch_bald": STRATEGIES["batch_bald"],
    "coreset": STRATEGIES["coreset"],
    "coreset_given": STRATEGIES["coreset, given there"],
    "badge": STRATEGIES["badge"],
    "diverse": STRATEGIES["diverse"],
    "two_stages": STRATEGIES["two stages"],
    "learning_loss": STRATEGIES["learning loss"],
    "committee": lambda: acq.VoteEntropy(Committee(2)),
}


def rounds(folder, strategy, *, kind=Net, precision="32-true", **options):
    data = pool(folder, test_set=blobs(30, seed=5))
    active = ActiveLearning(strategy, query_size=5, **options)
    history = fit_rounds(
        lambda seed: seeded(kind, seed, dropout=0.3) if kind is not Images else seeded(kind, seed),
        lambda number: on_device(max_epochs=2, precision=precision, deterministic=IS_GPU),
        data, active, rounds=2,
    )  # fmt: skip
    return history, queries(folder)


@pytest.mark.parametrize("name", FAMILIES)
def test_rounds_of_every_family(tmp_path, name):
    kind = Predicting if name == "learning_loss" else Net
    history, asked = rounds(tmp_path, FAMILIES[name](), kind=kind)
    assert len(history) == 3
    assert [len(samples) for samples in asked.values()] == [5, 5]


def test_the_same_rounds_twice(tmp_path):
    found = [rounds(tmp_path / str(time), acq.BADGE())[1] for time in range(2)]
    assert found[0] == found[1]


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "bf16-true"])
@pytest.mark.parametrize("name", ["margin", "bald", "coreset", "badge", "learning_loss"])
@pytest.mark.filterwarnings("ignore:.*run one after the other.*:UserWarning")
def test_other_precisions(tmp_path, name, precision):
    if precision == "16-mixed" and not IS_GPU:
        precision = "bf16-mixed"  # a CPU has no scaler of gradients
    kind = Predicting if name == "learning_loss" else Net
    history, _ = rounds(tmp_path, FAMILIES[name](), kind=kind, precision=precision)
    assert len(history) == 3


@pytest.mark.parametrize("restart", ["initial", "redraw", "warm", "shrink_perturb"])
def test_weights_of_every_restart(tmp_path, restart):
    history, _ = rounds(tmp_path, acq.Margin(), restart=restart, score_with="last")
    assert len(history) == 3


def test_a_drop_in_that_loops_by_hand(tmp_path):
    data, active = pool(tmp_path), ActiveLearning(acq.BALD(MCDropout(4)), query_size=5)
    trainer, module = on_device(max_epochs=1, callbacks=[active]), seeded(dropout=0.3)
    for _ in range(3):
        trainer.fit(module, datamodule=data)
    assert len(data.labeled_indices) == 12 + 15


def test_scoring_leaves_random_numbers_memory_and_modules_as_they_were(tmp_path):
    module = seeded(dropout=0.3, batch_norm=True)
    strategies = [
        acq.Margin(),
        acq.BALD(MCDropout(4)),
        acq.CoreSet(),
        acq.BALD(Committee(models=[seeded(), seeded()])),
    ]
    data, trainer = pool(tmp_path), on_device()
    query(module, data, acq.Margin(), 5, trainer=trainer)  # libraries make buffers of their own once
    before = left(module)
    for strategy in strategies:
        query(module, data, strategy, 5, trainer=trainer)
        for name, value in left(module).items():
            assert same(value, before[name]), name


def left(module):
    """What is to stay as it is."""
    gc.collect()
    return {
        "weights": {name: value.clone() for name, value in module.state_dict().items()},
        "modes": [part.training for part in module.modules()],
        "numbers": torch.get_rng_state(),
        "numbers of the device": torch.cuda.get_rng_state() if IS_GPU else None,
        "memory": torch.cuda.memory_allocated() if IS_GPU else 0,
    }


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    return one == other


def test_a_model_that_lives_on_the_device_stays_there(tmp_path):
    module = seeded().to(DEVICE)
    query(module, pool(tmp_path), acq.Margin(), 5, trainer=on_device())
    assert all(p.device.type == torch.device(DEVICE).type for p in module.parameters())


def test_a_step_of_learning_loss_is_that_of_the_cpu(tmp_path):
    def steps(trainer):
        module = seeded(Predicting, dropout=0.0)
        data = ActiveDataModule(blobs(), initial=12, batch_size=12, state_dir=None)
        trainer.fit(module, datamodule=data)
        return torch.cat([p.detach().cpu().flatten() for p in module.parameters()])

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        found, expected = steps(on_device(max_steps=3)), steps(quiet(max_steps=3))
    assert torch.allclose(found, expected, atol=1e-4)


def test_the_metric_of_ranking():
    predicted, target = torch.randn(50), torch.randn(50)
    here, away = LossRankingAccuracy(), LossRankingAccuracy().to(DEVICE)
    for part in torch.arange(50).split(20):
        here.update(predicted[part], target[part])
        away.update(predicted[part].to(DEVICE), target[part].to(DEVICE))
    assert away.compute().cpu() == here.compute()
    if IS_GPU:  # which is not waited for, batch by batch
        away.update(torch.full((2,), torch.nan, device=DEVICE), torch.ones(2, device=DEVICE))
        with pytest.raises(ValueError, match="NaN"):
            away.compute()
