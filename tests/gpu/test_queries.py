"""The same model asks for the same samples on a device as on the CPU, whatever the strategy."""

import copy

import pytest
import torch
from integration.small import Net, blobs, pool, quiet
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn

from gpu.devices import DEVICE, IS_GPU, NEEDS_A_DEVICE, PRETENDS, back, there
from lightning_al import Committee, LearningLossMixin, MCDropout, query
from lightning_al import acquisition as acq
from lightning_al.inference.masks import keep_masks
from lightning_al.inference.statistics import STATISTICS, Statistics

pytestmark = NEEDS_A_DEVICE


def on_device(**options):
    """A Trainer on the device."""
    if PRETENDS:
        strategy = SingleDeviceStrategy(torch.device(DEVICE), accelerator=CPUAccelerator())
        return quiet(strategy=strategy, accelerator="auto", **options)
    return quiet(accelerator="gpu" if IS_GPU else "cpu", **options)


def seeded(kind=Net, seed=0, **options):
    torch.manual_seed(seed)
    return kind(**options)


def members():
    return [seeded(seed=seed) for seed in (1, 2, 3)]


class Predicting(LearningLossMixin, Net):
    learning_loss_layers = ("net.0",)
    example_input_array = torch.zeros(2, 4)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.learning_loss(nn.functional.cross_entropy(self(x), y, reduction="none"))


class Images(Net):
    """Dropout of every kind, before and behind what makes samples' rows hard to find."""

    def __init__(self, lr=0.05):
        super().__init__(lr)
        self.net = nn.Sequential(
            nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 6, 2, padding=1), nn.Dropout2d(0.3), nn.ReLU(),
            nn.Dropout(0.2), nn.Flatten(), nn.Linear(54, 12), nn.AlphaDropout(0.2), nn.Linear(12, 3),
        )  # fmt: skip


class Sequences(Net):
    """Dropout inside of attention and between recurrent layers."""

    def __init__(self, lr=0.05):
        super().__init__(lr)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)
        self.net = nn.ModuleList([nn.Linear(1, 8), layer, nn.RNN(8, 8, 2, dropout=0.3), nn.Linear(8, 3)])

    def forward(self, x):
        first, attention, recurrent, last = self.net
        hidden, _ = recurrent(attention(first(x[..., None])).movedim(1, 0))
        return last(hidden[-1])


STRATEGIES = {
    "random": lambda: acq.Random(),
    "entropy": lambda: acq.Entropy(),
    "margin": lambda: acq.Margin(),
    "hyperplane": lambda: acq.HyperplaneDistance(),
    "power": lambda: acq.PowerSampling(acq.LeastConfidence()),
    "bald": lambda: acq.BALD(MCDropout(7)),
    "bald, independent": lambda: acq.BALD(MCDropout(7, consistent=False)),
    "mean_std": lambda: acq.MeanSTD(MCDropout(7)),
    "votes": lambda: acq.VoteEntropy(Committee(models=members())),
    "committee": lambda: acq.ConsensusKL(Committee(models=members())),
    "batch_bald": lambda: acq.BatchBALD(MCDropout(30)),
    "coreset": lambda: acq.CoreSet(),
    "coreset, given there": lambda: acq.CoreSet(embeddings=there(blobs()[:][0].clone())),
    "badge": lambda: acq.BADGE(),
    "diverse": lambda: acq.DiverseMiniBatch(),
    "diverse, given there": lambda: acq.DiverseMiniBatch(
        embeddings=there(blobs()[:][0].clone()), around_labeled=True
    ),
    "two stages": lambda: acq.TwoStage(acq.Margin(), then=acq.CoreSet(), keep=20),
    "learning loss": lambda: acq.LearningLoss(),
}


def asked(trainer, module, folder, strategy, **options):
    found = query(module, pool(folder, initial=20), strategy, 6, trainer=trainer, **options)
    return found.indices.tolist(), torch.from_numpy(found.scores)


@pytest.mark.filterwarnings("ignore:.*loss_head.*:UserWarning")
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy(device, tmp_path, name):
    module = seeded(Predicting if name == "learning loss" else Net, dropout=0.3)
    expected = asked(quiet(), module, tmp_path / "cpu", STRATEGIES[name]())
    found = asked(on_device(), module, tmp_path / "device", STRATEGIES[name]())
    assert found[0] == expected[0]
    assert torch.allclose(found[1], expected[1], atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*run one after the other.*:UserWarning")  # `torch.vmap` and an RNN
@pytest.mark.parametrize("consistent", [True, False])
@pytest.mark.parametrize("kind", [Images, Sequences])
def test_masks_of_every_kind_of_dropout(device, tmp_path, kind, consistent):
    module = seeded(kind)
    strategy = acq.BALD(MCDropout(5, consistent=consistent))
    expected = asked(quiet(), module, tmp_path / "cpu", strategy)
    found = asked(on_device(), module, tmp_path / "device", strategy)
    assert found[0] == expected[0]
    assert torch.allclose(found[1], expected[1], atol=1e-4)


@pytest.mark.parametrize("shape", [(5,), (5, 7), (3, 5, 130), (4, 5, 3, 9)])
def test_masks_are_the_same_bits(device, shape):
    keys, positions = torch.tensor([3, -(2**62), 2**40]), torch.tensor([0, 7, 8, 2**33, 1])
    for options in ({}, {"axis": shape.index(5)}, {"axis": shape.index(5), "positions": positions}):
        for more in ({}, {"mask_axes": 2}):
            expected = keep_masks(keys, 0.3, shape, **options, **more)
            assert torch.equal(keep_masks(there(keys), 0.3, shape, **there(options), **more).cpu(), expected)


def test_statistics_of_passes(device):
    logits = 3 * torch.randn(9, 20, 4, generator=torch.Generator().manual_seed(0))
    here, away = Statistics(STATISTICS), Statistics(STATISTICS)
    for part in torch.split(logits, 4):
        here.add(part)
        away.add(there(part))
    for name, expected in here.fields().items():
        assert torch.allclose(back(away.fields()[name]), expected, atol=1e-5), name


def test_a_dtype_of_a_committee_and_its_place_are_put_back(device, tmp_path):
    trained = members()
    before = [copy.deepcopy(member.state_dict()) for member in trained]
    asked(on_device(), seeded(), tmp_path, acq.BALD(Committee(models=trained)))
    for member, state in zip(trained, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in member.state_dict().items())
        assert all(value.device.type == "cpu" for value in member.state_dict().values())
