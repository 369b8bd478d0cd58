"""A real `kickwatch run` in the hands of a test: its log as it comes, and its status line as systemd would see it.

Everything it reads and writes lies in one directory of the test's own. It is stopped at the end of the `with`, and has
then to be gone without a trace: no container, cgroup, image, BPF program, native child or scratch file. A test that
ends it otherwise asks `left` itself.
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

# The smallest trials there are. Under this seed the first 21 begin with the churn window, so that the quiet one need
# not be made as long as a churn window might become.
FAST: dict[str, object] = {
    "trial.window_s": 0.3,
    "trial.settle_s": 0.0,
    "trial.interval_s": 0.0,
    "trial.canary_memcgs": 0,
    "trial.seed": 109395,
    "workload.containers_per_trial": 2,
    "budget.preset": "stress",
    "guard.enabled": False,
    "metrics.enabled": False,
    "log.format": "json",
}
STOP_S = 10.0  # what a node that shuts down grants
Record = dict[str, Any]


def toml(settings: Mapping[str, object]) -> str:
    """`section.key` to value, as a file."""
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
        """`prefix`: words before the command, such as those of `namespaces.inside`; they have to end in its exec.

        `before`: what there was on the node, where that is known already.
        """
        self.directory = directory
        self.settings = {**FAST, **self.places(directory), **(settings or {})}
        self.configure()
        self.scratch = directory / "scratch"
        self.scratch.mkdir(exist_ok=True)
        self.records: list[Record] = []
        self.text: list[str] = []  # lines of its standard error that are no records
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
    def places(directory: Path) -> dict[str, object]:
        """What it would else share with the node's own kickwatch."""
        return {"state.directory": str(directory / "state"), "service.drain_file": str(directory / "drain")}

    @property
    def config(self) -> Path:
        """Its configuration file."""
        return self.directory / "kickwatch.toml"

    def configure(self, **changed: object) -> None:
        """Write the file anew: `trial__window_s=0.4` for `trial.window_s`. SIGHUP makes the daemon read it."""
        self.settings |= {key.replace("__", "."): value for key, value in changed.items()}
        self.config.write_text(toml(self.settings), encoding="utf-8")

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def mark(self) -> int:
        """The number of records so far: `wait(..., since=mark)` passes over them."""
        return len(self.records)

    def events(self, name: str, since: int = 0) -> list[Record]:
        """The records of one event, without `kickwatch.`."""
        return [record for record in self.records[since:] if record["event"] == f"kickwatch.{name}"]

    def wait(self, name: str, since: int = 0, timeout_s: float = 30.0, times: int = 1) -> Record:
        """The `times`-th record of that event after the mark `since`, now or when it comes."""
        self.until(lambda: len(self.events(name, since)) >= times, f"{times} x {name}", timeout_s)
        return self.events(name, since)[times - 1]

    def wait_status(self, part: str, timeout_s: float = 30.0) -> str:
        """The newest status line, once it contains `part`."""
        self.until(lambda: part in self.status, f"status {part!r}", timeout_s)
        return self.status

    @property
    def status(self) -> str:
        """What `systemctl status` would show now."""
        return self.statuses[-1] if self.statuses else ""

    def until(self, true: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
        """Wait, looking whenever the daemon says something and twice a second; fails where it has ended or is late."""
        deadline = time.monotonic() + timeout_s * SLOWNESS
        with self._news:
            while not true():
                ended = self.process.poll() is not None and not any(reader.is_alive() for reader in self._readers[:1])
                if ended or time.monotonic() > deadline:
                    raise AssertionError(f"waited for {what}; {self.told()}")
                self._news.wait(0.5)

    def told(self) -> str:
        """The end of what it said, for a test that fails."""
        return f"status {self.process.poll()}, {self.status!r}, {self.text[-5:]}, {self.records[-6:]}"

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        self.process.send_signal(number)

    def reload(self) -> None:
        """SIGHUP, and wait until the file as it is now is in force."""
        since = self.mark()
        self.send(signal.SIGHUP)
        self.wait("reloaded", since)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it, wait for the end, at most as long as a shutdown waits; the exit status."""
        self.send(number)
        return self.ended(STOP_S)

    def ended(self, timeout_s: float = 60.0) -> int:
        """The exit status, when it comes."""
        try:
            return self.process.wait(timeout_s * SLOWNESS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {timeout_s:g} s; {self.told()}") from None
        finally:
            self._close()

    def left(self) -> dict[str, object]:
        """What it has left behind; empty is right. What the kernel frees a little later is waited for."""
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
        """It runs already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it, and ask what is left unless the test has failed already."""
        if self._closed:
            return
        if kind is not None:  # the test has failed: what it was told says more than how the daemon ends
            with suppress(AssertionError):
                self.stop()
            return
        status = self.process.poll()
        assert (self.stop() if status is None else self.ended()) == 0, self.told()
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
                said = self._notify.recv(4096).decode()
                with self._news:
                    self.statuses += [word[7:] for word in said.splitlines() if word.startswith("STATUS=")]
                    self._news.notify_all()


def native_children() -> list[int]:
    """Processes of the native helper, whoever started them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "comm").read_text(encoding="ascii", errors="replace").startswith("kickwatch-helpe"):
                found.append(int(process.name))
    return found
