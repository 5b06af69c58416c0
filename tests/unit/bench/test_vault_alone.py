"""The load without a broker judges what OpenBao answers, too."""

import itertools
import json
from typing import cast

import pytest

from tests.bench.agents import _load
from tests.bench.samples import Samples
from tests.bench.vault_alone import VaultCaller
from tests.bench.wire import HttpConnection, WrongReply


class Vault:
    """Makes tokens of the type that is asked for, and revokes them, unless it is told to answer otherwise."""

    def __init__(self, *, status: int = 200, revoked: int = 204, **changed: object) -> None:
        self.paths: list[str] = []
        self._status = status
        self._revoked = revoked
        self._changed = changed
        self._numbers = itertools.count()

    async def post(self, path: str, body: bytes, token: str) -> tuple[int, bytes]:
        self.paths.append(path)
        if path.endswith("revoke-accessor"):
            return self._revoked, b""
        made = {
            "client_token": f"t{next(self._numbers)}",
            "accessor": "a",
            "token_type": json.loads(body)["type"],
            "lease_duration": 900,
        }
        return self._status, json.dumps({"auth": {**made, **self._changed}}).encode()


async def run(vault: Vault, workload: str = "tasks of ten") -> Samples:
    samples = Samples()
    caller = VaultCaller(cast("HttpConnection", vault), "b", "role", samples)
    await _load([caller], workload, 0.2, samples)
    return samples


async def test_a_task_is_an_anchor_its_children_and_one_revocation() -> None:
    vault = Vault()
    samples = await run(vault)
    tasks = len(samples.ends)
    assert tasks >= 1
    assert len(samples.waits) == len(samples.secrets) == 10 * tasks
    begun = "/v1/auth/token/create/role"
    assert vault.paths[:12] == [begun, *["/v1/auth/token/create"] * 10, "/v1/auth/token/revoke-accessor"]


async def test_a_long_task_has_one_anchor() -> None:
    vault = Vault()
    samples = await run(vault, "steady")
    assert vault.paths.count("/v1/auth/token/create/role") == 1
    assert len(samples.waits) == len(vault.paths) - 1


@pytest.mark.parametrize(
    "vault",
    [
        Vault(status=403),
        Vault(revoked=400),
        Vault(client_token=""),
        Vault(client_token="the same"),
        Vault(token_type="service"),
        Vault(lease_duration=0),
    ],
)
async def test_what_is_not_as_the_broker_would_have_it_ends_the_measurement(vault: Vault) -> None:
    with pytest.raises(WrongReply):
        await run(vault)
