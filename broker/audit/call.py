"""One request on its way, and the events it leaves behind."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from broker.audit.catalogue import EVENT_TYPES, REQUEST_FAILED, REQUEST_REFUSED
from broker.errors import BrokerError, DeadlineExceeded, MintFailed, Unavailable
from broker.ids import new_id
from broker.model import AuditEvent, Caller, Identity, JsonValue, Outcome

BROKER = "broker"
MAX_DETAIL = 2000


@dataclass(slots=True)
class Call:
    """One request: who, what, when, and the facts noted on its way.

    The interceptor makes it, the workflows note what it is about, and whatever
    it ends in, success or refusal, becomes an event that carries these facts.

    Attributes:
        method: Full name of the RPC.
        peer: Network address of the caller.
        now: The moment that counts for every decision of this request.
        caller: Who asks; None until identity is established.
        agent: The agent concerned; the caller itself unless noted otherwise.
    """

    method: str
    peer: str
    now: datetime
    caller: Caller | None = None
    agent: str = ""
    task_id: str | None = None
    issuance_id: str | None = None
    scope: str = ""
    scope_version: int | None = None
    attributes: dict[str, JsonValue] = field(default_factory=dict)

    @property
    def identity(self) -> Identity:
        """Who calls.

        Raises:
            RuntimeError: when identity is not established yet; a workflow must
                not run before that.
        """
        if self.caller is None:
            raise RuntimeError("a workflow was reached without an identity")
        return self.caller.identity

    @property
    def uri(self) -> str:
        """URI of the caller; as `identity`."""
        return self.identity.uri

    def event(
        self,
        kind: str,
        *,
        outcome: Outcome = Outcome.SUCCESS,
        reason: str = "",
        detail: str = "",
        attributes: Mapping[str, JsonValue] | None = None,
    ) -> AuditEvent:
        """Return an event of this request; `kind` is one of the catalogue."""
        actor = self.caller.identity.uri if self.caller else ""
        return AuditEvent(
            id=new_id(),
            time=self.now,
            type=_known(kind),
            outcome=outcome,
            actor=actor,
            method=self.method,
            reason=reason,
            detail=detail[:MAX_DETAIL],
            agent=self.agent or actor,
            task_id=self.task_id,
            issuance_id=self.issuance_id,
            scope=self.scope,
            scope_version=self.scope_version,
            peer=self.peer,
            attributes={**self.attributes, **(attributes or {}), **self._evidence()},
        )

    def refusal(self, error: BrokerError) -> AuditEvent:
        """Return the event of a request that ends in an error."""
        failed = isinstance(error, Unavailable | MintFailed | DeadlineExceeded) or type(error) is BrokerError
        return self.event(
            REQUEST_FAILED if failed else REQUEST_REFUSED,
            outcome=Outcome.FAILURE if failed else Outcome.DENIED,
            reason=error.reason,
            detail=error.detail,
        )

    def _evidence(self) -> dict[str, JsonValue]:
        if self.caller is None:
            return {}
        identity = self.caller.identity
        return {"evidence": identity.kind.value, "evidence_sha256": identity.evidence_digest}


def broker_event(
    kind: str,
    now: datetime,
    *,
    outcome: Outcome = Outcome.SUCCESS,
    reason: str = "",
    detail: str = "",
    agent: str = "",
    task_id: str | None = None,
    issuance_id: str | None = None,
    scope: str = "",
    scope_version: int | None = None,
    attributes: Mapping[str, JsonValue] | None = None,
) -> AuditEvent:
    """Return an event of the broker's own work, outside of any request."""
    return AuditEvent(
        id=new_id(),
        time=now,
        type=_known(kind),
        outcome=outcome,
        actor=BROKER,
        reason=reason,
        detail=detail[:MAX_DETAIL],
        agent=agent,
        task_id=task_id,
        issuance_id=issuance_id,
        scope=scope,
        scope_version=scope_version,
        attributes=dict(attributes or {}),
    )


def _known(kind: str) -> str:
    if kind not in EVENT_TYPES:
        raise RuntimeError(f"{kind!r} is not in the catalogue of audit events")
    return kind
