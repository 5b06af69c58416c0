"""What conditions see of a request."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from broker.authorize.bounds import is_deeper_than
from broker.authorize.expression import AgentUses
from broker.authorize.records import TaskView
from broker.errors import ScopeDenied
from broker.model import Identity, JsonObject

MAX_CLAIM_DEPTH: Final = 32


@dataclass(frozen=True, slots=True)
class Sight:
    """Everything that a condition may see.

    Attributes:
        identity: ``agent``, with names that are null where there is none.
        task: ``task``.
        parameters: ``params``.
        ttl: ``request.ttl_seconds``: what would be granted, rounded up.
        now: ``request.time``.
        uses: What of the agent is looked at; None for everything.
    """

    identity: Identity
    task: TaskView
    parameters: JsonObject
    ttl: timedelta
    now: datetime
    uses: AgentUses | None = None

    def of(self, root: str) -> Mapping[str, object]:
        """Return the value of one root.

        Raises:
            ScopeDenied: when the claims are nested too deeply to be looked at.
        """
        return _ROOTS[root](self)

    def _agent(self) -> Mapping[str, object]:
        identity, uses = self.identity, self.uses
        claims = {name: claim for name, claim in identity.claims.items() if uses is None or name in uses.claims}
        # The CEL library goes down on the machine's stack.
        if is_deeper_than(MAX_CLAIM_DEPTH, claims):
            raise ScopeDenied(f"claims are nested more than {MAX_CLAIM_DEPTH} levels deep")
        agent = {
            "uri": identity.uri,
            "issuer": identity.issuer,
            "subject": identity.subject,
            "spiffe_id": identity.spiffe_id,
            "trust_domain": None if identity.spiffe_id is None else identity.issuer.removeprefix("spiffe://"),
            "kind": identity.kind.value,
            "claims": claims,
        }
        return {name: value for name, value in agent.items() if uses is None or name in uses.fields}

    def _task(self) -> Mapping[str, object]:
        task = self.task
        return {
            "purpose": task.purpose,
            "labels": dict(task.labels),
            "declared_scopes": list(task.declared_scopes),
        }

    def _params(self) -> Mapping[str, object]:
        return dict(self.parameters)

    def _request(self) -> Mapping[str, object]:
        return {"ttl_seconds": math.ceil(self.ttl.total_seconds()), "time": self.now}


_ROOTS: Final[Mapping[str, Callable[[Sight], Mapping[str, object]]]] = {
    "agent": Sight._agent,
    "task": Sight._task,
    "params": Sight._params,
    "request": Sight._request,
}
