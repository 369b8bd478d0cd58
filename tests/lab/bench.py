"""One machine under test in the laboratory: its guest, and its measurements, which are stored at once."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from archive import Architecture
from guest import CgroupVersion, Guest
from userland import ROOT

RESULTS = ROOT / "build" / "lab"
# Each pair of rungs and both cgroup versions once, all three at the same time; the others run on request. cgroup v1's
# memory controller ends with bookworm.
_DEFAULT = "bullseye:v2:4 bookworm:v1:4 trixie:v2:4"
# Not part of the matrix: Docker Engines of other releases on this node, the README's commands in a guest, a bisection.
OTHERS = {"engines": "test_engines.py", "debian": "test_ordinary_debian.py", "bisect": "test_bisect.py"}
KICK = "kick_all_cpus_sync"
# Where matrix.py tells the tests which disk it has built.
DISK_OF = {Architecture.AMD64: "KICKWATCH_LAB_DISK", Architecture.ARM64: "KICKWATCH_LAB_DISK_ARM64"}
# Where matrix.py names the machine of this run that has the tests for which one machine is enough, if it is another.
OTHER_MACHINE = "KICKWATCH_LAB_OTHER_MACHINE"
ENGINE = ("--set", "engine.kind=oci", "--set", "engine.runtime=crun")
_TRIAL_S = 1800.0
_CONTAINER_S = 15.0  # twice its life, in a guest of another architecture beside others
_STORM = ROOT / "tests/support/membarrier_storm.py"  # which that script imports
_INSIDE, _PYTHON = "/opt/lab/rungs_inside.py", "/opt/kickwatch/bin/python"


def machines() -> list[str]:
    """The requested machines, as `suite:cgroup:cpus` or `suite:cgroup:cpus:architecture`."""
    return os.environ.get("KICKWATCH_LAB_MACHINES", _DEFAULT).split()


def architecture_of(machine: str) -> Architecture:
    """The architecture of a requested machine: amd64 unless it names another."""
    return Architecture((machine.split(":")[3:] or [Architecture.AMD64])[0])


def sharing(wanted: Sequence[str]) -> str:
    """The machine of a run that has the tests for which one machine is enough; empty if there is none with 4 CPUs."""
    return next((one for one in wanted if one not in OTHERS and one.split(":")[2] == "4"), "")


@dataclass
class Bench:
    """A booted machine and its measurements so far."""

    guest: Guest
    wanted: CgroupVersion
    module: Path
    results: dict[str, Any] = field(default_factory=dict)
    shared: dict[str, dict[str, Any]] = field(default_factory=dict)  # results of this boot that several tests share

    @property
    def containers(self) -> int:
        """Number of containers of a healthy run."""
        return int(os.environ.get("KICKWATCH_LAB_CONTAINERS", "23"))

    @property
    def arm64(self) -> bool:
        """Whether static keys and BPF programs kick all CPUs, and remote wakeups are function call interrupts."""
        return self.guest.machine.boot.kernel.architecture is Architecture.ARM64

    @property
    def counts_wakeups(self) -> bool:
        """Whether remote wakeups are function call interrupts: all these kernels are newer than 5.8.

        On x86 they are not if idle CPUs are seen to wait in MWAIT.
        """
        look = "grep -qsw MWAIT /sys/devices/system/cpu/cpu0/cpuidle/state*/desc"
        return self.arm64 or self.guest.shell(look, check=False).status != 0

    @property
    def patching(self) -> str:
        """The reason of the requests that a static key makes."""
        return KICK if self.arm64 else "do_sync_core"

    @property
    def keys_interrupt(self) -> bool:
        """Whether a static key interrupts the other CPUs.

        On arm64 it does since "arm64: jump_label: Ensure patched jump_labels are visible to all CPUs" (6.11, and later
        updates of older kernels), which brought the function that is looked for.
        """
        look = "grep -qw arch_jump_label_transform_apply /proc/kallsyms"
        return not self.arm64 or self.guest.shell(look, check=False).status == 0

    def needs_keys(self) -> None:
        """Skip where a static key interrupts nobody."""
        if not self.keys_interrupt:
            pytest.skip("feature: static keys of this kernel send no request")

    @property
    def ipi_rung(self) -> str:
        """The best rung of the guest's kernel, read from its tracefs. All of Debian's kernels have kprobes."""
        return "csd" if self._traces("csd/csd_queue_cpu") else "kprobe"

    @property
    def contention_rung(self) -> str:
        """The best rung for contention."""
        return "tracepoint" if self._traces("lock/contention_begin") else "kprobe"

    @property
    def realtime(self) -> bool:
        """PREEMPT_RT: its mutexes are rt_mutexes, and there is no __mutex_lock to probe."""
        return self.guest.machine.boot.kernel.has("CONFIG_PREEMPT_RT=y")

    def _traces(self, event: str) -> bool:
        return self.guest.shell(f"test -e /sys/kernel/tracing/events/{event}", check=False).status == 0

    def once(self, why: str) -> None:
        """Skip, unless this machine has 4 CPUs; there is one such machine for each kernel and cgroup version."""
        if self.guest.machine.cpus != 4:
            pytest.skip(f"feature: {why}: tested only with 4 CPUs")

    def one_is_enough(self, why: str) -> None:
        """Skip on all machines of a run but the first with 4 CPUs: every kernel answers alike."""
        self.once(why)
        if OTHER_MACHINE in os.environ:
            pytest.skip(f"feature: {why}: tested on {os.environ[OTHER_MACHINE]}")

    def on_request(self, what: str) -> None:
        """Skip, unless KICKWATCH_LAB_LONG is set and this machine has 4 CPUs."""
        self.once(what)
        if "KICKWATCH_LAB_LONG" not in os.environ:
            pytest.skip(f"feature: {what}: enabled by KICKWATCH_LAB_LONG=1")

    def remember(self) -> None:
        """Load the measurements of an earlier run on the same kernel, so that tests can be run one by one."""
        path = self._path()
        if path.exists():
            stored = json.loads(path.read_text("utf-8"))
            if stored["machine"]["kernel"] == self.guest.machine.boot.kernel.release:
                self.results = stored

    def trial(self, name: str, *arguments: str, containers: int = 12, **environment: str) -> dict[str, Any]:
        """Run `kickwatch trial --json`; return and store as `name` its result, exit status and log."""
        command = ("kickwatch", "trial", "--json", *ENGINE, "--containers", str(containers), *arguments)
        environment["KICKWATCH_LOG_FORMAT"] = "json"
        limit_s = max(_TRIAL_S, _CONTAINER_S * containers)
        done = self.guest.run(*command, check=False, timeout_s=limit_s, **environment)
        assert done.raw.startswith(b"{"), f"{' '.join(command)}: exit status {done.status}: {done.errors[-3000:]}"
        lines = [json.loads(line) for line in done.errors.splitlines() if line.startswith("{")]
        result: dict[str, Any] = json.loads(done.output)
        result |= {"status": done.status, "took_s": round(done.took_s, 1), "log": lines}
        self.keep(name, result)
        return result

    def inside(self, task: str, *arguments: str, **environment: str) -> dict[str, Any]:
        """Run `rungs_inside.py TASK` with the Python of the installed kickwatch; return and store its result."""
        self.guest.write(_INSIDE, Path(__file__).with_name("rungs_inside.py").read_bytes())
        self.guest.write(f"/opt/lab/{_STORM.name}", _STORM.read_bytes())
        done = self.guest.run(_PYTHON, _INSIDE, task, *arguments, check=False, timeout_s=_TRIAL_S, **environment)
        lines = [line.removeprefix("RUNGS ") for line in done.output.splitlines() if line.startswith("RUNGS ")]
        assert lines, f"{task}: exit status {done.status}: {done.errors[-3000:]}"
        result: dict[str, Any] = json.loads(lines[0])
        assert "error" not in result, result["trace"]
        self.keep("_".join([task, *environment.values()]), result)
        return result

    def keep(self, name: str, what: object) -> None:
        """Store a measurement at once, in case the machine hangs later."""
        self.results[name] = what
        RESULTS.mkdir(parents=True, exist_ok=True)
        self._path().write_text(json.dumps(self.results, indent=1), encoding="utf-8")

    def _path(self) -> Path:
        return RESULTS / f"{self.guest.machine.name}.json"
