"""Tasks that containerd keeps and its CRI has forgotten, ended through containerd's own interface.

A start whose client is killed, or gives up, between the making of the task and the question for its pid leaves a task
that the CRI does not know (github.com/containerd/containerd/issues/11037; seen with 1.6.20). To the CRI the container
has exited, so it ends no process, and refuses the removal of the pod for good: "cannot delete running task".
"""

import signal
from contextlib import suppress

from kickwatch.errors import EngineError
from kickwatch.workload import containerd_pb2 as containerd
from kickwatch.workload.containerd_images import NAMESPACE
from kickwatch.workload.cri_calls import CriCalls

_TASKS = "/containerd.services.tasks.v1.Tasks/"


async def end_task(calls: CriCalls, container_id: str) -> None:
    """Kill every process of the task of one of our containers, and delete the task.

    The deletion is refused until containerd has seen the processes end: call it again. Errors do not matter to the
    caller, who asks the CRI again anyway: another CRI's engine has no such interface, and most containers no task.
    """
    what = f"end the task of the container {container_id[:12]}"
    kill = containerd.KillTaskRequest(container_id=container_id, signal=signal.SIGKILL, all=True)
    with suppress(EngineError):
        await calls.call(what, f"{_TASKS}Kill", kill, containerd.Nothing, metadata=NAMESPACE)
    delete = containerd.DeleteTaskRequest(container_id=container_id)
    with suppress(EngineError):
        await calls.call(what, f"{_TASKS}Delete", delete, containerd.DeleteTaskResponse, metadata=NAMESPACE)
