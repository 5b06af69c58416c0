"""What an agent does with a credential it holds: prolong it, or give it back."""

from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import Connection

from broker import deadline, policy, revoke
from broker.audit import Call
from broker.audit.catalogue import CREDENTIAL_RENEWED, CREDENTIAL_REVOCATION_REQUESTED
from broker.authorize import Ask, decide
from broker.errors import IssuanceEnded, IssuanceNotFound, NotRenewable, NotRevocable, TaskEnded
from broker.mint import KINDS
from broker.mint.vault import VaultClient
from broker.model import Issuance, IssuanceState, Revocability, Task, TaskState
from broker.outbox import Revoker
from broker.policy import Policy, PolicyCache
from broker.step import Step, step
from broker.store import Store, events, issuances, tasks
from broker.tasks import view

_ENDED = (IssuanceState.REVOKING, IssuanceState.REVOKED, IssuanceState.EXPIRED, IssuanceState.FAILED)


class Holdings:
    """Renewal and early return of single credentials.

    Args:
        wait: How long giving back waits for Vault's confirmation.
    """

    def __init__(self, store: Store, vault: VaultClient, rules: PolicyCache, revoker: Revoker, wait: timedelta) -> None:
        self._store = store
        self._vault = vault
        self._rules = rules
        self._revoker = revoker
        self._wait = wait

    async def renew(self, call: Call, issuance_id: str, ttl: timedelta | None) -> Issuance:
        """Prolong a credential, deciding the agent's right to it anew.

        The record grows longer only after Vault has prolonged the credential:
        should the record fail, the sweeper revokes at the time it still names.

        Raises:
            IssuanceNotFound: when the caller holds no such credential.
            IssuanceEnded, TaskEnded: when it, or its task, has ended.
            NotRenewable: when it cannot be prolonged.
            ScopeDenied, Locked: when it would not be granted any more.
        """

        async def attempt() -> Issuance:
            rules, issuance, task = await step(
                Step.RENEW_LOOK_UP, self._store.read(lambda conn: self._look_up(conn, call, issuance_id))
            )
            if issuance.state is not IssuanceState.ACTIVE or issuance.expires_at <= call.now:
                raise IssuanceEnded(f"issuance {issuance_id} is {issuance.state.value}")
            if task is None or task.state is not TaskState.ACTIVE:
                raise TaskEnded(f"task {issuance.task_id} has ended")
            if not issuance.renewable:
                raise NotRenewable(f"issuance {issuance_id} was minted as not renewable")
            ask = Ask(call.identity, view(task), issuance.scope, issuance.parameters, ttl, call.now)
            grant = decide(ask, rules.scopes.get(issuance.scope), rules.locks)
            expires_at = await step(Step.RENEW_PROLONG, KINDS[issuance.kind].renew(self._vault, issuance, grant.ttl))

            def renewed(conn: Connection) -> Issuance | None:
                policy.pin(conn, rules)
                if not issuances.renewed(conn, issuance_id, expires_at, call.now):
                    return None
                facts = {"expires_at": expires_at.isoformat(), "rule": grant.rule}
                events.append(conn, [call.event(CREDENTIAL_RENEWED, attributes=facts)])
                return issuances.get(conn, issuance_id)

            record = await step(Step.RENEW_RECORD, self._store.write(renewed))
            if record is None:
                raise IssuanceEnded("the credential ended while it was renewed")
            return record

        return await policy.until_settled(attempt)

    async def revoke(self, call: Call, issuance_id: str) -> Issuance:
        """Give a credential back before its task ends.

        Raises:
            IssuanceNotFound: when the caller holds no such credential.
            NotRevocable: when it can only die with its task or at its expiry.
        """
        _, issuance, _ = await step(
            Step.REVOKE_LOOK_UP, self._store.read(lambda conn: self._look_up(conn, call, issuance_id))
        )
        if issuance.state in _ENDED:
            return issuance
        if issuance.revocability is not Revocability.INDIVIDUAL:
            raise NotRevocable(f"issuance {issuance_id} is revocable {issuance.revocability.value}")

        def request(conn: Connection) -> None:
            if revoke.queue_issuance(conn, issuance, "agent.revoked", call.now):
                event = call.event(CREDENTIAL_REVOCATION_REQUESTED, reason="agent.revoked")
                events.append(conn, [event])

        with deadline.lifted():
            await step(Step.REVOKE_REQUEST, self._store.write(request))
        await self._revoker.settle(issuance.task_id, self._wait)
        return await step(Step.REVOKE_READ, self._store.read(_known(issuance_id)))

    def _look_up(self, conn: Connection, call: Call, issuance_id: str) -> tuple[Policy, Issuance, Task | None]:
        issuance = issuances.get(conn, issuance_id)
        if issuance is None:
            raise IssuanceNotFound(f"no issuance {issuance_id}")
        if issuance.agent != call.uri:
            raise IssuanceNotFound(f"issuance {issuance_id} belongs to {issuance.agent}")
        call.issuance_id, call.task_id = issuance.id, issuance.task_id
        call.scope, call.scope_version = issuance.scope, issuance.scope_version
        return self._rules.read(conn, call.now), issuance, tasks.get(conn, issuance.task_id)


def _known(issuance_id: str) -> Callable[[Connection], Issuance]:
    def read(conn: Connection) -> Issuance:
        issuance = issuances.get(conn, issuance_id)
        if issuance is None:
            raise RuntimeError(f"the record of issuance {issuance_id} has gone")
        return issuance

    return read
