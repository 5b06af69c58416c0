"""Vault as the credential kinds see it: a few calls, each of which either worked, was refused or is in doubt."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from broker import config, deadline
from broker.clock import Clock
from broker.errors import MintFailed, VaultUnavailable
from broker.mint.replies import VaultRefused, problem_of, section, text, whole_seconds
from broker.mint.tokens import MadeToken, TokenRequest, as_asked, read_token
from broker.mint.transport import MAX_REPLY_BYTES, Answer, Path, Transport, describe
from broker.model import JsonObject, JsonValue
from broker.secret import Secret

CREATE_TOKEN: Path = ("auth", "token", "create")
INSTALLATION_META = "credbroker_installation"
"""The key under which every token that a broker makes names its installation."""

_DONE = 204
_FORBIDDEN = 403
_MAX_LIST_BYTES = 32 * 1024 * 1024


class TokenSource(Protocol):
    """Where the broker's own Vault token comes from."""

    def token(self) -> Secret[str]:
        """Return the token to use now.

        Raises:
            VaultUnavailable: when there is none at the moment.
        """
        ...

    def doubt(self) -> None:
        """Take note that Vault refused a call made with the token: it may be worth nothing any more."""
        ...


@dataclass(frozen=True, slots=True)
class KnownToken:
    """What Vault's books say of a token: its metadata, and when Vault made it by its own clock."""

    meta: dict[str, JsonValue]
    created_at: datetime


class VaultClient:
    """The broker's calls to Vault. To be made while an event loop runs.

    Args:
        settings: How to reach Vault.
        tokens: Where the broker's own token comes from.
        clock: The broker's time.
        installation: What the tokens it makes are marked with.

    Raises:
        ConfigError: when the CA file or the address cannot be used.
    """

    def __init__(self, settings: config.Vault, tokens: TokenSource, clock: Clock, installation: str = "") -> None:
        self._transport = Transport(settings, clock)
        self._tokens = tokens
        self._clock = clock
        self._mark = {INSTALLATION_META: installation} if installation else {}

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    def now(self) -> datetime:
        """Return the time from which a time to live counts, when asked before the request."""
        return self._clock.now()

    def clock_difference(self) -> timedelta | None:
        """Return how far the broker's clock is ahead of Vault's, at the least; None while that is not known."""
        return self._transport.server_time.difference()

    async def call(
        self, method: str, path: Path, body: JsonObject | None = None, *, token: Secret[str] | None = None
    ) -> dict[str, JsonValue]:
        """Send one request and return Vault's JSON object.

        Args:
            method: HTTP method.
            path: Segments below ``/v1``.
            body: JSON object to send.
            token: Vault token; the broker's own by default.

        Raises:
            VaultUnavailable: when it is not certain that Vault refused: it may
                have acted.
            VaultRefused: when Vault refused; nothing is left of the request.
            ValueError: when a path segment is not allowed.
        """
        answer = await self._send(method, path, body, token)
        problem = problem_of(answer.status, answer.body, describe(method, path))
        if problem is None:
            return answer.body
        # An error and a credential in one reply: nobody gets it, so it must go.
        if not await self._take_back(answer.body):
            raise VaultUnavailable(f"{problem.detail}; it came with a credential that may be alive")
        raise problem

    async def _send(
        self, method: str, path: Path, body: JsonObject | None, token: Secret[str] | None, limit: int = MAX_REPLY_BYTES
    ) -> Answer:
        answer = await self._transport.send(method, path, token or self._tokens.token(), body, limit)
        if answer.status == _FORBIDDEN and token is None:
            self._tokens.doubt()
        return answer

    async def _tell(self, path: Path, body: JsonObject) -> dict[str, JsonValue]:
        """Send a request whose reply holds no credential."""
        answer = await self._send("POST", path, body, None)
        problem = problem_of(answer.status, answer.body, describe("POST", path))
        if problem is not None:
            raise problem
        return answer.body

    async def _take_back(self, reply: Mapping[str, JsonValue]) -> bool:
        """Revoke whatever credential a reply holds; False when it may be alive."""
        auth = section(reply, "auth")
        accessor = text(auth, "accessor")
        if accessor is None and text(auth, "client_token") is not None:
            return False  # a batch token: it dies with its parent, not before
        return await self.discard(accessor, text(reply, "lease_id"))

    async def discard(self, accessor: str | None, lease_id: str | None) -> bool:
        """Revoke what nobody may get; False when it may be alive."""
        with deadline.lifted():
            try:
                if accessor is not None:
                    await self.revoke_token(accessor)
                if lease_id is not None:
                    await self.revoke_lease(lease_id)
                return not (
                    (accessor is not None and await self.knows_token(accessor))
                    or (lease_id is not None and await self.knows_lease(lease_id))
                )
            except (VaultUnavailable, VaultRefused):
                return False

    async def create_token(
        self, request: TokenRequest, *, role: str | None = None, parent: Secret[str] | None = None
    ) -> MadeToken:
        """Create a token: through a role with the broker's own token, or as a child of another.

        Raises:
            VaultUnavailable: when Vault did not answer; it may have acted.
            MintFailed: when Vault refused, or made another token than asked
                for (which is revoked).
        """
        before = self.now()
        path = CREATE_TOKEN if role is None else (*CREATE_TOKEN, role)
        reply = await self.call("POST", path, request.body(self._mark), token=parent)
        made = read_token(reply, before)
        if made is not None and as_asked(section(reply, "auth"), request, orphan=role is not None):
            return made
        words = f"{describe('POST', path)} made another token than asked for; provision the scope again"
        accessor = text(section(reply, "auth"), "accessor")
        if accessor is None or not await self.discard(accessor, None):
            raise VaultUnavailable(f"{words}; it may be alive")
        raise MintFailed(words)

    async def renew_token(self, accessor: str, seconds: int) -> datetime:
        """Prolong a token and return when it now expires.

        Raises:
            VaultUnavailable: when Vault did not answer; it may have acted.
            VaultRefused: when it cannot be prolonged, or does not exist.
        """
        before = self.now()
        body: JsonObject = {"accessor": accessor, "increment": f"{seconds}s"}
        reply = await self._tell(("auth", "token", "renew-accessor"), body)
        return _expiry(section(reply, "auth"), before)

    async def renew_lease(self, lease_id: str, seconds: int) -> datetime:
        """Prolong a lease and return when it now expires.

        Raises:
            VaultUnavailable: when Vault did not answer; it may have acted.
            VaultRefused: when it cannot be prolonged, or does not exist.
        """
        before = self.now()
        body: JsonObject = {"lease_id": lease_id, "increment": seconds}
        return _expiry(await self._tell(("sys", "leases", "renew"), body), before)

    async def revoke_token(self, accessor: str) -> bool:
        """Ask Vault to revoke a token and all that hangs from it.

        A revocation that was cut off within Vault leaves a token that nothing
        accepts any more, and of which revoking says that it was not found
        though it can be looked up. Vault ends what is left of it, at the latest
        when its time is over.

        Returns:
            True when Vault says that it has done so within the call; False when
            it did not find the token.

        Raises:
            VaultUnavailable: when Vault did not answer.
            VaultRefused: when the broker may not.
        """
        path = ("auth", "token", "revoke-accessor")
        answer = await self._send("POST", path, {"accessor": accessor}, None)
        problem = problem_of(answer.status, answer.body, describe("POST", path))
        if problem is None:
            return answer.status == _DONE
        if isinstance(problem, VaultRefused) and (problem.says("invalid accessor") or problem.says("token not found")):
            return False
        raise problem

    async def revoke_lease(self, lease_id: str, *, within_call: bool = False) -> None:
        """Ask Vault to revoke one lease: some time soon, or within the call.

        Source: https://openbao.org/api-docs/system/leases/#revoke-lease

        Raises:
            VaultUnavailable: when Vault did not answer.
            VaultRefused: when the broker may not; or when the engine failed
                within the call.
        """
        try:
            await self._tell(("sys", "leases", "revoke"), {"lease_id": lease_id, "sync": within_call})
        except VaultRefused as refusal:
            if not refusal.says("invalid lease"):
                raise

    async def knows_token(self, accessor: str) -> bool:
        """Return whether Vault still knows a token.

        Raises:
            VaultUnavailable: when Vault did not answer.
            VaultRefused: when the broker may not look.
        """
        return await self.look_up_token(accessor) is not None

    async def look_up_token(self, accessor: str) -> KnownToken | None:
        """Return what Vault's books say of a token; None when Vault does not know it.

        Raises:
            VaultUnavailable: when Vault did not answer.
            VaultRefused: when the broker may not look.
        """
        try:
            reply = await self._look_up(accessor)
        except VaultRefused as refusal:
            if not refusal.says("permission denied"):
                raise
            # Also said of a token that ended after its accessor was read: it is unknown by now.
            # OpenBao: vault/token_store.go, handleUpdateLookupAccessor and handleLookup.
            reply = await self._look_up(accessor)
        if reply is None:
            return None
        data = section(reply, "data")
        made = data.get("creation_time")
        seconds = made if isinstance(made, int) else 0
        return KnownToken(section(data, "meta"), datetime.fromtimestamp(seconds, UTC))

    async def _look_up(self, accessor: str) -> dict[str, JsonValue] | None:
        try:
            return await self._tell(("auth", "token", "lookup-accessor"), {"accessor": accessor})
        except VaultRefused as refusal:
            if refusal.says("invalid accessor"):
                return None
            raise

    async def knows_lease(self, lease_id: str) -> bool:
        """Return whether Vault still knows a lease.

        Raises:
            VaultUnavailable: when Vault did not answer.
            VaultRefused: when the broker may not look.
        """
        try:
            await self._tell(("sys", "leases", "lookup"), {"lease_id": lease_id})
        except VaultRefused as refusal:
            if refusal.says("invalid lease"):
                return False
            raise
        return True

    async def list_accessors(self) -> list[str]:
        """Return the accessors of all service tokens; for the reaper's identity.

        Raises:
            VaultUnavailable: when Vault did not answer.
            VaultRefused: when the identity may not list them.
        """
        path = ("auth", "token", "accessors")
        answer = await self._send("LIST", path, None, None, _MAX_LIST_BYTES)
        problem = problem_of(answer.status, answer.body, describe("LIST", path))
        if problem is not None:
            raise problem
        keys = section(answer.body, "data").get("keys")
        return [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []

    async def look(self, path: Path) -> Answer:
        """Read what needs no token and return Vault's answer, whatever its status.

        Raises:
            VaultUnavailable: when Vault did not answer.
        """
        return await self._transport.send("GET", path, None, None, MAX_REPLY_BYTES)

    async def check(self) -> dict[str, JsonValue]:
        """Check that Vault is unsealed and accepts the broker's token; return what it says of that token.

        Raises:
            VaultUnavailable: when it is not so; says which.
        """
        path = ("sys", "seal-status")
        answer = await self.look(path)
        problem = problem_of(answer.status, answer.body, describe("GET", path))
        if problem is not None or answer.body.get("sealed") is not False:
            raise VaultUnavailable(problem.detail if problem else "Vault is sealed")
        try:
            return section(await self.call("GET", ("auth", "token", "lookup-self")), "data")
        except VaultRefused as refusal:
            raise VaultUnavailable(f"Vault does not accept the broker's token: {refusal.detail}") from None


def _expiry(body: Mapping[str, JsonValue], before: datetime) -> datetime:
    seconds = whole_seconds(body, "lease_duration")
    if seconds is None:
        raise VaultUnavailable("Vault's reply to a renewal does not say for how long")
    return before + timedelta(seconds=seconds)
