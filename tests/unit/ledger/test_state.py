"""The digest by which ranks compare what they are about to train on."""

from lightning_al.ledger.schema import Event
from lightning_al.ledger.state import LABELED, PoolState

TWO = [
    Event("labeled", 3, value="1", round=0, rank=0),
    Event("labeled", 1, value="0", round=0, rank=1),
]


def state_of(*events):
    state = PoolState(5)
    state.apply(enumerate(events, start=1))
    return state


def test_another_target_of_the_same_samples_is_another_digest():
    corrected = state_of(*TWO, Event("relabeled", 1, value="2"))
    assert corrected.indices(LABELED).tolist() == state_of(*TWO).indices(LABELED).tolist() == [3, 1]
    assert corrected.digest() != state_of(*TWO).digest()


def test_targets_that_changed_places_are_another_digest():
    swapped = state_of(
        Event("labeled", 3, value="0", round=0, rank=0), Event("labeled", 1, value="1", round=0, rank=1)
    )
    assert swapped.digest() != state_of(*TWO).digest()


def test_other_samples_or_another_order_are_another_digest():
    other = state_of(TWO[0], Event("labeled", 2, value="0", round=0, rank=1))
    turned = state_of(
        Event("labeled", 3, value="1", round=0, rank=1), Event("labeled", 1, value="1", round=0, rank=0)
    )
    same = state_of(
        Event("labeled", 3, value="1", round=0, rank=0), Event("labeled", 1, value="1", round=0, rank=1)
    )
    assert len({state_of(*TWO).digest(), other.digest(), turned.digest(), same.digest()}) == 4


def test_how_the_state_came_about_is_not_in_the_digest():
    detour = state_of(
        *TWO, Event("relabeled", 1, value="2"), Event("relabeled", 1, value="0"), Event("asked", 4)
    )
    assert detour.digest() == state_of(*TWO).digest()
