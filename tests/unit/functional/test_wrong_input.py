"""What cannot be selected from: every selection says what was given, what is needed and what to do."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from lightning_al import acquisition as acq
from lightning_al import functional as F
from lightning_al.functional import Shard

ROWS = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
PROBS = torch.rand(10, 3, generator=torch.Generator().manual_seed(0)).softmax(1)
ONES = torch.ones(10)

#: Where rows may be given; the argument is `embeddings` where none is named.
TAKE_ROWS = {
    "k_center_greedy": lambda rows, **given: F.k_center_greedy(rows, 2, **given),
    "k_center_greedy labeled": lambda rows, **given: F.k_center_greedy(ROWS, 2, rows, **given),
    "covering_radius": lambda rows, **given: F.covering_radius(rows, ROWS, **given),
    "covering_radius centers": lambda rows, **given: F.covering_radius(ROWS, rows, **given),
    "badge": lambda rows, **given: F.badge(PROBS, rows, 2, **given),
    "kmeans_plus_plus": lambda rows, **given: F.kmeans_plus_plus(rows, 2, **given),
    "kmeans_plus_plus centers": lambda rows, **given: F.kmeans_plus_plus(ROWS, 2, rows, **given),
    "diverse_mini_batch": lambda rows, **given: F.diverse_mini_batch(rows, ONES, 2, **given),
    "diverse_mini_batch labeled": lambda rows, **given: F.diverse_mini_batch(
        ROWS, ONES, 2, labeled=rows, **given
    ),
    "weighted_kmeans points": lambda rows, **given: F.weighted_kmeans(rows, 2, **given),
    "weighted_kmeans fixed": lambda rows, **given: F.weighted_kmeans(ROWS, 2, fixed=rows, **given),
}
TAKE_SCORES = {
    "top_k scores": lambda scores, **given: F.top_k(scores, 2, **given),
    "power_sample scores": lambda scores, **given: F.power_sample(scores, 2, **given),
    "diverse_mini_batch weights": lambda scores, **given: F.diverse_mini_batch(ROWS, scores, 2, **given),
    "weighted_kmeans weights": lambda scores, **given: F.weighted_kmeans(ROWS, 2, scores, **given),
}
MAY_BE_NONE = {
    "k_center_greedy labeled",
    "covering_radius centers",
    "kmeans_plus_plus centers",
    "diverse_mini_batch labeled",
    "weighted_kmeans fixed",
    "weighted_kmeans weights",
}


torch_warns_of_its_layouts = pytest.mark.filterwarnings("ignore::UserWarning")


def argument(name):
    return [*name.split(), "embeddings"][1]


NOT_DENSE = {
    "sparse": (lambda x: x.to_sparse(), r"the layout torch\.sparse_coo; .* `NAME\.to_dense\(\)`"),
    "meta": (lambda x: x.to("meta"), "on the meta device.*another device"),
    "nested": (lambda x: torch.nested.nested_tensor([x, x]), "nested.*to_padded_tensor"),
    "jagged": (lambda x: torch.nested.nested_tensor([x, x], layout=torch.jagged), "nested.*to_padded_tensor"),
    "array": (lambda x: x.numpy(), r"`ndarray`; .* `torch\.as_tensor\(NAME\)`"),
    "list": (lambda x: x.tolist(), r"`list`; .* `torch\.as_tensor\(NAME\)`"),
    "masked": (lambda x: np.ma.masked_less(x.numpy(), 0), r"`MaskedArray`; .* `.*\(NAME\.filled\(value\)\)`"),
    "frame": (lambda x: pd.DataFrame(x.numpy()), r"`DataFrame`; .* `torch\.as_tensor\(NAME\.to_numpy\(\)\)`"),
}
ROWS_ONLY = {
    "csr": (lambda x: x.to_sparse_csr(), r"the layout torch\.sparse_csr; .* `NAME\.to_dense\(\)`"),
    "scipy": (lambda x: scipy.sparse.csr_matrix(x.numpy()), r"`torch\.as_tensor\(NAME\.toarray\(\)\)`"),
    "float8": (lambda x: x.to(torch.float8_e4m3fn), r"float8_e4m3fn; .*float32.*`NAME\.float\(\)`"),
    "whole": (lambda x: x.long(), r"torch\.int64; .*real floating-point.*`NAME\.float\(\)`"),
    "bool": (lambda x: x > 0, r"torch\.bool; .*`NAME\.float\(\)`"),
    "complex": (
        lambda x: x.to(torch.complex64),
        r"complex64; .*real and imag.*`.*view_as_real\(NAME\)\.flat",
    ),
    "single": (lambda x: x[0, 0], r"shape \(\); needed is one vector a sample"),
    "line": (lambda x: x[:, 0], r"shape \(10,\); needed is one vector a sample"),
    "no width": (lambda x: x[:, :0], r"shape \(10, 0\); needed .* D > 0"),
}
SCORES_ONLY = {
    "float8": (lambda x: x.to(torch.float8_e4m3fn), r"float8_e4m3fn; .*real numbers.*`NAME\.float\(\)`"),
    "bool": (lambda x: x > 0, r"torch\.bool; .*real numbers.*`NAME\.float\(\)`"),
    "complex": (lambda x: x.to(torch.complex64), r"complex64; .*real numbers.*`NAME\.abs\(\)`"),
    "single": (lambda x: x[0], r"shape \(\); needed is one number"),
}


@torch_warns_of_its_layouts
@pytest.mark.parametrize("wrong", [*NOT_DENSE, *ROWS_ONLY])
@pytest.mark.parametrize("name", TAKE_ROWS)
def test_rows_that_are_no_dense_floating_matrix_are_refused(name, wrong):
    made, words = {**NOT_DENSE, **ROWS_ONLY}[wrong]
    words = f"`{argument(name)}` .*" + words.replace("NAME", argument(name))
    with pytest.raises((TypeError, ValueError), match=words):
        TAKE_ROWS[name](made(ROWS))


@torch_warns_of_its_layouts
@pytest.mark.parametrize("wrong", [*NOT_DENSE, *SCORES_ONLY])
@pytest.mark.parametrize("name", TAKE_SCORES)
def test_scores_and_weights_that_are_no_dense_real_numbers_are_refused(name, wrong):
    made, words = {**NOT_DENSE, **SCORES_ONLY}[wrong]
    words = f"`{argument(name)}` .*" + words.replace("NAME", argument(name))
    with pytest.raises((TypeError, ValueError), match=words):
        TAKE_SCORES[name](made(ONES))


@pytest.mark.parametrize("name", [n for n in {**TAKE_ROWS, **TAKE_SCORES} if n not in MAY_BE_NONE])
def test_what_is_missing_is_said_to_be_missing(name):
    with pytest.raises(TypeError, match=rf"`{argument(name)}` is `None`; needed is a tensor\. Find out"):
        {**TAKE_ROWS, **TAKE_SCORES}[name](None)


def test_scores_may_be_whole_numbers():
    scores = torch.arange(10)
    assert F.top_k(scores, 2).tolist() == [9, 8]
    assert sorted(F.diverse_mini_batch(ROWS, scores, 2, beta=1).tolist()) == [8, 9]


@pytest.mark.parametrize("name", {**TAKE_ROWS, **TAKE_SCORES})
def test_seeds_and_numbers_are_no_generator_and_no_shard(name):
    select, given = {**TAKE_ROWS, **TAKE_SCORES}[name], ONES if name in TAKE_SCORES else ROWS
    if "covering" not in name:
        with pytest.raises(TypeError, match=r"`generator` is 3; .*`torch\.Generator\(\)\.manual_seed\(3\)`"):
            select(given, generator=3)
        with pytest.raises(
            TypeError, match=r"`generator` is '3'; .*`torch\.Generator\(\)\.manual_seed\(0\)`"
        ):
            select(given, generator="3")
    if "weighted_kmeans" not in name:
        with pytest.raises(TypeError, match=r"`shard` is 5; needed is a `Shard`.*`Shard\.blocks\("):
            select(given, shard=5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_draws_are_made_on_the_cpu():
    with pytest.raises(ValueError, match=r"`generator` is on cuda.*on the CPU.*`torch\.Generator\(\)`"):
        F.kmeans_plus_plus(ROWS.cuda(), 2, generator=torch.Generator("cuda"))


def said_by(make):
    with pytest.raises((TypeError, ValueError)) as caught:
        make()
    return str(caught.value)


@pytest.mark.parametrize(
    ("function", "strategy", "words"),
    [
        (
            lambda: F.k_center_greedy(ROWS, 2, metric="l2"),
            lambda: acq.CoreSet(metric="l2"),
            '`metric` is \'l2\'; needed is "euclidean" or "cosine".',
        ),
        (
            lambda: F.k_center_greedy(ROWS, 2, backend=["faiss"]),
            lambda: acq.CoreSet(backend=["faiss"]),
            '`backend` is [\'faiss\']; needed is "auto", "faiss" or "torch".',
        ),
        (
            lambda: F.diverse_mini_batch(ROWS, ONES, 2, backend="zz"),
            lambda: acq.DiverseMiniBatch(backend="zz"),
            '`backend` is \'zz\'; needed is "auto", "faiss" or "torch".',
        ),
        (
            lambda: F.badge(PROBS, ROWS, 2, first="longest"),
            lambda: acq.BADGE(first="longest"),
            '`first` is \'longest\'; needed is "largest" or "random".',
        ),
        (
            lambda: F.diverse_mini_batch(ROWS, ONES, 2, beta="3"),
            lambda: acq.DiverseMiniBatch(beta="3"),
            "`beta` is '3'; needed is a number from 1 on: how many are clustered for each one chosen. "
            "Pass one such as 10.",
        ),
        (
            lambda: F.power_sample(ONES, 2, form="gumbel"),
            lambda: acq.PowerSampling(acq.Margin(), form="gumbel"),
            '`form` is \'gumbel\'; needed is "power", "softmax" or "softrank".',
        ),
    ],
)
def test_functions_and_strategies_refuse_an_option_in_the_same_words(function, strategy, words):
    assert said_by(function) == said_by(strategy) == words


def test_rows_without_a_direction_may_be_compared_by_the_other_metric():
    message = said_by(lambda: F.k_center_greedy(torch.zeros(3, 2), 1, metric="cosine"))
    assert 'leave them out, or use `metric="euclidean"`.' in message
    assert "metric" not in said_by(lambda: F.k_center_greedy(ROWS / 0, 1))


# --- a mistake shows in every round


@pytest.mark.parametrize("query_size", [2, 10, 20])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labeled": ROWS[:, :2]}, r"`labeled` has 2 numbers a row, and `embeddings` has 4"),
        ({"labeled": ROWS / 0}, r"`labeled` is NaN or infinite at positions"),
        ({"backend": "zz"}, r"`backend` is 'zz'"),
        ({"embeddings": ROWS / 0}, r"`embeddings` is NaN or infinite at positions"),
        ({"embeddings": ROWS / 0, "shard": Shard(torch.arange(10), 10, samples=torch.arange(50, 60))},
         r"`embeddings` is NaN or infinite in samples \[50, "),
    ],
)  # fmt: skip
def test_a_pool_no_larger_than_the_query_hides_no_mistake(query_size, change, words):
    given = {"embeddings": ROWS, "weights": ONES, "query_size": query_size, **change}
    with pytest.raises(ValueError, match=words):
        F.diverse_mini_batch(**given)


@pytest.mark.parametrize("scale_features", [False, True])
def test_no_pool_at_all_is_no_mistake(scale_features):
    found = F.diverse_mini_batch(ROWS[:0], ONES[:0], 3, labeled=ROWS, scale_features=scale_features)
    assert found.tolist() == []


def test_weights_that_draw_are_refused():
    powers = acq.PowerSampling(acq.Margin())
    message = said_by(lambda: acq.DiverseMiniBatch(weights=powers))
    assert message.startswith(f"`weights` is {powers!r}, which draws; needed are scores alone")
    assert message.endswith("Pass the strategy that gives them: `weights=Margin(multilabel=False, "
                            "reduction='mean')`.")  # fmt: skip


@torch_warns_of_its_layouts
@pytest.mark.parametrize("strategy", [acq.CoreSet, acq.DiverseMiniBatch])
@pytest.mark.parametrize("wrong", ["sparse", "csr", "meta", "nested", "float8", "complex"])
def test_strategies_refuse_given_embeddings_when_they_are_made(strategy, wrong):
    made, words = {**NOT_DENSE, **ROWS_ONLY}[wrong]
    with pytest.raises(TypeError, match="`embeddings` .*" + words.replace("NAME", "embeddings")):
        strategy(embeddings=made(ROWS))
