"""Tasks: when they start, how they end, and that a dead process does not keep them alive."""

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import credbroker
import grpc
import pytest
from credbroker.v1 import task_pb2
from credbroker.v1.credential_service_pb2 import IssueCredentialRequest
from credbroker.v1.task_service_pb2 import HeartbeatTaskRequest, StartTaskRequest

from broker.errors import TaskEnded
from tests.contract.client.conftest import MakeClient, until
from tests.fakes.broker import Abort, FakeBroker, Hold, Refuse


def test_the_first_credential_starts_the_task_in_the_same_call(client: Any, broker: FakeBroker) -> None:
    with client.task("monthly report", labels={"env": "prod"}, timeout=600) as task:
        assert "not started" in repr(task)
        task.credential("vault")
        task.credential("vault")
        assert [seen.method for seen in broker.calls] == ["IssueCredential", "IssueCredential"]
        first, second = broker.requests(IssueCredentialRequest)
        assert first.new_task.purpose == "monthly report"
        assert first.new_task.labels == {"env": "prod"}
        assert first.new_task.timeout.ToTimedelta() == timedelta(seconds=600)
        assert second.task_id == task.id == next(iter(broker.tasks))
        assert task.deadline == broker.tasks[task.id].deadline.ToDatetime(task.deadline.tzinfo)
    assert broker.tasks[task.id].state == task_pb2.TASK_STATE_COMPLETED
    assert task.revocation_confirmed
    assert broker.live() == []


def test_declared_scopes_start_the_task_on_entering(client: Any, broker: FakeBroker) -> None:
    with client.task("p", scopes=["vault", "db"]) as task:
        assert task.id in broker.tasks
        assert broker.requests(StartTaskRequest)[0].spec.declared_scopes == ["vault", "db"]


def test_a_declared_scope_that_is_not_granted_fails_before_the_work(client: Any, broker: FakeBroker) -> None:
    with pytest.raises(credbroker.ScopeDenied), client.task("p", scopes=["other"]):
        pytest.fail("the block must not be entered")
    assert broker.tasks == {}


def test_a_scope_that_was_not_declared_is_refused(client: Any) -> None:
    with client.task("p", scopes=["db"]) as task, pytest.raises(credbroker.ScopeNotDeclared):
        task.credential("vault")


@pytest.mark.parametrize("start", [True, False])
def test_start_can_be_chosen(client: Any, broker: FakeBroker, start: bool) -> None:
    with client.task("p", scopes=["vault"], start=start) as task:
        assert (task.id is not None) is start
        assert broker.count("StartTask") == start


def test_starting_twice_is_one_start(client: Any, broker: FakeBroker) -> None:
    task = client.task("p").start().start()
    assert broker.count("StartTask") == 1
    task.complete()


def test_a_task_that_never_asked_needs_no_call(client: Any, broker: FakeBroker) -> None:
    with client.task("p") as task:
        pass
    assert broker.calls == []
    assert task.ended
    with pytest.raises(credbroker.TaskEnded):
        task.credential("vault")


def test_a_completed_task_gives_nothing_more(client: Any, broker: FakeBroker) -> None:
    with client.task("p") as task:
        credential = task.credential("vault")
    task.complete()
    assert broker.count("CompleteTask") == 1
    with pytest.raises(credbroker.TaskEnded, match="was completed"):
        task.credential("vault")
    with pytest.raises(credbroker.TaskEnded):
        task.start()
    with pytest.raises(credbroker.TaskEnded):
        credential.fresh()
    with pytest.raises(credbroker.CredentialEnded, match="task of this credential has ended"):
        _ = credential.token


def _work_and_fail(task: Any) -> None:
    with task:
        task.credential("vault")
        raise ZeroDivisionError


def test_an_exception_completes_the_task_and_comes_through(client: Any, broker: FakeBroker) -> None:
    task = client.task("p")
    with pytest.raises(ZeroDivisionError) as caught:
        _work_and_fail(task)
    assert broker.tasks[task.id].state == task_pb2.TASK_STATE_COMPLETED
    assert not getattr(caught.value, "__notes__", [])


def test_failing_to_complete_does_not_hide_the_exception(
    client: Any, broker: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.script("CompleteTask", Abort(grpc.StatusCode.INTERNAL, "boom"))
    task = client.task("p")
    with pytest.raises(ZeroDivisionError) as caught:
        _work_and_fail(task)
    (note,) = caught.value.__notes__
    assert task.id in note
    assert "boom" in note
    assert task.id in caplog.text


def test_failing_to_complete_is_raised_when_nothing_else_is(client: Any, broker: FakeBroker) -> None:
    broker.script("CompleteTask", Abort(grpc.StatusCode.INTERNAL))
    task = client.task("p")
    with pytest.raises(credbroker.BrokerFailed), task:
        task.credential("vault")
    task.complete()
    assert broker.tasks[task.id].state == task_pb2.TASK_STATE_COMPLETED


def test_a_task_can_be_completed_by_its_identifier(client: Any, broker: FakeBroker) -> None:
    task = client.task("p").start()
    client.complete(task.id)
    assert broker.tasks[task.id].state == task_pb2.TASK_STATE_COMPLETED
    with pytest.raises(credbroker.TaskNotFound):
        client.complete("0197f4b2-6c1e-7d3a-9a65-3f6c1f0b7c55")


def test_the_brokers_word_that_the_task_has_ended_is_remembered(client: Any, broker: FakeBroker) -> None:
    with client.task("p") as task:
        credential = task.credential("vault")
        broker.end(task.id)
        with pytest.raises(credbroker.TaskEnded):
            task.credential("vault")
        assert task.ended
        calls = len(broker.calls)
        with pytest.raises(credbroker.TaskEnded):
            task.credential("vault")
        with pytest.raises(credbroker.CredentialEnded):
            _ = credential.token
    assert len(broker.calls) == calls


def test_heartbeats_go_on_through_errors_and_end_with_the_task(
    client: Any, broker: FakeBroker, caplog: pytest.LogCaptureFixture, beating: Callable[[], bool]
) -> None:
    broker.script("HeartbeatTask", Abort(grpc.StatusCode.INTERNAL, "hiccup"), Abort(grpc.StatusCode.UNAVAILABLE))
    with client.task("p", heartbeat_interval=0.15) as task:
        task.credential("vault")
        broker.wait_for("HeartbeatTask", 5)
        assert {request.id for request in broker.requests(HeartbeatTaskRequest)} == {task.id}
        assert not task.ended
        assert beating()
    assert "hiccup" in caplog.text
    until(lambda: not beating())


def test_heartbeats_do_not_linger(client: Any, beating: Callable[[], bool]) -> None:
    with client.task("p", heartbeat_interval=300) as task:
        task.start()
        assert beating()
    until(lambda: not beating())


def test_a_task_that_is_found_only_to_be_completed_gets_no_heartbeats(
    client: Any, broker: FakeBroker, beating: Callable[[], bool]
) -> None:
    with client.task("p", heartbeat_interval=300) as task:
        broker.script("IssueCredential", Abort(grpc.StatusCode.INTERNAL))
        with pytest.raises(credbroker.BrokerFailed):
            task.credential("vault")
    assert not beating()
    assert broker.tasks[task.id].state == task_pb2.TASK_STATE_COMPLETED


def test_no_heartbeats_unless_asked_for(client: Any, broker: FakeBroker, beating: Callable[[], bool]) -> None:
    with client.task("p") as task:
        task.start()
        assert not beating()


def test_heartbeats_tell_that_the_task_has_ended(client: Any, broker: FakeBroker, beating: Callable[[], bool]) -> None:
    held = Hold()
    broker.script("HeartbeatTask", held)
    with client.task("p", heartbeat_interval=0.15) as task:
        credential = task.credential("vault")
        assert held.arrived.wait(10)
        broker.end(task.id)
        held.release.set()
        until(lambda: task.ended)
        with pytest.raises(credbroker.TaskEnded):
            task.credential("vault")
        with pytest.raises(credbroker.CredentialEnded):
            _ = credential.token
    assert broker.count("CompleteTask") == 0
    until(lambda: not beating())


def test_heartbeats_survive_a_token_callable_that_fails(
    make_client: MakeClient, broker: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def token() -> str:
        calls.append(1)
        if len(calls) == 2:
            raise ValueError("canary-in-foreign-text")
        return "token-of-the-agent"

    with make_client(token=token).task("p", heartbeat_interval=0.15) as task:
        task.start()
        broker.wait_for("HeartbeatTask", 1)
    assert "ValueError" in caplog.text
    assert "canary" not in caplog.text


def test_closing_the_client_stops_heartbeats(
    make_client: MakeClient, broker: FakeBroker, caplog: pytest.LogCaptureFixture, beating: Callable[[], bool]
) -> None:
    caplog.set_level(logging.WARNING)
    client = make_client()
    held = Hold()
    broker.script("HeartbeatTask", held)
    client.task("p", heartbeat_interval=0.15).start()
    assert held.arrived.wait(10)
    client.close()
    held.release.set()
    until(lambda: not beating())
    assert "heartbeat" not in caplog.text


def test_closing_the_client_stops_heartbeats_that_wait(make_client: MakeClient, beating: Callable[[], bool]) -> None:
    client = make_client()
    client.task("p", heartbeat_interval=300).start()
    assert beating()
    client.close()
    until(lambda: not beating())


def test_a_locked_agent_is_told(client: Any, broker: FakeBroker) -> None:
    broker.script("StartTask", Refuse(TaskEnded()))
    with pytest.raises(credbroker.TaskEnded):
        client.task("p").start()


def test_a_closed_client_refuses(make_client: MakeClient) -> None:
    client = make_client()
    task = client.task("p")
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        task.credential("vault")


def test_closing_the_client_ends_a_call_that_runs(make_client: MakeClient, broker: FakeBroker) -> None:
    client = make_client()
    held = Hold()
    broker.script("IssueCredential", held)
    task = client.task("p")
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            task.credential("vault")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert held.arrived.wait(10)
    client.close()
    thread.join(10)
    held.release.set()
    (failure,) = failures
    assert isinstance(failure, RuntimeError)
    assert "closed" in str(failure)
