import sys

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch.utils.data import TensorDataset

from lightning_al import ActiveDataModule
from lightning_al.plotting import embedding_map
from lightning_al.plotting.embeddings import principal_plane
from unit.plotting.runs import illegible


def clouds(size=300, dim=12):
    generator = np.random.default_rng(0)
    return (generator.normal(size=(size, dim)) * np.linspace(3, 0.3, dim) + 5).astype(np.float32)


@pytest.mark.parametrize("platform", ["linux", "darwin"])  # FAISS, and NumPy
def test_the_plane_is_that_of_the_principal_components(platform, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    rows = clouds()
    points, held = principal_plane(rows)
    pca = PCA(2, svd_solver="full")
    theirs = pca.fit_transform(rows.astype(np.float64))
    theirs *= np.where((theirs**3).sum(axis=0) < 0, -1, 1)
    np.testing.assert_allclose(points, theirs, atol=2e-3)
    assert held == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-4)


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_few_dimensions_and_equal_rows_have_a_plane_too(platform, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    line, held = principal_plane(np.arange(9, dtype=np.float32)[:, None])
    assert held == pytest.approx(1)
    assert sorted(np.abs(line[:, 0]).round(4).tolist()) == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert np.abs(line[:, 1]).max() < 1e-5
    same, held = principal_plane(np.ones((5, 3), np.float32))
    assert not same.any()
    assert held == 1


def places(ax):
    return {c.get_label(): len(c.get_offsets()) for c in ax.collections}


def test_every_round_shows_what_was_asked_labelled_and_left():
    figure = embedding_map(clouds(), {0: range(10), 1: [20, 21, 22], 2: [30, 31]}, heading="Where")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["round 1: 3 asked", "round 2: 2 asked"]
    assert [places(ax) for ax in figure.axes] == [
        {"pool": 287, "labelled": 10, "asked": 3},
        {"pool": 285, "labelled": 13, "asked": 2},
    ]
    points, _ = principal_plane(clouds())
    asked = next(c for c in figure.axes[1].collections if c.get_label() == "asked")
    np.testing.assert_allclose(asked.get_offsets(), points[[30, 31]], rtol=1e-5)
    one = embedding_map(torch.from_numpy(clouds()), {0: [0], 1: [1], 2: [2]}, rounds=[2])
    assert [ax.get_title(loc="left") for ax in one.axes] == ["round 2: 1 asked"]


def test_a_data_module_or_its_folder_know_the_queries(tmp_path):
    rows = clouds()
    samples = TensorDataset(torch.from_numpy(rows), torch.zeros(len(rows), dtype=torch.long))
    data = ActiveDataModule(samples, initial=5, state_dir=tmp_path)
    data.ask([40, 41, 42], strategy="by hand")
    for source in (data, tmp_path):
        figure = embedding_map(rows, source)
        assert [places(ax) for ax in figure.axes] == [{"pool": 292, "labelled": 5, "asked": 3}]


def test_of_many_rounds_the_first_eight_are_shown():
    figure = embedding_map(clouds(), {number: [number] for number in range(12)})
    assert len(figure.axes) == 8
    figure.draw_without_rendering()


@pytest.mark.parametrize("heading", [None, "Where the strategy asks"])
def test_the_legend_of_one_panel_is_whole(heading):
    assert not illegible(embedding_map(clouds(), {0: [0], 1: [1]}, heading=heading))


@pytest.mark.parametrize(
    ("embeddings", "queries", "rounds", "message"),
    [
        (np.zeros(5), {1: [0]}, None, r"needed is a row of finite numbers for every sample, \(N, D\)"),
        (np.zeros((1, 2)), {1: [0]}, None, "is of 1 sample; needed are two or more"),
        (np.full((5, 2), np.nan), {1: [0]}, None, "finite numbers"),
        (np.zeros((5, 2)), {1: [7]}, None, r"Samples \[7\] were asked for, but there are 5 embeddings"),
        (np.zeros((5, 2)), {0: [1]}, None, "one of them after round 0"),
        (np.zeros((5, 2)), {0: [1], 1: [2]}, [3], r"`rounds` is \[3\]"),
        ("rows", {1: [0]}, None, "`embeddings` is a str; needed"),
        ([[1, 2], [3]], {1: [0]}, None, "`embeddings` is a list; needed"),
        (np.zeros((5, 2)), {1: [2.7]}, None, r"`queries` has 1: \[2.7\]; needed are whole numbers"),
        (np.zeros((5, 2)), {1.5: [2]}, None, r"`queries` has 1.5: \[2\]; needed are whole numbers"),
        (np.zeros((5, 2)), {"one": [2]}, None, "`queries` has 'one'"),
        (np.zeros((5, 2)), {1: 2}, None, "`queries` has 1: 2; needed are whole numbers"),
        (np.zeros((5, 2)), {1: None}, None, "`queries` has 1: None"),
        (np.zeros((5, 2)), {1: [True, False]}, None, "needed are whole numbers"),
        (np.zeros((5, 2)), {0: [1], 1: [2, 3, 2]}, None, r"samples \[2\] more than once in round 1"),
    ],
)
def test_what_cannot_be_drawn(embeddings, queries, rounds, message):
    with pytest.raises(ValueError, match=message):
        embedding_map(embeddings, queries, rounds=rounds)


@pytest.mark.parametrize("rounds", [1, "1"])
def test_a_single_round_is_to_be_a_list(rounds):
    with pytest.raises(TypeError, match=r"`rounds` is .*; needed are the numbers .* such as `\[1, 2\]`"):
        embedding_map(np.eye(5), {1: [0]}, rounds=rounds)


@pytest.mark.parametrize("samples", [[2, 3], np.array([2, 3]), torch.tensor([2, 3]), range(2, 4), [2.0, 3.0]])
@pytest.mark.parametrize("number", [1, "1", np.int64(1)])  # JSON has texts as keys
def test_whole_numbers_of_any_type_are_rounds_and_samples(samples, number):
    figure = embedding_map(np.eye(5), {number: samples})
    assert [places(ax) for ax in figure.axes] == [{"pool": 3, "labelled": 0, "asked": 2}]


def test_queries_that_name_no_rounds_are_refused():
    with pytest.raises(TypeError, match=r"`queries` is a list; needed is a mapping from rounds"):
        embedding_map(np.eye(5), [[0], [1]])
