"""A real `kickwatch run` controlled by a test, with its log records and the status lines that it sends to systemd.

All its files are in one directory of the test. The `with` statement stops it at the end and checks that nothing is
left: no container, cgroup, image, BPF program, native child or temporary file. A test that ends it in another way calls
`left` itself.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import bpf_programs
from command import DIES_WITH_US
from leftovers import leftovers
from slowness import SLOWNESS

# With this seed the first 21 trials begin with the churn window; a quiet window that comes first would have to be as
# long as a churn window might become, several times as long as it becomes.
CHURN_FIRST = 109395
# The shortest trials. Their containers live one right after the other, so a fault at any time meets one.
FAST: dict[str, object] = {
    "trial.window_s": 0.3,
    "trial.settle_s": 0.0,
    "trial.interval_s": 0.0,
    "trial.canary_memcgs": 0,
    "trial.seed": CHURN_FIRST,
    "trial.design": "whole",
    "workload.containers_per_trial": 2,
    "budget.preset": "stress",
    "guard.enabled": False,
    "metrics.enabled": False,
    "log.format": "json",
}
STOP_S = 10.0  # the time that a service has to stop
Record = dict[str, Any]


def toml(settings: Mapping[str, object]) -> str:
    """The settings, keyed by `section.key`, as TOML."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())


class NodeDaemon:
    """One daemon. Use as `with NodeDaemon(tmp_path, {"guard.enabled": True}) as daemon`."""

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, object] | None = None,
        *,
        prefix: Sequence[str] = (),
        trials: int | None = None,
        before: dict[str, list[str]] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`prefix`: arguments before the command, such as those of `namespaces.inside`; they must exec it.

        `before`: the result of `leftovers()` before the start, if the test has it already.
        """
        self.directory = directory
        self.settings = {**FAST, **self.separate_paths(directory), **(settings or {})}
        self.configure()
        self.scratch = directory / "scratch"
        self.scratch.mkdir(exist_ok=True)
        self.records: list[Record] = []
        self.text: list[str] = []  # lines of its standard error that are not records
        self.statuses: list[str] = []
        self._news = threading.Condition()
        self._closed = False
        self.before = leftovers() if before is None else before
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = f"@kickwatch-test-{os.getpid()}-{id(self)}"
        self._notify.bind(f"\0{address[1:]}")
        ending = [] if trials is None else ["--trials", str(trials)]
        self.process = subprocess.Popen(
            [*DIES_WITH_US, *prefix, sys.executable, "-m", "kickwatch", "run", "--config", str(self.config), *ending],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NOTIFY_SOCKET": address, "TMPDIR": str(self.scratch), **(environment or {})},
        )
        self._readers = [threading.Thread(target=self._read_log), threading.Thread(target=self._read_statuses)]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def separate_paths(directory: Path) -> dict[str, object]:
        """Settings for the paths that it would otherwise share with the node's own kickwatch."""
        return {"state.directory": str(directory / "state"), "service.drain_file": str(directory / "drain")}

    @property
    def config(self) -> Path:
        """Path of its configuration file."""
        return self.directory / "kickwatch.toml"

    def configure(self, **changed: object) -> None:
        """Write the file with changes: `trial__window_s=0.4` sets `trial.window_s`. SIGHUP makes the daemon read it."""
        self.settings |= {key.replace("__", "."): value for key, value in changed.items()}
        self.config.write_text(toml(self.settings), encoding="utf-8")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def mark(self) -> int:
        """The number of records so far, which `wait(..., since=mark)` skips."""
        return len(self.records)

    def events(self, name: str, since: int = 0) -> list[Record]:
        """The records of one event; `name` has no `kickwatch.`."""
        return [record for record in self.records[since:] if record["event"] == f"kickwatch.{name}"]

    def wait(self, name: str, since: int = 0, timeout_s: float = 30.0, times: int = 1) -> Record:
        """Wait for the `times`-th record of that event after the mark `since`, and return it."""
        self.until(lambda: len(self.events(name, since)) >= times, f"{times} x {name}", timeout_s)
        return self.events(name, since)[times - 1]

    def wait_status(self, part: str, timeout_s: float = 30.0) -> str:
        """Wait until the newest status line contains `part`, and return it."""
        self.until(lambda: part in self.status, f"status {part!r}", timeout_s)
        return self.status

    @property
    def status(self) -> str:
        """The newest status line, which `systemctl status` would show."""
        return self.statuses[-1] if self.statuses else ""

    def until(self, true: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
        """Wait until `true` returns true. Fails if the daemon exits or after `timeout_s`."""
        deadline = time.monotonic() + timeout_s * SLOWNESS
        with self._news:
            while not true():
                ended = self.process.poll() is not None and not any(reader.is_alive() for reader in self._readers[:1])
                if ended or time.monotonic() > deadline:
                    raise AssertionError(f"waited for {what}; {self.summary()}")
                self._news.wait(0.5)

    def summary(self) -> str:
        """Exit status, status line, last lines and records, for the message of a failed test."""
        return f"status {self.process.poll()}, {self.status!r}, {self.text[-5:]}, {self.records[-6:]}"

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def reload(self) -> None:
        """Send SIGHUP and wait until the configuration is reloaded."""
        since = self.mark()
        self.send(signal.SIGHUP)
        self.wait("reloaded", since)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal, wait for the exit as long as a service manager would; return the exit status."""
        self.send(number)
        return self.ended(STOP_S)

    def ended(self, timeout_s: float = 60.0) -> int:
        """Wait for the exit; return the exit status."""
        try:
            return self.process.wait(timeout_s * SLOWNESS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {timeout_s:g} s; {self.summary()}") from None
        finally:
            self._close()

    def left(self) -> dict[str, object]:
        """What it has left behind; should be empty. Waits for what the kernel frees a little later."""
        deadline = time.monotonic() + 5 * SLOWNESS
        while (found := self._found()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def _found(self) -> dict[str, object]:
        now = leftovers() | {"scratch": sorted(map(str, self.scratch.iterdir()))}
        before = self.before | {"scratch": []}
        changed: dict[str, object] = {key: found for key, found in now.items() if found != before[key]}
        others: dict[str, object] = {"programs": bpf_programs.ours(), "children": native_children()}
        return changed | {key: found for key, found in others.items() if found}

    def __enter__(self) -> Self:
        """The daemon is already running."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it and check that nothing is left, unless the test has failed already."""
        if self._closed:
            return
        if kind is not None:  # the test has failed; its error is more useful than how the daemon ends
            with suppress(AssertionError):
                self.stop()
            return
        status = self.process.poll()
        assert (self.stop() if status is None else self.ended()) == 0, self.summary()
        assert (self.left(), self.text) == ({}, []), (self.left(), self.text)

    def _close(self) -> None:
        self._closed = True
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for reader in self._readers:
            reader.join()
        self._notify.close()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                if line.startswith("{"):
                    self.records.append(json.loads(line))
                else:
                    self.text.append(line.rstrip())
                self._news.notify_all()

    def _read_statuses(self) -> None:
        self._notify.settimeout(0.2)
        while self.process.poll() is None:
            with suppress(TimeoutError):
                message = self._notify.recv(4096).decode()
                with self._news:
                    self.statuses += [word[7:] for word in message.splitlines() if word.startswith("STATUS=")]
                    self._news.notify_all()


def _is_script(process: Path) -> bool:
    """Whether it executes an interpreter. A zombie executes nothing."""
    try:
        return not (process / "exe").readlink().name.startswith("kw-helper")
    except OSError:
        return False


def native_children() -> list[int]:
    """Pids of all processes of the native helper. Scripts with its name are the unit tests', which may run beside."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            named = (process / "comm").read_text(encoding="ascii", errors="replace").startswith("kw-helper")
            if named and not _is_script(process):
                found.append(int(process.name))
    return found
