"""`broker dev`: the stack, kept running for somebody to try things on."""

import os
import shlex
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from broker.dev.files import write_private
from broker.dev.people import AGENT
from broker.dev.signals import terminated_like_interrupted
from broker.dev.stack import Stack, running
from broker.dev.story import StepFailed, Stopwatch, Story
from broker.dev.vault import DATABASE_ROLE
from broker.errors import Unavailable

REFRESH_SECONDS = 300.0
WATCH_SECONDS = 1.0


def run(folder: Path) -> int:
    """Run a stack until Ctrl-C or SIGTERM.

    Args:
        folder: Where its data is kept between runs.

    Returns:
        Exit code: 0 when it was asked to end, 1 when a part failed.
    """
    story = Story()
    try:
        with terminated_like_interrupted():
            _run(story, folder)
    except StepFailed:
        return 1
    except KeyboardInterrupt:
        story.console.print("\nInterrupted; everything that had started is ended.")
        return 130
    return 0


def _run(story: Story, folder: Path) -> None:
    watch = Stopwatch()
    with (
        story.step("Starting a broker to try things on", numbered=False),
        running(folder, lambda text: story.say(f"{text} …")) as stack,
    ):
        story.holds(f"ready ({watch}); Ctrl-C ends it, and its data stays in {stack.folder}")
        _tell_next(story, stack)
        with suppress(KeyboardInterrupt):
            _keep(stack)
        story.console.print("\nEnding …")


def _keep(stack: Stack) -> None:
    """Keep the evidence fresh until interrupted.

    Raises:
        Unavailable: when a server has ended by itself.
    """
    never = threading.Event()
    refresh_at = time.monotonic() + REFRESH_SECONDS
    while not never.wait(WATCH_SECONDS):
        for name, pid in (
            ("OpenBao", stack.openbao.pid),
            ("PostgreSQL", stack.postgres.pid),
            ("the broker", stack.broker.pid),
        ):
            if _ended(pid):
                text = f"{name} has ended by itself; its log is in {stack.folder}"
                raise Unavailable(text, message=text)
        if time.monotonic() >= refresh_at:
            stack.refresh_evidence()
            refresh_at = time.monotonic() + REFRESH_SECONDS


def _ended(pid: int) -> bool:
    """Say whether a child has ended; who waits for it later still learns how."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _tell_next(story: Story, stack: Stack) -> None:
    files = {who: _write_variables(stack, who) for who in ("admin", "auditor", "agent")}
    mutual = {
        "CREDBROKER_ADDRESS": stack.mutual_address,
        "CREDBROKER_CERT_FILE": str(stack.evidence.certificate_file),
        "CREDBROKER_KEY_FILE": str(stack.evidence.key_file),
    }
    sections = (
        (
            "As an admin, in another terminal:",
            f". {shlex.quote(str(files['admin']))}",
            "broker scopes list",
            f"broker scopes plan {shlex.quote(str(stack.folder / 'scopes'))}",
            f"broker scopes explain --agent {AGENT} --scope payments-admin --param change=CHG-1",
        ),
        (
            "As the agent:",
            f". {shlex.quote(str(files['agent']))}",
            'credbroker issue reports-secret --purpose "try it out" --ttl 5m',
            f'credbroker exec --scope reports-db --param role={DATABASE_ROLE} --purpose "try it out" -- \\',
            "  sh -c 'echo I am $REPORTS_DB_USERNAME'",
        ),
        (
            "As an auditor:",
            f". {shlex.quote(str(files['auditor']))}",
            "broker issuances list",
            "broker audit events",
        ),
        (
            "As the agent with its X.509-SVID, instead of a token:",
            "unset CREDBROKER_TOKEN_FILE",
            *_exports(mutual),
            "broker tasks list",
        ),
    )
    for title, *lines in sections:
        story.console.print(f"\n{title}", style="bold")
        for line in lines:
            story.console.print(f"  {line}", soft_wrap=True)


def _write_variables(stack: Stack, who: str) -> Path:
    """Write a file for shells that makes them act as this one."""
    variables = stack.variables(who) | (stack.vault_variables() if who == "admin" else {})
    file = stack.folder / f"{who}.env"
    write_private(file, "".join(f"{line}\n" for line in _exports(variables)))
    return file


def _exports(variables: Mapping[str, str]) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
