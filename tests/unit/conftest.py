import pytest


@pytest.fixture
def peer():
    """A server that gives the recorded answers of Label Studio."""
    from tests.unit.exchange.fake_label_studio import FakeLabelStudio

    fake = FakeLabelStudio().start()
    yield fake
    fake.stop()
