"""The node hides files or BPF from the daemon, which reports what is missing, is blind, not quiet, and recovers."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from idling import reasons_without_a_probe
from namespaces import (
    REFUSE_BPF,
    Step,
    cover,
    enter,
    inside,
    refused_bpf,
    refused_bpf_later,
    without_capabilities,
)
from needs import ipi_rung
from node_daemon import FAST, NodeDaemon, toml

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(120)]

MANY = {"workload.containers_per_trial": 12, "workload.concurrency": 4}  # with probes, ten are enough for a verdict
TRACING = "/sys/kernel/tracing"
MOUNTED = ("sh", "-c", f"mountpoint -q {TRACING} || mount -t tracefs tracefs {TRACING}")


def run(prefix: list[str], command: str, tmp_path: Path, *words: str) -> tuple[int, Any, str]:
    """Run `kickwatch COMMAND --json` after a prefix; return exit status, result and standard error."""
    config = tmp_path / "kickwatch.toml"
    config.write_text(toml(FAST | NodeDaemon.separate_paths(tmp_path)))
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "kickwatch", command, "--json", "--config", str(config), *words],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout), done.stderr


def tracefs(tmp_path: Path) -> dict[str, list[Step]]:
    """States of tracefs that an administrator may have caused."""
    other_place = tmp_path / "tracing"
    other_place.mkdir()
    unmount = ("umount", "-l", TRACING)
    return {
        "not mounted": [MOUNTED, unmount],
        "mounted elsewhere": [MOUNTED, unmount, ("mount", "-t", "tracefs", "tracefs", other_place)],
        "read-only": [MOUNTED, ("mount", "-o", "remount,bind,ro", TRACING)],
    }


@pytest.mark.parametrize("how", ["not mounted", "mounted elsewhere", "read-only"])
def test_tracefs_is_not_needed(tmp_path: Path, how: str) -> None:
    """Nothing is lost: raw tracepoints need no tracefs."""
    status, result, err = run(inside(*tracefs(tmp_path)[how]), "doctor", tmp_path, "--control")
    assert (status, result["blind"]) == (0, False), err
    satisfied = {row["name"]: row["satisfied"] for row in result["capabilities"]}
    assert satisfied["IPIs by reason"]
    assert satisfied["lock contention"]
    assert satisfied["positive control"]


def test_a_trial_does_not_need_tracefs(tmp_path: Path) -> None:
    """The verdict does not change either. A broadcast of anybody else's is much among two containers."""
    status, result, err = run(inside(*tracefs(tmp_path)["not mounted"]), "trial", tmp_path)
    assert (status, result["verdict"]) == (4, "unknown"), err
    assert set(result["reasons"]) - {"broadcasts_elsewhere"} == {"insufficient_evidence"}, err
    assert result["observers"] == {"ipis": ipi_rung(), "contention": "tracepoint"}
    assert result["containers"] == 2
    assert {row["reason"] for row in result["bill"]} & {"rcu_exp_handler", "flush_tlb_func", "sched_ttwu_pending"}


def test_proc_interrupts_cut_off_within_a_line(tmp_path: Path) -> None:
    """No figure is derived from it. The trial is lost and the control fails until the file is complete again."""
    cut = tmp_path / "interrupts"
    text = Path("/proc/interrupts").read_text()
    cut.write_text(text[: text.index("\n", len(text) // 2) + 20])
    with NodeDaemon(tmp_path, {"trial.control_period_s": 1}, prefix=inside()) as daemon:
        daemon.wait("trial_finished")
        enter(daemon.pid, cover(cut, "/proc/interrupts"))
        failed = daemon.wait("trial_failed")
        assert "/proc/interrupts ends in the middle of a line" in failed["what"]
        assert failed["remedy"]
        blind = daemon.wait("observer_blind")
        assert "/proc/interrupts" in blind["what"]
        daemon.wait_status("unknown; trial")
        enter(daemon.pid, ("umount", "-l", "/proc/interrupts"))  # it may be open just now
        daemon.wait("observer_sees")
        since = daemon.mark()
        assert daemon.wait("trial_finished", since)["failed"] == 0
        assert daemon.events("trial_failed", since) == []


def zeros(tmp_path: Path) -> Step:
    """/proc/kallsyms as a reader without CAP_SYSLOG sees it."""
    hidden = tmp_path / "kallsyms"
    hidden.write_text(re.sub(r"^[0-9a-f]+", "0" * 16, Path("/proc/kallsyms").read_text(), flags=re.MULTILINE))
    return cover(hidden, "/proc/kallsyms")


def test_kallsyms_hidden(tmp_path: Path) -> None:
    with NodeDaemon(tmp_path, MANY, prefix=inside(zeros(tmp_path))) as daemon:
        started = daemon.wait("started")
        assert started["observers"]["ipis"] == "counters"
        lost = daemon.wait("capability_lost")["what"]
        assert "covered by another file" in lost
        assert "ProtectKernelTunables=no" in lost
        assert "kallsyms" in daemon.wait("observer_blind")["what"]
        finished = daemon.wait("trial_finished")
        assert (finished["verdict"], finished["containers"]) == ("unknown", 12)
        assert "blind" in finished["reasons"]
        daemon.wait_status("unknown; trial")


@pytest.mark.parametrize("command", ["trial", "doctor"])
def test_kallsyms_hidden_from_a_command(tmp_path: Path, command: str) -> None:
    status, result, err = run(inside(zeros(tmp_path)), command, tmp_path)
    assert status == 4, err
    if command == "doctor":
        missing = {row["name"]: row["remedy"] for row in result["capabilities"] if not row["satisfied"]}
        assert result["blind"]
        assert "ProtectKernelTunables=no" in missing["kernel symbols"]
    else:
        assert (result["verdict"], result["reasons"]) == ("unknown", reasons_without_a_probe())


@pytest.mark.parametrize("how", ["capabilities", "seccomp"])
def test_bpf_refused_from_the_start(tmp_path: Path, how: str) -> None:
    """With counters alone the verdict is never quiet, after any number of containers."""
    prefix = without_capabilities("bpf", "perfmon", "sys_admin") if how == "capabilities" else refused_bpf()
    with NodeDaemon(tmp_path, MANY, prefix=prefix) as daemon:
        assert daemon.wait("started")["observers"] == {"ipis": "counters", "contention": "none"}
        cause = "lacks CAP_BPF CAP_PERFMON" if how == "capabilities" else "a seccomp filter refuses bpf"
        assert cause in daemon.wait("capability_lost")["what"]
        assert "no probe is armed" in daemon.wait("observer_blind")["what"]
        finished = daemon.wait("trial_finished")
        lost = [record["what"] for record in daemon.events("capability_lost")]
        assert len(lost) == 1, "one cause, reported once, with all that it takes away"
        assert "lost: IPIs by reason, waits for slab_mutex" in lost[0]
        assert (finished["verdict"], finished["containers"]) == ("unknown", 12)
        assert "blind" in finished["reasons"]
        assert not any(status.startswith("quiet") for status in daemon.statuses)


def test_bpf_refused_while_it_runs(tmp_path: Path) -> None:
    """A kernel before 5.19 does this once CAP_BPF is dropped. An unreadable map does not count as empty."""
    metrics = {"metrics.enabled": True, "metrics.listen": "127.0.0.1:0", "metrics.textfile": str(tmp_path / "k.prom")}
    with NodeDaemon(tmp_path, MANY | metrics, prefix=refused_bpf_later()) as daemon:
        daemon.wait("trial_finished")
        since = daemon.mark()
        daemon.send(REFUSE_BPF)
        failed = daemon.wait("trial_failed", since)
        assert "BPF map" in failed["what"]
        assert "EPERM" in failed["what"]
        assert "seccomp" in failed["what"]
        assert "SystemCallFilter=bpf" in failed["remedy"]
        assert "EPERM" in daemon.wait("observer_blind", since)["what"]
        daemon.wait("trial_failed", since, times=2)
        daemon.wait_status("unknown; ")
        assert daemon.events("trial_finished", daemon.records.index(failed)) == []
        daemon.until(lambda: 'kickwatch_observer_up{observer="csd"} 0.0' in textfile(tmp_path), "up 0")


def textfile(tmp_path: Path) -> str:
    """The file that node_exporter would read."""
    path = tmp_path / "k.prom"
    return path.read_text() if path.exists() else ""


def test_psi_absent(tmp_path: Path) -> None:
    """The guard uses the figures that exist."""
    empty = tmp_path / "pressure"
    empty.mkdir()
    steps = [cover(empty, "/proc/pressure")] if Path("/proc/pressure").is_dir() else []
    guarded = {
        "guard.enabled": True, "guard.poll_s": 0.2, "guard.load_per_cpu": 0.0, "budget.preset": "sentinel",
        "budget.containers_per_hour": 1000, "budget.cpu_share": 1.0,
    }  # fmt: skip
    with NodeDaemon(tmp_path, guarded, prefix=inside(*steps)) as daemon:
        daemon.wait("trial_finished", times=2)
        assert daemon.events("paused") == []
        assert daemon.events("trial_failed") == []
