import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_al import ActiveDataModule, query
from lightning_al import acquisition as acq
from lightning_al.acquisition import Selection
from lightning_al.randomness import generator_for

ROWS = TensorDataset(torch.arange(20).float()[:, None], torch.arange(20) % 2)


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 2)
        self.head.weight.data = torch.tensor([[0.1], [-0.1]])
        self.head.bias.data.zero_()

    def forward(self, x):
        return self.head(x)


@pytest.fixture(scope="module")
def trainer():
    return L.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip


@pytest.fixture
def data(tmp_path):
    """The nearer to 0, the less sure is `Net`; 0 and 3 are labelled."""
    return ActiveDataModule(ROWS, initial=[0, 3], state_dir=tmp_path / "run")


def test_the_least_sure_come_first_and_nothing_is_written(data, trainer, tmp_path):
    found = query(Net(), data, acq.Margin(), 3, trainer=trainer)
    assert found.indices.tolist() == [1, 2, 4]
    assert (np.diff(found.scores) < 0).all()
    assert not (tmp_path / "run").exists()
    assert len(query(Net(), data, acq.Margin(), 99, trainer=trainer)) == 18


def test_a_committed_query_is_recorded_with_its_scores(data, trainer):
    found = query(Net(), data, acq.Margin(), 3, trainer=trainer, commit=True)
    asked = [e for _, e in data.ledger.events() if e.kind == "asked"]
    assert [(e.sample, e.rank, e.round) for e in asked] == [(1, 0, 1), (2, 1, 1), (4, 2, 1)]
    assert [e.score for e in asked] == pytest.approx(found.scores.tolist())
    assert "Margin" in asked[0].strategy
    assert data.labeled_indices.tolist() == [0, 3, 1, 2, 4]


def test_a_first_set_can_be_chosen_without_any_label(tmp_path, trainer):
    data = ActiveDataModule(ROWS, initial=0, state_dir=tmp_path)
    query(Net(), data, acq.Random(), 4, trainer=trainer, commit=True)
    assert len(data.labeled_indices) == 4
    assert data.state.last_round == 0


def test_candidates_are_a_seeded_subset_of_the_pool(data, trainer):
    found = [query(Net(), data, acq.Margin(), 5, candidates=5, trainer=trainer) for _ in range(2)]
    assert found[0].indices.tolist() == found[1].indices.tolist()
    assert set(found[0].indices.tolist()) <= set(data.pool_indices.tolist())
    other = ActiveDataModule(ROWS, initial=[0, 3], seed=1)
    more = query(Net(), other, acq.Margin(), 5, candidates=5, trainer=trainer)
    assert sorted(more.indices.tolist()) != sorted(found[0].indices.tolist())
    assert len(query(Net(), data, acq.Margin(), 3, candidates=99, trainer=trainer)) == 3


def test_an_empty_pool_gives_nothing(data, trainer):
    data.ignore(data.pool_indices)
    assert len(query(Net(), data, acq.Margin(), 3, trainer=trainer)) == 0


class Choosing(acq.Acquisition):
    def __init__(self, positions):
        self.positions = torch.tensor(positions)

    def summarize(self, outputs):
        return {}

    def select(self, pool, query_size, *, labeled, generator):
        return Selection(self.positions, torch.zeros(len(self.positions)))


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        ([1], r"`Choosing.select` returned 1 positions, 1 of them distinct; needed are 2 distinct"),
        ([1, 1], r"2 positions, 1 of them distinct"),
        ([0, 18], r"from 0 to 18, but .* 0 to 17.*not data set"),
        ([-1, 0], r"from -1 to 0"),
    ],
)  # fmt: skip
def test_a_selection_that_is_none(data, trainer, positions, words):
    with pytest.raises(ValueError, match=words):
        query(Net(), data, Choosing(positions), 2, trainer=trainer, commit=True)
    assert len(data.labeled_indices) == 2


def test_bad_arguments(data, trainer):
    for size in (0, -1):
        with pytest.raises(ValueError, match=rf"`query_size` is {size}; it must be at least 1"):
            query(Net(), data, acq.Margin(), size, trainer=trainer)
    with pytest.raises(TypeError, match=r"`query_size` is 2.5; needed is a whole number"):
        query(Net(), data, acq.Margin(), 2.5, trainer=trainer)
    with pytest.raises(ValueError, match=r"`candidates` is 0"):
        query(Net(), data, acq.Margin(), 2, candidates=0, trainer=trainer)
    with pytest.raises(TypeError, match=r"The model is a torch.Linear; needed is a `LightningModule`"):
        query(nn.Linear(1, 2), data, acq.Margin(), 2, trainer=trainer)


def test_module_and_data_module_get_their_trainers_back(data, trainer):
    module = Net()
    query(module, data, acq.Margin(), 2, trainer=trainer)
    assert module._trainer is None
    assert data.trainer is None


class Augmenting(L.LightningDataModule):
    """Asks its own Trainer what it is doing."""

    def train_dataloader(self):
        return DataLoader(ROWS, 4)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return [batch[0] + 1000 if self.trainer.training else batch[0], *batch[1:]]


def test_hooks_of_a_data_module_that_was_taken_over_know_the_trainer(trainer, tmp_path):
    source = Augmenting()
    data = ActiveDataModule.from_datamodule(source, initial=[0, 3], state_dir=tmp_path)
    own = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", devices=1)
    for before in (None, own):
        source.trainer = before
        assert query(Net(), data, acq.Margin(), 3, trainer=trainer).indices.tolist() == [1, 2, 4]
        assert source.trainer is before


class Kinds(Net):
    """Which kind of numbers it computes with."""

    def __init__(self):
        super().__init__()
        self.head.weight.data.add_(torch.tensor([[1e-7], [0.0]]))  # bfloat16 has no such number
        self.register_buffer("offset", torch.tensor([1 / 3]))
        self.kinds = set()

    def forward(self, x):
        self.kinds.add((x.dtype, self.head.weight.dtype, self.offset.dtype))
        return self.head(x)


@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16)])
def test_a_trainers_precision_is_the_models_for_the_block_only(data, precision, dtype):
    module = Kinds()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    kept = [parameter.data_ptr() for parameter in module.parameters()]
    trainer = L.Trainer(
        accelerator="cpu", devices=1, precision=precision, logger=False, enable_checkpointing=False,
        enable_progress_bar=False,
    )  # fmt: skip
    assert query(module, data, acq.Margin(), 3, trainer=trainer).indices.tolist() == [1, 2, 4]
    assert module.kinds == {(dtype, dtype, dtype)}
    assert module.dtype == torch.float32
    assert [parameter.data_ptr() for parameter in module.parameters()] == kept
    for name, value in module.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_that_a_fit_left_in_another_precision_is_asked_in_it(data, dtype):
    module = Kinds().to(dtype)
    assert query(module, data, acq.Margin(), 3).indices.tolist() == [1, 2, 4]
    assert module.kinds == {(dtype, dtype, dtype)}
    assert module.dtype == module.head.weight.dtype == dtype


class Watching(acq.Margin):
    """Notes the generator that it may draw from."""

    def select(self, pool, query_size, *, labeled, generator):
        self._seed = generator.initial_seed()
        return super().select(pool, query_size, labeled=labeled, generator=generator)


def test_every_query_draws_by_the_number_that_it_will_have(tmp_path, trainer):
    data = ActiveDataModule(ROWS, initial=0, state_dir=tmp_path)
    for number in range(3):
        strategy = Watching()
        query(Net(), data, strategy, 3, trainer=trainer, commit=True)
        assert data.state.last_round == number
        assert strategy._seed == generator_for(0, "selection", number).initial_seed()


class Configured(L.LightningModule):
    """Has no layers before `configure_model`."""

    def __init__(self):
        super().__init__()
        self.head = None

    def configure_model(self):
        assert self.trainer is not None
        if self.head is None:
            self.head = Net().head

    def forward(self, x):
        return self.head(x)


def test_a_model_that_is_yet_to_be_made(data, trainer):
    module = Configured()
    for _ in range(2):
        assert query(module, data, acq.Margin(), 3, trainer=trainer).indices.tolist() == [1, 2, 4]


def test_a_compiled_module(data, trainer):
    module = torch.compile(Net(), backend="eager")
    assert query(module, data, acq.Margin(), 3, trainer=trainer).indices.tolist() == [1, 2, 4]
    with pytest.raises(TypeError, match=r"The model is a torch.OptimizedModule; needed is"):
        query(torch.compile(nn.Linear(1, 2), backend="eager"), data, acq.Margin(), 3, trainer=trainer)
