"""A web server on loopback that publishes keys, or misbehaves as told."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


class KeyServer:
    """Answers every request with `body`, after `gate` opens."""

    def __init__(self) -> None:
        self.body = b'{"keys":[]}'
        self.status = 200
        self.headers: dict[str, str] = {}
        self.requests: list[web.Request] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.endless = False
        self.stalling = False
        self.sent = 0
        self.port = 0
        self.scheme = "http"

    def url(self, host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}/keys"

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["KeyServer"]:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        self.scheme = "https" if tls else "http"
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            self.gate.set()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.stalling:
            return await self._stall(request)
        await self.gate.wait()
        if not self.endless:
            return web.Response(body=self.body, status=self.status, headers=self.headers)
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)
            self.sent += 65536

    async def _stall(self, request: web.Request) -> web.StreamResponse:
        """Send the beginning of an answer, and the rest after `gate` opens."""
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(self.body[:1])
        await self.gate.wait()
        return response
