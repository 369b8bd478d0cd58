"""Pods and containers as a CRI lists them, and the removal of a pod until nothing of it is left.

Every answer is held against ids and labels again: an engine that ignores a filter lists what is others'.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from google.protobuf.message import Message
from grpclib.const import Status

from kickwatch.errors import EngineError
from kickwatch.workload import cri_pb2 as cri
from kickwatch.workload.containerd_tasks import end_task, forget_pod
from kickwatch.workload.cri_calls import CallRefusedError, CriCalls
from kickwatch.workload.cri_images import unless_missing
from kickwatch.workload.cri_info import RUNTIME

M = TypeVar("M", bound=Message)
SEARCH_INTERVAL_S = 0.5
_REMOVE_RETRY_S = 3.0


class CriPods:
    """Through one connection. Methods raise EngineError."""

    def __init__(self, calls: CriCalls) -> None:
        """Nothing is asked yet."""
        self._calls = calls

    async def call(self, what: str, method: str, request: Message, answer: type[M]) -> M:
        """A method of the CRI's RuntimeService. `what` completes "could not ..."."""
        return await self._calls.call(what, f"{RUNTIME}{method}", request, answer)

    async def own(self, labels: Mapping[str, str]) -> list[str]:
        """Containers by their pods: a container in another's pod is never ours. Of a pod without one, the pod."""
        pods = await self.pods(labels)
        if not pods:
            return []
        containers = await self.containers("list our containers", cri.ContainerFilter(label_selector=labels))
        ours = {found.id: found.pod_sandbox_id for found in containers if found.pod_sandbox_id in pods}
        return [*ours, *(pod for pod in pods if pod not in ours.values())]

    async def pods(self, labels: Mapping[str, str]) -> list[str]:
        """Those with these labels."""
        request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(label_selector=labels))
        answer = await self.call("list the pods", "ListPodSandbox", request, cri.ListPodSandboxResponse)
        return [found.id for found in answer.items if labels.items() <= dict(found.labels).items()]

    async def exists(self, pod: str) -> bool:
        """Whether the CRI lists it."""
        request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(id=pod))
        answer = await self.call("look for the pod", "ListPodSandbox", request, cri.ListPodSandboxResponse)
        return any(found.id == pod for found in answer.items)

    async def containers(self, what: str, which: cri.ContainerFilter) -> Sequence[cri.Container]:
        """As the engine lists them."""
        request = cri.ListContainersRequest(filter=which)
        return (await self.call(what, "ListContainers", request, cri.ListContainersResponse)).containers

    async def remove(self, pod: str, what: str, *, whole: bool) -> None:
        """Stop one of our pods, which kills what runs in it, and remove it. A missing one is no error.

        `whole`: its creation got its answer. A start in progress, as that of a killed kickwatch, delays the removal.
        Of a pod that it cannot remove a CRI may say that something is not found, so it must not list it any more.
        """
        loop = asyncio.get_running_loop()
        deadline, forgotten = loop.time() + _REMOVE_RETRY_S, False
        while True:
            try:
                await self._remove(pod, what)
                break
            except CallRefusedError as error:
                if error.status is Status.NOT_FOUND and not await self.exists(pod):
                    break
                ending = error.status is Status.FAILED_PRECONDITION and not (forgotten or self._calls.shutting_down)
                if loop.time() > deadline and not ending:
                    raise
                if ending:
                    forgotten = True
                    await self._end_forgotten_tasks(pod)
                await asyncio.sleep(SEARCH_INTERVAL_S)
        if not whole and not self._calls.shutting_down:
            await forget_pod(self._calls, pod)

    async def _remove(self, pod: str, what: str) -> None:
        request = cri.PodSandboxRequest(pod_sandbox_id=pod)
        with unless_missing():
            await self.call(what, "StopPodSandbox", request, cri.Nothing)
        await self.call(what, "RemovePodSandbox", request, cri.Nothing)

    async def _end_forgotten_tasks(self, pod: str) -> None:
        """Of a pod whose removal is refused, those that the CRI does not know any more."""
        with suppress(EngineError):  # what matters is why the removal is refused
            which = cri.ContainerFilter(pod_sandbox_id=pod)
            for found in await self.containers("list the pod's containers", which):
                if found.pod_sandbox_id == pod:
                    await end_task(self._calls, found.id)
