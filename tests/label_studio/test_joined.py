"""A ledger and a project on a real server."""

import pytest

from tests.label_studio.joined import Joined

pytestmark = pytest.mark.label_studio


class TestAgainstARealServer(Joined):
    pass
