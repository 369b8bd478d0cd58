"""Docker Engine, and Podman's Docker API, through Docker's SDK."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from contextlib import suppress
from math import ceil
from typing import Any, TypeVar

import docker.errors
from docker.types import LogConfig

import docker
from kickwatch.errors import EngineAbsentError, EngineAnswerLostError, EngineError, ImageAbsentError
from kickwatch.process.cancellation import run_shielded
from kickwatch.workload.docker_calls import DockerCalls
from kickwatch.workload.docker_images import has_image, import_image, leftover_images, scratch_layer
from kickwatch.workload.docker_info import absent, read_info, read_versions, require_common_api
from kickwatch.workload.engine import LABEL, LABEL_CONTAINER, LABEL_INSTANCE, ContainerSpec, EngineInfo
from kickwatch.workload.image import image_reference

T = TypeVar("T")
_LOST_CREATE_SEARCH_S = 10.0
_SEARCH_INTERVAL_S = 0.5


class DockerEngine:
    """One Docker Engine at one socket."""

    def __init__(
        self,
        socket: str,
        *,
        timeout_s: float,
        workers: int,
        runtime: str = "",
        lost_create_search_s: float = _LOST_CREATE_SEARCH_S,
        on_call_end: Callable[[], None] = lambda: None,
    ) -> None:
        """`socket` is a path; `workers` limits the concurrent calls (one thread and one client each).

        `runtime`: the name of one that Docker is configured for; empty for its default.
        `lost_create_search_s`: how long to look for the container of a create call whose answer was lost. `on_call_end`
        is called in the event loop after every call, whether it got an answer or reached its deadline.
        """
        self._socket = socket
        self._runtime = runtime
        self._lost_create_search_s = lost_create_search_s
        self._calls = DockerCalls(socket, timeout_s=timeout_s, workers=workers, on_call_end=on_call_end)
        self._names: dict[str, str] = {}  # of existing containers, by id: error messages give both

    async def info(self) -> EngineInfo:
        """Version and configuration of the engine. Negotiates the API version of all further calls."""
        versions = await self._call_or_absent("ask the engine for its version", read_versions)
        self._calls.api_version = require_common_api(versions, self._socket)
        return await self._call_or_absent(
            "ask the engine", lambda api: read_info(api, versions.components, self._runtime)
        )

    async def prepare_image(self, own_program: bytes) -> str:
        """Import a scratch image tagged with the digest of its program, unless the engine has it already.

        A cancellation waits for an import in progress; otherwise the image could appear after its removal.
        """
        reference = image_reference(own_program)
        layer = scratch_layer(own_program)

        def make(api: docker.APIClient) -> None:
            if not has_image(api, reference):
                import_image(api, reference, layer)

        what = f"make the image {reference}"
        job = self._calls.submit(what, make)
        try:
            await self._calls.result_of(what, job)
        except asyncio.CancelledError:
            await run_shielded(self._calls.wait_until_done(job))
            raise
        return reference

    async def require_image(self, reference: str) -> None:
        """The image must be present under this name or id; kickwatch pulls nothing."""
        found = await self._calls.call(f"look for the image {reference}", lambda api: has_image(api, reference))
        if not found:
            raise ImageAbsentError(f"the image {reference} is not on this node", f"docker pull {reference}")

    async def create(self, spec: ContainerSpec) -> str:
        """Create a container. After a lost answer or a cancellation, find it by label and remove it."""

        def make(api: docker.APIClient) -> str:
            host = api.create_host_config(
                network_mode=spec.network,
                cgroup_parent=spec.cgroup_parent,
                log_config=LogConfig(type="none"),
                pids_limit=spec.pids_limit or None,
                runtime=self._runtime or None,
            )
            made = api.create_container(
                spec.image, command=list(spec.command), name=spec.name, labels=spec.labels(), host_config=host
            )
            return str(made["Id"])

        what = f"create the container {spec.name}"
        job = self._calls.submit(what, make)
        try:
            container_id = await self._calls.result_of(what, job)
        except (EngineAnswerLostError, asyncio.CancelledError):
            await run_shielded(self._remove_lost(spec, job))
            raise
        self._names[container_id] = spec.name
        return container_id

    def sandbox_ms(self, container_id: str) -> None:
        """There are no pods."""

    def cgroup_ids(self, container_id: str) -> tuple[str, ...]:
        """Its own."""
        return (container_id,)

    async def start(self, container_id: str) -> None:
        """Start a created container."""
        await self._calls.call(f"start {self._describe(container_id)}", lambda api: api.start(container_id))

    async def pid(self, container_id: str) -> int:
        """Host process id of the container's first process."""
        state = await self._state(container_id)
        return int(state["Pid"])

    async def wait(self, container_id: str, timeout_s: float) -> int | None:
        """Wait at most `timeout_s` for the exit; after that, the container's state shows whether it still runs."""
        socket_s = max(1, ceil(timeout_s)) + 1  # removing the container also ends the wait and frees the thread

        def until_exit(api: docker.APIClient) -> int:
            return int(api.wait(container_id, timeout=socket_s)["StatusCode"])

        try:
            return await self._calls.call(f"wait for {self._describe(container_id)}", until_exit, timeout_s)
        except EngineAnswerLostError as error:
            if not isinstance(error.__cause__, TimeoutError):
                raise
        state = await self._state(container_id)
        return None if state["Running"] else int(state["ExitCode"])

    async def remove(self, container_id: str) -> None:
        """Remove by force. A missing container is fine; a removal already in progress is waited for."""

        def remove(api: docker.APIClient) -> None:
            with suppress(docker.errors.NotFound):
                try:
                    api.remove_container(container_id, force=True, v=True)
                except docker.errors.APIError as error:
                    if error.status_code != 409:  # 409: its removal is already in progress
                        raise
                    answer = api.wait(container_id, condition="removed", timeout=self._calls.socket_timeout_s)
                    if failed := _error_of(answer):  # that removal has failed
                        raise docker.errors.APIError(failed) from error

        await self._calls.call(f"remove {self._describe(container_id)}", remove)
        self._names.pop(container_id, None)

    async def own_containers(self, instance: str) -> Sequence[str]:
        """Containers with both labels, whether they run or not."""
        return await self._labelled(LABEL, f"{LABEL_INSTANCE}={instance}")

    async def count_running(self) -> int:
        """Containers that run on the node, ours and others'."""
        return await self._calls.call("count the containers", lambda api: int(api.info()["ContainersRunning"]))

    async def remove_image(self, reference: str) -> None:
        """Remove our image, unless a container that is not ours uses it, and images left over from earlier programs.

        All are tried before the first error is raised; ours comes first.
        """
        failures: list[EngineError] = []
        try:
            await self._remove_image(reference)
        except EngineAnswerLostError:
            raise
        except EngineError as error:
            failures.append(error)
        for image in await self._calls.call("list leftovers of our images", leftover_images):
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

    def shorten_timeouts(self) -> None:
        """Shutdown has begun: what the engine does not answer soon is left for the next start to remove."""
        self._calls.shorten_timeouts()

    async def close(self) -> None:
        """Close the clients, and cut off the calls in progress."""
        self._calls.close()

    def _describe(self, container_id: str) -> str:
        name = self._names.get(container_id)
        return f"the container {name} ({container_id[:12]})" if name else f"the container {container_id[:12]}"

    async def _state(self, container_id: str) -> dict[str, Any]:
        """`Running`, `Pid` and `ExitCode` of the engine's `State` of a container."""

        def inspect(api: docker.APIClient) -> dict[str, Any]:
            state = api.inspect_container(container_id)["State"]
            return {key: state[key] for key in ("Running", "Pid", "ExitCode")}

        return await self._calls.call(f"inspect {self._describe(container_id)}", inspect)

    async def _labelled(self, *labels: str) -> list[str]:
        """Check the labels here as well: an engine that ignores the filter lists all containers."""

        def ids(api: docker.APIClient) -> list[str]:
            found = api.containers(all=True, filters={"label": list(labels)})
            return [str(one["Id"]) for one in found if _has(one.get("Labels") or {}, labels)]

        return await self._calls.call("list our containers", ids)

    async def _remove_lost(self, spec: ContainerSpec, job: "futures.Future[str]") -> None:
        """Remove the container of a create call without an answer, even if it appears later (docker-py 2266, 2461).

        A thread cannot be cancelled, so first wait until it has ended.
        """
        await self._calls.wait_until_done(job)
        refused = job.done() and not job.cancelled() and isinstance(job.exception(), docker.errors.APIError)
        if job.cancelled() or refused:
            return  # a cancelled job was never sent
        deadline = asyncio.get_running_loop().time() + self._lost_create_search_s
        with suppress(EngineError):  # the engine does not answer: the reaper removes it at the next start
            while True:
                made = await self._labelled(f"{LABEL_CONTAINER}={spec.name}")
                for container_id in made:
                    await self.remove(container_id)
                if made or asyncio.get_running_loop().time() > deadline:
                    return
                await asyncio.sleep(_SEARCH_INTERVAL_S)

    async def _call_or_absent(self, what: str, function: Callable[[docker.APIClient], T]) -> T:
        """Run a call; its failure means that no engine answers. Raises EngineAbsentError."""
        try:
            return await self._calls.call(what, function)
        except EngineAbsentError:
            raise
        except EngineError as error:
            raise absent(error, self._socket) from error


def _has(found: Mapping[str, str], labels: Sequence[str]) -> bool:
    """Whether `found` has all of `labels`, each `name` or `name=value`."""
    wanted = [label.partition("=") for label in labels]
    return all(name in found and (not equals or found[name] == value) for name, equals, value in wanted)


def _error_of(answer: Mapping[str, Any]) -> str:
    """Why what was waited for failed; empty if it did not."""
    error = answer.get("Error") or {}
    return str(error.get("Message") or "")
