"""Spans of load from another process, and what each process used for them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import hvac

from broker.dev.issuer import AUDIENCE
from broker.dev.people import TRUST_DOMAIN
from broker.dev.vault import DATABASE_ROLE
from tests.bench import processes
from tests.bench.agents import callers as agents_at_work
from tests.bench.figures import Span, percentiles
from tests.bench.stack import Bench
from tests.bench.worker import Link, worker

LOGIN_ROLE: Final = "agents"
_POLICY: Final = f"""
path "secret/data/reports/*" {{ capabilities = ["read"] }}
path "database/creds/{DATABASE_ROLE}" {{ capabilities = ["read"] }}
"""
_SETTLING_SECONDS: Final = 0.2


def prepare_login(bench: Bench) -> None:
    """Let agents log in to OpenBao with their JWT-SVIDs, as one would without a broker.

    Signature, audience, subject and times are checked; the token has the rights
    that the broker's scopes give, and the default policy, which allows to renew
    and to revoke itself. Repeating it changes nothing.
    """
    client, issuer = bench.parts.openbao.client(), bench.parts.issuer
    if "jwt/" not in client.adapter.get("/v1/sys/auth")["data"]:
        _write(client, "sys/auth/jwt", type="jwt")
    _write(client, "auth/jwt/config", jwt_validation_pubkeys=[issuer.public_key_pem])
    _write(client, "sys/policies/acl/agents", policy=_POLICY)
    _write(
        client,
        f"auth/jwt/role/{LOGIN_ROLE}",
        role_type="jwt",
        user_claim="sub",
        bound_audiences=[AUDIENCE],
        bound_claims_type="glob",
        bound_claims={"sub": f"spiffe://{TRUST_DOMAIN}/agents/*"},
        token_policies=["agents"],
        token_ttl="15m",
        token_max_ttl="30m",
    )


def _write(client: hvac.Client, path: str, **body: object) -> None:
    client.adapter.post(f"/v1/{path}", json=body)


@dataclass(slots=True)
class _Seen:
    waits: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    seconds: float = 0.0
    used: dict[str, float] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)

    def add(self, answer: Mapping[str, Any], used: Mapping[str, float]) -> None:
        self.waits += answer["waits"]
        self.ends += answer["ends"]
        self.seconds += answer["seconds"]
        self.rates.append(len(answer["waits"]) / answer["seconds"])
        for name, seconds in {**used, "generator": answer["cpu"]}.items():
            self.used[name] = self.used.get(name, 0.0) + seconds


class Load:
    """Callers in a process of their own."""

    def __init__(self, bench: Bench, link: Link) -> None:
        self._bench = bench
        self._link = link

    async def warm_up(self, workload: str, callers: int, seconds: float, sides: tuple[str, ...]) -> None:
        """Do the same without looking."""
        for side in sides:
            await self._round(side, workload, callers, seconds)

    async def spans(
        self, workload: str, callers: int, seconds: float, *, rounds: int, sides: tuple[str, ...]
    ) -> dict[str, Span]:
        """Return what each side did, in turns."""
        seen = {side: _Seen() for side in sides}
        for _ in range(rounds):
            for side in sides:
                before = self._used()
                answer, after = await self._round(side, workload, callers, seconds)
                seen[side].add(answer, {name: after[name] - before[name] for name in before})
        return {side: _span(side, workload, callers, of_side) for side, of_side in seen.items()}

    async def _round(
        self, side: str, workload: str, callers: int, seconds: float
    ) -> tuple[Mapping[str, Any], Mapping[str, float]]:
        self._link.say({"side": side, "workload": workload, "callers": callers, "seconds": seconds})
        answer: Mapping[str, Any] = await self._link.hear()
        # What is done after the last reply belongs to it, too.
        await asyncio.sleep(_SETTLING_SECONDS)
        used = self._used()
        self._link.say("finish")
        await self._link.hear()
        return answer, used

    def _used(self) -> dict[str, float]:
        parts = self._bench.parts
        used = {"broker": self._bench.processor_time(), "OpenBao": processes.processor_time(parts.openbao.pid)}
        return {**used, "PostgreSQL": processes.processor_time(parts.postgres.pid)}


def _span(side: str, workload: str, callers: int, seen: _Seen) -> Span:
    done = len(seen.waits)
    used = {name: seconds / done * 1000 for name, seconds in seen.used.items()}
    waits, ends = percentiles(seen.waits), percentiles(seen.ends)
    return Span(side, workload, callers, done, seen.seconds, waits, ends, used, tuple(seen.rates))


@asynccontextmanager
async def load(
    bench: Bench, most_callers: int, *, scope: str = "batch", path: str = "", identity: tuple[str, str] = ("", "")
) -> AsyncIterator[Load]:
    """Give connected callers.

    Args:
        bench: The running broker.
        most_callers: How many at most.
        scope: What they ask the broker for.
        path: What they read with the token of a login.
        identity: For the side ``OpenBao``: the broker's own Vault token, and the name of the scope's role.
    """
    await asyncio.to_thread(prepare_login, bench)
    arguments = {"tokens": bench.agents(most_callers), "scope": scope, "role": LOGIN_ROLE}
    async with worker(agents_at_work, bench.access, **arguments, path=path, identity=identity) as link:
        await link.hear()
        yield Load(bench, link)
