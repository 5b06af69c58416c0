"""What the commands do."""

import os
import shutil
import sys
from contextlib import ExitStack

from credbroker._client import Client, Credential, Task
from credbroker.cli._arguments import Arguments
from credbroker.cli._child import Signals, not_found
from credbroker.cli._keeper import Keeper
from credbroker.cli._variables import as_exports, as_json, as_value, merge, variables
from credbroker.cli._wanted import Wanted

# How soon the broker ends the task when `credbroker exec` is killed.
_HEARTBEAT_SECONDS = 60.0


def issue(arguments: Arguments) -> int:
    """Print a credential and leave its task open."""
    (wanted,) = arguments.wanted
    with _connect(arguments) as client, ExitStack() as stack:
        task = client.task(arguments.purpose, labels=dict(arguments.labels), timeout=wanted.ttl)
        stack.enter_context(task)
        credential = _get(task, wanted)
        if arguments.field is not None or arguments.output == "raw":
            text = as_value(credential, arguments.field)
        elif arguments.output == "json":
            text = as_json(credential, task.id)
        else:
            text = as_exports(variables(credential, wanted))
        sys.stdout.write(text)
        sys.stdout.flush()
        # Handed over: from here on the task lives until its deadline.
        stack.pop_all()
    sys.stderr.write(
        f"credbroker: task {task.id} stays open until {task.deadline:%Y-%m-%d %H:%M:%S} UTC; "
        f"end it earlier with: credbroker complete {task.id}\n"
    )
    return 0


def execute(arguments: Arguments) -> int:
    """Run a command with credentials that end with it."""
    command = arguments.run
    if shutil.which(command[0]) is None:
        return not_found(command[0])
    with Signals() as signals, _connect(arguments) as client:
        task = client.task(
            arguments.purpose,
            labels=dict(arguments.labels),
            timeout=arguments.timeout,
            heartbeat_interval=_HEARTBEAT_SECONDS,
        )
        with task:
            credentials = [_get(task, wanted) for wanted in arguments.wanted]
            granted = merge(map(variables, credentials, arguments.wanted))
            # The command gets what it needs, not the means to ask for more.
            inherited = {name: value for name, value in os.environ.items() if name != "CREDBROKER_TOKEN"}
            with Keeper(credentials):
                return signals.run(command, inherited | granted)


def complete(arguments: Arguments) -> int:
    """End a task by its identifier."""
    with _connect(arguments) as client:
        client.complete(arguments.task_id)
    return 0


def _connect(arguments: Arguments) -> Client:
    return Client(
        arguments.address,
        ca_file=arguments.ca_file,
        token_file=arguments.token_file,
        certificate_file=arguments.cert_file,
        key_file=arguments.key_file,
        total_timeout=arguments.wait,
    )


def _get(task: Task, wanted: Wanted) -> Credential:
    return task.credential(wanted.scope, wanted.parameters, ttl=wanted.ttl)
