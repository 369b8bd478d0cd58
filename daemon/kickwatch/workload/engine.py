"""What kickwatch asks of a container engine, whichever it is."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

LABEL = "kickwatch"
_LONGEST_LINE = 500
LABEL_INSTANCE = "kickwatch.instance"
LABEL_TRIAL = "kickwatch.trial"
LABEL_CONTAINER = "kickwatch.container"
HURRIED_S = 8.0  # one call's, once the process is to end: a service is told to be gone within 10 s


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine says of itself.

    `endpoint`: its socket, or the program it is. `cgroup_parent`: where our containers' cgroups belong, empty for what
    the cgroup driver implies.
    """

    name: str
    version: str
    runtime: str
    cgroup_driver: str
    root: str
    endpoint: str = ""
    cgroup_parent: str = ""

    def __str__(self) -> str:
        """`docker 20.10.24`."""
        return f"{self.name} {self.version}"

    @property
    def unnamed(self) -> tuple[str, ...]:
        """Which of version and runtime the engine could not name now: one under load may fail to ask its runtime."""
        return tuple(field for field in ("version", "runtime") if is_unnamed(getattr(self, field)))


def is_unnamed(text: str) -> bool:
    """`runc N/A`, `unknown`, nothing."""
    words = text.split()
    return not words or not {"N/A", "unknown"}.isdisjoint(words)


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One container to be made. `name` is unique on the node and settles what a lost answer left behind.

    `pids_limit` 0 sets none: a user's program may fork as it does elsewhere.
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
        """What the reaper goes by."""
        return {
            LABEL: "1",
            LABEL_INSTANCE: self.instance,
            LABEL_TRIAL: self.trial,
            LABEL_CONTAINER: self.name,
        }


class Engine(Protocol):
    """Every call has a deadline of its own and raises EngineError with the container's name and a remedy.

    A cancelled `create` has removed what it made when it raises CancelledError; any other call may go on behind it.
    """

    async def info(self) -> EngineInfo:
        """Name, version, runtime, cgroup driver; EngineAbsentError when no engine answers.

        To be called first: what the engine speaks is agreed upon here. Raises EngineError if that is nothing.
        """

    async def prepare_image(self, own_program: bytes) -> str:
        """Make the engine hold a scratch image with that one static program; returns its reference."""

    async def require_image(self, reference: str) -> None:
        """Check that an image is there, ours or a user's; it is never pulled. Raises ImageAbsentError."""

    async def create(self, spec: ContainerSpec) -> str:
        """Create a container and return its id. A timed-out create is resolved by label before the error is raised."""

    async def start(self, container_id: str) -> None:
        """Start it; returns once its program has been executed."""

    async def pid(self, container_id: str) -> int:
        """Process id of its first process on the host, 0 when it does not run."""

    async def wait(self, container_id: str, timeout_s: float) -> int | None:
        """Wait until it has exited; returns its exit status, None if it still runs after `timeout_s`."""

    async def remove(self, container_id: str) -> None:
        """Kill it if it runs, and remove it; it is gone on return, and a missing container is no error."""

    async def ours(self, instance: str) -> Sequence[str]:
        """Ids of all containers that bear our labels and this instance."""

    async def running(self) -> int | None:
        """How many containers run on the node, whoever started them; None where the engine knows only ours."""

    async def started(self, since_unix_s: int, until_unix_s: int) -> int | None:
        """How many containers that are not ours were started in [since, until), both past; None likewise."""

    async def remove_image(self, reference: str) -> None:
        """Remove our own image; a missing one is no error."""

    def hurry(self) -> None:
        """The process is to end: be gone within 10 s, whatever an engine that hangs keeps until the next start."""

    async def close(self) -> None:
        """Give up connections and threads; bounded."""


def one_line(text: str) -> str:
    """Engine errors can span lines, and garbage is what it is; an alert is one line of bounded length."""
    line = " ".join(str(text).split())
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..."
