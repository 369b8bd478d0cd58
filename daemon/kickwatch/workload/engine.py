"""The container engine protocol: what kickwatch needs of Docker, Podman, containerd, and runc or crun alone."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from kickwatch.errors import EngineAbsentError

LABEL = "kickwatch"
LABEL_INSTANCE = "kickwatch.instance"
LABEL_TRIAL = "kickwatch.trial"
LABEL_CONTAINER = "kickwatch.container"
SHUTDOWN_CALL_TIMEOUT_S = 8.0  # limit of one call during shutdown; the unit gives the service 10 s (TimeoutStopSec)
_MAX_MESSAGE_CHARS = 500


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine describes itself.

    `runtime`: the one that runs our containers, with its version if the engine tells it. `runtimes`: the names of all,
    if the engine has several. `endpoint`: the path of its socket or of its program. `cgroup_parent`: the parent cgroup
    of our containers; empty means that the cgroup driver decides. `rootless`: a user other than root runs the engine,
    and owns the user namespace of our containers.
    """

    name: str
    version: str
    runtime: str
    cgroup_driver: str
    root: str
    runtimes: tuple[str, ...] = ()
    endpoint: str = ""
    cgroup_parent: str = ""
    rootless: bool = False

    def __str__(self) -> str:
        """`docker 20.10.24`."""
        return f"{self.name} {self.version}"

    @property
    def unnamed_fields(self) -> tuple[str, ...]:
        """Which of `version` and `runtime` are missing; an engine under load may fail to ask its runtime."""
        return tuple(field for field in ("version", "runtime") if is_unnamed(getattr(self, field)))


def runtime_absent(engine: str, wanted: str, runtimes: Iterable[str]) -> EngineAbsentError:
    """The error for an engine that has no runtime of this name."""
    names = ", ".join(sorted(runtimes)) or "none that it names"
    what = f"{engine} has no runtime {wanted} (engine.runtime)"
    return EngineAbsentError(what, f"set engine.runtime to one that it has: {names}")


def is_unnamed(text: str) -> bool:
    """True for `runc N/A`, `unknown` and the empty string."""
    words = text.split()
    return not words or not {"N/A", "unknown"}.isdisjoint(words)


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One container to create.

    `name` is unique on the node: after a create call whose answer was lost, the container is found by it. `pids_limit`
    0 sets no limit, as for a user's program, which may fork as much as it does elsewhere.
    """

    name: str
    instance: str
    trial: str
    image: str
    command: tuple[str, ...]
    network: str
    cgroup_parent: str
    pids_limit: int = 0

    def labels(self) -> dict[str, str]:
        """The labels by which the reaper recognises our containers."""
        return {
            LABEL: "1",
            LABEL_INSTANCE: self.instance,
            LABEL_TRIAL: self.trial,
            LABEL_CONTAINER: self.name,
        }


class Engine(Protocol):
    """Every call has a deadline and raises EngineError with the container's name and a remedy.

    A `create` that is cancelled removes what it made before it raises CancelledError. Any other cancelled call may
    still complete in the background.
    """

    async def info(self) -> EngineInfo:
        """Name, version, runtime and cgroup driver. Call it first: it negotiates the API version.

        Raises EngineAbsentError when no engine answers, EngineError when no API version is common to both sides.
        """

    async def prepare_image(self, own_program: bytes) -> str:
        """Ensure that the engine holds a scratch image with this static program; return its reference."""

    async def require_image(self, reference: str) -> None:
        """Check that an image, ours or a user's, is present. It is never pulled. Raises ImageAbsentError."""

    async def create(self, spec: ContainerSpec) -> str:
        """Create a container and return its id. After a timeout it is found by label and removed, then this raises."""

    def sandbox_ms(self, container_id: str) -> float | None:
        """How long the pod of a container that exists took, which `create` made before; None if it has no pod."""

    def cgroup_ids(self, container_id: str) -> tuple[str, ...]:
        """The ids after which the engine names the cgroups of a container that exists: of a pod also the pod's."""

    async def start(self, container_id: str) -> None:
        """Start a container; return once its program has been executed."""

    async def pid(self, container_id: str) -> int:
        """Host process id of its first process; 0 when it does not run."""

    async def wait(self, container_id: str, timeout_s: float) -> int | None:
        """Wait until it has exited; return its exit status, or None if it still runs after `timeout_s`."""

    async def remove(self, container_id: str) -> None:
        """Kill it if it runs, and remove it. It is gone on return; a missing container is no error."""

    async def own_containers(self, instance: str) -> Sequence[str]:
        """Ids of all containers that have our labels and this instance."""

    async def count_running(self) -> int | None:
        """Number of containers that run on the node, ours and others'; None where the engine knows only ours."""

    async def remove_image(self, reference: str) -> None:
        """Remove our own image; a missing one is no error."""

    def shorten_timeouts(self) -> None:
        """Shutdown has begun: finish within 10 s. What a hanging engine still holds then, the next start removes."""

    async def close(self) -> None:
        """Close connections and end threads, in bounded time."""


def one_line(text: str) -> str:
    """An engine's error message as one line of bounded length, for alerts: it may span lines or be garbage."""
    line = " ".join(str(text).split())
    return line if len(line) <= _MAX_MESSAGE_CHARS else f"{line[:_MAX_MESSAGE_CHARS]}..."
