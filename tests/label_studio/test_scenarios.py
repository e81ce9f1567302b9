"""Push and pull against a real server, and whether it still answers as it was recorded to."""

import json

import pytest

from tests.label_studio.record import RECORDED, record, shape
from tests.label_studio.scenarios import Scenarios

pytestmark = pytest.mark.label_studio


class TestAgainstARealServer(Scenarios):
    pass


def test_the_recorded_answers_are_still_those_of_the_server(mortal):
    recorded, now = json.loads(RECORDED.read_text(encoding="utf-8")), record(mortal)
    assert now["said"].keys() == recorded["said"].keys()
    for name, said in recorded["said"].items():
        assert now["said"][name]["status"] == said["status"], name
        assert shape(now["said"][name]["answer"]) == shape(said["answer"]), name
