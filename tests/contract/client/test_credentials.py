"""Credentials: what is asked, what is got, and how it is kept fresh."""

import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import credbroker
import grpc
import pytest
from credbroker._wire import from_struct
from credbroker.v1 import issuance_pb2
from credbroker.v1.credential_service_pb2 import IssueCredentialRequest, RenewCredentialRequest

from broker.errors import LimitReached, Locked, VaultUnavailable
from tests.contract.client.conftest import MakeClient, TravelClock, until
from tests.fakes.broker import Abort, FakeBroker, FakeScope, Hold, Refuse


@pytest.fixture
def task(client: Any) -> Any:
    with client.task("p") as task:
        yield task


def test_a_vault_token(task: Any, broker: FakeBroker) -> None:
    credential = task.credential("vault")
    record = broker.issuances[credential.issuance_id]
    assert credential.token == credential["token"] == "secret-1"
    assert credential.vault_address == "https://vault.test:8200"
    assert credential.vault_namespace == "agents"
    assert (credential.kind, credential.scope, credential.renewable) == ("vault_token", "vault", False)
    assert credential.revocability is credbroker.Revocability.INDIVIDUAL
    assert credential.expires_at == record.expire_time.ToDatetime(UTC)
    assert credential.max_expires_at == record.max_expire_time.ToDatetime(UTC)
    assert timedelta(seconds=290) < credential.remaining <= timedelta(seconds=300)


def test_a_leased_secret(task: Any) -> None:
    credential = task.credential("db")
    assert dict(credential) == {"username": "u", "port": 5432, "password": "secret-1"}
    assert isinstance(credential["port"], int)
    assert "username" in credential
    assert "token" not in credential
    assert sorted(credential) == ["password", "port", "username"]
    assert credential.vault_address == credential.vault_namespace == ""
    with pytest.raises(AttributeError, match="password, port, username"):
        _ = credential.token
    with pytest.raises(KeyError):
        _ = credential["token"]


def test_parameters_by_mapping_and_by_name(task: Any, broker: FakeBroker) -> None:
    given = {"ttl": "30d", "parameters": {"a": [1, None, True]}, "nested": {"x": 1.5}}
    task.credential("db", given, role="ro", scope="s", self="me", ttl=timedelta(seconds=90))
    (request,) = broker.requests(IssueCredentialRequest)
    assert request.scope == "db"
    assert request.ttl.ToTimedelta() == timedelta(seconds=90)
    assert from_struct(request.parameters) == {**given, "role": "ro", "scope": "s", "self": "me"}


@pytest.mark.parametrize(
    ("given", "named", "error"),
    [
        ({"role": "ro"}, {"role": "rw"}, "given twice: role"),
        ({}, {"ttl": 60}, "timedelta"),
        ({}, {"when": datetime(2026, 1, 1, tzinfo=UTC)}, "when: must be a JSON value"),
        ({}, {"ids": [1, {2: 3}]}, r"ids\[1\]: names must be text"),
    ],
)
def test_misuse_is_a_type_error_before_anything_is_sent(
    task: Any, broker: FakeBroker, given: dict[str, object], named: dict[str, object], error: str
) -> None:
    with pytest.raises(TypeError, match=error):
        task.credential("db", given, **named)
    assert broker.calls == []


def test_revoking(task: Any, broker: FakeBroker) -> None:
    credential, other = task.credential("vault"), task.credential("vault")
    credential.revoke()
    credential.revoke()
    assert broker.count("RevokeCredential") == 1
    assert broker.live() == [other.issuance_id]
    with pytest.raises(credbroker.CredentialEnded, match="was revoked"):
        _ = credential.token
    with pytest.raises(credbroker.CredentialEnded, match="was revoked"):
        credential.fresh()
    with pytest.raises(credbroker.CredentialEnded, match="was revoked"):
        credential.renew()
    assert other.token == "secret-2"


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        (issuance_pb2.REVOCABILITY_WITH_TASK, credbroker.Revocability.WITH_TASK),
        (issuance_pb2.REVOCABILITY_AT_EXPIRY, credbroker.Revocability.AT_EXPIRY),
        (issuance_pb2.REVOCABILITY_UNSPECIFIED, credbroker.Revocability.AT_EXPIRY),
    ],
)
def test_what_cannot_be_revoked_by_itself_says_so(
    task: Any, broker: FakeBroker, sent: issuance_pb2.Revocability.ValueType, seen: credbroker.Revocability
) -> None:
    broker.scopes["vault"].revocability = sent
    credential = task.credential("vault")
    assert credential.revocability is seen
    with pytest.raises(credbroker.NotRevocable, match="complete the task"):
        credential.revoke()
    assert credential.token


def test_renewing_moves_the_end_and_keeps_the_secret(task: Any, broker: FakeBroker, travel: TravelClock) -> None:
    broker.scopes["db"].renewable = True
    credential = task.credential("db")
    travel.advance(seconds=200)
    password, before = credential["password"], credential.expires_at
    credential.renew()
    assert credential["password"] == password
    assert credential.expires_at - before >= timedelta(seconds=199)
    assert credential.remaining > timedelta(seconds=290)
    credential.renew(timedelta(minutes=10))
    assert credential.remaining > timedelta(minutes=9)
    assert broker.requests(RenewCredentialRequest)[1].ttl.ToTimedelta() == timedelta(minutes=10)


def test_renewing_what_cannot_be_renewed(task: Any) -> None:
    with pytest.raises(credbroker.NotRenewable, match="fresh"):
        task.credential("vault").renew()


def test_an_expired_secret_is_never_handed_out(task: Any, travel: TravelClock) -> None:
    credential = task.credential("vault")
    travel.advance(seconds=301)
    assert credential.remaining == timedelta(0)
    with pytest.raises(credbroker.CredentialExpired, match="fresh"):
        _ = credential.token
    with pytest.raises(credbroker.CredentialExpired):
        _ = credential["token"]
    with pytest.raises(credbroker.CredentialExpired):
        credential.renew()
    assert "secret-1" not in repr(credential)


@pytest.mark.parametrize("skew", [timedelta(hours=1), timedelta(hours=-1)])
def test_a_wrong_wall_clock_changes_nothing(
    client: Any, broker: FakeBroker, travel: TravelClock, skew: timedelta
) -> None:
    broker.now = lambda: travel.now() + skew
    broker.scopes["db"].renewable = True
    with client.task("p") as task:
        task.credential("vault")
        credential = task.credential("db")
        assert timedelta(seconds=290) < credential.remaining <= timedelta(seconds=300)
        travel.advance(seconds=290)
        assert credential["username"] == "u"
        credential.renew()
        assert timedelta(seconds=290) < credential.remaining <= timedelta(seconds=300)
        travel.advance(seconds=301)
        with pytest.raises(credbroker.CredentialExpired):
            _ = credential["username"]


def test_fresh_costs_nothing_while_most_of_the_life_is_left(task: Any, broker: FakeBroker, travel: TravelClock) -> None:
    credential = task.credential("vault")
    travel.advance(seconds=195)
    assert credential.fresh() == credential
    assert len(broker.calls) == 1


def test_fresh_issues_anew_what_cannot_be_renewed(task: Any, broker: FakeBroker, travel: TravelClock) -> None:
    credential = task.credential("vault", {"a": 1}, ttl=timedelta(minutes=5))
    travel.advance(seconds=245)
    successor = credential.fresh()
    assert (credential.token, successor.token) == ("secret-1", "secret-2")
    first, second = broker.requests(IssueCredentialRequest)
    assert (second.scope, second.parameters, second.ttl) == (first.scope, first.parameters, first.ttl)
    assert second.task_id == task.id
    assert second.request_id != first.request_id
    assert credential.fresh() == successor.fresh() == successor
    assert broker.count("IssueCredential") == 2


def test_fresh_renews_what_can_be_renewed_up_to_its_maximum(task: Any, broker: FakeBroker, travel: TravelClock) -> None:
    broker.scopes["db"].renewable = True
    broker.scopes["db"].max_ttl = timedelta(seconds=500)
    credential = task.credential("db")
    travel.advance(seconds=245)
    assert credential.fresh() == credential
    assert broker.count("RenewCredential") == 1
    assert credential.expires_at == credential.max_expires_at
    travel.advance(seconds=210)
    successor = credential.fresh()
    assert broker.count("RenewCredential") == 1
    assert successor["password"] != credential["password"]


@pytest.mark.parametrize("how", ["ended", "expired", "refused"])
def test_fresh_replaces_what_can_no_longer_be_renewed(
    task: Any, broker: FakeBroker, travel: TravelClock, how: str
) -> None:
    broker.scopes["db"].renewable = True
    credential = task.credential("db")
    travel.advance(seconds=301 if how == "expired" else 245)
    if how == "ended":
        broker.issuances[credential.issuance_id].state = issuance_pb2.ISSUANCE_STATE_REVOKED
    if how == "refused":
        broker.scopes["db"].renewable = False
    successor = credential.fresh()
    assert successor["password"] == "secret-2"
    if how == "ended":
        with pytest.raises(credbroker.CredentialEnded):
            _ = credential["password"]


def test_after_a_failed_replacement_of_an_ended_one_fresh_tries_again(
    make_client: MakeClient, broker: FakeBroker, travel: TravelClock
) -> None:
    broker.scopes["db"].renewable = True
    with make_client().task("p") as task:
        credential = task.credential("db")
        travel.advance(seconds=245)
        broker.issuances[credential.issuance_id].state = issuance_pb2.ISSUANCE_STATE_REVOKED
        broker.script("IssueCredential", Abort(grpc.StatusCode.INTERNAL))
        with pytest.raises(credbroker.BrokerFailed):
            credential.fresh()
        assert credential.fresh()["password"] == "secret-2"


@pytest.mark.parametrize(
    "trouble", [Refuse(LimitReached()), Abort(grpc.StatusCode.INTERNAL), Abort(grpc.StatusCode.UNAUTHENTICATED)]
)
def test_a_credential_at_hand_bridges_trouble(
    task: Any, broker: FakeBroker, travel: TravelClock, caplog: pytest.LogCaptureFixture, trouble: Any
) -> None:
    credential = task.credential("vault")
    travel.advance(seconds=245)
    broker.script("IssueCredential", trouble, trouble)
    assert credential.fresh() == credential
    assert "could not replace the credential" in caplog.text
    assert credential.fresh() == credential
    assert broker.count("IssueCredential") == 2, "a broker in trouble is not asked at every use"
    travel.advance(seconds=56)
    with pytest.raises(credbroker.Error):
        credential.fresh()
    assert credential.fresh().token == "secret-2"


def test_a_credential_at_hand_bridges_a_token_callable_that_fails(
    make_client: MakeClient, travel: TravelClock, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = iter(["token-of-the-agent"])

    def token() -> str:
        try:
            return next(tokens)
        except StopIteration:
            raise OSError("canary-in-foreign-text") from None

    task = make_client(token=token).task("p")
    credential = task.credential("vault")
    travel.advance(seconds=245)
    assert credential.fresh() == credential
    assert "OSError" in caplog.text
    assert "canary" not in caplog.text
    with pytest.raises(OSError, match="canary"):
        task.complete()


def test_a_refusal_is_no_trouble_to_bridge(task: Any, broker: FakeBroker, travel: TravelClock) -> None:
    credential = task.credential("vault")
    travel.advance(seconds=245)
    broker.script("IssueCredential", Refuse(Locked()))
    with pytest.raises(credbroker.Locked):
        credential.fresh()


def test_a_closed_client_is_no_trouble_to_bridge(make_client: MakeClient, travel: TravelClock) -> None:
    client = make_client()
    credential = client.task("p").credential("vault")
    travel.advance(seconds=245)
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        credential.fresh()


def test_what_ends_with_its_task_is_used_up(client: Any, broker: FakeBroker, travel: TravelClock) -> None:
    with client.task("p", timeout=100) as task:
        credential = task.credential("vault")
        travel.advance(seconds=90)
        assert credential.fresh() == credential
        assert broker.count("IssueCredential") == 1
        travel.advance(seconds=11)
        with pytest.raises(credbroker.TaskEnded):
            credential.fresh()


def test_one_caller_replaces_while_others_go_on(task: Any, broker: FakeBroker, travel: TravelClock) -> None:
    credential = task.credential("vault")
    travel.advance(seconds=245)
    held = Hold()
    broker.script("IssueCredential", held)
    replaced: list[str] = []
    replacing = threading.Thread(target=lambda: replaced.append(credential.fresh().token))
    replacing.start()
    assert held.arrived.wait(10)
    assert [credential.fresh().token for _ in range(3)] == ["secret-1"] * 3
    held.release.set()
    replacing.join(10)
    assert replaced == [credential.fresh().token] == ["secret-2"]
    assert broker.count("IssueCredential") == 2


def test_everyone_waits_for_one_replacement_of_what_has_expired(
    task: Any, broker: FakeBroker, travel: TravelClock
) -> None:
    credential = task.credential("vault")
    travel.advance(seconds=301)
    held = Hold()
    broker.script("IssueCredential", held)
    replaced: list[str] = []
    threads = [threading.Thread(target=lambda: replaced.append(credential.fresh().token)) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert held.arrived.wait(10)
    held.release.set()
    for thread in threads:
        thread.join(10)
    assert replaced == ["secret-2"] * 8
    assert broker.count("IssueCredential") == 2


def test_replacing_early_is_less_patient(
    make_client: MakeClient, broker: FakeBroker, travel: TravelClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    task = make_client(timeout=0.2, total_timeout=60).task("p")
    credential = task.credential("vault")
    travel.advance(seconds=245)
    broker.script("IssueCredential", *[Refuse(VaultUnavailable())] * 50)
    assert credential.fresh() == credential
    assert 1 < broker.count("IssueCredential") < 50
    # The last attempt may be cut off by its own deadline before the refusal is read.
    until(lambda: "could not replace the credential" in caplog.text)


def test_a_kind_from_the_future_is_refused(task: Any, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    issue = broker.issue

    def without_secret(request: Any) -> Any:
        response = issue(request)
        response.credential.ClearField("vault_token")
        return response

    monkeypatch.setattr(broker, "issue", without_secret)
    with pytest.raises(credbroker.BrokerFailed, match="update"):
        task.credential("vault")


def test_credentials_are_equal_when_they_are_the_same_issuance(task: Any, travel: TravelClock) -> None:
    credential, other = task.credential("vault"), task.credential("vault")
    assert credential != other
    assert len({credential, credential.fresh(), other}) == 2
    travel.advance(seconds=245)
    assert credential.fresh() == credential.fresh() != credential


def test_scopes_are_told_apart(task: Any, broker: FakeBroker) -> None:
    broker.scopes["other"] = FakeScope(ttl=timedelta(seconds=60))
    assert task.credential("other").remaining <= timedelta(seconds=60) < task.credential("vault").remaining
