"""Driving the core without a loop, and what closing does to calls."""

from collections.abc import Generator
from pathlib import Path

import credbroker
import pytest
from credbroker import SystemClock
from credbroker._blocking import BlockingIo, run
from credbroker._broker import Broker
from credbroker._channel import Channels
from credbroker._evidence import Bearer, Certificate
from credbroker._io import HEARTBEAT_TASK, Method
from credbroker._requests import make_spec
from credbroker._retry import Policy
from credbroker._settings import Settings
from credbroker._task import TaskCore
from credbroker.v1 import task_service_pb2 as tasks
from cryptography.hazmat.primitives import serialization

from broker.dev.pki import DevAuthority

ADDRESS = "127.0.0.1:1"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    authority = DevAuthority()
    files = {"ca": authority.certificate_pem}
    files["certificate"], files["key"] = authority.issue(spiffe_id="spiffe://example.test/a")
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    evidence = Certificate(tmp_path / "certificate", tmp_path / "key")
    return Settings(ADDRESS, evidence, tmp_path / "ca", Policy())


class Suspending:
    def __await__(self) -> Generator[None, None, None]:
        yield


def test_work_that_suspends_is_a_mistake_of_this_library() -> None:
    async def work() -> None:
        await Suspending()

    with pytest.raises(RuntimeError, match="something asynchronous"):
        run(work())


def test_a_channel_closed_in_the_middle_of_a_call(settings: Settings) -> None:
    io = BlockingIo(settings, SystemClock())

    def close_and_serialize(request: tasks.HeartbeatTaskRequest) -> bytes:
        io.close()
        return request.SerializeToString()

    method = Method(HEARTBEAT_TASK.path, close_and_serialize, HEARTBEAT_TASK.parse)
    with pytest.raises(RuntimeError, match="the client is closed"):
        run(io.call(method, tasks.HeartbeatTaskRequest(), Bearer("t"), 1.0))


def test_grpcs_own_complaints_come_through(settings: Settings) -> None:
    io = BlockingIo(settings, SystemClock())

    def fail(request: tasks.HeartbeatTaskRequest) -> bytes:
        held, _ = io._channels.acquire()
        held.channel.close()
        return request.SerializeToString()

    with pytest.raises(ValueError, match="closed channel"):
        run(io.call(Method(HEARTBEAT_TASK.path, fail, HEARTBEAT_TASK.parse), tasks.HeartbeatTaskRequest(), None, 1.0))
    io.close()


def test_heartbeats_come_three_to_an_interval(settings: Settings) -> None:
    io = BlockingIo(settings, SystemClock())
    task = TaskCore(Broker(io, settings.policy), make_spec("p", None, (), None, 60))
    waited: list[float] = []

    async def stop_at_once(seconds: float) -> bool:
        waited.append(seconds)
        return True

    run(task._beat("task", stop_at_once))
    assert waited == [20]


def touch(settings: Settings) -> None:
    assert settings.ca_file is not None
    settings.ca_file.write_bytes(settings.ca_file.read_bytes() + b"\n")


def test_channels_are_replaced_when_files_change_and_closed_when_unused(settings: Settings) -> None:
    made = iter("abcd")
    channels = Channels(settings, lambda *_: next(made))
    touch(settings)
    first, unused = channels.acquire()
    assert (first.channel, unused) == ("a", None)
    again, unused = channels.acquire()
    assert (again, unused) == (first, None)
    touch(settings)
    second, unused = channels.acquire()
    assert (second.channel, unused) == ("b", None)
    assert channels.release(first) is None
    assert channels.release(again) == "a"
    assert channels.release(second) is None
    touch(settings)
    third, unused = channels.acquire()
    assert (third.channel, unused) == ("c", "b")
    assert channels.close() == "c"
    assert channels.release(third) is None
    assert channels.close() is None


def test_an_encrypted_key_is_refused_without_asking_for_its_password(settings: Settings) -> None:
    assert isinstance(settings.evidence, Certificate)
    key_file = settings.evidence.key
    key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    hidden = serialization.BestAvailableEncryption(b"password")
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden))
    with pytest.raises(credbroker.Misconfigured, match="unencrypted key"):
        Channels(settings, lambda *_: None)
