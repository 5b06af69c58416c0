"""Replies about the broker itself: from its report to messages."""

from credbroker.v1 import status_service_pb2 as pb

from broker import model
from broker.mint.health import VaultHealth
from broker.serve.convert import resources
from broker.serve.convert.times import duration, time
from broker.status import Report


def reply(report: Report) -> pb.GetStatusResponse:
    """Return a report's message."""
    store = report.store
    return pb.GetStatusResponse(
        problems=[
            pb.StatusProblem(reason=one.reason, message=one.message, advice=one.advice) for one in report.problems
        ],
        replica=report.replica,
        version=report.version,
        time=time(report.time),
        database=pb.DatabaseStatus(
            kind=store.kind, migration=store.migration, newest_migration=report.newest_migration
        ),
        vault=_vault(report.vault),
        standing=_standing(store.standing),
        overdue_revocations=[resources.revocation(one) for one in store.overdue],
        replicas=[_replica(one) for one in store.replicas],
        works=[_work(one) for one in store.leases],
    )


def _vault(health: VaultHealth) -> pb.VaultStatus:
    return pb.VaultStatus(
        ready=not health.problem,
        problem=health.problem,
        version=health.version,
        token_ttl=duration(health.token_ttl),
        clock_difference=duration(health.clock_difference),
    )


def _standing(record: model.Standing) -> pb.Standing:
    return pb.Standing(
        active_tasks=record.active_tasks,
        live_issuances=record.live_issuances,
        pending_revocations=record.pending_revocations,
        failing_revocations=record.failing_revocations,
        irrevocable_leases=record.irrevocable_leases,
        oldest_pending_time=time(record.oldest_pending_at),
        unconfirmed_tasks=record.unconfirmed_tasks,
        locks_in_force=record.locks_in_force,
    )


def _replica(record: model.ReplicaRecord) -> pb.Replica:
    return pb.Replica(
        name=record.name,
        version=record.version,
        start_time=time(record.started_at),
        seen_time=time(record.seen_at),
    )


def _work(record: model.LeaseRecord) -> pb.SingleWork:
    return pb.SingleWork(name=record.name, holder=record.holder, expire_time=time(record.expires_at))
