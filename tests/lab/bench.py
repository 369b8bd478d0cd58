"""One machine of the laboratory under test: its guest, and what was measured there, written down as it comes."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guest import CgroupVersion, Guest
from userland import ROOT

RESULTS = ROOT / "build" / "lab"
_ENGINE = ("--set", "engine.kind=oci", "--set", "engine.runtime=crun")
_TRIAL_S = 1800.0


@dataclass
class Bench:
    """A booted machine, and what was measured on it so far."""

    guest: Guest
    wanted: CgroupVersion
    module: Path
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def containers(self) -> int:
        """Of a healthy run."""
        return int(os.environ.get("KICKWATCH_LAB_CONTAINERS", "23"))

    @property
    def sees_reasons(self) -> bool:
        """Whether the guest's kernel has the tracepoint that tells why it interrupts: asked of the kernel itself."""
        return self.guest.shell("test -e /sys/kernel/tracing/events/csd/csd_queue_cpu", check=False).status == 0

    @property
    def sees_waits(self) -> bool:
        """Likewise for those that tell who waits for a lock."""
        return self.guest.shell("test -e /sys/kernel/tracing/events/lock/contention_begin", check=False).status == 0

    def remember(self) -> None:
        """Go on with what an earlier run measured on this very kernel, so that parts can be run one by one."""
        path = self._path()
        if path.exists():
            told = json.loads(path.read_text("utf-8"))
            if told["machine"]["kernel"] == self.guest.machine.boot.kernel.release:
                self.told = told

    def trial(self, name: str, *arguments: str, containers: int = 12) -> dict[str, Any]:
        """`kickwatch trial --json`: what it says, its exit status and its alerts, kept as `name`."""
        command = ("kickwatch", "trial", "--json", *_ENGINE, "--containers", str(containers), *arguments)
        done = self.guest.run(*command, check=False, timeout_s=_TRIAL_S, KICKWATCH_LOG_FORMAT="json")
        assert done.raw.startswith(b"{"), f"{' '.join(command)}: exit status {done.status}: {done.errors[-3000:]}"
        lines = [json.loads(line) for line in done.errors.splitlines() if line.startswith("{")]
        told: dict[str, Any] = json.loads(done.output)
        told |= {"status": done.status, "took_s": round(done.took_s, 1), "log": lines}
        self.keep(name, told)
        return told

    def keep(self, name: str, what: object) -> None:
        """Write it down at once: a machine that hangs later has told this."""
        self.told[name] = what
        RESULTS.mkdir(parents=True, exist_ok=True)
        self._path().write_text(json.dumps(self.told, indent=1), encoding="utf-8")

    def _path(self) -> Path:
        return RESULTS / f"{self.guest.machine.name}.json"
