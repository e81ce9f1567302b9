"""What is known of processes before any is started."""

import pytest
from integration.small import Net, margin, pool, quiet
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_al import fit_rounds


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_processes_that_end_with_each_fit_are_refused_on_several_machines(tmp_path, strategy):
    module = Net()
    module.training_step = None  # nothing is trained
    message = (
        "The Trainer has 2 nodes and a strategy whose processes end with each fit, so that nodes could not "
        'tell each other what was asked for. Use `strategy="ddp"` in `make_trainer`.'
    )

    def make(number):
        return quiet(strategy=strategy, devices=2, num_nodes=2)

    with pytest.raises(MisconfigurationException) as refused:
        fit_rounds(module, make, pool(tmp_path / "run"), margin(), rounds=1)
    assert str(refused.value) == message
    assert not (tmp_path / "run" / "round_0").exists()


def test_a_run_that_is_finished_asks_for_one_trainer_to_meet_by_and_trains_nothing(tmp_path):
    def make(number):
        made.append(quiet())
        return made[-1]

    for calls in (2, 1, 1):
        made = []
        history = fit_rounds(Net(), make, pool(tmp_path), margin(), rounds=1)
        assert history.column("labeled") == [12, 20]
        assert len(made) == calls
    assert made[0].global_step == 0
