"""One real server for all tests, from a database that is migrated once."""

import pytest

from tests.label_studio.server import EXECUTABLE, Server, make_template


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    if not EXECUTABLE.exists():
        pytest.fail(
            f"{EXECUTABLE} is not there; `make label-studio` installs it, LABEL_STUDIO_VENV says where"
        )
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def peer(template, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"), template).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def second(peer):
    return peer.second_token()


@pytest.fixture
def mortal(template, tmp_path):
    """A server that a test may kill."""
    server = Server(tmp_path / "mortal", template).start()
    yield server
    server.stop()
