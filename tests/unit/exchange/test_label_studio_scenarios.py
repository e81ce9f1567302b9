"""Push and pull against answers that were recorded from a real server."""

import pytest

from tests.label_studio.scenarios import Scenarios


@pytest.fixture
def second(peer):
    return peer.second_token()


class TestAgainstRecordedAnswers(Scenarios):
    pass
