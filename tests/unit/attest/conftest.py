from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fixtures.clock import FakeClock
from tests.unit.attest.key_server import KeyServer
from tests.unit.attest.support import Stage


@pytest.fixture
def stage(tmp_path: Path, clock: FakeClock) -> Stage:
    return Stage(tmp_path, clock)


@pytest.fixture
async def key_server() -> AsyncIterator[KeyServer]:
    async with KeyServer().running() as server:
        yield server
