"""Run commands on this machine with a timeout; errors contain the command line for pasting."""

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

# If the laboratory is killed, its processes are killed as well, down to the guests.
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")


class LabError(Exception):
    """Something could not be fetched, built or booted, or a command failed."""


def cache() -> Path:
    """The directory for everything that takes long to build, in the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "kickwatch-tests" / "lab"


def run(
    command: Sequence[str | Path],
    *,
    timeout_s: float = 600,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run until it exits. Raises LabError with its output if the exit status is not 0."""
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


def output_of(
    command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> str:
    """The output of a command, which must succeed."""
    return run(command, environment=environment, cwd=cwd).stdout
