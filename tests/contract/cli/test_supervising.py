"""Keeping workers running, shown with processes that are quicker to start than a broker."""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from broker.cli import supervising
from broker.cli.failures import MISUSED
from broker.cli.ports import reserved
from broker.cli.supervising import Process, Supervisor
from broker.config import Listen
from broker.errors import ConfigError
from tests.fixtures.waiting import until

PATIENCE = 30.0
DRAINS = "trap 'exit 0' TERM; echo up; while :; do sleep 0.02; done"
STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.02; done"


class Workers:
    """Starts shells in place of brokers, one script after the other, the last one again and again."""

    def __init__(self, *scripts: str) -> None:
        self.scripts = list(scripts)
        self.started: list[Process] = []
        self._up = 0

    async def __call__(self) -> Process:
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        if not script:
            raise FileNotFoundError(2, "No such file or directory")
        process = await asyncio.create_subprocess_exec("sh", "-c", script, stdout=asyncio.subprocess.PIPE)
        self.started.append(process)
        return process

    async def up(self, count: int) -> None:
        """Wait until that many have been started and can take a signal."""
        await until(lambda: len(self.started) >= count)
        for process in self.started[self._up : count]:
            assert process.stdout is not None
            await process.stdout.readline()
        self._up = count


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(supervising, "LONGEST_DELAY", 0.04)


def ask_to_end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def ending(workers: Callable[[], Awaitable[Process]], count: int, patience: float = PATIENCE) -> list[int]:
    async with asyncio.timeout(PATIENCE):
        return await Supervisor(workers, lambda pid: None, patience).run(count)


async def test_all_are_asked_to_end_and_waited_for() -> None:
    workers = Workers(DRAINS)
    running = asyncio.create_task(ending(workers, 3))
    await workers.up(3)
    ask_to_end()
    assert await running == [0, 0, 0]
    assert len(workers.started) == 3


async def test_one_that_is_killed_is_replaced() -> None:
    workers = Workers(DRAINS)
    running = asyncio.create_task(ending(workers, 2))
    await workers.up(2)
    workers.started[0].kill()
    await workers.up(3)
    ask_to_end()
    assert await running == [0, 0]
    assert [process.returncode for process in workers.started] == [-signal.SIGKILL, 0, 0]


async def test_those_that_keep_ending_are_started_less_and_less_often(capsys: pytest.CaptureFixture[str]) -> None:
    workers = Workers("exit 1", "exit 3", "", "exit 0", DRAINS)
    running = asyncio.create_task(ending(workers, 1))
    await workers.up(4)
    ask_to_end()
    assert await running == [0]
    told = [line for line in capsys.readouterr().out.splitlines() if "another is started" in line]
    shown = [[word for word in line.split() if word.startswith(("exit_code=", "seconds="))] for line in told]
    assert shown == [
        ["exit_code=1", "seconds=0.01"],
        ["exit_code=3", "seconds=0.02"],
        ["exit_code=1", "seconds=0.04"],
        ["exit_code=0", "seconds=0.04"],
    ]


async def test_one_that_ran_for_long_is_replaced_soon(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervising, "STEADY", 0.0)
    workers = Workers("exit 1", "exit 1", DRAINS)
    running = asyncio.create_task(ending(workers, 1))
    await workers.up(3)
    ask_to_end()
    await running
    assert capsys.readouterr().out.count("seconds=0.01") == 2


async def test_a_wrong_configuration_ends_all() -> None:
    workers = Workers(DRAINS, f"exit {MISUSED}", DRAINS)
    assert sorted(await ending(workers, 3)) in ([0, 0, MISUSED], [0, MISUSED])
    assert len(workers.started) == 3


async def test_a_second_signal_kills() -> None:
    workers = Workers(STUBBORN, DRAINS)
    running = asyncio.create_task(ending(workers, 2))
    await workers.up(2)
    ask_to_end()
    await workers.started[1].wait()
    assert workers.started[0].returncode is None
    ask_to_end()
    assert await running == [-signal.SIGKILL, 0]


async def test_one_that_does_not_end_is_killed_in_the_end() -> None:
    workers = Workers(STUBBORN)
    running = asyncio.create_task(ending(workers, 1, patience=0.05))
    await workers.up(1)
    ask_to_end()
    assert await running == [-signal.SIGKILL]


async def test_nobody_is_started_any_more_while_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "FIRST_DELAY", PATIENCE)
    workers = Workers("exit 1")
    running = asyncio.create_task(ending(workers, 1))
    await until(lambda: workers.started and workers.started[0].returncode is not None)
    ask_to_end()
    assert await running == [0]
    assert len(workers.started) == 1


def listen(address: str) -> Listen:
    tls = {"certificate": "x", "private_key": "x"}
    return Listen.model_validate({"bearer": {"address": address, "tls": tls}, "mutual": None})


@contextmanager
def bound(*, share: bool, address: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[socket.socket]:
    with socket.socket() as found:
        if share:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.bind(address)
        yield found


def test_port_0_is_settled_for_all() -> None:
    with reserved(listen("127.0.0.1:0")) as addresses:
        host, _, port = addresses["bearer"].rpartition(":")
        assert addresses == {"bearer": f"127.0.0.1:{port}"}
        with bound(share=True, address=(host, int(port))) as worker:
            worker.listen()
        with pytest.raises(OSError, match="in use"), bound(share=False, address=(host, int(port))):
            pass


@pytest.mark.parametrize("share", [True, False])
def test_an_address_that_somebody_listens_on_is_refused(share: bool) -> None:
    with bound(share=share) as stranger:
        stranger.listen()
        taken = f"127.0.0.1:{stranger.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"listen\.bearer\.address: cannot listen on {taken}: .* in use"):
            reserved(listen(taken)).__enter__()


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:0"):
        reserved(listen("192.0.2.1:0")).__enter__()


def test_ipv6_addresses_reach_the_workers_whole() -> None:
    with reserved(listen("[::]:0")) as addresses:
        assert addresses["bearer"].startswith("[::]:")
    assert supervising.variables({"bearer": "[::]:1"}) == {"CREDBROKER_LISTEN__BEARER__ADDRESS": '"[::]:1"'}
