"""`broker tasks`."""

from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import Agent, Limit, Output, RawFilter, Since, Until, Wide, connected
from broker.cli.output import Format, print_one, to_json

if TYPE_CHECKING:
    from broker.cli.remote import Remote

app = typer.Typer(no_args_is_help=True, help="Look at the tasks of agents.")


@app.command("list")
@connected
def list_tasks(
    remote: "Remote",
    agent: Agent = None,
    state: Annotated[
        str | None,
        typer.Option("--state", help="active, completed, deadline_exceeded, heartbeat_missed or locked."),
    ] = None,
    since: Since = None,
    until: Until = None,
    raw: RawFilter = None,
    limit: Limit = 50,
    output: Output = Format.TABLE,
    wide: Wide = False,
) -> None:
    """List tasks, newest first.

    Example: broker tasks list --state active --since 2h
    """
    from credbroker.v1.task_pb2 import TaskState

    from broker.cli import fetch
    from broker.cli.filters import between, compose, equal
    from broker.cli.inputs import enum_option, moment_option
    from broker.cli.lists import show_list
    from broker.cli.views import TASKS

    conditions = [
        *equal("agent", agent),
        *equal("state", enum_option(state, TaskState.DESCRIPTOR, "--state")),
        *between("create_time", moment_option(since, "--since"), moment_option(until, "--until")),
    ]
    query = compose(conditions, raw)
    show_list(fetch.tasks(remote, query), TASKS, output, limit=limit, wide=wide, empty="no task matches")


@app.command("show")
@connected
def show_task(
    remote: "Remote",
    task: Annotated[str, typer.Argument(metavar="TASK", help="Its identifier, or the end of it as tables show it.")],
    output: Output = Format.TABLE,
) -> None:
    """Show one task.

    Example: broker tasks show 9f2c01ab
    """
    from credbroker.v1.task_service_pb2 import GetTaskRequest

    from broker.cli import fetch
    from broker.cli.details import show_task as render
    from broker.cli.lists import full_id

    identifier = full_id(task, "task", fetch.tasks(remote))
    found = remote.call(remote.tasks.GetTask, GetTaskRequest(id=identifier)).task
    print_one(to_json(found), output, lambda: render(found))
