"""One machine of the laboratory under test: its guest, and what was measured there, written down as it comes."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from guest import CgroupVersion, Guest
from userland import ROOT

RESULTS = ROOT / "build" / "lab"
# The slowest first, so that none is left alone at the end. Only kernels up to bookworm's still have cgroup v1's memory.
_DEFAULT = (
    "sid:v2:4 bullseye:v1:4 bullseye:v2:4 bookworm:v1:4 bookworm:v2:4 trixie:v2:4"
    " sid:v2:16 bookworm:v1:16 bookworm:v2:16 trixie:v2:16"
)
# Not machines of the matrix: Docker Engines of other releases on this node, and the README's commands in a guest.
OTHERS = {"engines": "test_engines.py", "debian": "test_ordinary_debian.py"}
ENGINE = ("--set", "engine.kind=oci", "--set", "engine.runtime=crun")
_TRIAL_S = 1800.0
_INSIDE, _PYTHON = "/opt/lab/rungs_inside.py", "/opt/kickwatch/bin/python"


def machines() -> list[str]:
    """Those asked for, as `suite:cgroup:cpus`."""
    return os.environ.get("KICKWATCH_LAB_MACHINES", _DEFAULT).split()


@dataclass
class Bench:
    """A booted machine, and what was measured on it so far."""

    guest: Guest
    wanted: CgroupVersion
    module: Path
    told: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, dict[str, Any]] = field(default_factory=dict)  # of this boot, for tests that share an answer

    @property
    def containers(self) -> int:
        """Of a healthy run."""
        return int(os.environ.get("KICKWATCH_LAB_CONTAINERS", "23"))

    @property
    def ipi_rung(self) -> str:
        """The best that the guest's kernel has: asked of the kernel itself. All of Debian's have kprobes."""
        return "csd" if self._traces("csd/csd_queue_cpu") else "kprobe"

    @property
    def contention_rung(self) -> str:
        """The best of the other ladder."""
        return "tracepoint" if self._traces("lock/contention_begin") else "kprobe"

    def _traces(self, event: str) -> bool:
        return self.guest.shell(f"test -e /sys/kernel/tracing/events/{event}", check=False).status == 0

    def once(self, why: str) -> None:
        """Leave what follows to the machine with 4 CPUs, of which there is one for each kernel and cgroup version."""
        if self.guest.machine.cpus != 4:
            pytest.skip(f"feature: {why}: asked on 4 CPUs alone")

    def remember(self) -> None:
        """Go on with what an earlier run measured on this very kernel, so that parts can be run one by one."""
        path = self._path()
        if path.exists():
            told = json.loads(path.read_text("utf-8"))
            if told["machine"]["kernel"] == self.guest.machine.boot.kernel.release:
                self.told = told

    def trial(self, name: str, *arguments: str, containers: int = 12, **environment: str) -> dict[str, Any]:
        """`kickwatch trial --json`: what it says, its exit status and its alerts, kept as `name`."""
        command = ("kickwatch", "trial", "--json", *ENGINE, "--containers", str(containers), *arguments)
        environment["KICKWATCH_LOG_FORMAT"] = "json"
        done = self.guest.run(*command, check=False, timeout_s=_TRIAL_S, **environment)
        assert done.raw.startswith(b"{"), f"{' '.join(command)}: exit status {done.status}: {done.errors[-3000:]}"
        lines = [json.loads(line) for line in done.errors.splitlines() if line.startswith("{")]
        told: dict[str, Any] = json.loads(done.output)
        told |= {"status": done.status, "took_s": round(done.took_s, 1), "log": lines}
        self.keep(name, told)
        return told

    def inside(self, task: str, *arguments: str, **environment: str) -> dict[str, Any]:
        """What `rungs_inside.py TASK` answers, run by the installed kickwatch's Python; kept as `TASK`."""
        self.guest.write(_INSIDE, Path(__file__).with_name("rungs_inside.py").read_bytes())
        done = self.guest.run(_PYTHON, _INSIDE, task, *arguments, check=False, timeout_s=_TRIAL_S, **environment)
        lines = [line.removeprefix("RUNGS ") for line in done.output.splitlines() if line.startswith("RUNGS ")]
        assert lines, f"{task}: exit status {done.status}: {done.errors[-3000:]}"
        told: dict[str, Any] = json.loads(lines[0])
        assert "error" not in told, told["trace"]
        self.keep("_".join([task, *environment.values()]), told)
        return told

    def keep(self, name: str, what: object) -> None:
        """Write it down at once: a machine that hangs later has told this."""
        self.told[name] = what
        RESULTS.mkdir(parents=True, exist_ok=True)
        self._path().write_text(json.dumps(self.told, indent=1), encoding="utf-8")

    def _path(self) -> Path:
        return RESULTS / f"{self.guest.machine.name}.json"
