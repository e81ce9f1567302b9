"""The loss head on several processes, also on such as end with the fit."""

import pytest
import torch
from integration.small import queries
from torchmetrics.functional import spearman_corrcoef

from distributed.launch import launch
from distributed.learning_loss import HELD_OUT, Judged, Predicting, head_of
from lightning_al.functional import ranking_accuracy

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module", params=["ddp", "ddp_spawn"])
def ended(request, tmp_path_factory):
    ended = launch("learning_loss.py", tmp_path_factory.mktemp("ended"), request.param)
    assert ended.status == 0, ended.said[-4000:]
    return request.param, ended


def test_all_processes_have_one_head_that_learned_and_ask_by_it(ended):
    strategy, ended = ended
    first = ended.notes(0)
    assert [(row["labeled"], row["asked"]) for row in first["rows"]] == [(12, 8), (20, 0)]
    assert len(queries(ended.folder / strategy / "Predicting")[1]) == 8
    assert len(set(first["predictions"])) == 3
    if strategy == "ddp":
        second = ended.notes(1)
        assert first["head"] == second["head"] != first["begun"] == second["begun"]
        assert first["predictions"] == second["predictions"]


def test_the_head_of_processes_that_ended_is_in_this_ones_module(ended):
    strategy, ended = ended
    begun = torch.load(
        ended.folder / strategy / "Predicting" / "initial_weights.pt", map_location="cpu", weights_only=True
    )
    module = Predicting()
    module.load_state_dict(begun)
    now = ended.notes(0)["head"]
    assert len(now) == len(head_of(module))
    assert now != head_of(module)


def test_a_step_that_forgets_the_head_says_so_before_ddp_fails(ended):
    """Also one that did not forget it before."""
    strategy, ended = ended
    if strategy == "ddp":
        for rank in (0, 1):
            for kind in ("Forgetful", "Sometimes"):
                said = ended.notes(rank)[kind]
                assert f"`{kind}.training_step` did not call `self.learning_loss` in a step; with" in said


def test_steps_may_leave_the_head_out_where_ddp_looks_for_unused_parameters(ended):
    strategy, ended = ended
    if strategy == "ddp":
        assert ended.notes(0)["warm"] == ended.notes(1)["warm"] == [True, 3]


def test_held_out_samples_of_both_processes_are_compared_with_each_other(ended):
    """The numbers are those of one process over all of them."""
    strategy, ended = ended
    if strategy == "ddp":
        module = Judged()
        module.load_state_dict(torch.load(ended.folder / "judged_0.pt", weights_only=True))
        x, y = HELD_OUT.tensors
        with module.eval().predicting_loss(), torch.no_grad():
            losses = torch.nn.functional.cross_entropy(module(x), y, reduction="none")
            predicted = module.predicted_loss(len(x))
        expected = [float(ranking_accuracy(predicted, losses)), float(spearman_corrcoef(predicted, losses))]
        for rank in (0, 1):
            assert ended.notes(rank)["judged"][:2] == pytest.approx(expected, abs=1e-5)
        assert ended.notes(0)["judged"] == ended.notes(1)["judged"]
        assert "sync_dist" not in ended.said
        mine = [float(ranking_accuracy(predicted[part::2], losses[part::2])) for part in (0, 1)]
        assert all(abs(found - expected[0]) > 1e-4 for found in (*mine, sum(mine) / 2))
