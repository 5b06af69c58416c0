"""One suite over both clients: the blocking one, and the asynchronous one behind a blocking face."""

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import credbroker
import pytest
from credbroker.aio import AsyncClient, AsyncCredential, AsyncTask

from broker.dev.pki import DevAuthority
from tests.fakes.broker import DEFAULT_TOKEN, FakeBroker, FakeScope, running

MakeClient = Callable[..., Any]


class TravelClock:
    """The machine's clock, and as much later as the test says."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def monotonic(self) -> float:
        return time.monotonic() + self.offset.total_seconds()

    def advance(self, **by: float) -> None:
        self.offset += timedelta(**by)


class LoopThread:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def close(self) -> None:
        self.run(self.loop.shutdown_asyncgens())
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class Blocking:
    """An object of the asynchronous client, called like one of the blocking client."""

    def __init__(self, thread: LoopThread, inner: Any) -> None:
        self._thread = thread
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return self._call(value) if inspect.ismethod(value) else value

    def _call(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: object, **named: object) -> Any:
            answer = method(*given, **named)
            return self._wrap(self._thread.run(answer) if inspect.iscoroutine(answer) else answer)

        return call

    def _wrap(self, value: Any) -> Any:
        if value is self._inner:
            return self
        return Blocking(self._thread, value) if isinstance(value, AsyncTask | AsyncCredential) else value

    def __enter__(self) -> Any:
        return self._call(self._inner.__aenter__)()

    def __exit__(self, *error: object) -> Any:
        return self._call(self._inner.__aexit__)(*error)

    def __getitem__(self, name: str) -> Any:
        return self._inner[name]

    def __iter__(self) -> Iterator[str]:
        names: Iterator[str] = iter(self._inner)
        return names

    def __contains__(self, name: object) -> bool:
        return name in self._inner

    def __repr__(self) -> str:
        return repr(self._inner)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blocking) and self._inner == other._inner

    def __hash__(self) -> int:
        return hash(self._inner)


@pytest.fixture(scope="session")
def authority() -> DevAuthority:
    return DevAuthority()


@pytest.fixture
def travel() -> TravelClock:
    return TravelClock()


@pytest.fixture
def broker(authority: DevAuthority, travel: TravelClock) -> Iterator[FakeBroker]:
    fake = FakeBroker(travel.now)
    fake.scopes["vault"] = FakeScope()
    fake.scopes["db"] = FakeScope(data={"username": "u", "port": 5432})
    with running(fake, authority):
        yield fake


@pytest.fixture
def ca_file(authority: DevAuthority, tmp_path: Path) -> Path:
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.certificate_pem)
    return file


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ADDRESS", "CA_FILE", "TOKEN", "TOKEN_FILE", "CERT_FILE", "KEY_FILE"):
        monkeypatch.delenv(f"CREDBROKER_{name}", raising=False)


@pytest.fixture
def loop_thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(params=["blocking", "asyncio"])
def make_client(
    request: pytest.FixtureRequest, broker: FakeBroker, ca_file: Path, travel: TravelClock
) -> Iterator[MakeClient]:
    """Makes clients of either kind, with the fake broker's defaults where the test gives nothing."""
    made: list[Any] = []
    thread: LoopThread | None = request.getfixturevalue("loop_thread") if request.param == "asyncio" else None

    async def make_async(address: str, **given: Any) -> AsyncClient:
        return AsyncClient(address, **given)

    def make(address: str | None = None, **given: Any) -> Any:
        if not given.keys() & {"token", "token_file", "certificate_file", "key_file"}:
            given["token"] = DEFAULT_TOKEN
        given = {"ca_file": ca_file, "clock": travel, **given}
        where = address or broker.address
        client = (
            credbroker.Client(where, **given)
            if thread is None
            else Blocking(thread, thread.run(make_async(where, **given)))
        )
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(make_client: MakeClient) -> Any:
    return make_client()


@pytest.fixture
def beating(request: pytest.FixtureRequest) -> Callable[[], bool]:
    """Tells whether anything sends heartbeats, on threads or in the asynchronous client's loop."""

    def answer() -> bool:
        names = [thread.name for thread in threading.enumerate()]
        if "loop_thread" in request.fixturenames:
            names += [task.get_name() for task in asyncio.all_tasks(request.getfixturevalue("loop_thread").loop)]
        return any(name.startswith("credbroker heartbeat") for name in names)

    return answer


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so, or fail."""
    pause = threading.Event()
    for _ in range(1000):
        if condition():
            return
        pause.wait(0.01)
    raise TimeoutError
