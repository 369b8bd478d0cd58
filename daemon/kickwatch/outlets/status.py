"""The file with what a running daemon believes and does: it writes it, `kickwatch status` and `watch` read it."""

from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from kickwatch.errors import KickwatchError
from kickwatch.model import Condition
from kickwatch.node.lock import LOCK_PATH, holder_of
from kickwatch.node.processes import start_ticks
from kickwatch.node.roots import HOST
from kickwatch.outlets.live_status import Progress, Rates, StreamStatus, TrialStatus
from kickwatch.process.atomic_file import write_whole
from kickwatch.process.run_directory import make_run_directory

STATUS_PATH = HOST.run / "kickwatch" / "status.json"
_WAIT = "wait a moment: a daemon that is starting, or a single experiment, has not written it"


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """`doing` is systemd's status line; `condition_since_unix_s`: when the daemon began to believe the condition.

    `reasons`: why the condition is unknown. `verdict_age_s`: since a trial last established something, at the time of
    the update; None before the first that did. `more_containers`: containers without broadcasts still needed for
    `quiet`. `start_ticks`: when the process started, in clock ticks since boot (proc_pid_stat(5)).

    From `started_unix_s` on the keys are missing from the file of an earlier version. `trial`: the newest valid one;
    `void_trial`: the newest one, if it is void.
    """

    schema: int = 1
    pid: int
    version: str
    condition: Condition
    condition_since_unix_s: float
    doing: str
    updated_unix_s: float
    trials: int
    containers: int
    alerts: dict[str, tuple[str, ...]] = {}
    reasons: tuple[str, ...] = ()
    verdict_age_s: float | None = None
    more_containers: int | None = None
    started_unix_s: float | None = None
    start_ticks: int | None = None
    control_passed: bool | None = None
    progress: Progress | None = None
    streams: dict[str, StreamStatus] | None = None
    rates: Rates | None = None
    trial: TrialStatus | None = None
    void_trial: TrialStatus | None = None


def write(status: Status, path: Path = STATUS_PATH) -> None:
    """Replace the file. A file that cannot be written is left as it is: the daemon does not depend on it."""
    with suppress(OSError):
        make_run_directory(path.parent)
        write_whole(path, msgspec.json.encode(status), 0o644)


class Presence(StrEnum):
    """Whether a daemon runs. `other`: a kickwatch that has not written the file: a daemon that starts, or a trial."""

    RUNNING = "running"
    STOPPED = "stopped"
    OTHER = "other"


@dataclass(frozen=True)
class Sight:
    """One look at the daemon. `status`: the file as it is, of a daemon that no longer runs unless it is RUNNING.

    `holder`: the process that holds the node's lock. `why`: why there is no status, and what to do.
    """

    presence: Presence
    status: Status | None
    holder: int | None = None
    why: KickwatchError | None = None


def look(path: Path = STATUS_PATH, lock: Path = LOCK_PATH, proc: Path = HOST.proc) -> Sight:
    """Read the file, and find out whether the daemon that wrote it runs. Takes no lock, writes nothing, never raises.

    The file outlives its daemon. So the process that holds the node's lock must be the one that wrote the file: it has
    the same start time, in whichever pid namespace.
    """
    holder = holder_of(lock, proc)  # trying to take the lock could keep a daemon from starting at that moment
    status, why = _read(path)
    if holder is None:
        return Sight(Presence.STOPPED, status, why=why)
    if status is None or not _wrote(status, holder, proc):
        return Sight(Presence.OTHER, status, holder, why)
    return Sight(Presence.RUNNING, status, holder)


def read(path: Path = STATUS_PATH, lock: Path = LOCK_PATH, proc: Path = HOST.proc) -> Status:
    """The status of the running daemon. Raises KickwatchError if none runs, whatever a dead one left behind."""
    sight = look(path, lock, proc)
    if sight.presence is Presence.STOPPED:
        raise KickwatchError("no kickwatch runs on this node", "start it: systemctl start kickwatch")
    if sight.why is not None:
        raise sight.why
    if sight.status is None or sight.presence is Presence.OTHER:
        raise KickwatchError(f"the kickwatch that runs (pid {sight.holder}) has not written {path}", _WAIT)
    return sight.status


def _read(path: Path) -> tuple[Status | None, KickwatchError | None]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status), None
    except OSError as error:
        return None, KickwatchError(f"{path} cannot be read ({error.strerror})", _WAIT)
    except msgspec.DecodeError as error:
        what = f"{path} cannot be parsed ({error})"
        return None, KickwatchError(what, "run the kickwatch command of the daemon's version")


def _wrote(status: Status, holder: int, proc: Path) -> bool:
    """Whether this process wrote the file. The file of an earlier version has the pid alone."""
    ticks = start_ticks(holder, proc) if status.start_ticks is not None else None
    return holder == status.pid if ticks is None else ticks == status.start_ticks
