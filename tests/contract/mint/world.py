"""Parts of which the contract tests build what they need."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from broker import config
from broker.dev.openbao import OpenBao
from broker.document import ScopeDocument, parse_document
from broker.mint import MAPPINGS
from broker.secret import Secret


@dataclass(frozen=True)
class Token:
    """A `TokenSource` that always has the same token."""

    value: Secret[str]

    def token(self) -> Secret[str]:
        return self.value

    def doubt(self) -> None:
        pass


def vault_settings(server: OpenBao, timeout: timedelta = timedelta(seconds=5)) -> config.Vault:
    return config.Vault(
        address=server.address,
        ca_file=server.ca_file,
        auth=config.TokenFileAuth(kind="token_file", file=Path("unused")),
        timeout=timeout,
    )


def document_of(name: str, mapping: dict[str, object], schema: dict[str, object] | None = None) -> ScopeDocument:
    spec: dict[str, object] = {
        "who": [{"spiffeId": "spiffe://example.test/agent"}],
        "credential": mapping,
        "ttl": {"default": "1m", "max": "1h"},
    }
    if schema is not None:
        spec["parameters"] = schema
    text = json.dumps({"apiVersion": "credbroker.dev/v1", "kind": "Scope", "metadata": {"name": name}, "spec": spec})
    return parse_document(text, MAPPINGS)


async def until(condition: Callable[[], Awaitable[bool]], within: float = 10.0) -> None:
    """Wait until a condition holds; TimeoutError when it does not."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110 - Vault tells nobody when it is done
            await asyncio.sleep(0.02)
