"""Docker Engine through its SDK.

The SDK is synchronous and its clients must not be shared between threads (docker-py issue 3229), so each worker
thread of a bounded executor has a client of its own, with an explicit base URL: `from_env()` would follow whatever
context the command line was last pointed at. A socket timeout bounds every read; a second deadline bounds the call.
"""

import asyncio
import io
import tarfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from math import ceil
from typing import Any, TypeVar, cast

import docker.errors
import requests.exceptions
import urllib3.exceptions
from docker.types import LogConfig

import docker
from kickwatch.errors import EngineAbsentError, EngineAnswerLostError, EngineError
from kickwatch.workload.engine import LABEL, LABEL_CONTAINER, LABEL_INSTANCE, ContainerSpec, EngineInfo

T = TypeVar("T")
IMAGE_REPOSITORY = "kickwatch-workload"
PROGRAM = "/workload"
_API_VERSION = "1.41"  # Engine 20.10, the oldest supported; a fixed version spares the constructor its round trip
_SETTLE_S = 10.0
_FAILURES = (docker.errors.DockerException, requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)


class DockerEngine:
    """One Docker Engine at one socket."""

    def __init__(self, socket: str, *, timeout_s: float, workers: int) -> None:
        """`socket` is a path; `workers` bounds the calls under way at once (one thread and client each)."""
        self._socket = socket
        self._base_url = f"unix://{socket}"
        self._timeout_s = timeout_s
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="engine")
        self._local = threading.local()
        self._clients: list[docker.APIClient] = []

    async def info(self) -> EngineInfo:
        """Version and configuration of the engine."""
        try:
            told = cast("dict[str, Any]", await self._call("ask the engine", lambda api: api.info()))
        except EngineError as error:
            raise EngineAbsentError(*self._why_absent(error)) from error
        runc = told.get("RuncCommit", {}).get("ID", "unknown")
        return EngineInfo(
            name="docker",
            version=str(told.get("ServerVersion", "unknown")),
            runtime=f"{told.get('DefaultRuntime', 'unknown')} {runc}",
            cgroup_driver=str(told.get("CgroupDriver", "cgroupfs")),
            root=str(told.get("DockerRootDir", "/var/lib/docker")),
        )

    async def prepare_image(self, own_program: bytes) -> str:
        """Import a scratch image whose tag is the digest of its program: made once, found ever after."""
        tag = sha256(own_program).hexdigest()[:12]
        reference = f"{IMAGE_REPOSITORY}:{tag}"
        layer = scratch_layer(own_program)

        def make(api: docker.APIClient) -> None:
            if not api.images(name=reference, quiet=True):
                changes = [f'ENTRYPOINT ["{PROGRAM}"]', f"LABEL {LABEL}=1"]
                answer = api.import_image_from_data(layer, repository=IMAGE_REPOSITORY, tag=tag, changes=changes)
                if "error" in str(answer):
                    raise docker.errors.DockerException(str(answer).strip())

        await self._call(f"make the image {reference}", make)
        return reference

    async def require_image(self, reference: str) -> None:
        """A user's image must be there already: kickwatch pulls nothing."""
        found = await self._call(f"look for the image {reference}", lambda api: api.images(name=reference, quiet=True))
        if not found:
            raise EngineError(f"the image {reference} is not on this node", f"docker pull {reference}")

    async def create(self, spec: ContainerSpec) -> str:
        """Create; a lost answer is settled by label, so that no container stays behind unknown."""

        def make(api: docker.APIClient) -> str:
            host = api.create_host_config(
                network_mode=spec.network,
                cgroup_parent=spec.cgroup_parent,
                log_config=LogConfig(type="none"),
                pids_limit=64,
            )
            made = api.create_container(
                spec.image, command=list(spec.command), name=spec.name, labels=spec.labels(), host_config=host
            )
            return str(made["Id"])

        try:
            return await self._call(f"create the container {spec.name}", make)
        except EngineAnswerLostError:
            await self._settle(spec)
            raise

    async def start(self, container_id: str) -> None:
        """Start a created container."""
        await self._call(f"start the container {container_id[:12]}", lambda api: api.start(container_id))

    async def pid(self, container_id: str) -> int:
        """Host process id of the container's first process."""
        told = await self._call(
            f"inspect the container {container_id[:12]}", lambda api: api.inspect_container(container_id)
        )
        return int(cast("dict[str, Any]", told)["State"]["Pid"])

    async def wait(self, container_id: str, timeout_s: float) -> int:
        """Wait for the exit, at most `timeout_s`."""
        told = await self._call(
            f"wait for the container {container_id[:12]}",
            lambda api: api.wait(container_id, timeout=ceil(timeout_s)),
            deadline_s=timeout_s,
        )
        return int(cast("dict[str, Any]", told)["StatusCode"])

    async def remove(self, container_id: str) -> None:
        """Remove, by force; gone already is fine."""

        def remove(api: docker.APIClient) -> None:
            try:
                api.remove_container(container_id, force=True, v=True)
            except docker.errors.NotFound:
                return
            except docker.errors.APIError as error:
                if error.status_code != 409:  # 409: its removal is already in progress
                    raise

        await self._call(f"remove the container {container_id[:12]}", remove)

    async def ours(self, instance: str) -> Sequence[str]:
        """Containers with both of our labels, running or not."""
        return await self._labelled(LABEL, f"{LABEL_INSTANCE}={instance}")

    async def remove_image(self, reference: str) -> None:
        """Remove our image, unless a container (not ours, then) still uses it."""

        def remove(api: docker.APIClient) -> None:
            try:
                api.remove_image(reference)
            except (docker.errors.NotFound, docker.errors.APIError) as error:
                if getattr(error, "status_code", 0) not in (404, 409):
                    raise

        await self._call(f"remove the image {reference}", remove)

    async def close(self) -> None:
        """Close the clients; threads that still hang in a read end with its timeout."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        for client in self._clients:
            client.close()

    async def _labelled(self, *labels: str) -> list[str]:
        found = await self._call(
            "list our containers", lambda api: api.containers(all=True, quiet=True, filters={"label": list(labels)})
        )
        return [str(container["Id"]) for container in cast("list[dict[str, Any]]", found)]

    async def _settle(self, spec: ContainerSpec) -> None:
        """Remove what an unanswered create may have made, now or a little later (docker-py issues 2266, 2461)."""
        deadline = asyncio.get_running_loop().time() + _SETTLE_S
        while True:
            try:
                made = await self._labelled(f"{LABEL_CONTAINER}={spec.name}")
            except EngineError:
                return  # no engine: the reaper settles it at the next start
            for container_id in made:
                await self.remove(container_id)
            if made or asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(0.5)

    async def _call(self, what: str, function: Callable[[docker.APIClient], T], deadline_s: float | None = None) -> T:
        """Run one SDK call in a worker thread; `what` reads after "could not"."""
        limit_s = (deadline_s if deadline_s is not None else self._timeout_s) + 1.0
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.wait_for(
                loop.run_in_executor(self._executor, lambda: function(self._client())), limit_s
            )
        except TimeoutError as error:
            raise EngineAnswerLostError(
                f"could not {what}: no answer within {limit_s:.0f} s", self._remedy()
            ) from error
        except docker.errors.APIError as error:
            raise EngineError(f"could not {what}", one_line(error.explanation or str(error))) from error
        except _FAILURES as error:
            raise EngineAnswerLostError(f"could not {what}: {root_cause(error)}", self._remedy()) from error

    def _client(self) -> docker.APIClient:
        client = getattr(self._local, "client", None)
        if client is None:
            client = docker.APIClient(base_url=self._base_url, version=_API_VERSION, timeout=int(self._timeout_s))
            self._local.client = client
            self._clients.append(client)
        return cast("docker.APIClient", client)

    def _remedy(self) -> str:
        return f"is the engine at {self._socket} alive? (`docker version`, `journalctl -u docker`)"

    def _why_absent(self, error: EngineError) -> tuple[str, str]:
        cause = root_cause(error.__cause__ or error)
        if isinstance(error.__cause__, docker.errors.APIError):
            return (f"the engine at {self._socket} answers with an error", cause)
        if "ermission denied" in cause:
            return (f"no permission for the engine's socket {self._socket}", "run as root")
        remedy = "start it (`systemctl start docker`), or set engine.socket"
        return (f"no container engine answers at {self._socket} ({cause})", remedy)


def scratch_layer(program: bytes) -> bytes:
    """A tar archive that holds one executable file and nothing else, the same bytes every time."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(PROGRAM.lstrip("/"))
        entry.size, entry.mode = len(program), 0o755
        tar.addfile(entry, io.BytesIO(program))
    return archive.getvalue()


def one_line(text: str) -> str:
    """Engine errors can span lines; an alert is one."""
    return " ".join(str(text).split())


def root_cause(error: BaseException) -> str:
    """The innermost reason of the SDK's nested connection errors, in the operating system's words."""
    seen: BaseException = error
    while True:
        inner = next((arg for arg in reversed(seen.args) if isinstance(arg, BaseException)), None)
        following = inner or seen.__cause__
        if following is None or following is seen:
            break
        seen = following
    if isinstance(seen, OSError) and seen.strerror:
        return seen.strerror
    return one_line(str(seen))
