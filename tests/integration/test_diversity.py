"""Core-set, diverse mini-batch and BADGE in queries and rounds: what they are given, and what they choose."""

import lightning as L
import numpy as np
import pytest
import torch
from reference.clustering import diverse_mini_batch_candidates
from reference.d2_sampling import gradient_embeddings
from reference.k_center import k_center_greedy
from torch import nn
from torch.utils.data import TensorDataset

from integration.small import CLASSES, FEATURES, Net, blobs, quiet
from lightning_al import ActiveDataModule, ActiveLearning, Committee, MCDropout, fit_rounds, query
from lightning_al import acquisition as acq
from lightning_al import functional as F

STRATEGIES = {
    "CoreSet": acq.CoreSet,
    "DiverseMiniBatch": acq.DiverseMiniBatch,
    "BADGE": acq.BADGE,
    "around": lambda: acq.DiverseMiniBatch(around_labeled=True, scale_features=True),
    "TwoStage": lambda: acq.TwoStage(acq.Margin(), then=acq.CoreSet(), keep=0.5),
}


@pytest.fixture
def holey(tmp_path):
    """A pool with holes: `indices` are not `positions`."""
    samples = blobs(90, seed=3)
    data = ActiveDataModule(samples, initial=[5, 60, 31, 88], state_dir=tmp_path / "state", pool_batch_size=7)
    data.ignore([0, 17, 18, 44])
    return samples, data


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


def embedded(net, x):
    with torch.no_grad():
        return net.net[:-1](x)


def test_core_set_is_the_papers_greedy_on_the_embeddings_of_the_pool(holey, net):
    samples, data = holey
    x = embedded(net, samples.tensors[0]).numpy()
    found = query(net, data, acq.CoreSet(), 9, trainer=quiet())
    positions, distances = k_center_greedy(x[data.pool_indices], 9, x[data.labeled_indices])
    assert found.indices.tolist() == data.pool_indices[positions].tolist()
    assert np.allclose(found.scores, distances, rtol=1e-5)


def test_given_embeddings_are_those_of_the_data_set_and_nothing_is_forwarded(holey, net, tmp_path):
    _, data = holey
    vectors = np.random.default_rng(0).normal(size=(90, 6)).astype(np.float16)
    np.save(tmp_path / "vectors.npy", vectors)
    net.forward = None  # it would fail
    wide = vectors.astype(np.float64)
    for metric in ("euclidean", "cosine"):
        positions, _ = k_center_greedy(wide[data.pool_indices], 9, wide[data.labeled_indices], metric)
        for given in (vectors, torch.from_numpy(vectors), tmp_path / "vectors.npy"):
            strategy = acq.CoreSet(metric=metric, embeddings=given)
            found = query(net, data, strategy, 9, trainer=quiet())
            assert found.indices.tolist() == data.pool_indices[positions].tolist()


def test_a_subset_of_candidates_has_its_own_embeddings(holey, net):
    _, data = holey
    vectors = np.random.default_rng(1).normal(size=(90, 6))
    found = query(net, data, acq.CoreSet(embeddings=vectors), 9, candidates=20, trainer=quiet())
    some = np.sort(query(net, data, acq.Random(), 20, candidates=20, trainer=quiet()).indices)
    positions, _ = k_center_greedy(vectors[some], 9, vectors[data.labeled_indices])
    assert found.indices.tolist() == some[positions].tolist()


def test_two_stages_narrow_given_embeddings_too(holey, net):
    _, data = holey
    vectors = np.random.default_rng(2).normal(size=(90, 6))
    strategy = acq.TwoStage(acq.Margin(), then=acq.CoreSet(embeddings=vectors), keep=25)
    assert strategy.needs == ("probs",)
    found = query(net, data, strategy, 9, trainer=quiet())
    best = np.sort(query(net, data, acq.Margin(), 25, trainer=quiet()).indices)
    positions, _ = k_center_greedy(vectors[best], 9, vectors[data.labeled_indices])
    assert found.indices.tolist() == best[positions].tolist()


def test_diverse_mini_batch_chooses_among_the_most_uncertain(holey, net):
    samples, data = holey
    found = query(net, data, acq.DiverseMiniBatch(beta=3), 6, trainer=quiet())
    with torch.no_grad():
        weights = F.margin(net(samples.tensors[0][data.pool_indices]).softmax(1))
    allowed = data.pool_indices[diverse_mini_batch_candidates(weights.numpy(), 6, 3)]
    assert set(found.indices) <= set(allowed)
    assert np.allclose(np.sort(found.scores)[::-1], found.scores)
    vectors = embedded(net, samples.tensors[0]).numpy()
    given = query(net, data, acq.DiverseMiniBatch(beta=3, embeddings=vectors), 6, trainer=quiet())
    assert given.indices.tolist() == found.indices.tolist()


def test_badge_begins_with_the_longest_gradient_and_scores_squared_distances(holey, net):
    samples, data = holey
    x = samples.tensors[0][data.pool_indices]
    with torch.no_grad():
        gradients = gradient_embeddings(net(x).softmax(1).numpy(), embedded(net, x).numpy())
    found = query(net, data, acq.BADGE(), 9, trainer=quiet())
    rows = np.searchsorted(data.pool_indices, found.indices)
    assert rows[0] == np.square(gradients).sum(1).argmax()
    for place in range(1, 9):
        others = gradients[rows[:place]]
        nearest = np.square(gradients[rows[place]] - others).sum(1).min()
        assert np.isclose(found.scores[place], nearest, rtol=1e-4)


@pytest.mark.parametrize("name", STRATEGIES)
def test_rounds_until_the_pool_is_empty(name, tmp_path):
    data = ActiveDataModule(
        blobs(40), test_set=blobs(30, seed=1), initial=6, state_dir=tmp_path, steps_per_epoch=2
    )
    active = ActiveLearning(STRATEGIES[name](), query_size=15)
    history = fit_rounds(Net(), lambda _: quiet(max_epochs=1), data, active, rounds=3)
    assert history.column("labeled") == [6, 21, 36, 40]
    assert len(set(data.labeled_indices)) == 40


def test_the_first_query_of_people_may_be_a_core_set(tmp_path, net):
    """Nothing is labelled yet: the first score is infinite, and is recorded."""
    data = ActiveDataModule(blobs(40), state_dir=tmp_path, oracle="people")
    found = query(net, data, acq.CoreSet(), 5, trainer=quiet(), commit=True)
    assert np.isinf(found.scores[0])
    assert np.isfinite(found.scores[1:]).all()
    again = ActiveDataModule(blobs(40), state_dir=tmp_path, oracle="people")
    assert again.asked_indices.tolist() == found.indices.tolist()
    again.export_query(tmp_path / "asked.csv")
    assert len((tmp_path / "asked.csv").read_text().splitlines()) == 6


def test_spilled_rows_give_the_same_query(holey, net):
    samples, data = holey
    spilling = ActiveDataModule(
        samples, initial=[5, 60, 31, 88], state_dir=data.state_dir, pool_batch_size=7, spill_bytes=0
    )
    assert spilling.pool_indices.tolist() == data.pool_indices.tolist()
    before = sorted(data.state_dir.iterdir())
    for make in STRATEGIES.values():
        kept = query(net, data, make(), 7, trainer=quiet())
        spilled = query(net, spilling, make(), 7, trainer=quiet())
        assert spilled.indices.tolist() == kept.indices.tolist()
        assert spilled.scores.tolist() == kept.scores.tolist()
    assert sorted(data.state_dir.iterdir()) == before


def test_scores_of_many_passes_weigh_and_narrow(holey):
    _, data = holey
    net = Net(dropout=0.3).eval()
    passes = MCDropout(4)
    strategies = [
        acq.DiverseMiniBatch(weights=acq.BALD(passes)),
        acq.BADGE(posterior=passes),
        acq.TwoStage(acq.BALD(passes), then=acq.CoreSet(), keep=0.5),
        acq.TwoStage(acq.BALD(passes), then=acq.BADGE(posterior=passes), keep=0.5),
        acq.DiverseMiniBatch(weights=acq.BALD(Committee(models=[Net(), Net()]))),
    ]
    for strategy in strategies:
        assert len(set(query(net, data, strategy, 6, trainer=quiet()).indices)) == 6


class OneLogit(Net):
    def __init__(self):
        super().__init__()
        self.net[-1] = nn.Linear(8, 1)


class ManyLabels(Net):
    def __init__(self):
        super().__init__()
        self.net[-1] = nn.Linear(8, 5)


class Dense(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv1d(1, CLASSES, 1)

    def active_step(self, batch, batch_idx):
        logits = self.layer(batch[0][:, None])
        return {"logits": logits, "embeddings": logits}


def test_badge_of_one_logit_and_of_many_labels(holey, tmp_path):
    samples, data = holey
    x, y = samples.tensors
    two = ActiveDataModule(TensorDataset(x, y.clamp_max(1)), initial=4, state_dir=tmp_path / "two")
    for net, one, strategy in (
        (OneLogit(), two, acq.BADGE()),
        (ManyLabels(), data, acq.BADGE(multilabel=True)),
    ):
        assert len(set(query(net.eval(), one, strategy, 9, trainer=quiet()).indices)) == 9


def test_dense_outputs_are_refused_with_what_to_do(holey):
    _, data = holey
    for strategy, words in ((acq.BADGE(), "one prediction"), (acq.CoreSet(), "one vector a sample")):
        with pytest.raises(ValueError, match=words):
            query(Dense(), data, strategy, 3, trainer=quiet())


def test_given_embeddings_of_another_length_are_refused_before_training(tmp_path):
    data = ActiveDataModule(blobs(40), initial=6, state_dir=tmp_path / "state")
    for strategy in (
        acq.CoreSet(embeddings=np.zeros((39, 2))),
        acq.TwoStage(acq.Margin(), then=acq.CoreSet(embeddings=np.zeros((39, 2))), keep=10),
        acq.DiverseMiniBatch(weights=acq.Margin(), embeddings=np.zeros((39, 2))),
    ):
        active = ActiveLearning(strategy, query_size=3)
        with pytest.raises(ValueError, match="39 rows, but the data set 40 samples"):
            fit_rounds(Net(), lambda _: quiet(max_epochs=1), data, active, rounds=1)


@pytest.mark.parametrize("where", ["pool", "labeled"])
@pytest.mark.parametrize(
    "strategy",
    [
        lambda vectors: acq.CoreSet(embeddings=vectors),
        lambda vectors: acq.TwoStage(acq.Margin(), acq.CoreSet(embeddings=vectors), keep=1.0),
        lambda vectors: acq.DiverseMiniBatch(100, embeddings=vectors, around_labeled=True),
    ],
)
def test_a_nan_among_given_embeddings_is_named_by_the_sample(holey, net, where, strategy):
    _, data = holey
    sample = (data.pool_indices if where == "pool" else data.labeled_indices)[3]
    vectors = np.zeros((90, 2), np.float32)
    vectors[sample] = np.nan
    with pytest.raises(ValueError, match=rf"`embeddings` is NaN or infinite in samples \[{sample}\]"):
        query(net, data, strategy(vectors), 3, trainer=quiet())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: acq.CoreSet(metric="manhattan"), ValueError, '"euclidean" or "cosine"'),
        (lambda: acq.CoreSet(backend="gpu"), ValueError, '"auto", "faiss" or "torch"'),
        (lambda: acq.CoreSet(embeddings="nowhere"), ValueError, r"no `\.npy` file"),
        (lambda: acq.DiverseMiniBatch(beta=0.5), ValueError, "a number from 1 on"),
        (lambda: acq.DiverseMiniBatch(beta=True), ValueError, "a number from 1 on"),
        (lambda: acq.DiverseMiniBatch(weights=acq.BADGE()), TypeError, "no score of single samples"),
        (lambda: acq.DiverseMiniBatch(scale_features="no"), TypeError, "`True` or `False`"),
        (lambda: acq.BADGE(first="longest"), ValueError, '"largest" or "random"'),
        (lambda: acq.BADGE(bias=1), TypeError, "`True` or `False`"),
        (lambda: acq.BADGE(posterior=MCDropout), TypeError, r"Call it: `MCDropout\(\)`"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


class Shifted(acq.ScoreAcquisition):
    """Below zero for few samples of the pool, and never for the most wanted ones."""

    needs = ("logits",)

    def score(self, outputs):
        return outputs.logits[:, 0].exp() - 0.1


@pytest.mark.parametrize("beta", [1, 2, 50])
@pytest.mark.parametrize("weights", [acq.HyperplaneDistance, Shifted])
def test_weights_below_zero_are_refused(holey, net, weights, beta):
    """Also if those that would be clustered are all above."""
    samples, data = holey
    with torch.no_grad():
        net.net[-1].weight.mul_(20)
        lowest = (net(samples.tensors[0][data.pool_indices])[:, 0].exp() - 0.1).sort().values
    assert lowest[0] < 0 < lowest[-20]
    strategy = acq.DiverseMiniBatch(beta, weights())
    for one in (strategy, acq.TwoStage(acq.Margin(), then=strategy, keep=1.0)):
        with pytest.raises(ValueError, match=rf"`weights` is {weights.__name__}\(.*from 0 on.*`Margin\(\)`"):
            query(net, data, one, 3, trainer=quiet())


def test_weights_below_zero_are_refused_before_training(tmp_path):
    data = ActiveDataModule(blobs(40), initial=6, state_dir=tmp_path / "state")
    active = ActiveLearning(acq.DiverseMiniBatch(weights=acq.HyperplaneDistance()), query_size=3)
    module, trainers = Net(), []

    def make_trainer(_):
        trainers.append(quiet(max_epochs=1))
        return trainers[-1]

    with pytest.raises(ValueError, match="which gave a sample the score -"):
        fit_rounds(module, make_trainer, data, active, rounds=1)
    assert trainers[0].global_step == 0


def test_weights_of_a_distance_turned_as_the_message_says(holey, net):
    _, data = holey

    class Near(acq.HyperplaneDistance):
        def score(self, outputs):
            return super().score(outputs).exp()

    found = query(net, data, acq.DiverseMiniBatch(weights=Near()), 5, trainer=quiet())
    assert len(set(found.indices)) == 5
    nearest = query(net, data, acq.HyperplaneDistance(), 50, trainer=quiet())
    assert set(found.indices) <= set(nearest.indices)


def test_weights_that_are_no_numbers_are_refused(holey, net):
    _, data = holey

    class Odd(acq.ScoreAcquisition):
        needs = ("logits",)

        def score(self, outputs):
            return outputs.logits[:, 0] * self.times

    for times, words in (
        (torch.inf, "the score -?inf"),
        (torch.nan, "NaN for rows"),
        (torch.ones(2, 1), "one number"),
    ):
        weights = Odd()
        weights.times = times
        with pytest.raises(ValueError, match=words):
            query(net, data, acq.DiverseMiniBatch(weights=weights), 5, trainer=quiet())


def test_what_was_given_shows_in_the_ledger_without_its_numbers():
    shown = repr(acq.CoreSet(embeddings=np.zeros((1000, FEATURES))))
    assert shown == "CoreSet(backend='auto', embeddings=GivenEmbeddings, metric='euclidean')"


def test_a_pool_of_copies(net, tmp_path):
    x = torch.ones(30, FEATURES)
    data = ActiveDataModule(TensorDataset(x, torch.arange(30) % 3), initial=3, state_dir=tmp_path)
    for make in STRATEGIES.values():
        assert len(set(query(net, data, make(), 8, trainer=quiet()).indices)) == 8
