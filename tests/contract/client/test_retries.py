"""What is tried again, and that no try leaves more behind than it must."""

import logging
import threading
import time
from datetime import timedelta
from typing import Any

import credbroker
import grpc
import pytest
from credbroker.v1 import issuance_pb2, task_pb2
from credbroker.v1.credential_service_pb2 import IssueCredentialRequest
from credbroker.v1.task_service_pb2 import StartTaskRequest

from broker.errors import (
    LimitReached,
    Locked,
    MintFailed,
    Overloaded,
    ScopeDenied,
    StoreUnavailable,
    VaultUnavailable,
)
from tests.contract.client.conftest import MakeClient
from tests.fakes.broker import Abort, FakeBroker, Hang, Lose, Refuse

AWAY = Abort(grpc.StatusCode.UNAVAILABLE)


@pytest.mark.parametrize(
    "trouble",
    [
        AWAY,
        Abort(grpc.StatusCode.CANCELLED),
        Refuse(VaultUnavailable()),
        Refuse(StoreUnavailable()),
        Refuse(Overloaded(retry_after=timedelta(milliseconds=10))),
        Refuse(LimitReached(retry_after=timedelta(milliseconds=10))),
    ],
)
def test_what_may_pass_is_tried_again_under_the_same_request_id(
    client: Any, broker: FakeBroker, trouble: Abort | Refuse
) -> None:
    broker.script("IssueCredential", trouble, trouble)
    with client.task("p") as task:
        assert task.credential("vault").token == "secret-1"
    assert len({request.request_id for request in broker.requests(IssueCredentialRequest)}) == 1
    assert broker.count("IssueCredential") == 3


@pytest.mark.parametrize(
    "refusal",
    [
        Refuse(ScopeDenied()),
        Refuse(Locked()),
        Refuse(LimitReached()),
        Refuse(MintFailed()),
        Abort(grpc.StatusCode.INTERNAL),
        Abort(grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_what_will_not_pass_is_not_tried_again(client: Any, broker: FakeBroker, refusal: Abort | Refuse) -> None:
    task = client.task("p")
    broker.script("IssueCredential", refusal)
    with pytest.raises(credbroker.Error):
        task.credential("vault")
    assert broker.count("IssueCredential") == 1


def test_the_brokers_delay_is_honoured(client: Any, broker: FakeBroker) -> None:
    broker.script("StartTask", Refuse(Overloaded(retry_after=timedelta(seconds=0.4))))
    began = time.monotonic()
    client.task("p").start()
    assert time.monotonic() - began >= 0.4


def test_a_delay_beyond_the_total_time_is_not_waited_for(client: Any, broker: FakeBroker) -> None:
    broker.script("StartTask", Refuse(LimitReached(retry_after=timedelta(seconds=60))))
    began = time.monotonic()
    with pytest.raises(credbroker.LimitReached, match="try again in 60 s") as caught:
        client.task("p").start()
    assert time.monotonic() - began < 10
    assert caught.value.retry_after == timedelta(seconds=60)


def test_the_total_time_ends_all_tries(make_client: MakeClient, broker: FakeBroker) -> None:
    broker.script("StartTask", *[AWAY] * 1000)
    began = time.monotonic()
    with pytest.raises(credbroker.Unavailable):
        make_client(total_timeout=1).task("p").start()
    assert time.monotonic() - began < 10
    assert broker.count("StartTask") > 1


def test_an_attempt_that_hangs_is_given_up_and_repeated(make_client: MakeClient, broker: FakeBroker) -> None:
    broker.script("StartTask", Hang(act=True))
    task = make_client(timeout=0.3).task("p").start()
    assert list(broker.tasks) == [task.id]
    first, second = broker.requests(StartTaskRequest)
    assert first.request_id == second.request_id


def test_no_answer_at_all_is_a_timeout(make_client: MakeClient, broker: FakeBroker) -> None:
    broker.script("StartTask", *[Hang()] * 10)
    with pytest.raises(credbroker.TimedOut, match="longer timeout="):
        make_client(timeout=0.2, total_timeout=0.5).task("p").start()


@pytest.mark.parametrize("how", [Lose(), Lose(grpc.StatusCode.CANCELLED), Hang(act=True)])
def test_a_lost_credential_is_revoked_before_another_is_issued(
    make_client: MakeClient, broker: FakeBroker, how: Lose | Hang
) -> None:
    with make_client(timeout=0.5).task("p") as task:
        task.credential("vault")
        broker.script("IssueCredential", how)
        credential = task.credential("vault")
        methods = [seen.method for seen in broker.calls]
        assert methods[1:] == ["IssueCredential", "IssueCredential", "RevokeCredential", "IssueCredential"]
        _, lost, again, fresh = broker.requests(IssueCredentialRequest)
        assert lost.request_id == again.request_id != fresh.request_id
        assert len(broker.live()) == 2
        assert credential.issuance_id in broker.live()


def test_a_lost_first_reply_leaves_one_task(client: Any, broker: FakeBroker) -> None:
    broker.script("IssueCredential", Lose())
    with client.task("p") as task:
        credential = task.credential("vault")
        assert list(broker.tasks) == [task.id]
        assert broker.requests(IssueCredentialRequest)[-1].task_id == task.id
        assert broker.live() == [credential.issuance_id]
    assert broker.live() == []


def test_a_lost_first_reply_begins_heartbeats(client: Any, broker: FakeBroker) -> None:
    broker.script("IssueCredential", Lose())
    with client.task("p", heartbeat_interval=0.15) as task:
        task.credential("vault")
        broker.wait_for("HeartbeatTask", 1)


def test_what_cannot_be_revoked_is_left_to_the_task(
    client: Any, broker: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    broker.scopes["vault"].revocability = issuance_pb2.REVOCABILITY_WITH_TASK
    broker.script("IssueCredential", Lose())
    with client.task("p") as task:
        task.credential("vault")
        assert len(broker.live()) == 2
    assert broker.live() == []
    assert "ends with its task" in caplog.text


def test_failing_to_revoke_what_was_lost_does_not_fail_the_ask(
    client: Any, broker: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.script("IssueCredential", Lose())
    broker.script("RevokeCredential", Abort(grpc.StatusCode.INTERNAL))
    with client.task("p") as task:
        assert task.credential("vault").token == "secret-2"
    assert "could not revoke" in caplog.text


def test_losing_every_reply_ends_in_an_error(client: Any, broker: FakeBroker) -> None:
    with client.task("p") as task:
        broker.script("IssueCredential", *[Lose(), None] * 10)
        with pytest.raises(credbroker.RequestIdReused):
            task.credential("vault")
        assert broker.count("IssueCredential") == 6
        assert list(broker.tasks) == [task.id]
        assert broker.live() == []


@pytest.mark.parametrize("ask_again", ["the same", "another", "none"])
def test_an_ask_without_answer_is_settled_later(make_client: MakeClient, broker: FakeBroker, ask_again: str) -> None:
    broker.script("IssueCredential", Lose())
    with make_client(timeout=0.2, total_timeout=5.0).task("p") as task:
        broker.script("IssueCredential", *[Abort(grpc.StatusCode.INTERNAL)])
        with pytest.raises(credbroker.BrokerFailed):
            task.credential("vault")
        assert task.id is None
        assert len(broker.live()) == 1
        if ask_again == "the same":
            credential = task.credential("vault")
            assert broker.live() == [credential.issuance_id]
        if ask_again == "another":
            credential = task.credential("db")
            assert broker.live() == [credential.issuance_id]
    assert len(broker.tasks) == 1
    assert [item.state for item in broker.tasks.values()] == [task_pb2.TASK_STATE_COMPLETED]
    assert broker.live() == []


def test_an_ask_that_never_arrived_is_settled_by_making_and_giving_back(client: Any, broker: FakeBroker) -> None:
    with client.task("p") as task:
        broker.script("IssueCredential", Abort(grpc.StatusCode.INTERNAL))
        with pytest.raises(credbroker.BrokerFailed):
            task.credential("vault")
        task.start()
        assert broker.count("StartTask") == 0
        assert list(broker.tasks) == [task.id]
        assert broker.live() == []


def test_asking_again_for_what_never_arrived_makes_one_credential(client: Any, broker: FakeBroker) -> None:
    broker.scopes["vault"].revocability = issuance_pb2.REVOCABILITY_WITH_TASK
    with client.task("p") as task:
        broker.script("IssueCredential", Abort(grpc.StatusCode.INTERNAL))
        with pytest.raises(credbroker.BrokerFailed):
            task.credential("vault")
        credential = task.credential("vault")
        assert broker.live() == [credential.issuance_id]


def test_an_ask_that_was_never_granted_is_settled_by_the_refusal(client: Any, broker: FakeBroker) -> None:
    with client.task("p") as task:
        broker.script("IssueCredential", Abort(grpc.StatusCode.INTERNAL), Refuse(ScopeDenied()))
        with pytest.raises(credbroker.BrokerFailed):
            task.credential("vault")
    assert [seen.method for seen in broker.calls] == ["IssueCredential"] * 2


def test_what_cannot_be_settled_is_told(client: Any, broker: FakeBroker) -> None:
    task = client.task("p")
    broker.script("IssueCredential", *[Abort(grpc.StatusCode.INTERNAL)] * 2)
    with pytest.raises(credbroker.BrokerFailed):
        task.credential("vault")
    with pytest.raises(credbroker.BrokerFailed):
        task.complete()
    task.complete()
    assert broker.live() == []
    assert task.ended


def test_a_task_that_a_failure_names_is_adopted(client: Any, broker: FakeBroker) -> None:
    began = client.task("p").start()
    with client.task("p") as task:
        broker.script("IssueCredential", Refuse(MintFailed(metadata={"task_id": began.id})))
        with pytest.raises(credbroker.MintFailed):
            task.credential("vault")
        assert task.id == began.id
    assert broker.tasks[began.id].state == task_pb2.TASK_STATE_COMPLETED


def test_every_attempt_asks_for_a_token_of_its_own(make_client: MakeClient, broker: FakeBroker) -> None:
    broker.one_time = True
    numbers = iter(range(100))
    client = make_client(token=lambda: f"once-{next(numbers)}")
    broker.script("IssueCredential", Lose(), AWAY)
    with client.task("p") as task:
        task.credential("vault")
    tokens = [seen.token for seen in broker.calls]
    assert len(tokens) == len(set(tokens)) > 4
    assert broker.live() == []


def test_a_token_that_is_used_twice_is_told(make_client: MakeClient, broker: FakeBroker) -> None:
    broker.one_time = True
    task = make_client().task("p").start()
    with pytest.raises(credbroker.EvidenceReplayed, match="each time it is called"):
        task.credential("vault")


def test_threads_share_a_client_and_a_task(client: Any, broker: FakeBroker) -> None:
    broker.script("IssueCredential", Lose(), AWAY, Lose())
    with client.task("p") as task:
        found: list[str] = []

        def work(number: int) -> None:
            found.append(task.credential("vault" if number % 2 else "db", {"number": number}).issuance_id)

        threads = [threading.Thread(target=work, args=[number]) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(broker.tasks) == 1
        assert sorted(found) == sorted(broker.live())
        assert len(found) == 16
