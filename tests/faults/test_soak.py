"""A day of simulated traffic with random faults ends with books that match; `python -m tests.soak` takes longer."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest
from credbroker.v1 import scope_service_pb2
from sqlalchemy import make_url

from broker.dev.postgres import Postgres
from broker.dev.processes import free_port
from broker.document import parse_document
from broker.mint import MAPPINGS
from broker.mint.naming import BROKER_POLICY, REAPER_POLICY
from broker.mint.provision import apply_scope
from broker.secret import Secret
from tests.fakes.relay import Relay
from tests.fixtures.books import Books
from tests.fixtures.openbao import make_token, write_token_file
from tests.fixtures.world import SCOPES, SECRET_SCOPE, Caller, World
from tests.soak.day import Day
from tests.soak.replica import Replica
from tests.soak.schedule import digest, make_schedule
from tests.soak.trouble import ON_POSTGRES, ON_SQLITE, Troubles

SEED = int(os.environ.get("SOAK_SEED", "1"))
MINUTES = float(os.environ.get("SOAK_MINUTES", "1"))
# A round takes about a second and a half, where nothing hangs.
ROUNDS_PER_MINUTE = 30

LIMITED_SCOPE = SECRET_SCOPE.replace("reports-secret", "reports-limited") + "  limits: {livePerAgent: 3}\n"


def test_a_seed_decides_the_whole_day() -> None:
    once, again, other = (make_schedule(seed, 40, 2, ON_POSTGRES) for seed in (7, 7, 8))

    assert digest(once) == digest(again)
    assert digest(once) != digest(other)
    assert sum(part.minutes for part in once) == 24 * 60
    assert {fault.trouble for part in once for fault in part.faults} == set(ON_POSTGRES)


@pytest.mark.long
@pytest.mark.timeout(300 + 240 * MINUTES)
async def test_a_day_of_faults_ends_with_books_that_match(
    bare_world: World, database: Secret[str], postgres: Postgres
) -> None:
    world, server = bare_world, postgres if "postgresql" in database.reveal() else None
    rounds = int(MINUTES * ROUNDS_PER_MINUTE) if server else int(MINUTES * ROUNDS_PER_MINUTE / 2)
    schedule = make_schedule(SEED, rounds, 2 if server else 1, ON_POSTGRES if server else ON_SQLITE)
    for name, policy in (("vault-token", BROKER_POLICY), ("reaper-token", REAPER_POLICY)):
        write_token_file(world.folder, make_token(world.admin, [policy], ttl="768h"), name)
    books = Books(world)

    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(relayed(server)) if server else None
        url = through(relay, database) if relay else database
        running = await stack.enter_async_context(replicas(world, url, 2 if server else 1))
        day = Day(world, books, running, Troubles(world, running, server, relay))
        try:
            await day.run(schedule)
            assert day.wrong == []
        except BaseException:
            tell(f"seed {SEED}, {MINUTES:g} minutes, {digest(schedule)}", *day.last)
            for number, replica in enumerate(running):
                tell(f"replica {number}'s log ends with:", replica.log_tail())
            raise
        finally:
            books.close()

    tell(f"{day.half_revoked} tokens were half revoked by OpenBao")
    tell(*(f"{deed:10} {outcome:24} {times}" for (deed, outcome), times in sorted(day.seen.items())))
    issued = sum(times for (deed, outcome), times in day.seen.items() if deed in ("start", "issue") and outcome == "OK")
    assert len(books.handed_out) == issued > rounds, "a day on which nearly nothing works shows nothing"


def tell(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")


@asynccontextmanager
async def relayed(server: Postgres) -> AsyncIterator[Relay]:
    relay = Relay(server.port)
    await relay.start()
    try:
        yield relay
    finally:
        await relay.stop()


def through(relay: Relay, database: Secret[str]) -> Secret[str]:
    url = make_url(database.reveal()).set(host=relay.host, port=relay.port)
    return Secret(url.render_as_string(hide_password=False))


@asynccontextmanager
async def replicas(world: World, database: Secret[str], count: int) -> AsyncIterator[list[Replica]]:
    """Run brokers on one database, with scopes."""
    running = []
    for number in range(count):
        config, port = world.folder / f"replica-{number}.yaml", free_port()
        listener = {
            "address": f"127.0.0.1:{port}",
            "tls": {"certificate": "server.pem", "private_key": "server.key"},
        }
        world.configure(database, listen={"bearer": listener})
        (world.folder / "broker.yaml").rename(config)
        running.append(Replica(config, f"127.0.0.1:{port}"))
    try:
        for replica in running:
            await replica.start()
        await _apply_scopes(world, running[0])
        yield running
    finally:
        for replica in running:
            replica.kill()


async def _apply_scopes(world: World, replica: Replica) -> None:
    trusted = grpc.ssl_channel_credentials(world.authority.certificate_pem)
    async with grpc.aio.secure_channel(replica.address, trusted) as channel:
        admin = Caller(channel, world.issuer.token("admins/root").reveal())
        for scope in (*SCOPES, LIMITED_SCOPE):
            document = scope.replace("ISSUER", world.issuer.url)
            apply_scope(world.admin, parse_document(document, MAPPINGS))
            await admin.scopes.CreateScope(scope_service_pb2.CreateScopeRequest(document=document))
