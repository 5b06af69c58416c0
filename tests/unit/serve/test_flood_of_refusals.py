"""Refusals of strangers: recorded while they are few, counted when they are not, and hiding no others."""

from broker.attest.evidence import BearerToken
from broker.audit import Call
from broker.errors import EvidenceMissing, EvidenceReplayed, LimitReached, Unauthenticated
from broker.model import AuditEvent, Caller, Outcome
from broker.secret import Secret
from broker.serve.refusals import MAX_STRANGERS, Refusals
from tests.fakes.identify import AGENT, FakeIdentify, Trail
from tests.fixtures.clock import FakeClock


def refusal(clock: FakeClock, error: Unauthenticated | LimitReached, caller: Caller | None = None) -> AuditEvent:
    return Call(method="m", peer="p", now=clock.now(), caller=caller).refusal(error)


async def test_a_flood_of_strangers_is_recorded_in_part_and_counted(clock: FakeClock) -> None:
    trail = Trail()
    refusals = Refusals(trail.write, clock)
    for _ in range(MAX_STRANGERS + 7):
        await refusals.write(refusal(clock, EvidenceMissing()))
    assert len(trail.events) == MAX_STRANGERS
    clock.advance(1)
    await refusals.write(refusal(clock, EvidenceMissing()))
    await refusals.drain()
    [count] = [event for event in trail.events if event.attributes]
    assert (count.type, count.outcome, count.reason) == ("request.refused", Outcome.DENIED, "EVIDENCE_MISSING")
    assert count.attributes == {"further_refusals": 7}
    assert len(trail.events) == MAX_STRANGERS + 2


async def test_a_flood_that_ends_with_the_broker_is_counted_too(clock: FakeClock) -> None:
    trail = Trail()
    refusals = Refusals(trail.write, clock)
    for _ in range(MAX_STRANGERS + 1):
        await refusals.write(refusal(clock, EvidenceMissing()))
    await refusals.drain()
    assert trail.events[-1].attributes == {"further_refusals": 1}


async def test_a_flood_of_one_kind_hides_no_other_and_nobody_who_is_known(clock: FakeClock) -> None:
    trail = Trail()
    refusals = Refusals(trail.write, clock)
    for _ in range(2 * MAX_STRANGERS):
        await refusals.write(refusal(clock, EvidenceMissing()))
    await refusals.write(refusal(clock, EvidenceReplayed()))
    assert trail.events[-1].reason == "EVIDENCE_REPLAYED"
    known = await FakeIdentify()(BearerToken(Secret("agent-token")), clock.now())
    for _ in range(2 * MAX_STRANGERS):
        await refusals.write(refusal(clock, LimitReached(), known))
    assert [event.actor for event in trail.events].count(AGENT) == 2 * MAX_STRANGERS
