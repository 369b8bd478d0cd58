"""Docker Engine through its SDK: what kickwatch asks of it, and how its answers are read."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from contextlib import closing, suppress
from math import ceil
from typing import Any, TypeVar

import docker.errors
from docker.types import LogConfig

import docker
from kickwatch.errors import EngineAbsentError, EngineAnswerLostError, EngineError, ImageAbsentError
from kickwatch.process.cancellation import run_shielded
from kickwatch.workload.docker_calls import OLDEST_API_VERSION, Calls, root_cause
from kickwatch.workload.docker_images import has_image, left_images, make_image, scratch_layer
from kickwatch.workload.engine import LABEL, LABEL_CONTAINER, LABEL_INSTANCE, ContainerSpec, EngineInfo
from kickwatch.workload.image import image_reference

T = TypeVar("T")
_PODMAN = "Podman Engine"
_SETTLE_S = 10.0
_LOOK_INTERVAL_S = 0.5


class DockerEngine:
    """One Docker Engine at one socket."""

    def __init__(
        self,
        socket: str,
        *,
        timeout_s: float,
        workers: int,
        settle_s: float = _SETTLE_S,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """`socket` is a path; `workers` bounds the calls under way at once (one thread and client each).

        `settle_s`: how long a create without an answer is looked for. `alive` is called in the event loop whenever a
        call has ended, be it with an answer or at its deadline.
        """
        self._socket = socket
        self._settle_s = settle_s
        self._calls = Calls(socket, timeout_s=timeout_s, workers=workers, alive=alive)
        self._names: dict[str, str] = {}  # of the containers that are there, by id: errors tell both

    async def info(self) -> EngineInfo:
        """Version and configuration of the engine. Agrees on the API version that all further calls speak."""
        oldest, newest, agreed, parts = await self._ask("ask the engine for its version", _versions)
        if agreed is None:
            what = (
                f"the engine at {self._socket} speaks API {oldest} to {newest}, kickwatch {OLDEST_API_VERSION} or later"
            )
            raise EngineError(what, "update it to Docker Engine 20.10 or later")
        self._calls.api_version = agreed
        return await self._ask("ask the engine", lambda api: _describe(api, parts))

    async def prepare_image(self, own_program: bytes) -> str:
        """Import a scratch image whose tag is the digest of its program: made once, found ever after.

        A cancellation waits for an import under way, so that it can be removed afterwards.
        """
        reference = image_reference(own_program)
        layer = scratch_layer(own_program)

        def make(api: docker.APIClient) -> None:
            if not has_image(api, reference):
                make_image(api, reference, layer)

        what = f"make the image {reference}"
        job = self._calls.submit(what, make)
        try:
            await self._calls.answer(what, job)
        except asyncio.CancelledError:
            await run_shielded(self._calls.ended(job))
            raise
        return reference

    async def require_image(self, reference: str) -> None:
        """An image must be there already, under this name or id: kickwatch pulls nothing."""
        found = await self._calls.call(f"look for the image {reference}", lambda api: has_image(api, reference))
        if not found:
            raise ImageAbsentError(f"the image {reference} is not on this node", f"docker pull {reference}")

    async def create(self, spec: ContainerSpec) -> str:
        """Create; a lost answer and a cancellation are resolved by label, so that no container stays behind unknown."""

        def make(api: docker.APIClient) -> str:
            host = api.create_host_config(
                network_mode=spec.network,
                cgroup_parent=spec.cgroup_parent,
                log_config=LogConfig(type="none"),
                pids_limit=spec.pids_limit or None,
            )
            made = api.create_container(
                spec.image, command=list(spec.command), name=spec.name, labels=spec.labels(), host_config=host
            )
            return str(made["Id"])

        what = f"create the container {spec.name}"
        job = self._calls.submit(what, make)
        try:
            container_id = await self._calls.answer(what, job)
        except (EngineAnswerLostError, asyncio.CancelledError):
            await run_shielded(self._settle(spec, job))
            raise
        self._names[container_id] = spec.name
        return container_id

    async def start(self, container_id: str) -> None:
        """Start a created container."""
        await self._calls.call(f"start {self._called(container_id)}", lambda api: api.start(container_id))

    async def pid(self, container_id: str) -> int:
        """Host process id of the container's first process."""
        state = await self._state(container_id)
        return int(state["Pid"])

    async def wait(self, container_id: str, timeout_s: float) -> int | None:
        """Wait for the exit, at most `timeout_s`; what the engine says then decides whether it still runs."""
        socket_s = max(1, ceil(timeout_s)) + 1  # removing the container, too, ends the wait and frees the thread

        def until_exit(api: docker.APIClient) -> int:
            return int(api.wait(container_id, timeout=socket_s)["StatusCode"])

        try:
            return await self._calls.call(f"wait for {self._called(container_id)}", until_exit, timeout_s)
        except EngineAnswerLostError as error:
            if not isinstance(error.__cause__, TimeoutError):
                raise
        state = await self._state(container_id)
        return None if state["Running"] else int(state["ExitCode"])

    async def remove(self, container_id: str) -> None:
        """Remove, by force; gone already is fine, and a removal that is under way is waited for."""

        def remove(api: docker.APIClient) -> None:
            with suppress(docker.errors.NotFound):
                try:
                    api.remove_container(container_id, force=True, v=True)
                except docker.errors.APIError as error:
                    if error.status_code != 409:  # 409: its removal is already in progress
                        raise
                    api.wait(container_id, condition="removed", timeout=self._calls.socket_timeout_s)

        await self._calls.call(f"remove {self._called(container_id)}", remove)
        self._names.pop(container_id, None)

    async def ours(self, instance: str) -> Sequence[str]:
        """Containers with both of our labels, running or not."""
        return await self._labelled(LABEL, f"{LABEL_INSTANCE}={instance}")

    async def running(self) -> int:
        """Containers that run on the node, other people's included."""
        return await self._calls.call("count the containers", lambda api: int(api.info()["ContainersRunning"]))

    async def started(self, since_unix_s: int, until_unix_s: int) -> int:
        """From the engine's memory of its newest 256 events. `until_unix_s` must be past: it would wait for it."""

        def count(api: docker.APIClient) -> int:
            # Asked for a second more at either end, since engines differ on whether the ends belong to it.
            told = api.events(since=since_unix_s - 1, until=until_unix_s, filters={"event": "start"}, decode=True)
            with closing(told) as events:
                times = [int(event["time"]) for event in events if LABEL not in event["Actor"]["Attributes"]]
            return sum(since_unix_s <= at < until_unix_s for at in times)

        return await self._calls.call("ask for the containers that were started", count)

    async def remove_image(self, reference: str) -> None:
        """Remove our image, unless a container (not ours, then) still uses it, and what was left of earlier ones.

        What cannot be removed is raised once all were tried; ours is the first.
        """
        failures: list[EngineError] = []
        try:
            await self._remove_image(reference)
        except EngineAnswerLostError:
            raise
        except EngineError as error:
            failures.append(error)
        for image in await self._calls.call("list what was left of our images", left_images):
            try:
                await self._remove_image(image)
            except EngineError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def _remove_image(self, image: str) -> None:
        def remove(api: docker.APIClient) -> None:
            try:
                api.remove_image(image)
            except docker.errors.APIError as error:
                if error.status_code not in {404, 409}:
                    raise

        await self._calls.call(f"remove the image {image}", remove)

    def hurry(self) -> None:
        """The process is to end: what the engine does not answer soon is left to the next start."""
        self._calls.hurry()

    async def close(self) -> None:
        """Close the clients, and with them what is still under way."""
        self._calls.close()

    def _called(self, container_id: str) -> str:
        name = self._names.get(container_id)
        return f"the container {name} ({container_id[:12]})" if name else f"the container {container_id[:12]}"

    async def _state(self, container_id: str) -> dict[str, Any]:
        """The engine's `State` of a container: `Running`, `Pid`, `ExitCode` are in it."""

        def inspect(api: docker.APIClient) -> dict[str, Any]:
            state = api.inspect_container(container_id)["State"]
            return {key: state[key] for key in ("Running", "Pid", "ExitCode")}

        return await self._calls.call(f"inspect {self._called(container_id)}", inspect)

    async def _labelled(self, *labels: str) -> list[str]:
        def ids(api: docker.APIClient) -> list[str]:
            return [str(found["Id"]) for found in api.containers(all=True, quiet=True, filters={"label": list(labels)})]

        return await self._calls.call("list our containers", ids)

    async def _settle(self, spec: ContainerSpec, job: "futures.Future[str]") -> None:
        """Remove what a create without an answer made, now or a little later (docker-py issues 2266, 2461).

        A thread cannot be cancelled, so what it got is waited for first.
        """
        await self._calls.ended(job)
        refused = job.done() and not job.cancelled() and isinstance(job.exception(), docker.errors.APIError)
        if job.cancelled() or refused:
            return  # cancelled: it was never sent
        deadline = asyncio.get_running_loop().time() + self._settle_s
        with suppress(EngineError):  # no engine: the reaper settles it at the next start
            while True:
                made = await self._labelled(f"{LABEL_CONTAINER}={spec.name}")
                for container_id in made:
                    await self.remove(container_id)
                if made or asyncio.get_running_loop().time() > deadline:
                    return
                await asyncio.sleep(_LOOK_INTERVAL_S)

    async def _ask(self, what: str, function: Callable[[docker.APIClient], T]) -> T:
        """As a call; a failure means that there is no engine."""
        try:
            return await self._calls.call(what, function)
        except EngineError as error:
            raise EngineAbsentError(*self._why_absent(error)) from error

    def _why_absent(self, error: EngineError) -> tuple[str, str]:
        cause = root_cause(error.__cause__ or error)
        if isinstance(error.__cause__, docker.errors.APIError):
            return (f"the engine at {self._socket} answers with an error", cause)
        if "ermission denied" in cause:
            return (f"no permission for the engine's socket {self._socket}", "run as root")
        remedy = "start it (`systemctl start docker`), or set engine.socket"
        return (f"no container engine answers at {self._socket} ({cause})", remedy)


def _versions(api: docker.APIClient) -> tuple[str, str, str | None, dict[str, str]]:
    """Oldest and newest API version, the agreed one, and the engine's parts with theirs.

    Asked without a version, which every engine answers.
    """
    told = api.version(api_version=False)
    oldest, newest = str(told.get("MinAPIVersion", told["ApiVersion"])), str(told["ApiVersion"])
    parts = {str(part["Name"]): str(part.get("Version", "")) for part in told.get("Components") or []}
    return oldest, newest, common_version(oldest, newest), parts


def _describe(api: docker.APIClient, parts: Mapping[str, str]) -> EngineInfo:
    told = api.info()
    runc = f"{told.get('DefaultRuntime') or 'unknown'} {(told.get('RuncCommit') or {}).get('ID') or 'unknown'}"
    return EngineInfo(
        name="podman" if _PODMAN in parts else "docker",
        version=str(told.get("ServerVersion") or "unknown"),
        runtime=_podmans_runtime(parts) if _PODMAN in parts else runc,
        cgroup_driver=str(told.get("CgroupDriver", "cgroupfs")),
        root=str(told.get("DockerRootDir", "/var/lib/docker")),
    )


def _podmans_runtime(parts: Mapping[str, str]) -> str:
    """From `OCI Runtime (crun)`, whose version is all that `crun --version` prints: `crun 1.8.1`."""
    said = next((version for name, version in parts.items() if name.startswith("OCI Runtime")), "")
    return " ".join(word for word in said.partition("\n")[0].split() if word != "version") or "unknown"


def common_version(oldest: str, newest: str) -> str | None:
    """The oldest API version that we and an engine of `oldest` to `newest` speak; None where there is none.

    Engines give up old versions: 28 and before take 1.24, 29 wants 1.44.
    """
    low, high = _numbers(oldest), _numbers(newest)
    agreed = max(_numbers(OLDEST_API_VERSION), low)
    return ".".join(map(str, agreed)) if agreed <= high else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
