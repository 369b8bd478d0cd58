"""What a running daemon believes and does, in a file for `kickwatch status`."""

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kickwatch import __version__
from kickwatch.errors import KickwatchError
from kickwatch.model import Condition
from kickwatch.node.lock import LOCK_PATH
from kickwatch.node.roots import HOST
from kickwatch.process.atomic_file import write_whole

if TYPE_CHECKING:  # who only reads it need not load the detectors
    from kickwatch.service.watch import Watch

STATUS_PATH = HOST.run / "kickwatch" / "status.json"


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """`doing` is what systemd is told, too; `condition_since_unix_s`: when the daemon began to believe it.

    `reasons`: why the condition is unknown. `verdict_age_s`: since a trial last established something, at the time of
    the update; None before the first that did. `more_containers`: silent ones that are missing until `quiet`.
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


class Board:
    """Where the daemon writes it."""

    def __init__(self, path: Path = STATUS_PATH) -> None:
        """Nothing is believed yet."""
        self._path = path
        self._condition: Condition | None = None
        self._since_unix_s = 0.0

    async def tell(self, watch: "Watch", doing: str) -> None:
        """Replace the file by what is so now."""
        if watch.condition != self._condition:
            self._condition, self._since_unix_s = watch.condition, time.time()
        state = watch.evidence.state
        told = Status(
            pid=os.getpid(),
            version=__version__,
            condition=watch.condition,
            condition_since_unix_s=self._since_unix_s,
            doing=doing,
            updated_unix_s=time.time(),
            trials=state.trials,
            containers=state.containers,
            alerts={condition.value: streams for condition, streams in state.alerted.items()},
            reasons=watch.reasons,
            verdict_age_s=watch.verdict_age_s,
            more_containers=watch.more_containers,
        )
        await asyncio.to_thread(write, told, self._path)


def write(status: Status, path: Path = STATUS_PATH) -> None:
    """Replace the file whole. What cannot be written is no trouble of the watch: it is left out."""
    with suppress(OSError):
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_whole(path, msgspec.json.encode(status), 0o644)


def read(path: Path = STATUS_PATH, lock: Path = LOCK_PATH, proc: Path = HOST.proc) -> Status:
    """The running daemon's. Raises KickwatchError where none runs: what a dead one left behind is no status."""
    remedy = "start it: systemctl start kickwatch"
    if not _is_held(lock, proc):
        raise KickwatchError("no kickwatch runs on this node", remedy)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status)
    except OSError as error:
        what = f"{path} cannot be read ({error.strerror})"
        raise KickwatchError(
            what, "a kickwatch that just starts, or a single experiment, has not written it"
        ) from error
    except msgspec.DecodeError as error:
        raise KickwatchError(f"{path} is not understood ({error})", "is the daemon of another version?") from error


def _is_held(lock: Path, proc: Path) -> bool:
    """Whether a process holds the node's lock. To try it would, for a moment, keep a daemon from starting."""
    try:
        inode = lock.stat().st_ino
        locks = (proc / "locks").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    # `1: FLOCK  ADVISORY  WRITE 4574 00:19:1234 0 EOF`, proc_locks(5)
    held = [line.split() for line in locks.splitlines() if "FLOCK" in line and "->" not in line]
    return any(len(words) > 5 and words[5].endswith(f":{inode}") for words in held)
