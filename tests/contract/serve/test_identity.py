"""Who may call: evidence first, roles second, and neither forgives the other's lack."""

import grpc
import pytest

from broker.attest.evidence import BearerToken, PeerCertificates
from broker.dev.pki import DevAuthority
from broker.errors import ClockUncertain, EvidenceExpired, KeysUnavailable
from broker.model import Outcome, Role
from broker.serve.access import IN_DOUBT_TOO, PUBLIC, access_table
from broker.serve.evidence import MAX_TOKEN_CHARS
from tests.contract.serve.harness import START, Harness, refusal, refused, send
from tests.fakes.identify import AGENT, TOKENS

RULES = {name: rule for name, rule in access_table(reflection=False).items() if rule is not PUBLIC}


async def test_no_evidence(running: Harness) -> None:
    async with running.channel(token=None) as channel:
        told = await refused(send(channel))
    assert (told.code, told.reason) == (grpc.StatusCode.UNAUTHENTICATED, "EVIDENCE_MISSING")
    assert running.identify.seen == []
    (event,) = running.trail.events
    assert (event.type, event.outcome, event.reason) == ("request.refused", Outcome.DENIED, "EVIDENCE_MISSING")
    assert (event.actor, event.method) == ("", START)
    assert event.peer.startswith("127.0.0.1:")


@pytest.mark.parametrize(
    "values",
    [
        ["Bearer agent-token", "Bearer agent-token"],
        ["Bearer agent-token", "Bearer admin-token"],
        ["Basic YTpi"],
        ["agent-token"],
        ["Bearer agent-token, Bearer admin-token"],
        ["Bearer "],
        ["Bearer " + "a" * (MAX_TOKEN_CHARS + 1)],
    ],
)
async def test_malformed_evidence(running: Harness, values: list[str]) -> None:
    async with running.channel(token=None) as channel:
        told = await refused(send(channel, metadata=[("authorization", value) for value in values]))
    assert (told.code, told.reason) == (grpc.StatusCode.UNAUTHENTICATED, "EVIDENCE_INVALID")
    assert running.identify.seen == []
    assert [event.reason for event in running.trail.events] == ["EVIDENCE_INVALID"]


async def test_unknown_token_is_told_nothing_and_recorded_with_the_reason(running: Harness) -> None:
    async with running.channel("stolen-token") as channel:
        told = await refused(send(channel))
    assert told.reason == "EVIDENCE_INVALID"
    assert b"not known" not in told.raw
    assert [event.detail for event in running.trail.events] == ["the token is not known"]
    assert "stolen-token" not in repr(running.trail.events)


async def test_bearer_scheme_in_any_case(running: Harness) -> None:
    async with running.channel(token=None) as channel:
        await send(channel, metadata=[("authorization", "bEaReR agent-token")])
    (evidence,) = running.identify.seen
    assert isinstance(evidence, BearerToken)
    assert evidence.token.reveal() == "agent-token"


async def test_certificate_of_the_mutual_listener(running: Harness) -> None:
    async with running.mutual_channel("spiffe://example.test/worker") as channel:
        await send(channel)
    (evidence,) = running.identify.seen
    assert isinstance(evidence, PeerCertificates)
    assert [task.agent for task in running.tasks.tasks.values()] == ["spiffe://example.test/worker"]


@pytest.mark.parametrize("header", ["Bearer agent-token", "Bearer no-such-token", "Basic YTpi", ""])
async def test_token_beside_a_certificate_is_refused_whatever_it_is(running: Harness, header: str) -> None:
    async with running.mutual_channel() as channel:
        told = await refused(send(channel, metadata=[("authorization", header)]))
    assert told.reason == "EVIDENCE_INVALID"
    assert running.identify.seen == []
    assert ["both" in event.detail for event in running.trail.events] == [True]


async def test_certificate_of_a_stranger_does_not_pass_the_handshake(running: Harness) -> None:
    async with running.mutual_channel(authority=DevAuthority()) as channel:
        assert (await refused(send(channel))).code is grpc.StatusCode.UNAVAILABLE
    assert running.identify.seen == []


async def test_bearer_listener_does_not_ask_for_certificates(running: Harness) -> None:
    certificate, key = running.clients.issue(spiffe_id=AGENT)
    credentials = grpc.ssl_channel_credentials(running.authority.certificate_pem, key, certificate)
    async with grpc.aio.secure_channel(f"127.0.0.1:{running.ports.bearer}", credentials) as channel:
        assert (await refused(send(channel))).reason == "EVIDENCE_MISSING"


async def test_what_identification_raises_is_what_the_caller_is_told(running: Harness) -> None:
    async with running.channel() as channel:
        for error, code in (
            (EvidenceExpired("an hour ago"), grpc.StatusCode.UNAUTHENTICATED),
            (KeysUnavailable("timed out"), grpc.StatusCode.UNAVAILABLE),
        ):
            running.identify.error = error
            told = await refused(send(channel))
            assert (told.code, told.reason, told.message) == (code, error.reason, error.message)
    assert [event.detail for event in running.trail.events] == ["an hour ago", "timed out"]


async def test_nothing_of_a_request_is_read_before_its_caller_is_known(running: Harness) -> None:
    async with running.channel(token=None) as channel:
        open_call: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(f"/{START}")
        # The message never comes; waiting for it would take longer than this test may.
        assert await open_call().code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("method", RULES)
async def test_every_rpc_is_open_to_its_roles_alone(running: Harness, method: str, token: str) -> None:
    uri, roles = TOKENS[token]
    async with running.channel(token) as channel:
        try:
            await send(channel, method, b"")
            told = None
        except grpc.aio.AioRpcError as error:
            told = refusal(error)
    if roles & RULES[method]:
        assert told is None or told.reason == "INVALID_ARGUMENT"
        return
    assert told is not None
    assert (told.code, told.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
    (event,) = running.trail.events
    assert (event.reason, event.actor, event.method) == ("ROLE_REQUIRED", uri, method)
    assert event.attributes["evidence_sha256"] == "d" * 64


async def test_role_refusal_names_the_roles_in_the_trail_only(running: Harness) -> None:
    async with running.channel("agent-token") as channel:
        told = await refused(send(channel, "credbroker.v1.ScopeService/GetScope"))
    assert "auditor" not in told.message
    assert running.trail.events[0].detail == "needs admin or auditor; the identity is agent"
    assert running.scopes.calls == []


async def test_unknown_methods_are_unimplemented_for_everybody(running: Harness) -> None:
    for token in (None, "agent-token"):
        async with running.channel(token) as channel:
            for method in ("credbroker.v1.TaskService/DropTasks", "x.Y/Z", "credbroker.v1.TaskService/starttask"):
                assert (await refused(send(channel, method))).code is grpc.StatusCode.UNIMPLEMENTED
    assert running.identify.seen == []


def test_there_are_rules_for_every_role() -> None:
    assert {role for rule in RULES.values() for role in rule} == {Role.AGENT, Role.ADMIN, Role.AUDITOR}


@pytest.mark.parametrize("method", sorted(RULES))
async def test_while_the_time_is_uncertain_only_taking_back_and_status_go_on(running: Harness, method: str) -> None:
    def uncertain() -> None:
        raise ClockUncertain("an hour ahead")

    running.check_clock = uncertain
    async with running.channel(token=None) as channel:
        told = await refused(send(channel, method, b""))
    if method in IN_DOUBT_TOO:
        assert told.reason == "EVIDENCE_MISSING"
    else:
        assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "CLOCK_UNCERTAIN")
        assert b"an hour" not in told.raw
        assert [event.outcome for event in running.trail.events] == [Outcome.FAILURE]


def test_what_goes_on_is_what_the_table_has() -> None:
    assert RULES.keys() >= IN_DOUBT_TOO
