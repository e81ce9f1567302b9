import pytest
import torch

from lightning_al.functional import Shard
from lightning_al.inference import Outputs, Summary
from lightning_al.inference.outputs import probabilities
from lightning_al.inference.posteriors import NotFiniteError, check_finite
from unit.ranks import on_ranks


def test_a_field_that_was_not_asked_for_is_an_error():
    outputs = Outputs(probs=torch.ones(1, 1))
    assert outputs.probs.shape == (1, 1)
    assert outputs.mask is None
    with pytest.raises(AttributeError, match=r"`outputs.logits` was not computed.*\('probs',\).*Add it"):
        _ = outputs.logits


@pytest.mark.parametrize(
    ("shape", "multilabel", "expected"),
    [
        ((5, 3), False, (5, 3)), ((5, 1), False, (5, 2)), ((5,), False, (5, 2)),
        ((5, 3, 4, 2), False, (5, 4, 2, 3)),
        ((5, 1, 4, 2), False, (5, 4, 2, 2)), ((5, 3), True, (5, 3, 2)), ((5, 1), True, (5, 1, 2)),
        ((5, 3, 4), True, (5, 3, 4, 2)), ((0, 3), False, (0, 3)),
    ],
)  # fmt: skip
def test_probabilities_of_every_kind_of_head(shape, multilabel, expected):
    found = probabilities(torch.randn(shape), multilabel=multilabel)
    assert found.shape == expected
    assert torch.allclose(found.sum(-1), torch.ones(expected[:-1]))


def test_extreme_logits_of_a_single_output_keep_both_tails():
    found = probabilities(torch.tensor([[-60.0], [60.0]]))
    assert bool((found > 0).all())


def test_rows_that_are_not_finite():
    check_finite(torch.zeros(3, 2))
    with pytest.raises(NotFiniteError) as error:
        check_finite(torch.tensor([[0.0, 1.0], [float("nan"), 0.0], [float("inf"), 0.0]]))
    assert error.value.rows == [1, 2]


def test_a_rank_without_a_batch_has_tensors_like_the_others():
    def work(shard):
        found = {"e": torch.ones(len(shard.positions), 3)} if len(shard.positions) else {}
        return Summary.of_rank(found, shard)

    for summary, rows in zip(on_ranks(3, 2, 1, work), (1, 1, 0), strict=True):
        assert summary["e"].shape == (rows, 3)
    assert dict(Summary.of_rank({}, Shard.whole(0))) == {}
