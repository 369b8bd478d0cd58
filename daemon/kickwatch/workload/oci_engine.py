"""Containers without a daemon: kickwatch writes the bundles and drives runc or crun directly.

A container's id is its name, and its cgroup contains it. All files are below one directory in /run (oci_store). Others'
containers with the same runtime have another `--root`.
"""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from kickwatch.errors import EngineError, ImageAbsentError
from kickwatch.node.cgroups import Cgroups
from kickwatch.node.roots import HOST, HostRoots
from kickwatch.process.cancellation import run_shielded
from kickwatch.workload.engine import SHUTDOWN_CALL_TIMEOUT_S, ContainerSpec, EngineInfo, one_line
from kickwatch.workload.image import image_reference
from kickwatch.workload.oci_errors import file_errors, runtime_errors, version_errors
from kickwatch.workload.oci_processes import StartedContainer, kill_workers_on, reap_killed, set_subreaper
from kickwatch.workload.oci_runtime import Runtime
from kickwatch.workload.oci_store import BundleStore, read_pid_file
from kickwatch.workload.oci_support import cgroup_parent_of, has_seccomp, parse_version, require_runtime

T = TypeVar("T")
ROOT = HOST.run / "kickwatch" / "oci"


class OciEngine:
    """One runtime, with its containers below `root`."""

    def __init__(
        self,
        runtime: str = "",
        *,
        timeout_s: float,
        root: Path = ROOT,
        host: HostRoots = HOST,
        on_call_end: Callable[[], None] = lambda: None,
    ) -> None:
        """`runtime`: a name or a path; empty means runc, else crun. `on_call_end` is called after every call."""
        self._configured = runtime
        self._timeout_s = timeout_s
        self._store = BundleStore(root, host.proc)
        self._host, self._proc = host, host.proc
        self._on_call_end = on_call_end
        self._runtime: Runtime | None = None
        self._cgroups: Cgroups | None = None
        self._seccomp = False
        self._was_subreaper: bool | None = None
        self._started: dict[str, StartedContainer] = {}
        self._starts_in_progress = 0

    @property
    def seccomp(self) -> bool:
        """Whether its containers have a system call filter; known after `info`."""
        return self._seccomp

    async def info(self) -> EngineInfo:
        """The runtime's name and version, and our cgroup parent. Raises EngineAbsentError if no runtime works."""
        program = await asyncio.to_thread(require_runtime, self._configured, self._proc)
        self._cgroups = await asyncio.to_thread(Cgroups.read, self._host)
        runtime = Runtime(program, self._store.state, self._timeout_s)
        if self._runtime == runtime:  # unchanged: keep the object, which knows its calls in progress
            runtime = self._runtime
        output = await self._version_output(runtime)
        name, version = parse_version(output, program.name)
        self._seccomp = await asyncio.to_thread(has_seccomp, output, self._proc)
        self._runtime = runtime
        if self._was_subreaper is None:
            self._was_subreaper = set_subreaper()
        return EngineInfo(
            name="oci",
            version=f"{name} {version}",
            runtime=f"{name} {version}",
            cgroup_driver="cgroupfs",
            root=str(self._store.root),
            endpoint=str(program),
            cgroup_parent=await asyncio.to_thread(cgroup_parent_of, self._cgroups),
        )

    async def _version_output(self, runtime: Runtime) -> str:
        try:
            with version_errors(runtime):
                return await runtime.version()
        finally:
            self._on_call_end()

    async def prepare_image(self, own_program: bytes) -> str:
        """Write the program and an empty root directory, shared by all containers, unless they exist.

        Also records which controllers the cgroups above ours have enabled, because a runtime changes that; `close` or
        the next start restores it.
        """
        reference = image_reference(own_program)
        _, cgroups = self._ready()
        what = f"make the image {reference}"
        await self._files(what, self._store.write_image, reference, own_program)
        await self._files(what, self._store.controllers.record, cgroups)
        return reference

    async def require_image(self, reference: str) -> None:
        """Only our own image can be present: this engine unpacks no other."""
        if missing := await asyncio.to_thread(self._store.missing_file, reference):
            remedy = "leave workload.image out, or set engine.kind=docker"
            what = f"the oci engine holds no image but its own, not {reference} ({missing} is missing or damaged)"
            raise ImageAbsentError(what, remedy)

    async def create(self, spec: ContainerSpec) -> str:
        """Write the bundle; nothing runs yet. A failure or a cancellation removes what was written."""
        if spec.network != "none":
            what = f"the oci engine makes no network {spec.network} (workload.network)"
            raise EngineError(what, "set workload.network=none or engine.kind=docker")
        write = partial(self._store.write_bundle, seccomp=self._seccomp)
        try:
            await run_shielded(self._files(f"create the container {spec.name}", write, spec))
        except asyncio.CancelledError as cancellation:
            if cancellation.__cause__ is None:  # the bundle was written
                remove = partial(shutil.rmtree, self._store.bundle_of(spec.name), ignore_errors=True)
                await run_shielded(asyncio.to_thread(remove))
            raise
        return spec.name

    def sandbox_ms(self, container_id: str) -> None:
        """There are no pods."""

    def cgroup_ids(self, container_id: str) -> tuple[str, ...]:  # noqa: ARG002
        """None: its cgroup has our name."""
        return ()

    async def start(self, container_id: str) -> None:
        """`run --detach` returns once the program has been executed. `remove` cleans up after an error."""
        home = self._store.bundle_of(container_id)
        pid_file = home / "pid"
        what = f"start the container {container_id}"
        self._starts_in_progress += 1
        try:
            message = await self._call(
                what, home, "run", "--detach", "--bundle", home, "--pid-file", pid_file, container_id
            )
            if message:
                raise EngineError(f"could not {what}", one_line(message))
            pid = await self._files(what, read_pid_file, pid_file)
            self._started[container_id] = StartedContainer.watch(pid)
        finally:
            self._starts_in_progress -= 1

    async def pid(self, container_id: str) -> int:
        """Its first process while it runs, else 0."""
        started = self._started.get(container_id)
        return 0 if started is None or started.exit.done() else started.pid

    async def wait(self, container_id: str, timeout_s: float) -> int | None:
        """Its exit status, which the kernel reports to us, its parent; None if it still runs."""
        started = self._started.get(container_id)
        if started is None:
            raise EngineError(f"the container {container_id} was not started here", "start it first")
        try:
            return await started.wait(timeout_s)
        except ChildProcessError as error:
            what = f"the exit status of the container {container_id} was fetched by another part of this process"
            raise EngineError(what, "does something in this process wait for all children?") from error
        finally:
            self._on_call_end()

    async def remove(self, container_id: str) -> None:
        """Kill and remove. After an observed exit only cgroups and files are left, which takes no runtime."""
        started = self._started.pop(container_id, None)
        what = f"remove the container {container_id}"
        home, members = self._store.bundle_of(container_id), frozenset[int]()
        if started is None or not await started.kill_and_reap():
            if not await asyncio.to_thread(home.exists):
                return
            await asyncio.to_thread(kill_workers_on, home, self._proc)
            members = await asyncio.to_thread(self._store.members, container_id, self._ready()[1])
            # The runtime may not know this container, or hang. Its failure does not matter: the rest is removed below.
            with suppress(EngineError):
                await self._call(what, home, "delete", "--force", container_id)
        await self._files(what, self._remove_rest, container_id, members)

    async def own_containers(self, instance: str) -> Sequence[str]:
        """Bundles with our labels and this instance."""
        return await self._files("list our containers", lambda: sorted(self._store.own_containers(instance)))

    async def count_running(self) -> None:
        """Unknown: there is no daemon that knows others' containers."""

    async def remove_image(self, reference: str) -> None:
        """Remove our image, and directories that are empty then."""
        await self._files(f"remove the image {reference}", self._store.remove_image, reference)

    def shorten_timeouts(self) -> None:
        """Shutdown has begun: wait for no command of the runtime longer than a service may take to stop."""
        self._timeout_s = min(self._timeout_s, SHUTDOWN_CALL_TIMEOUT_S)
        if self._runtime is not None:
            self._runtime = replace(self._runtime, timeout_s=self._timeout_s)

    async def close(self) -> None:
        """Stop waiting for exits, and restore the controllers above our cgroups. Containers stay."""
        for started in self._started.values():
            started.exit.cancel()
        await asyncio.gather(*(started.exit for started in self._started.values()), return_exceptions=True)
        self._started.clear()
        if self._runtime is not None:
            await asyncio.to_thread(self._runtime.reap_strays, frozenset(), self._proc)
        if self._was_subreaper is False:
            set_subreaper(on=False)
        self._was_subreaper = None
        if self._store.controllers.recorded:
            await self._files("disable the controllers that a runtime enabled", self._store.restore_controllers)

    async def _call(self, what: str, home: Path, *arguments: str | Path) -> str:
        """Run a command of the runtime; returns its error message. `what` completes the sentence "could not ..."."""
        runtime, _ = self._ready()
        try:
            with runtime_errors(what, runtime):
                return await runtime.call(home / "log", *arguments)
        finally:
            self._on_call_end()

    async def _files(self, what: str, function: Callable[..., T], *arguments: object) -> T:
        """Run file operations in a thread. Raises EngineError."""
        with file_errors(what, self._store.root):
            return await asyncio.to_thread(function, *arguments)

    def _ready(self) -> tuple[Runtime, Cgroups]:
        if self._runtime is None or self._cgroups is None:
            raise EngineError("the oci engine is not initialised", "call info() first")
        return self._runtime, self._cgroups

    def _remove_rest(self, container_id: str, members: frozenset[int]) -> None:
        """Remove the cgroups and the processes in them, then the files.

        `members`: processes that were in the cgroups before; those that became our children are reaped.
        """
        if not self._store.bundle_of(container_id).exists():
            return
        runtime, cgroups = self._ready()
        members |= self._store.members(container_id, cgroups)
        self._store.remove_cgroups(container_id, cgroups)
        for pid in members:
            reap_killed(pid, self._proc)
        if not self._starts_in_progress:  # a container just started may exit before its pid is known here
            runtime.reap_strays({started.pid for started in tuple(self._started.values())}, self._proc)
        self._store.remove_bundle(container_id)
