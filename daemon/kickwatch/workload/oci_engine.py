"""Containers without a daemon: runc or crun driven directly, the bundles made by kickwatch.

A container's id is its name, and its cgroup bears it. Everything lies below one directory under /run (oci_store); what
others run with the same runtime has another `--root`.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from kickwatch.errors import CgroupError, EngineAbsentError, EngineAnswerLostError, EngineError, ImageAbsentError
from kickwatch.node.cgroups import Cgroups
from kickwatch.node.delegation import own_base
from kickwatch.node.handed_on import Noted, handed_on
from kickwatch.node.privileges import held
from kickwatch.process.cancellation import run_shielded, timeout
from kickwatch.workload.engine import HURRIED_S, ContainerSpec, EngineInfo, one_line
from kickwatch.workload.image import image_reference
from kickwatch.workload.names import CGROUP_NAME
from kickwatch.workload.oci_runtime import (
    NAMES,
    Runtime,
    be_subreaper,
    end_descendants_of,
    exit_status,
    find_runtime,
    reap_dead,
)
from kickwatch.workload.oci_store import Store, first_process

T = TypeVar("T")
ROOT = Path("/run/kickwatch/oci")
REMEDY = "install runc or crun (`apt-get install runc`), or name one with engine.runtime"
_CAP_SYS_ADMIN = 21
_REAP_S = 5.0


@dataclass
class _Life:
    """A container that this engine started: its first process, our child until `end` has its status."""

    pid: int
    end: "asyncio.Task[int]"


class OciEngine:
    """One runtime, its containers below `root`."""

    def __init__(
        self,
        runtime: str = "",
        *,
        timeout_s: float,
        root: Path = ROOT,
        proc: Path = Path("/proc"),
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """`runtime`: a name or a path, empty for runc or else crun. `alive` is called whenever a call has ended."""
        self._wanted = runtime
        self._timeout_s = timeout_s
        self._store = Store(root, proc)
        self._proc = proc
        self._alive = alive
        self._runtime: Runtime | None = None
        self._cgroups: Cgroups | None = None
        self._seccomp = False
        self._was_subreaper: bool | None = None
        self._noted = False
        self._handed_on: Mapping[Path, Noted] = {}
        self._lives: dict[str, _Life] = {}
        self._starting = 0

    @property
    def seccomp(self) -> bool:
        """Whether its containers have a filter; known after `info`."""
        return self._seccomp

    async def info(self) -> EngineInfo:
        """The runtime's name and version, and where its cgroups belong. Raises EngineAbsentError where none works."""
        program = await asyncio.to_thread(find_runtime, self._wanted)
        if program is None:
            raise EngineAbsentError(f"no {self._wanted or ' or '.join(NAMES)} on PATH", REMEDY)
        missing = await asyncio.to_thread(forbidden, self._proc)
        if missing:
            raise EngineAbsentError(*missing)
        self._cgroups = await asyncio.to_thread(Cgroups.read, self._proc)
        runtime = Runtime(program, self._store.state, self._timeout_s)
        if self._runtime == runtime:  # asked again: it knows its calls under way
            runtime = self._runtime
        try:
            told = await runtime.version()
        except (TimeoutError, OSError) as error:
            reason = "no answer" if isinstance(error, TimeoutError) else error.strerror
            raise EngineAbsentError(f"{program} --version: {reason}", REMEDY) from error
        finally:
            self._alive()
        name, version = parse_version(told, program.name)
        self._seccomp = await asyncio.to_thread(has_seccomp, told, self._proc)
        self._runtime = runtime
        if self._was_subreaper is None:
            self._was_subreaper = be_subreaper()
        return EngineInfo(
            name="oci",
            version=f"{name} {version}",
            runtime=f"{name} {version}",
            cgroup_driver="cgroupfs",
            root=str(self._store.root),
            endpoint=str(program),
            cgroup_parent=await asyncio.to_thread(_parent, self._cgroups),
        )

    async def prepare_image(self, own_program: bytes) -> str:
        """The program and an empty root beside it, shared by all containers; the same program is written once.

        What the cgroups above ours hand on is noted beside it, for `close` or the next start: a runtime will change it.
        """
        reference = image_reference(own_program)
        _, cgroups = self._known()
        what = f"make the image {reference}"
        await self._files(what, self._store.write_image, reference, own_program)
        if not self._noted:  # made again later, the note is of the time before the first container all the same
            self._handed_on = await self._files(what, handed_on, cgroups)
        self._handed_on = await self._files(what, self._store.note_handed_on, self._handed_on)
        self._noted = True
        return reference

    async def require_image(self, reference: str) -> None:
        """Only our own image can be there: nothing else unpacks one here."""
        missing = await asyncio.to_thread(self._store.missing_of, reference, noted=bool(self._handed_on))
        if missing:
            remedy = "leave workload.image out, or set engine.kind=docker"
            what = f"the oci engine holds no image but its own, not {reference} ({missing} is not there)"
            raise ImageAbsentError(what, remedy)

    async def create(self, spec: ContainerSpec) -> str:
        """Write the bundle; nothing runs yet. What a failure or a cancellation leaves half made is removed."""
        if spec.network != "none":
            what = f"the oci engine makes no network {spec.network} (workload.network)"
            raise EngineError(what, "set workload.network=none or engine.kind=docker")
        try:
            await run_shielded(
                self._files(
                    f"create the container {spec.name}", partial(self._store.write_bundle, seccomp=self._seccomp), spec
                )
            )
        except asyncio.CancelledError as cancellation:
            if cancellation.__cause__ is None:  # it was made
                await run_shielded(
                    asyncio.to_thread(shutil.rmtree, self._store.bundle_of(spec.name), ignore_errors=True)
                )
            raise
        return spec.name

    async def start(self, container_id: str) -> None:
        """`run --detach`: returns once the program has been executed. What an error leaves, `remove` removes."""
        home = self._store.bundle_of(container_id)
        pid_file = home / "pid"
        self._starting += 1
        try:
            said = await self._call(
                f"start the container {container_id}", home,
                "run", "--detach", "--bundle", home, "--pid-file", pid_file, container_id,
            )  # fmt: skip
            if said:
                raise EngineError(f"could not start the container {container_id}", one_line(said))
            pid = await self._files(f"start the container {container_id}", first_process, pid_file)
            self._lives[container_id] = _Life(pid, asyncio.create_task(exit_status(pid)))
        finally:
            self._starting -= 1

    async def pid(self, container_id: str) -> int:
        """Its first process while it runs."""
        life = self._lives.get(container_id)
        return 0 if life is None or life.end.done() else life.pid

    async def wait(self, container_id: str, timeout_s: float) -> int | None:
        """Its exit status as the kernel tells its parent, which we are; None if it still runs."""
        life = self._lives.get(container_id)
        if life is None:
            raise EngineError(f"the container {container_id} was not started here", "start it first")
        try:
            # No asyncio.wait_for(): Python 3.11's forgets a cancellation that comes together with the end.
            async with timeout(timeout_s):
                return await asyncio.shield(life.end)
        except TimeoutError:
            return None
        except ChildProcessError as error:
            what = f"the exit status of the container {container_id} went to somebody else"
            raise EngineError(what, "does something in this process wait for all children?") from error
        finally:
            self._alive()

    async def remove(self, container_id: str) -> None:
        """Kill and remove. One whose end we saw leaves only its cgroups and its state, which need no runtime."""
        life = self._lives.pop(container_id, None)
        home, members = self._store.bundle_of(container_id), frozenset[int]()
        if life is None or not await self._ended(life):
            if not await asyncio.to_thread(home.exists):
                return
            await asyncio.to_thread(end_descendants_of, home, self._proc)
            members = await asyncio.to_thread(self._store.members, container_id, self._known()[1])
            # It may know nothing of this one, or hang: what is left then is removed by hand, and its failure moot.
            with suppress(EngineError):
                await self._call(f"remove the container {container_id}", home, "delete", "--force", container_id)
        await self._files(f"remove the container {container_id}", self._remove_rest, container_id, members)

    async def ours(self, instance: str) -> Sequence[str]:
        """Bundles that bear our labels and this instance."""
        return await self._files("list our containers", lambda: sorted(self._store.labelled(instance)))

    async def running(self) -> None:
        """Nobody knows how many: there is no daemon to ask."""

    async def started(self, since_unix_s: int, until_unix_s: int) -> None:
        """Likewise."""

    async def remove_image(self, reference: str) -> None:
        """Remove our image, and the directories that are empty then."""
        await self._files(f"remove the image {reference}", self._store.remove_image, reference)

    def hurry(self) -> None:
        """The process is to end: no command of the runtime is waited for longer than a service may take to stop."""
        self._timeout_s = min(self._timeout_s, HURRIED_S)
        if self._runtime is not None:
            self._runtime = replace(self._runtime, timeout_s=self._timeout_s)

    async def close(self) -> None:
        """Wait for no container's end any more, and undo what the runtime did above their cgroups; they stay."""
        for life in self._lives.values():
            life.end.cancel()
        await asyncio.gather(*(life.end for life in self._lives.values()), return_exceptions=True)
        self._lives.clear()
        if self._runtime is not None:
            await asyncio.to_thread(self._runtime.reap_strays, frozenset(), self._proc)
        if self._was_subreaper is False:
            be_subreaper(on=False)
        self._was_subreaper = None
        if self._noted:
            self._noted = False
            await self._files("take back what a runtime switched on", self._store.take_back, self._handed_on)

    async def _call(self, what: str, home: Path, *arguments: str | Path) -> str:
        runtime, _ = self._known()
        try:
            return await runtime.call(home / "log", *arguments)
        except TimeoutError as error:
            lost = f"could not {what}: no answer within {self._timeout_s:g} s"
            raise EngineAnswerLostError(lost, f"does `{runtime.program} --version` answer?") from error
        except OSError as error:
            lost = f"could not {what}: {runtime.program}: {error.strerror}"
            raise EngineAnswerLostError(lost, REMEDY) from error
        finally:
            self._alive()

    async def _files(self, what: str, function: Callable[..., T], *arguments: object) -> T:
        """Run file work in a thread; what the operating system refuses names the container."""
        try:
            return await asyncio.to_thread(function, *arguments)
        except (OSError, CgroupError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
            raise EngineError(f"could not {what}: {reason}{where}", f"see {self._store.root}") from error

    async def _ended(self, life: _Life) -> bool:
        """Kill its first process, which ends all others of its pid namespace, and reap it."""
        if not life.end.done():
            with suppress(ProcessLookupError):
                os.kill(life.pid, signal.SIGKILL)  # our child, not reaped: no other process can have its number
        with suppress(TimeoutError, ChildProcessError):
            await run_shielded(_result(life.end), _REAP_S)
            return True
        life.end.cancel()
        return False

    def _known(self) -> tuple[Runtime, Cgroups]:
        if self._runtime is None or self._cgroups is None:
            raise EngineError("the oci engine was not asked what it is", "call info() first")
        return self._runtime, self._cgroups

    def _remove_rest(self, container_id: str, members: frozenset[int]) -> None:
        """Cgroups with whatever lives in them, then the files.

        `members`: who was in the cgroups; those that became our children by a start without an answer are reaped.
        """
        if not self._store.bundle_of(container_id).exists():
            return
        runtime, cgroups = self._known()
        members |= self._store.members(container_id, cgroups)
        self._store.remove_cgroups(container_id, cgroups)
        for pid in members:
            reap_dead(pid, self._proc)
        if not self._starting:  # one that has just been started may end before its number is known here
            runtime.reap_strays({life.pid for life in tuple(self._lives.values())}, self._proc)
        self._store.remove_bundle(container_id)


async def _result(end: Awaitable[T]) -> T:
    return await asyncio.shield(end)


def _parent(cgroups: Cgroups) -> str:
    """`/kickwatch` in every hierarchy; below our unit where systemd delegated that part of cgroup v2 to us."""
    base = own_base(cgroups).relative_to(cgroups.memory_root)
    return str(Path("/") / base / CGROUP_NAME)


def parse_version(told: str, program: str) -> tuple[str, str]:
    """`runc version 1.1.5+ds1` is (runc, 1.1.5+ds1); a wrapper that says nothing is known by its file's name."""
    words = told.partition("\n")[0].split()
    if len(words) >= 3 and words[1] == "version":
        return words[0], words[2]
    return program, "unknown"


def has_seccomp(told: str, proc: Path) -> bool:
    """Whether kernel and runtime both have it: runc names its libseccomp, crun its features."""
    kernel = (proc / "sys/kernel/seccomp").is_dir()  # "seccomp: Sysctl to display available actions", 4.14
    return kernel and ("libseccomp:" in told or "+SECCOMP" in told)


def forbidden(proc: Path) -> tuple[str, str] | None:
    """Why a runtime cannot work from this process, and the remedy; None where it may."""
    if held(proc) & 1 << _CAP_SYS_ADMIN:
        return None
    what = "without CAP_SYS_ADMIN no container can be made here without an engine"
    service = "the service takes the drop-in oci.conf (systemd.md) and a restart"
    return what, f"{service}; by hand, be root, with engine.kind set before the start; or set engine.kind=docker"
