"""Runs `kickwatch` as a person would: as a process, with its exit status, its result and its one line of complaint."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from slowness import SLOWNESS

# Before a command: it does not outlive the tests, however they end.
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
_KICKWATCH = (*DIES_WITH_US, sys.executable, "-m", "kickwatch")


@dataclass(frozen=True)
class CommandResult:
    """What a finished command left."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON object."""
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The only line of standard error that is no progress."""
        lines = [line for line in self.err.splitlines() if line.startswith("kickwatch:")]
        assert len(lines) == 1, f"expected one line of complaint, got: {self.err!r}"
        assert "Traceback" not in self.err
        return lines[0]


def kickwatch(*arguments: str, timeout_s: float = 100, **environment: str) -> CommandResult:
    """Run it to its end."""
    done = subprocess.run(
        [*_KICKWATCH, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s * SLOWNESS,
        env=os.environ | environment,
        check=False,
    )
    return CommandResult(done.returncode, done.stdout, done.stderr)


def start(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """Start it and come back at once. End it with `ended`, which reads what it said."""
    return subprocess.Popen(
        [*_KICKWATCH, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def ended(process: "subprocess.Popen[str]", timeout_s: float = 60) -> CommandResult:
    """Wait for a started command and take what it left; killed at the deadline, so that no test leaves one."""
    try:
        out, err = process.communicate(timeout=timeout_s * SLOWNESS)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    return CommandResult(process.returncode, out, err)
