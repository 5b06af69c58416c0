"""`broker demo`: what the broker is for, shown on real servers and checked step by step."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import credbroker
import hvac.exceptions
import psycopg

from broker.dev.databases import REPORTS_DATABASE
from broker.dev.people import AGENT
from broker.dev.server import run_command
from broker.dev.signals import terminated_like_interrupted
from broker.dev.stack import Stack, running
from broker.dev.story import StepFailed, Stopwatch, Story, Unexpected, expect
from broker.dev.vault import DATABASE_ROLE, SECRET_PATH
from broker.mint.sync_client import sync_client
from broker.secret import Secret, SecretText

PURPOSE = "quarterly report for the board"
CONNECT_SECONDS = 5
PROMISED_SECONDS = 1.0
POLL_SECONDS = 0.02

# What an auditor must find about a credential, in this order.
LIFE = ("task.started", "credential.issued", "task.completed", "credential.revoked", "task.revocation_confirmed")


@dataclass(frozen=True, slots=True)
class Held:
    """What the agent holds while it works, kept to try it again afterwards."""

    token: SecretText
    username: str
    password: SecretText
    session: psycopg.Connection
    issuance_id: str


def run() -> int:
    """Tell the story.

    Returns:
        Exit code: 0 when everything was as it should be, 1 when a step failed,
        130 when it was interrupted.
    """
    story, watch = Story(), Stopwatch()
    story.console.print("An AI agent gets credentials for one task, and loses them when the task ends.")
    try:
        with terminated_like_interrupted(), _temporary_folder(story) as folder, _stack(story, folder) as stack:
            _tell(story, stack)
    except StepFailed as failed:
        story.console.print(f"\nThe demo failed at: {failed}", style="bold red")
        return 1
    except KeyboardInterrupt:
        story.console.print("\nInterrupted; everything is ended and removed.")
        return 130
    story.console.print(f"\nEverything is ended and removed again, after {watch}.")
    return 0


@contextmanager
def _temporary_folder(story: Story) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="credbroker-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            story.say(f"{folder} could not be removed")


@contextmanager
def _stack(story: Story, folder: Path) -> Iterator[Stack]:
    watch = Stopwatch()
    with ExitStack() as ended:
        with story.step("A broker starts, with its own OpenBao, PostgreSQL and token issuer"):
            stack = ended.enter_context(running(folder, lambda text: story.say(f"{text} …")))
            story.holds(f"everything runs on loopback, in a temporary folder ({watch})")
        yield stack


def _tell(story: Story, stack: Stack) -> None:
    token_file = stack.evidence.token_file("agent")
    with credbroker.Client(stack.address, token_file=token_file, ca_file=stack.ca_file) as client:
        task = client.task(PURPOSE, timeout=timedelta(minutes=30))
        with story.step(f"The agent {AGENT} starts a task"):
            task.start()
            story.holds(f"task {task.id}: {PURPOSE}")
        held = _work(story, stack, task)
        with story.step("The agent completes the task"):
            watch = Stopwatch()
            task.complete()
            expect(task.revocation_confirmed, "Vault did not confirm the revocation in time")
            story.holds(f"Vault has confirmed that nothing of it is left ({watch})")
    with story.step("Whoever kept the credentials tries them again"):
        _try_again(story, stack, held)
    with story.step("An auditor asks what became of the database user, and what was refused"):
        _audit(story, stack, str(task.id), held.issuance_id)


def _work(story: Story, stack: Stack, task: credbroker.Task) -> Held:
    with story.step("It asks for a Vault token and reads a secret with it"):
        vault_token = task.credential("reports-secret")
        token = Secret(vault_token.token)
        secret = _read_secret(stack, token)
        story.holds(f"a token for {_minutes(vault_token)}, allowed to read the secrets of reports and nothing else")
        story.holds(f"secret/{SECRET_PATH}: {secret}")
    with story.step("It asks for a database user and runs a query"):
        user = task.credential("reports-db", role=DATABASE_ROLE)
        username, password = str(user["username"]), Secret(str(user["password"]))
        session = _connect(stack, username, password)
        row = session.execute("SELECT count(*), sum(revenue) FROM quarters").fetchone()
        expect(row == (3, 3930), f"the query answered {row}")
        story.holds(f"user {username}, made for this task alone, for {_minutes(user)}")
        story.holds("3 quarters, revenue 3930 in all; the session stays open")
    with story.step("It asks for payments-admin, which is not meant for it"):
        _be_refused(story, task)
    return Held(token, username, password, session, user.issuance_id)


def _minutes(credential: credbroker.Credential) -> str:
    return f"{round(credential.remaining.total_seconds() / 60)} minutes"


def _be_refused(story: Story, task: credbroker.Task) -> None:
    try:
        task.credential("payments-admin", change="CHG-1")
    except credbroker.ScopeDenied as refusal:
        story.holds(f"refused with {refusal.reason}")
    else:
        raise Unexpected("the agent got payments-admin")


def _try_again(story: Story, stack: Stack, held: Held) -> None:
    told = _refusal(lambda: _read_secret(stack, held.token), hvac.exceptions.Forbidden, "Vault still takes the token")
    story.holds(f"Vault refuses the token: {told}")
    told = _refusal(lambda: held.session.execute("SELECT 1"), psycopg.OperationalError, "the session is still open")
    story.holds(f"PostgreSQL has cut the open session: {told}")
    told = _refusal(
        lambda: _connect(stack, held.username, held.password).close(),
        psycopg.OperationalError,
        "the user can still log in",
    )
    story.holds(f"PostgreSQL refuses the login: {told}")


def _refusal(attempt: Callable[[], object], refused: type[Exception], otherwise: str) -> str:
    """Return what the refusal of an attempt says; it must come within the time that the broker promises."""
    deadline = time.monotonic() + PROMISED_SECONDS
    while True:
        try:
            attempt()
        except refused as error:
            first = str(error).strip().splitlines()[0]
            return first.rpartition("FATAL:")[2].partition(", on ")[0].strip()
        if time.monotonic() > deadline:
            raise Unexpected(otherwise)
        time.sleep(POLL_SECONDS)


def _read_secret(stack: Stack, token: SecretText) -> str:
    client = sync_client(stack.openbao.address, token=token, ca_file=stack.openbao.ca_file)
    data = client.adapter.get(f"/v1/secret/data/{SECRET_PATH}")["data"]["data"]
    return ", ".join(f"{name} is {data[name]!r}" for name in sorted(data))


def _connect(stack: Stack, username: str, password: SecretText) -> psycopg.Connection:
    return psycopg.connect(
        host=stack.postgres.host,
        port=stack.postgres.port,
        dbname=REPORTS_DATABASE,
        user=username,
        password=password.reveal(),
        connect_timeout=CONNECT_SECONDS,
        autocommit=True,
    )


class Auditor:
    """Asks the broker's command, as an auditor at a terminal would."""

    def __init__(self, story: Story, stack: Stack) -> None:
        self._story = story
        self._variables = stack.variables("auditor")

    def read(self, *words: str) -> str:
        """Show a command with its answer, and return the answer as JSON."""
        terminal = self._story.console
        display = {"COLUMNS": str(terminal.width), "FORCE_COLOR" if terminal.is_terminal else "NO_COLOR": "1"}
        self._story.quote(f"broker {' '.join(words)}", run_command(*words, variables=self._variables | display))
        return run_command(*words, "--output", "json", variables=self._variables)


def _audit(story: Story, stack: Stack, task_id: str, issuance_id: str) -> None:
    auditor = Auditor(story, stack)
    found = json.loads(auditor.read("issuances", "show", issuance_id))
    kinds = [event["type"] for event in found["events"]]
    expect([kind for kind in kinds if kind in LIFE] == list(LIFE), f"the trail is {', '.join(kinds)}")
    expect(found["issuance"]["revocation"] == "REVOCATION_STATE_CONFIRMED", "the revocation is not confirmed")
    story.holds("asked, granted, revoked, confirmed: all of it is on record")
    refusals = json.loads(auditor.read("audit", "events", "--task", task_id, "--outcome", "denied"))
    seen = [(event["type"], event["scope"], event["reason"]) for event in refusals]
    expect(seen == [("request.refused", "payments-admin", "SCOPE_DENIED")], f"the refusals on record are {seen}")
    story.holds("and so is what was refused")
