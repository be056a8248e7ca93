"""The running server of the tests of its public port: one for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from front_server import Caller, Front

from client.enrolment import ClientPaths, enrol


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    made = Front(tmp_path_factory.mktemp("front"))
    yield made
    if made.server.process is not None:
        made.server.process.end()


@pytest.fixture
def caller(front: Front) -> Iterator[Caller]:
    made = front.caller()
    yield made
    made.connection.close()


@pytest.fixture(scope="module")
def wearable(front: Front) -> ClientPaths:
    paths = ClientPaths(front.folder / "wearable")
    enrol(paths, front.invite("wearable"), front.data, "001")
    return paths
