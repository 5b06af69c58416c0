"""Identities, tasks, scopes and locks as the tests need them."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from broker.authorize import Ask, CompiledScope, TaskView, compile_scope
from broker.document import CredentialMapping, parse_document
from broker.model import EvidenceKind, Identity, JsonObject, JsonValue, Lock, LockKind, ScopeRecord

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ISSUER = "https://issuer.example"
AGENT = "spiffe://example.org/agents/reporter"

BASE: JsonObject = {
    "who": [{"spiffeId": "spiffe://example.org/agents/*"}],
    "credential": {"kind": "plain"},
    "ttl": {"default": "5m", "max": "15m"},
    "parameters": {"type": "object"},
}


class Plain(CredentialMapping):
    """A mapping without fields of its own."""


def svid(uri: str = AGENT, claims: JsonObject | None = None) -> Identity:
    domain = "/".join(uri.split("/")[:3])
    kind = EvidenceKind.X509_SVID if claims is None else EvidenceKind.JWT_SVID
    return Identity(uri, kind, domain, uri, claims or {}, "digest", NOW + timedelta(minutes=5))


def oidc(subject: str = "repo/main", claims: JsonObject | None = None, issuer: str = ISSUER) -> Identity:
    uri = f"{issuer}#{quote(subject, safe='/')}"
    return Identity(uri, EvidenceKind.OIDC, issuer, subject, claims or {}, "digest", NOW + timedelta(minutes=5))


def task(
    declared: tuple[str, ...] = (),
    labels: Mapping[str, str] | None = None,
    left: timedelta = timedelta(hours=1),
    purpose: str = "write the report",
) -> TaskView:
    return TaskView("task-1", purpose, labels or {}, declared, NOW + left)


def scope(name: str = "reports-read", version: int = 3, **spec: JsonValue) -> CompiledScope:
    """Compile a scope whose spec is BASE with what is given in its place; None leaves a part out."""
    parts = {key: value for key, value in {**BASE, **spec}.items() if value is not None}
    text = json.dumps(
        {
            "apiVersion": "credbroker.dev/v1",
            "kind": "Scope",
            "metadata": {"name": name},
            "spec": parts,
        }
    )
    record = ScopeRecord(name, version, "etag", text, NOW, "spiffe://example.org/admins/root")
    return compile_scope(record, parse_document(text, {"plain": Plain}))


def ask(
    identity: Identity | None = None,
    *,
    name: str = "reports-read",
    parameters: JsonObject | None = None,
    ttl: timedelta | None = None,
    for_task: TaskView | None = None,
) -> Ask:
    return Ask(identity or svid(), for_task or task(), name, parameters or {}, ttl, NOW)


def lock(kind: LockKind, target: str, *, lock_id: str = "lock-1", expires_at: datetime | None = None) -> Lock:
    return Lock(lock_id, kind, target, "it misbehaves", "spiffe://example.org/admins/root", NOW, expires_at)
