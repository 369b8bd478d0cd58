"""Run `kickwatch` as a process, and check its exit status, its output and its one-line error message."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from slowness import SLOWNESS

# Put before a command: the kernel kills it when the test process exits.
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
_KICKWATCH = (*DIES_WITH_US, sys.executable, "-m", "kickwatch")


@dataclass(frozen=True)
class CommandResult:
    """Exit status and output of a finished command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON object."""
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The one error message on standard error, which may also show progress."""
        lines = [line for line in self.err.splitlines() if line.startswith("kickwatch:")]
        assert len(lines) == 1, f"expected one error message, got: {self.err!r}"
        assert "Traceback" not in self.err
        return lines[0]


def kickwatch(*arguments: str, timeout_s: float = 100, **environment: str) -> CommandResult:
    """Run it until it exits."""
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
    """Start it and return at once. Call `ended` later, which reads its output."""
    return subprocess.Popen(
        [*_KICKWATCH, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def ended(process: "subprocess.Popen[str]", timeout_s: float = 60) -> CommandResult:
    """Wait until a started command exits; after `timeout_s` it is killed."""
    try:
        out, err = process.communicate(timeout=timeout_s * SLOWNESS)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    return CommandResult(process.returncode, out, err)
