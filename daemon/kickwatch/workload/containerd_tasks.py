"""What containerd keeps of our pods and its CRI has forgotten, removed through containerd's own interface.

A call whose client is killed, or gives up, between the making of a task and the question for its pid leaves a task that
the CRI does not know (github.com/containerd/containerd/issues/11037; seen with 1.6.20). If it was a container's start,
the container has exited to the CRI, which ends no process, and refuses the removal of the pod for good: "cannot delete
running task". If it was a pod's, the CRI of 2.x forgets the pod when it is removed, and the task stays (read in the
source of 2.0, sandbox_run.go and sandbox_delete.go).
"""

import asyncio
import signal
from contextlib import suppress

from google.protobuf.message import Message
from grpclib.const import Status

from kickwatch.errors import EngineError
from kickwatch.workload import containerd_pb2 as containerd
from kickwatch.workload.containerd_images import NAMESPACE
from kickwatch.workload.cri_calls import CallRefusedError, CriCalls

_TASKS = "/containerd.services.tasks.v1.Tasks/"
_CONTAINERS = "/containerd.services.containers.v1.Containers/"
_TRIES, _PAUSE_S = 8, 0.25
_ENDED = {None, Status.NOT_FOUND, Status.UNIMPLEMENTED}  # answers to a deletion after which no other is worth asking


async def end_task(calls: CriCalls, container_id: str) -> None:
    """Kill every process of the task of one of our containers, and delete the task. A missing one is no error.

    Errors do not matter to the caller, who asks the CRI again anyway: most containers have no such task, and the engine
    of another CRI no such interface.
    """
    what = f"end the task of the container {container_id[:12]}"
    kill = containerd.KillTaskRequest(container_id=container_id, signal=signal.SIGKILL, all=True)
    delete = containerd.DeleteTaskRequest(container_id=container_id)
    for _ in range(_TRIES):
        await _ask(calls, what, f"{_TASKS}Kill", kill, containerd.Nothing)
        refused = await _ask(calls, what, f"{_TASKS}Delete", delete, containerd.DeleteTaskResponse)
        if refused in _ENDED:
            return
        await asyncio.sleep(_PAUSE_S)  # until containerd has seen the processes end


async def forget_pod(calls: CriCalls, pod: str) -> None:
    """After the CRI has removed one of our pods: its task and its container, where containerd still has them."""
    await end_task(calls, pod)
    request = containerd.DeleteContainerRequest(id=pod)
    await _ask(calls, f"remove the pod {pod[:12]}", f"{_CONTAINERS}Delete", request, containerd.Nothing)


async def _ask(calls: CriCalls, what: str, path: str, request: Message, answer: type[Message]) -> Status | None:
    """The status of a refusal; None where there was none, or no answer."""
    with suppress(EngineError):
        try:
            await calls.call(what, path, request, answer, metadata=NAMESPACE)
        except CallRefusedError as error:
            return error.status
    return None
