"""A broker under observation: what a real issuance leaves in metrics and traces."""

import secrets

import pytest
from credbroker.v1 import credential_service_pb2, task_pb2, task_service_pb2

from broker.secret import Secret
from broker.step import Step
from tests.fakes.collector import Collector
from tests.fixtures.labels import VALUES
from tests.fixtures.scraping import labelled, scrape
from tests.fixtures.waiting import until
from tests.fixtures.world import SCOPES, World
from tests.integration.refusing import refused

ISSUE = "credbroker.v1.CredentialService/IssueCredential"


FREE = {"le", "version", "python"}


def database_of(world: World) -> Secret[str]:
    return Secret(world.settings.database.url.get_secret_value())


async def test_a_task_leaves_its_times_and_nothing_of_its_own_in_the_metrics(bare_world: World) -> None:
    world = bare_world
    world.settings = world.configure(database_of(world), metrics={"address": "127.0.0.1:0"})
    await world.start()
    await world.apply(*SCOPES)
    address = world.app.addresses["metrics"]
    before = await scrape(address)
    agent = world.caller()

    issued = await agent.issue("reports-secret")
    await refused(agent.issue("payments-admin", task_id=issued.task.id))
    await agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=issued.task.id))

    after = await scrape(address)

    def grown(name: str, **labels: str) -> float:
        return after[name, labelled(**labels)] - before.get((name, labelled(**labels)), 0.0)

    assert grown("credbroker_requests_total", method=ISSUE, code="OK", reason="") == 1
    assert grown("credbroker_requests_total", method=ISSUE, code="PERMISSION_DENIED", reason="SCOPE_DENIED") == 1
    assert grown("credbroker_request_seconds_count", method=ISSUE) == 2
    for step in (Step.ISSUE_LOOK_UP, Step.ISSUE_MINT, Step.ISSUE_DELIVER, Step.TASK_COMPLETE, Step.VAULT_CALL):
        assert grown("credbroker_step_seconds_count", step=step.value) >= 1, step
        assert grown("credbroker_step_seconds_sum", step=step.value) > 0, step
    assert grown("credbroker_revocation_lag_seconds_count", cause="task") == 1
    assert grown("credbroker_revocation_lag_seconds_sum", cause="task") > 0
    for (name, labels), _ in after.items():
        for label, value in labels:
            assert label in FREE or value in VALUES[label], (name, label, value)

    async def counted() -> bool:
        found = await scrape(address)
        held = [found.get(("credbroker_lease_held", labelled(work=work))) for work in ("sweep", "reap")]
        ready = found["credbroker_ready", labelled()] == 1
        return ready and held == [1, 1] and found["credbroker_vault_token_seconds", labelled()] > 60

    await until(counted)
    assert abs((await scrape(address))["credbroker_clock_ahead_seconds", labelled()]) < 5
    assert (await scrape(address))["credbroker_standing_timestamp_seconds", labelled()] > 0


async def test_a_trace_goes_from_the_caller_through_the_broker_to_vault(
    bare_world: World, collector: Collector, capfd: pytest.CaptureFixture[str]
) -> None:
    world = bare_world
    world.settings = world.configure(database_of(world), traces={"endpoint": collector.endpoint})
    await world.start()
    await world.apply(*SCOPES)
    trace, parent = secrets.token_hex(16), secrets.token_hex(8)
    request = credential_service_pb2.IssueCredentialRequest(scope="reports-service")
    request.new_task.CopyFrom(task_pb2.TaskSpec(purpose="a test"))

    metadata = [("traceparent", f"00-{trace}-{parent}-01")]
    issued = await world.caller().credentials.IssueCredential(request, metadata=metadata)
    await world.app.stop()

    spans = {span.id: span for span in collector.spans if span.trace_id == trace}
    (root,) = (span for span in spans.values() if span.parent == parent)
    assert root.name == ISSUE
    assert root.attributes["credbroker.task_id"] == issued.task.id
    assert root.attributes["credbroker.issuance_id"] == issued.credential.issuance_id
    assert all(span is root or span.parent in spans for span in spans.values())
    assert {"issue.look_up", "anchor.create", "issue.mint", "vault.call"} <= {span.name for span in spans.values()}
    (path, header) = next(seen for seen in world.proxy.traceparents if seen[1].startswith(f"00-{trace}-"))
    assert path.startswith("/v1/auth/token/create")
    assert spans[header.split("-")[2]].name == "vault.call"
    (line,) = (line for line in "".join(capfd.readouterr()).splitlines() if "request" in line and ISSUE in line)
    assert f"trace_id={trace}" in line


async def test_nothing_is_measured_or_traced_unless_asked_for(world: World) -> None:
    assert "metrics" not in world.app.addresses
    await world.caller().issue("reports-secret")
    assert world.proxy.traceparents == []
