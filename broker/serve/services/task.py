"""TaskService."""

from functools import partial

from credbroker.v1 import task_service_pb2 as pb
from credbroker.v1.task_service_pb2_grpc import TaskServiceServicer, add_TaskServiceServicer_to_server

from broker import config
from broker.ids import parse_id
from broker.serve.context import current_call
from broker.serve.convert import agents, resources
from broker.serve.convert.pages import read_page
from broker.serve.services.service import Service
from broker.tasks import Tasks


class TaskServicer(TaskServiceServicer):
    """Tasks of agents.

    Args:
        bounds: Default and maximum of a task's timeout.
    """

    def __init__(self, tasks: Tasks, bounds: config.Tasks) -> None:
        self._tasks = tasks
        self._bounds = bounds

    async def StartTask(self, request: pb.StartTaskRequest, context: object) -> pb.StartTaskResponse:
        """Start a task."""
        wanted = agents.new_task(request, self._bounds)
        task = await self._tasks.start(current_call(), wanted.spec, wanted.request_id)
        return pb.StartTaskResponse(task=resources.task(task))

    async def GetTask(self, request: pb.GetTaskRequest, context: object) -> pb.GetTaskResponse:
        """Read one task."""
        task = await self._tasks.get(current_call(), parse_id(request.id, "id"))
        return pb.GetTaskResponse(task=resources.task(task))

    async def ListTasks(self, request: pb.ListTasksRequest, context: object) -> pb.ListTasksResponse:
        """List tasks, newest first."""
        page = await self._tasks.list(current_call(), read_page(request.page_size, request.page_token, request.filter))
        return pb.ListTasksResponse(
            tasks=[resources.task(task) for task in page.items], next_page_token=page.next_token
        )

    async def HeartbeatTask(self, request: pb.HeartbeatTaskRequest, context: object) -> pb.HeartbeatTaskResponse:
        """Note that a task is still worked on."""
        task = await self._tasks.heartbeat(current_call(), parse_id(request.id, "id"))
        return pb.HeartbeatTaskResponse(task=resources.task(task))

    async def CompleteTask(self, request: pb.CompleteTaskRequest, context: object) -> pb.CompleteTaskResponse:
        """End a task."""
        task = await self._tasks.complete(current_call(), parse_id(request.id, "id"))
        return pb.CompleteTaskResponse(task=resources.task(task))


def service(tasks: Tasks, bounds: config.Tasks) -> Service:
    """Return the service."""
    return Service(
        pb.DESCRIPTOR.services_by_name["TaskService"],
        partial(add_TaskServiceServicer_to_server, TaskServicer(tasks, bounds)),
    )
