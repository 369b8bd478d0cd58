"""containerd and CRI-O through the Container Runtime Interface, as the kubelet drives them: each container in a pod."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter

import msgspec

from kickwatch.configuration.types import Network
from kickwatch.errors import EngineAbsentError, EngineAnswerLostError, EngineError
from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.process.cancellation import run_shielded
from kickwatch.workload import cri_pb2 as cri
from kickwatch.workload import cri_requests as requests
from kickwatch.workload.cri_calls import CallRefusedError, CriCalls
from kickwatch.workload.cri_images import CriImages
from kickwatch.workload.cri_info import CriDescription, describe
from kickwatch.workload.cri_pods import SEARCH_INTERVAL_S, CriPods
from kickwatch.workload.engine import LABEL, LABEL_CONTAINER, LABEL_INSTANCE, ContainerSpec, EngineInfo
from kickwatch.workload.image import IMAGE_REPOSITORY, image_reference

_LOST_CREATE_SEARCH_S = 10.0
_FIRST_POLL_S, _LAST_POLL_S = 0.002, 0.05


class CriEngine:
    """One CRI at one socket. A container's id is the CRI's; its pod goes with it."""

    def __init__(
        self,
        socket: str,
        *,
        timeout_s: float,
        runtime: str = "",
        lost_create_search_s: float = _LOST_CREATE_SEARCH_S,
        on_call_end: Callable[[], None] = lambda: None,
    ) -> None:
        """`socket` is a path. `lost_create_search_s`: how long to look for a pod whose creation got no answer.

        `runtime`: the name of a runtime handler; empty for the default one.
        `on_call_end` is called in the event loop after every call, whether it got an answer or reached its deadline.
        """
        self._calls = CriCalls(socket, timeout_s=timeout_s, on_call_end=on_call_end)
        self._runtime_handler = runtime
        self._lost_create_search_s = lost_create_search_s
        self._cri = CriPods(self._calls)
        self._images = CriImages(self._calls)
        self._description: CriDescription | None = None
        self._unified = False
        self._pods: dict[str, str] = {}  # of existing containers, by id
        self._names: dict[str, str] = {}  # of existing containers, by id: error messages give both
        self._sandbox_ms: dict[str, float] = {}

    async def info(self) -> EngineInfo:
        """Version, default runtime and cgroup driver. Raises EngineAbsentError if no CRI answers or it is not ready."""
        self._description = await describe(self._calls, self._runtime_handler)
        cgroups = await asyncio.to_thread(Cgroups.read)
        self._unified = cgroups.version is CgroupVersion.V2
        self._images.engine = self._description.info.name
        self._images.pod_image = self._description.pod_image or self._images.pod_image
        return self._description.info

    async def prepare_image(self, own_program: bytes) -> str:
        """Import our image, and an image for the pods' pause container if the configured one is not there."""
        reference = image_reference(own_program)
        await self._images.prepare(reference, own_program)
        return reference

    async def require_image(self, reference: str) -> None:
        """The image must be present; kickwatch pulls nothing. The pods' image is imported again where it is gone."""
        await self._images.require(reference)

    async def create(self, spec: ContainerSpec) -> str:
        """Make a pod with a container. After a failure, a lost answer or a cancellation the pod is removed."""
        made: list[str] = []

        async def make() -> None:
            made.append(await self._create(spec))

        try:
            await run_shielded(make())
        except asyncio.CancelledError:
            for container_id in made:
                with suppress(EngineError):  # the reaper removes it at the next start
                    await run_shielded(self.remove(container_id))
            raise
        return made[0]

    def check_network(self, network: str) -> None:
        """Raise EngineAbsentError for `cni` where no plugin is configured; call it after `info`."""
        description = self._ready()
        if network == Network.CNI and not description.networks:
            what = f"{description.info} has no network ready for workload.network=cni ({description.no_networks})"
            raise EngineAbsentError(what, "configure CNI in /etc/cni/net.d, or set workload.network=none")

    def sandbox_ms(self, container_id: str) -> float | None:
        """How long the pod of a container that exists took."""
        return self._sandbox_ms.get(container_id)

    def cgroup_ids(self, container_id: str) -> tuple[str, ...]:
        """Its own and its pod's."""
        return (container_id, *filter(None, (self._pods.get(container_id),)))

    async def start(self, container_id: str) -> None:
        """Start a created container. A cancellation waits: containerd 1.6 removes none whose start was cancelled."""
        request = cri.ContainerRequest(container_id=container_id)
        what = f"start {self._describe(container_id)}"
        await run_shielded(self._cri.call(what, "StartContainer", request, cri.Nothing))

    async def pid(self, container_id: str) -> int:
        """Host process id of its first process while it runs, from the engine's verbose status."""
        answer = await self._status(container_id, verbose=True)
        if answer.status.state != cri.CONTAINER_RUNNING:
            return 0
        try:
            return int(msgspec.json.decode(answer.info["info"])["pid"])
        except (LookupError, TypeError, ValueError) as error:
            raise EngineError(f"the engine tells no pid of {self._describe(container_id)}", "update it") from error

    async def wait(self, container_id: str, timeout_s: float) -> int | None:
        """Its exit status, asked for again and again: a CRI has no call that waits."""
        loop = asyncio.get_running_loop()
        deadline, pause_s = loop.time() + timeout_s, _FIRST_POLL_S
        while True:
            status = (await self._status(container_id)).status
            if status.state == cri.CONTAINER_EXITED:
                return status.exit_code
            left_s = deadline - loop.time()
            if left_s <= 0:
                return None
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * 1.5, _LAST_POLL_S)

    async def remove(self, container_id: str) -> None:
        """Stop its pod, which kills what runs in it, and remove both. A missing one is no error."""
        whole = container_id in self._pods  # of an earlier kickwatch's the creation may have been cut off
        pod = self._pods.get(container_id) or await self._pod_of(container_id)
        if pod:
            await self._cri.remove(pod, f"remove {self._describe(container_id)}", whole=whole)
        for known in (self._pods, self._names, self._sandbox_ms):
            known.pop(container_id, None)

    async def own_containers(self, instance: str) -> Sequence[str]:
        """Containers in pods with both labels, whether they run or not; of a pod without a container, the pod."""
        return await self._cri.own({LABEL: "1", LABEL_INSTANCE: instance})

    async def count_running(self) -> int:
        """Containers that run on the node, ours and others', without pause containers."""
        running = cri.ContainerStateValue(state=cri.CONTAINER_RUNNING)
        return len(await self._cri.containers("count the containers", cri.ContainerFilter(state=running)))

    async def remove_image(self, reference: str) -> None:
        """Remove our images: of this program, of earlier ones, and the pods' image if it is ours and no pod is left."""
        await self._images.remove(reference, pods_left=bool(await self._cri.pods({})))

    def shorten_timeouts(self) -> None:
        """Shutdown has begun: what the engine does not answer soon is left for the next start to remove."""
        self._calls.shorten_timeouts()

    async def close(self) -> None:
        """Close the connection."""
        self._calls.close()

    async def _create(self, spec: ContainerSpec) -> str:
        """Make the pod and the container in it."""
        own_program = spec.image.startswith(f"{IMAGE_REPOSITORY}:")
        if unsupported := requests.unsupported_network(spec.network, own_image=own_program):
            raise EngineError(f"could not create the container {spec.name}", unsupported)
        began_s = perf_counter()
        pod = await self._create_pod(spec)
        sandbox_ms = (perf_counter() - began_s) * 1e3
        request = cri.CreateContainerRequest(
            pod_sandbox_id=pod,
            config=requests.container(spec, own_program=own_program, unified=self._unified),
            sandbox_config=requests.pod(spec),
        )
        what = f"create the container {spec.name}"
        try:
            answer = await self._cri.call(what, "CreateContainer", request, cri.CreateContainerResponse)
        except EngineError:
            with suppress(EngineError):  # the reaper removes it at the next start
                await self._cri.remove(pod, f"remove the pod of {spec.name}", whole=True)
            raise
        self._pods[answer.container_id], self._names[answer.container_id] = pod, spec.name
        self._sandbox_ms[answer.container_id] = sandbox_ms
        return answer.container_id

    async def _create_pod(self, spec: ContainerSpec) -> str:
        """A CRI that finds no registry refuses a pod whose pause image is not there: then once more with ours."""
        try:
            return await self._run_pod(spec)
        except CallRefusedError as error:
            if not await self._images.learn_pod_image(error):
                raise
        return await self._run_pod(spec)

    async def _run_pod(self, spec: ContainerSpec) -> str:
        what = f"create the pod of the container {spec.name}"
        request = cri.RunPodSandboxRequest(config=requests.pod(spec), runtime_handler=self._runtime_handler)
        try:
            answer = await self._cri.call(what, "RunPodSandbox", request, cri.RunPodSandboxResponse)
        except EngineAnswerLostError:
            await self._remove_lost(spec, self._lost_create_search_s)
            raise
        except EngineError:
            await self._remove_lost(spec, 0.0)  # containerd keeps a pod whose own clean-up failed
            raise
        return answer.pod_sandbox_id

    async def _remove_lost(self, spec: ContainerSpec, search_s: float) -> None:
        """Remove the pod of a call that failed or got no answer, even if it appears later."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + search_s
        with suppress(EngineError):  # the engine does not answer: the reaper removes it at the next start
            while True:
                labels = {LABEL: "1", LABEL_INSTANCE: spec.instance, LABEL_CONTAINER: spec.name}
                made = await self._cri.pods(labels)
                for pod in made:
                    await self._cri.remove(pod, f"remove the pod of {spec.name}", whole=False)
                if made or loop.time() >= deadline:
                    return
                await asyncio.sleep(SEARCH_INTERVAL_S)

    async def _pod_of(self, container_id: str) -> str:
        """The pod of a container that an earlier kickwatch made; of a pod without a container, itself. Or empty."""
        what = f"look for {self._describe(container_id)}"
        for found in await self._cri.containers(what, cri.ContainerFilter(id=container_id)):
            if found.id == container_id:
                return found.pod_sandbox_id
        return container_id if await self._cri.exists(container_id) else ""

    async def _status(self, container_id: str, *, verbose: bool = False) -> cri.ContainerStatusResponse:
        what = f"ask for the state of {self._describe(container_id)}"
        request = cri.ContainerStatusRequest(container_id=container_id, verbose=verbose)
        return await self._cri.call(what, "ContainerStatus", request, cri.ContainerStatusResponse)

    def _describe(self, container_id: str) -> str:
        name = self._names.get(container_id)
        return f"the container {name} ({container_id[:12]})" if name else f"the container {container_id[:12]}"

    def _ready(self) -> CriDescription:
        if self._description is None:
            raise EngineError("the cri engine is not initialised", "call info() first")
        return self._description
