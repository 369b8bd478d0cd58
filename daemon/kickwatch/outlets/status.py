"""The file with what a running daemon believes and does: written by the daemon, read by `kickwatch status`."""

from contextlib import suppress
from pathlib import Path

import msgspec

from kickwatch.errors import KickwatchError
from kickwatch.model import Condition
from kickwatch.node.lock import LOCK_PATH
from kickwatch.node.roots import HOST
from kickwatch.outlets.live_status import Progress, Rates, StreamStatus, TrialStatus
from kickwatch.process.atomic_file import write_whole

STATUS_PATH = HOST.run / "kickwatch" / "status.json"


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
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_whole(path, msgspec.json.encode(status), 0o644)


def read(path: Path = STATUS_PATH, lock: Path = LOCK_PATH, proc: Path = HOST.proc) -> Status:
    """The status of the running daemon. Raises KickwatchError if none runs, whatever a dead one left behind."""
    if not _is_held(lock, proc):
        raise KickwatchError("no kickwatch runs on this node", "start it: systemctl start kickwatch")
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status)
    except OSError as error:
        what = f"{path} cannot be read ({error.strerror})"
        remedy = "wait a moment: a daemon that is starting, or a single experiment, has not written it"
        raise KickwatchError(what, remedy) from error
    except msgspec.DecodeError as error:
        what = f"{path} cannot be parsed ({error})"
        raise KickwatchError(what, "run the kickwatch command of the daemon's version") from error


def _is_held(lock: Path, proc: Path) -> bool:
    """Whether a process holds the node's lock. Trying to take it could keep a daemon from starting at that moment."""
    try:
        inode = lock.stat().st_ino
        locks = (proc / "locks").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    # `1: FLOCK  ADVISORY  WRITE 4574 00:19:1234 0 EOF`, proc_locks(5)
    held = [line.split() for line in locks.splitlines() if "FLOCK" in line and "->" not in line]
    return any(len(words) > 5 and words[5].endswith(f":{inode}") for words in held)
