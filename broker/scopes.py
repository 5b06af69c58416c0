"""Scopes: admins write them, and ask what they would decide."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import unquote

from sqlalchemy import Connection

from broker.audit import Call
from broker.audit.catalogue import SCOPE_ACCESS_EXPLAINED, SCOPE_CREATED, SCOPE_DELETED, SCOPE_UPDATED
from broker.authorize import Ask, Explanation, TaskView, compile_scope, explain
from broker.document import ScopeDocument, parse_document
from broker.errors import EtagMismatch, FieldViolation, InvalidArgument, ScopeExists, ScopeNotFound
from broker.mint import MAPPINGS, check_document
from broker.model import EvidenceKind, Identity, JsonObject, Page, ScopeRecord
from broker.policy import Policy, PolicyCache
from broker.store import Store, events, scopes
from broker.store import policy as revisions
from broker.store.paging import PageOf

_SUPPOSED_TASK_TIME = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class ScopeView:
    """One stored version with its document read."""

    record: ScopeRecord
    document: ScopeDocument


@dataclass(frozen=True, slots=True)
class Question:
    """Whether a supposed agent would get a scope."""

    agent_uri: str
    claims: JsonObject
    scope: str
    parameters: JsonObject
    ttl: timedelta | None
    task_labels: dict[str, str]
    task_purpose: str


class Scopes:
    """What admins do with scopes."""

    def __init__(self, store: Store, rules: PolicyCache) -> None:
        self._store = store
        self._rules = rules

    async def create(self, call: Call, document: str, validate_only: bool) -> ScopeView:
        """Store a new scope; with `validate_only`, only say what would be stored.

        Raises:
            ScopeDocumentInvalid: when the document is wrong.
            ScopeExists: when there is a current scope of its name.
        """
        parsed = _check(call, document)

        def create(conn: Connection) -> ScopeRecord | None:
            if scopes.get(conn, parsed.metadata.name, None) is not None:
                return None
            version = scopes.newest_version(conn, parsed.metadata.name) + 1
            return _put(conn, call, _new_version(call, parsed, document, version), SCOPE_CREATED, validate_only)

        record = await self._store.write(create)
        if record is None:
            raise ScopeExists(f"scope {parsed.metadata.name} exists")
        return ScopeView(record, parsed)

    async def get(self, call: Call, name: str, version: int | None) -> ScopeView:
        """Return the current or a given version.

        Raises:
            ScopeNotFound: when there is none.
        """
        call.scope = name
        record = await self._store.read(lambda conn: scopes.get(conn, name, version))
        if record is None:
            raise ScopeNotFound(f"no scope {name}" + (f" of version {version}" if version else ""))
        return _view(record)

    async def list(self, call: Call, page: Page) -> PageOf[ScopeView]:
        """Return a page of the current scopes, by name."""

        def read(conn: Connection) -> PageOf[ScopeView]:
            # Here, since reading a page of documents would hold up the event loop for longer than agents wait.
            found = scopes.page(conn, page)
            return PageOf([_view(record) for record in found.items], found.next_token)

        return await self._store.read(read)

    async def update(self, call: Call, document: str, etag: str, validate_only: bool) -> ScopeView:
        """Store a new version; a document equal to the current one changes nothing.

        Raises:
            ScopeDocumentInvalid: when the document is wrong.
            ScopeNotFound: when there is no current scope of its name.
            EtagMismatch: when it is not the version that the caller saw.
        """
        parsed = _check(call, document)

        def update(conn: Connection) -> ScopeRecord | EtagMismatch | None:
            known = scopes.get(conn, parsed.metadata.name, None)
            if known is None:
                return None
            if known.etag != etag:
                return EtagMismatch(f"scope {known.name} is at version {known.version}")
            if known.document == document:
                return known
            version = scopes.newest_version(conn, known.name) + 1
            return _put(conn, call, _new_version(call, parsed, document, version), SCOPE_UPDATED, validate_only)

        record = await self._store.write(update)
        if record is None:
            raise ScopeNotFound(f"no scope {parsed.metadata.name}")
        if isinstance(record, EtagMismatch):
            raise record
        return ScopeView(record, parsed)

    async def delete(self, call: Call, name: str, etag: str) -> None:
        """Delete a scope; its versions stay readable.

        Raises:
            ScopeNotFound: when there is no current scope of this name.
            EtagMismatch: when it is not the version that the caller saw.
        """
        call.scope = name

        def delete(conn: Connection) -> EtagMismatch | ScopeNotFound | None:
            known = scopes.get(conn, name, None)
            if known is None:
                return ScopeNotFound(f"no scope {name}")
            if known.etag != etag:
                return EtagMismatch(f"scope {name} is at version {known.version}")
            call.scope_version = known.version
            scopes.retire(conn, name)
            revisions.raise_revision(conn)
            events.append(conn, [call.event(SCOPE_DELETED)])
            return None

        refusal = await self._store.write(delete)
        if refusal is not None:
            raise refusal

    async def explain(self, call: Call, question: Question) -> Explanation:
        """Say whether a supposed agent would get a scope, and which rule decides.

        Raises:
            InvalidArgument: when the agent URI is not one.
        """
        identity = supposed_identity(question.agent_uri, question.claims, call.now)
        task = TaskView(
            id=None,
            purpose=question.task_purpose,
            labels=question.task_labels,
            declared_scopes=(),
            deadline=call.now + _SUPPOSED_TASK_TIME,
        )
        ask = Ask(identity, task, question.scope, question.parameters, question.ttl, call.now)
        call.scope, call.agent = question.scope, question.agent_uri

        def read(conn: Connection) -> Policy:
            return self._rules.read(conn, call.now)

        rules = await self._store.read(read)
        found = explain(ask, rules.scopes.get(question.scope), rules.locks)
        event = call.event(SCOPE_ACCESS_EXPLAINED, attributes={"allowed": found.allowed})
        await self._store.write(lambda conn: events.append(conn, [event]))
        return found


def supposed_identity(uri: str, claims: JsonObject, now: datetime) -> Identity:
    """Return an identity for a question; it never comes near a decision that counts.

    Raises:
        InvalidArgument: when the URI names neither a SPIFFE ID nor an issuer
            with a subject.
    """
    if uri.startswith("spiffe://"):
        kind, issuer, subject = EvidenceKind.JWT_SVID, "spiffe://" + uri.split("/")[2], uri
    elif "#" in uri:
        issuer, _, fragment = uri.partition("#")
        kind, subject = EvidenceKind.OIDC, unquote(fragment)
    else:
        raise InvalidArgument(
            violations=(FieldViolation("agent.uri", "must be a SPIFFE ID, or issuer#subject"),),
            message="agent.uri must be a SPIFFE ID (spiffe://…), or an OIDC issuer and subject as issuer#subject",
        )
    return Identity(uri, kind, issuer, subject, claims, evidence_digest="", expires_at=now + _SUPPOSED_TASK_TIME)


def _check(call: Call, document: str) -> ScopeDocument:
    """Return a document that compiles, hence can decide.

    Raises:
        ScopeDocumentInvalid: when it does not.
    """
    parsed = parse_document(document, MAPPINGS)
    check_document(parsed)
    call.scope = parsed.metadata.name
    compile_scope(_new_version(call, parsed, document, 1), parsed)
    return parsed


def _new_version(call: Call, parsed: ScopeDocument, document: str, version: int) -> ScopeRecord:
    name = parsed.metadata.name
    etag = hashlib.sha256(f"{name}\0{version}\0{document}".encode()).hexdigest()[:32]
    return ScopeRecord(name, version, etag, document, created_at=call.now, creator=call.uri)


def _put(conn: Connection, call: Call, record: ScopeRecord, event: str, validate_only: bool) -> ScopeRecord:
    if not validate_only:
        scopes.insert(conn, record)
        revisions.raise_revision(conn)
        call.scope_version = record.version
        events.append(conn, [call.event(event, attributes={"etag": record.etag})])
    return record


def _view(record: ScopeRecord) -> ScopeView:
    return ScopeView(record, parse_document(record.document, MAPPINGS))
