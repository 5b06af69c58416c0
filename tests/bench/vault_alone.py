"""What the broker asks of Vault for a credential, asked by the load itself: Vault's part, with no broker before it.

The calls are the broker's own, with its policies and roles, in its order. What
they cost, and how many of them Vault answers, bounds any broker that works with
anchors and their children, whatever it is written in.
"""

import json
import time
from dataclasses import dataclass
from typing import Any

from broker.ids import new_id
from broker.mint.anchor import ANCHOR_META, TASK_META
from broker.mint.children import ISSUANCE_META
from broker.mint.naming import ANCHOR_POLICY
from broker.mint.tokens import TokenRequest
from broker.mint.vault import INSTALLATION_META
from tests.bench.client import Servers
from tests.bench.samples import Samples, Unit, check_refused, content_of, honours
from tests.bench.wire import HttpConnection, WrongReply

_SECONDS = 900
_MARK = {INSTALLATION_META: new_id()}


@dataclass(frozen=True, slots=True)
class Anchor:
    """The token that a task's credentials hang from."""

    token: str
    accessor: str


class VaultCaller:
    """The broker's side of Vault, for one caller.

    Args:
        connection: To Vault.
        token: Of the broker's own identity.
        role: Name of the scope's token role and policy.
        samples: Gets what was done.
    """

    def __init__(self, connection: HttpConnection, token: str, role: str, samples: Samples) -> None:
        self._connection = connection
        self._token = token
        self._role = role
        self._samples = samples
        self._long: Anchor | None = None
        self._last = ""

    async def begin(self) -> Anchor:
        """Make an anchor."""
        meta = {ANCHOR_META: new_id(), TASK_META: new_id()}
        request = TokenRequest("service", (self._role, ANCHOR_POLICY), _SECONDS, _SECONDS, False, self._role, meta)
        auth = await self._create(f"/v1/auth/token/create/{self._role}", request, self._token)
        return Anchor(auth["client_token"], auth["accessor"])

    async def issue(self, anchor: Anchor, began: float) -> None:
        """Make a batch child, for which somebody waits since a moment."""
        meta = {ISSUANCE_META: new_id()}
        request = TokenRequest("batch", (self._role,), _SECONDS, None, False, self._role, meta)
        self._last = (await self._create("/v1/auth/token/create", request, anchor.token))["client_token"]
        self._samples.waits.append(time.perf_counter() - began)
        self._samples.secrets.append(self._last)

    async def complete(self, anchor: Anchor) -> None:
        """Revoke the anchor, and what hangs from it."""
        body = json.dumps({"accessor": anchor.accessor}).encode()
        began = time.perf_counter()
        status, content = await self._connection.post("/v1/auth/token/revoke-accessor", body, self._token)
        self._samples.ends.append(time.perf_counter() - began)
        if status != 204:
            raise WrongReply(f"OpenBao answered a revocation with {status}: {content!r}")

    async def steady(self) -> Unit:
        """Return what makes one child of an anchor that stays."""
        anchor = self._long = await self.begin()

        async def unit() -> None:
            await self.issue(anchor, time.perf_counter())

        return unit

    async def tasks_of(self, count: int) -> Unit:
        """Return what makes an anchor and that many children, and revokes it."""

        async def unit() -> None:
            began = time.perf_counter()
            anchor = await self.begin()
            await self.issue(anchor, began)
            for _ in range(count - 1):
                await self.issue(anchor, time.perf_counter())
            await self.complete(anchor)

        return unit

    async def empty_tasks(self) -> Unit:
        """Vault knows no tasks."""
        raise ValueError("nothing to be done in Vault")

    async def health_checks(self) -> Unit:
        """Only the broker's are measured."""
        raise ValueError("nothing to be done in Vault")

    async def renewals(self) -> Unit:
        """A renewal is one call to Vault, as it is directly."""
        raise ValueError("measured directly")

    async def finish(self, servers: Servers) -> None:
        """End what goes on, and check that what was made last worked until then, and does not any more."""
        if self._long is not None:
            if not await honours(servers, self._last):
                raise WrongReply("a child of an anchor that lives is refused")
            await self.complete(self._long)
        if self._last:
            await check_refused(servers, self._last)

    async def _create(self, path: str, request: TokenRequest, token: str) -> Any:
        reply = await self._connection.post(path, json.dumps(request.body(_MARK)).encode(), token)
        auth = content_of(reply)["auth"]
        if not auth["client_token"] or auth["token_type"] != request.type or auth["lease_duration"] <= 0:
            raise WrongReply("another token than asked for")
        return auth
