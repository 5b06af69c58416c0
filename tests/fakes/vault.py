"""A small Vault on loopback that keeps tokens and leases, and can be told to fail in ways the real one cannot."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

CLOSING = web.AppKey("closing", asyncio.Event)

Reply = tuple[int, dict[str, object]]
# Runs after the request was acted upon, and decides what the caller gets to see.
Fault = Callable[[web.Request, Reply], Awaitable[web.StreamResponse]]


@dataclass
class FakeVault:
    """Its state, and what to do wrong where: `faults` maps paths below ``/v1`` to faults."""

    address: str = ""
    tokens: dict[str, dict[str, object]] = field(default_factory=dict)
    leases: set[str] = field(default_factory=set)
    faults: dict[str, Fault] = field(default_factory=dict)
    requests: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)
    _count: "itertools.count[int]" = field(default_factory=itertools.count)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/v1/")
        self.requests.append((request.method, path, dict(request.headers)))
        self.connections.add(request.transport)
        body = await request.json() if request.can_read_body else {}
        reply = self._act(path, body)
        fault = self.faults.get(path)
        return await fault(request, reply) if fault else answer(*reply)

    def _act(self, path: str, body: dict[str, object]) -> Reply:
        if path.startswith("auth/token/create"):
            return self._create(body, orphan=path != "auth/token/create")
        if path == "auth/token/lookup-accessor":
            token = self.tokens.get(str(body["accessor"]))
            return (200, {"data": {"meta": token["meta"]}}) if token else (400, {"errors": ["invalid accessor"]})
        if path == "auth/token/revoke-accessor":
            known = self.tokens.pop(str(body["accessor"]), None)
            return (204, {}) if known else (200, {"warnings": ["No token found with this accessor"]})
        if path == "sys/leases/lookup":
            return (200, {"data": {}}) if body["lease_id"] in self.leases else (400, {"errors": ["invalid lease"]})
        if path == "sys/leases/revoke":
            self.leases.discard(str(body["lease_id"]))
            return 202, {}
        if path.startswith("database/creds/"):
            lease = f"{path}/{next(self._count)}"
            self.leases.add(lease)
            data = {"username": "u", "password": "canary-password"}
            return 200, {"lease_id": lease, "lease_duration": 60, "renewable": True, "data": data}
        if path == "sys/seal-status":
            return 200, {"sealed": False}
        return 200, {"data": {}}

    def _create(self, body: dict[str, object], *, orphan: bool) -> Reply:
        number = next(self._count)
        batch = body["type"] == "batch"
        accessor = "" if batch else f"accessor-{number}"
        if accessor:
            self.tokens[accessor] = body
        auth = {
            "client_token": f"s.canary{number:020}",
            "accessor": accessor,
            "policies": body["policies"],
            "lease_duration": int(str(body["ttl"]).removesuffix("s")),
            "renewable": body["renewable"],
            "orphan": orphan,
            "token_type": body["type"],
        }
        return 200, {"auth": auth}


def answer(status: int, body: Mapping[str, object]) -> web.Response:
    if status in (202, 204):
        return web.Response(status=status)
    return web.Response(status=status, text=json.dumps(body), content_type="application/json")


def replaced(status: int, body: Mapping[str, object]) -> Fault:
    """Act, and answer this instead."""

    async def fault(request: web.Request, reply: Reply) -> web.StreamResponse:
        return answer(status, body)

    return fault


def changed(status: int, **parts: object) -> Fault:
    """Act, and answer with other parts and another status."""

    async def fault(request: web.Request, reply: Reply) -> web.StreamResponse:
        return answer(status, {**reply[1], **parts})

    return fault


def raw(status: int, content: bytes, **headers: str) -> Fault:
    """Act, and answer these bytes."""

    async def fault(request: web.Request, reply: Reply) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=content, headers=named)

    return fault


async def hang(request: web.Request, reply: Reply) -> web.StreamResponse:
    """Act, and never answer."""
    await request.app[CLOSING].wait()
    return web.Response()


async def drop(request: web.Request, reply: Reply) -> web.StreamResponse:
    """Act, and cut the connection."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def trickle(request: web.Request, reply: Reply) -> web.StreamResponse:
    """Act, begin to answer, and never end."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"auth": {')
    await request.app[CLOSING].wait()
    return response


@asynccontextmanager
async def fake_vault() -> AsyncIterator[FakeVault]:
    """Run one."""
    vault = FakeVault()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", vault.handle)
    app[CLOSING] = asyncio.Event()
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        vault.address = f"http://{host}:{port}"
        yield vault
    finally:
        app[CLOSING].set()
        await runner.cleanup()
