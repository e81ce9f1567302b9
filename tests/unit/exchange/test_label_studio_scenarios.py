"""Push and pull against answers that were recorded from a real server."""

import pytest

from tests.label_studio.scenarios import Scenarios
from tests.unit.exchange.fake_label_studio import FakeLabelStudio


@pytest.fixture
def peer():
    fake = FakeLabelStudio().start()
    yield fake
    fake.stop()


@pytest.fixture
def second(peer):
    return peer.second_token()


class TestAgainstRecordedAnswers(Scenarios):
    pass
