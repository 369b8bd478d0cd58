"""Commands on this machine: each bounded in time, and its failure told so that it can be pasted."""

import fcntl
import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

# A laboratory that is killed takes all of it along, down to the guests.
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")


class LabError(Exception):
    """Something of the laboratory could not be fetched, built, booted or spoken to."""


def cache() -> Path:
    """Where everything is kept that takes long to make: the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "kickwatch-tests" / "lab"


def run(
    command: Sequence[str | Path],
    *,
    timeout_s: float = 600,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run to the end. Raises LabError with all it said on any exit status but 0."""
    words = [str(word) for word in command]
    done = subprocess.run(
        [*DIES_WITH_US, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        env={**os.environ, **(environment or {})},
        cwd=cwd,
        check=False,
    )
    if done.returncode:
        raise LabError(f"{shlex.join(words)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def said(
    command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> str:
    """What a command that must succeed prints."""
    return run(command, environment=environment, cwd=cwd).stdout


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold `path` for one laboratory at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
