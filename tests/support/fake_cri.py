"""A CRI in this process, whose answers a test can delay, refuse or lose. It keeps pods and containers in memory."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from kickwatch.workload import containerd_pb2 as containerd
from kickwatch.workload import cri_pb2 as cri

PAUSE_IMAGE = "registry.invalid/pause:1"
Act = Callable[[Message], Awaitable[None]]


class FakeCri:
    """`before` and `after` run around the effect of a call, by the method's name."""

    def __init__(self, *, name: str = "containerd", ready: bool = True, config: dict[str, Any] | None = None) -> None:
        self.name, self.ready = name, ready
        self.config = {"sandboxImage": PAUSE_IMAGE} if config is None else config
        self.pods: dict[str, cri.PodSandboxConfig] = {}
        self.containers: dict[str, tuple[str, cri.ContainerConfig]] = {}
        self.states: dict[str, int] = {}
        self.forgotten: dict[str, bool] = {}  # tasks that the CRI does not know, by container or pod: whether they run
        self.noticed: set[str] = set()
        self.deleted: list[str] = []  # containers of containerd's, by its own interface
        self.images: dict[str, dict[str, str]] = {}  # labels by name
        self.blobs: dict[str, bytes] = {}
        self.leases: set[str] = set()
        self.handlers: list[str] = []  # that pods were asked for with
        self.listed_handlers: list[str] = []
        self.runtime_config: Message | None = None  # None: older than that question
        self.calls: list[str] = []
        self.before: dict[str, Act] = {}
        self.after: dict[str, Act] = {}

    def __mapping__(self) -> dict[str, Handler]:
        """The methods, as grpclib's server looks them up."""
        runtime = {
            "Version": (cri.VersionRequest, cri.VersionResponse),
            "Status": (cri.StatusRequest, cri.StatusResponse),
            "RuntimeConfig": (cri.RuntimeConfigRequest, cri.RuntimeConfigResponse),
            "RunPodSandbox": (cri.RunPodSandboxRequest, cri.RunPodSandboxResponse),
            "StopPodSandbox": (cri.PodSandboxRequest, cri.Nothing),
            "RemovePodSandbox": (cri.PodSandboxRequest, cri.Nothing),
            "ListPodSandbox": (cri.ListPodSandboxRequest, cri.ListPodSandboxResponse),
            "CreateContainer": (cri.CreateContainerRequest, cri.CreateContainerResponse),
            "StartContainer": (cri.ContainerRequest, cri.Nothing),
            "ListContainers": (cri.ListContainersRequest, cri.ListContainersResponse),
            "ContainerStatus": (cri.ContainerStatusRequest, cri.ContainerStatusResponse),
        }
        image = {
            "ImageStatus": (cri.ImageRequest, cri.ImageStatusResponse),
            "RemoveImage": (cri.ImageRequest, cri.Nothing),
        }
        own = {
            "images.v1.Images/Create": (containerd.CreateImageRequest, containerd.CreateImageResponse),
            "images.v1.Images/List": (containerd.ListImagesRequest, containerd.ListImagesResponse),
            "images.v1.Images/Delete": (containerd.DeleteImageRequest, containerd.Nothing),
            "leases.v1.Leases/Create": (containerd.CreateLeaseRequest, containerd.CreateLeaseResponse),
            "leases.v1.Leases/Delete": (containerd.DeleteLeaseRequest, containerd.Nothing),
            "tasks.v1.Tasks/Kill": (containerd.KillTaskRequest, containerd.Nothing),
            "tasks.v1.Tasks/Delete": (containerd.DeleteTaskRequest, containerd.DeleteTaskResponse),
            "containers.v1.Containers/Delete": (containerd.DeleteContainerRequest, containerd.Nothing),
        }
        found = {f"/runtime.v1.RuntimeService/{name}": self._handler(name, *types) for name, types in runtime.items()}
        found |= {f"/runtime.v1.ImageService/{name}": self._handler(name, *types) for name, types in image.items()}
        found |= {f"/containerd.services.{name}": self._handler(name, *types) for name, types in own.items()}
        write = Handler(
            self._write, Cardinality.STREAM_STREAM, containerd.WriteContentRequest, containerd.WriteContentResponse
        )
        return found | {"/containerd.services.content.v1.Content/Write": write}

    def _handler(self, name: str, request: type[Message], answer: type[Message]) -> Handler:
        method = name.rpartition(".")[2].replace("/", "")  # ImagesCreate

        async def handle(stream: Any) -> None:
            message = await stream.recv_message()
            self.calls.append(method)
            if method in self.before:
                await self.before[method](message)
            made = getattr(self, f"on_{method}")(message)
            if method in self.after:
                await self.after[method](message)
            await stream.send_message(made or answer())

        return Handler(handle, Cardinality.UNARY_UNARY, request, answer)

    async def _write(self, stream: Any) -> None:
        data, request = b"", None
        async for request in stream:
            if request.expected in self.blobs:
                raise GRPCError(Status.ALREADY_EXISTS, "content exists")
            assert len(data) == request.offset
            data += request.data
            await stream.send_message(containerd.WriteContentResponse(offset=len(data)))
        assert request is not None
        assert (request.action, len(data)) == (containerd.COMMIT, request.total)
        self.blobs[request.expected] = data

    def on_Version(self, _: Any) -> Message:  # noqa: N802 -- named after the method, as all below
        return cri.VersionResponse(runtime_name=self.name, runtime_version="1.6.20")

    def on_Status(self, _: Any) -> Message:  # noqa: N802
        conditions = [
            cri.RuntimeCondition(type="RuntimeReady", status=self.ready, reason="NotYet"),
            cri.RuntimeCondition(type="NetworkReady", status=False, message="no CNI"),
        ]
        status = cri.RuntimeStatus(conditions=conditions)
        handlers = [cri.RuntimeHandler(name=name) for name in self.listed_handlers]
        return cri.StatusResponse(status=status, info={"config": json.dumps(self.config)}, runtime_handlers=handlers)

    def on_RuntimeConfig(self, _: Any) -> Message:  # noqa: N802
        if self.runtime_config is None:
            raise GRPCError(Status.UNIMPLEMENTED, "unknown method RuntimeConfig")
        return self.runtime_config

    def on_RunPodSandbox(self, request: Any) -> Message:  # noqa: N802
        pod = f"pod-{request.config.metadata.uid}"
        self.pods[pod] = request.config
        self.handlers.append(request.runtime_handler)
        return cri.RunPodSandboxResponse(pod_sandbox_id=pod)

    def on_StopPodSandbox(self, request: Any) -> None:  # noqa: N802
        if request.pod_sandbox_id not in self.pods:
            raise GRPCError(Status.NOT_FOUND, "no such pod")
        self._exit_all(request.pod_sandbox_id)

    def on_RemovePodSandbox(self, request: Any) -> None:  # noqa: N802
        if any(of == request.pod_sandbox_id and name in self.forgotten for name, (of, _) in self.containers.items()):
            raise GRPCError(Status.FAILED_PRECONDITION, "cannot delete running task")
        self.pods.pop(request.pod_sandbox_id, None)
        self.containers = {name: each for name, each in self.containers.items() if each[0] != request.pod_sandbox_id}

    def on_ListPodSandbox(self, request: Any) -> Message:  # noqa: N802
        """Ignores the label selector, as an engine might."""
        wanted = request.filter.id
        items = [
            cri.PodSandbox(id=pod, labels=config.labels) for pod, config in self.pods.items() if wanted in {"", pod}
        ]
        return cri.ListPodSandboxResponse(items=items)

    def on_CreateContainer(self, request: Any) -> Message:  # noqa: N802
        container = f"container-{request.config.metadata.name}"
        self.containers[container] = request.pod_sandbox_id, request.config
        self.states[container] = cri.CONTAINER_CREATED
        return cri.CreateContainerResponse(container_id=container)

    def on_StartContainer(self, request: Any) -> None:  # noqa: N802
        self.states[request.container_id] = cri.CONTAINER_RUNNING

    def on_ListContainers(self, request: Any) -> Message:  # noqa: N802
        """Ignores the pod, as an engine might."""
        wanted = request.filter.id
        found = [
            cri.Container(id=container, pod_sandbox_id=pod)
            for container, (pod, _) in self.containers.items()
            if wanted in {"", container}
            and (not request.filter.HasField("state") or self.states[container] == request.filter.state.state)
        ]
        return cri.ListContainersResponse(containers=found)

    def on_ContainerStatus(self, request: Any) -> Message:  # noqa: N802
        if request.container_id not in self.containers:
            raise GRPCError(Status.NOT_FOUND, "no such container")
        status = cri.ContainerStatus(state=self.states[request.container_id], exit_code=7)
        info = {"info": json.dumps({"pid": 4711})} if request.verbose else {}
        return cri.ContainerStatusResponse(status=status, info=info)

    def on_ImageStatus(self, request: Any) -> Message:  # noqa: N802
        found = request.image.image in self.images
        return cri.ImageStatusResponse(image=cri.Image(id="sha256:0") if found else None)

    def on_RemoveImage(self, request: Any) -> None:  # noqa: N802
        self.images.pop(request.image.image, None)

    def on_ImagesCreate(self, request: Any) -> None:  # noqa: N802
        assert "kickwatch-import" in self.leases
        self.images[request.image.name] = dict(request.image.labels)

    def on_ImagesList(self, _: Any) -> Message:  # noqa: N802
        images = [containerd.Image(name=name, labels=labels) for name, labels in self.images.items()]
        return containerd.ListImagesResponse(images=images)

    def on_ImagesDelete(self, request: Any) -> None:  # noqa: N802
        self.images.pop(request.name, None)

    def on_LeasesCreate(self, request: Any) -> None:  # noqa: N802
        self.leases.add(request.id)

    def on_LeasesDelete(self, request: Any) -> None:  # noqa: N802
        self.leases.discard(request.id)

    def on_TasksKill(self, request: Any) -> None:  # noqa: N802
        if request.container_id not in self.forgotten:
            raise GRPCError(Status.NOT_FOUND, "no such task")
        assert (request.signal, request.all) == (9, True)
        self.forgotten[request.container_id] = False

    def on_TasksDelete(self, request: Any) -> None:  # noqa: N802
        """Refused until the end of the processes has been noticed, which is a moment after they were killed."""
        if request.container_id not in self.forgotten:
            raise GRPCError(Status.NOT_FOUND, "no such task")
        if self.forgotten[request.container_id]:
            raise GRPCError(Status.FAILED_PRECONDITION, "task must be stopped before deletion")
        if request.container_id not in self.noticed:
            self.noticed.add(request.container_id)
            raise GRPCError(Status.UNKNOWN, "cannot delete a running process")
        del self.forgotten[request.container_id]

    def on_ContainersDelete(self, request: Any) -> None:  # noqa: N802
        self.deleted.append(request.id)

    def _exit_all(self, pod: str) -> None:
        for container, (of, _) in self.containers.items():
            if of == pod:
                self.states[container] = cri.CONTAINER_EXITED

    @asynccontextmanager
    async def served(self, socket: Path) -> AsyncIterator[Path]:
        """Serve it at this path."""
        server = Server([self])
        await asyncio.to_thread(socket.parent.mkdir, parents=True, exist_ok=True)
        await server.start(path=str(socket))
        try:
            yield socket
        finally:
            server.close()
            await server.wait_closed()
