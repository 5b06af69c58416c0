"""A way to Vault that fails when told to: everything else passes to the real server and back."""

import asyncio
import re
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Literal

import aiohttp
from aiohttp import web

from broker.dev.openbao import OpenBao
from broker.dev.pki import DevAuthority

Fault = Literal[
    "error_after",
    "drop_after",
    "hang_after",
    "html",
    "refuse_before",
    "refuse_late",
    "too_many",
    "too_many_later",
    "standby",
    "standby_code",
    "redirect",
]

# What Vault says before it has done anything: status, words, further headers.
_REFUSALS: dict[Fault, tuple[int, str, dict[str, str]]] = {
    "refuse_before": (503, "Vault is sealed", {}),
    "refuse_late": (503, "Vault is sealed", {}),
    "too_many": (429, 'request path "auth/token": rate limit quota exceeded', {}),
    "too_many_later": (429, 'request path "auth/token": rate limit quota exceeded', {"Retry-After": "7"}),
    "standby": (503, "Vault is in standby mode", {}),
    "standby_code": (473, "performance standby", {}),
}


@dataclass
class Rule:
    """What goes wrong with requests that match, how many times."""

    fault: Fault
    path: str
    times: int
    seen: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)


class VaultProxy:
    """Forwards to OpenBao; ``fail`` makes it misbehave once Vault has acted, or before.

    Args:
        now: The time that its replies tell.

    Attributes:
        strangers: Headers of the requests that reached the host that redirects
            point to.
    """

    def __init__(self, openbao: OpenBao, authority: DevAuthority, now: Callable[[], datetime]) -> None:
        self._now = now
        self._openbao = openbao
        self._authority = authority
        self._rules: list[Rule] = []
        self.requests: list[tuple[str, str]] = []
        self.traceparents: list[tuple[str, str]] = []
        self.strangers: list[dict[str, str]] = []
        self.on_reply: Callable[[str, dict[str, object]], None] = lambda path, body: None

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=self._openbao.ca_file)),
            auto_decompress=False,
        )
        app = web.Application(client_max_size=4 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._forward)
        app.on_response_prepare.append(self._tell_time)
        elsewhere = web.Application()
        elsewhere.router.add_route("*", "/{path:.*}", self._greet)
        self._runners: list[web.AppRunner] = []
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.also_at("127.0.0.1")
        self.address = await self._serve(app)
        self._elsewhere = await self._serve(elsewhere)

    async def stop(self) -> None:
        for rule in self._rules:
            rule.release.set()
        for runner in self._runners:
            await runner.cleanup()
        await self._session.close()

    def fail(self, path: str, fault: Fault, times: int = 1) -> Rule:
        """Let the next requests in whose path the pattern ``path`` is found go wrong."""
        rule = Rule(fault, path, times)
        self._rules.append(rule)
        return rule

    def heal(self) -> None:
        """Let everything pass again, what hangs included."""
        for rule in self._rules:
            rule.release.set()
        self._rules.clear()

    def count(self, path: str) -> int:
        """How many requests there were whose path contains ``path``."""
        return sum(path in seen for _, seen in self.requests)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        if "traceparent" in request.headers:
            self.traceparents.append((request.path, request.headers["traceparent"]))
        rule = self._rule(request.path)
        if rule is not None and (rule.fault in _REFUSALS or rule.fault == "redirect"):
            return await self._refuse(rule, request)
        headers = {name: value for name, value in request.headers.items() if name.startswith("X-Vault")}
        async with self._session.request(
            request.method, self._openbao.address + request.path_qs, data=await request.read(), headers=headers
        ) as reply:
            body = await reply.read()
            status, kind = reply.status, reply.content_type
        if kind == "application/json" and body:
            self.on_reply(request.path, await reply.json())
        if rule is None:
            return web.Response(body=body, status=status, content_type=kind)
        rule.seen.set()
        if rule.fault == "drop_after":
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if rule.fault == "hang_after":
            await rule.release.wait()
            return web.Response(body=body, status=status, content_type=kind)
        if rule.fault == "html":
            return web.Response(text="<h1>Not Found</h1>", status=404, content_type="text/html")
        return web.json_response({"errors": ["internal error"]}, status=500)

    async def _tell_time(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = format_datetime(self._now(), usegmt=True)

    async def _refuse(self, rule: Rule, request: web.Request) -> web.Response:
        rule.seen.set()
        if rule.fault == "refuse_late":
            await rule.release.wait()
        if rule.fault == "redirect":
            return web.Response(status=307, headers={"Location": self._elsewhere + request.path_qs})
        status, words, headers = _REFUSALS[rule.fault]
        return web.json_response({"errors": [words]}, status=status, headers=headers)

    async def _greet(self, request: web.Request) -> web.Response:
        self.strangers.append(dict(request.headers))
        return web.json_response({"data": {}})

    async def _serve(self, app: web.Application) -> str:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        return f"https://127.0.0.1:{runner.addresses[0][1]}"

    def _rule(self, path: str) -> Rule | None:
        for rule in self._rules:
            if re.search(rule.path, path) and rule.times > 0:
                rule.times -= 1
                return rule
        return None

    def also_at(self, address: str) -> None:
        """Be who the certificate names at another address too."""
        certificate, key = self._authority.issue(addresses=["127.0.0.1", address])
        with tempfile.TemporaryDirectory() as folder:
            chain = Path(folder, "chain.pem")
            chain.write_bytes(certificate + key)
            self._tls.load_cert_chain(chain)
