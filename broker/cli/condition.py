"""How the broker is, for people: first whether something needs them, then the facts."""

from datetime import datetime, timedelta

from credbroker.v1.status_service_pb2 import GetStatusResponse, Replica, SingleWork, Standing, VaultStatus
from rich.text import Text

from broker.cli.details import facts
from broker.cli.output import console, say
from broker.cli.table import render
from broker.cli.times import full_time, span
from broker.cli.views import REVOCATIONS, when
from broker.terminal import printable

# A replica says that it is there every ten seconds.
SILENT = timedelta(seconds=35)
_SECOND = timedelta(seconds=1)


def show_status(reply: GetStatusResponse) -> None:
    """Print how the broker is."""
    now = when(reply.time)
    say(_verdict(reply))
    say()
    say(
        facts(
            "Broker",
            (
                ("Answered by", f"{reply.replica}, version {reply.version}"),
                ("At", full_time(now)),
                ("Database", f"{reply.database.kind}, migration {reply.database.migration or 'none'}"),
                ("Vault", _vault(reply.vault)),
            ),
        )
    )
    say(_standing(reply.standing, now))
    if reply.replicas:
        say(facts("Replicas", [(printable(one.name), _replica(one, now)) for one in reply.replicas]))
    if reply.works:
        say(facts("Done by one for all", [(printable(one.name), _holder(one, now)) for one in reply.works]))
    if reply.overdue_revocations:
        say(Text("Longest waiting revocations", "bold"))
        target = console()
        for line in render(reply.overdue_revocations, REVOCATIONS, wide=False, width=target.width):
            target.print(line, soft_wrap=True)


def _verdict(reply: GetStatusResponse) -> Text:
    count = len(reply.problems)
    if not count:
        return Text("all is well", "bold green")
    text = Text("1 thing needs you" if count == 1 else f"{count} things need you", "bold red")
    for problem in reply.problems:
        text.append("\n  ! ", "red").append(printable(f"{problem.message} ({problem.reason})"), "not bold")
        text.append(f"\n    {printable(problem.advice)}", "dim")
    return text


def _vault(vault: VaultStatus) -> str:
    words = ["ready" if vault.ready else "not ready"]
    if vault.version:
        words.append(f"version {vault.version}")
    if vault.HasField("token_ttl"):
        words.append(f"the broker's token lives {span(vault.token_ttl.ToTimedelta())} more")
    elif vault.ready:
        words.append("the broker's token never expires")
    if vault.HasField("clock_difference"):
        words.append(f"its clock {_clock(vault.clock_difference.ToTimedelta())}")
    return ", ".join(words)


def _clock(difference: timedelta) -> str:
    if abs(difference) <= _SECOND:
        return "agrees"
    return f"is {span(abs(difference))} {'ahead' if difference > timedelta() else 'behind'}"


def _standing(standing: Standing, now: datetime) -> Text:
    pending = str(standing.pending_revocations)
    if standing.failing_revocations:
        pending += f", {standing.failing_revocations} of them failed at least once"
    if standing.HasField("oldest_pending_time"):
        pending += f", the longest for {_age(now - when(standing.oldest_pending_time))}"
    return facts(
        "Under way",
        (
            ("Active tasks", str(standing.active_tasks)),
            ("Live credentials", str(standing.live_issuances)),
            ("Pending revocations", pending),
            ("Leases Vault gave up on", str(standing.irrevocable_leases)),
            ("Ended tasks not confirmed", str(standing.unconfirmed_tasks)),
            ("Locks in force", str(standing.locks_in_force)),
        ),
    )


def _replica(replica: Replica, now: datetime) -> str:
    silence = now - when(replica.seen_time)
    started = f"version {replica.version}, up {_age(now - when(replica.start_time))}"
    return f"{started}, silent for {_age(silence)}" if silence > SILENT else started


def _holder(work: SingleWork, now: datetime) -> str:
    return (
        work.holder
        if when(work.expire_time) > now
        else f"nobody; until {full_time(when(work.expire_time))}: {work.holder}"
    )


def _age(length: timedelta) -> str:
    return span(max(length, timedelta()) // _SECOND * _SECOND)
