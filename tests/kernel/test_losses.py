"""Losses provoked on this node: `doctor` names the true cause and a remedy that removes it, without libbpf's text."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kickwatch.node.causes import CauseKind
from kickwatch.node.kernel_config import kernel_config
from namespaces import cover, denied_bpf, inside, refused_bpf, without_capabilities

pytestmark = [pytest.mark.long, pytest.mark.kernel, pytest.mark.timeout(60)]

BPF, SYMBOLS, WAITS = "IPIs by reason", "kernel symbols", "lock contention"
OTHERS = "containers of others"  # in passive mode
PASSIVE = ("--set", "workload.enabled=false")
KPROBE_RUNGS = {"KICKWATCH_RUNG_IPIS": "kprobe", "KICKWATCH_RUNG_CONTENTION": "kprobe"}


def missing(prefix: list[str], *options: str, **environment: str) -> dict[str, dict[str, Any]]:
    """What `doctor` misses, by name."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "kickwatch", "doctor", "--json", *options],
        capture_output=True, text=True, timeout=50, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    assert "libbpf" not in done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert done.returncode == (4 if found["blind"] else 0)
    return {one["name"]: one for one in found["capabilities"] if not one["satisfied"]}


def test_without_the_restrictions_below_nothing_of_that_is_lost() -> None:
    """Their remedies end in this state: the capabilities and calls of this process, and a /proc that is not covered."""
    assert not {BPF, SYMBOLS, WAITS, OTHERS} & missing([], *PASSIVE).keys()


def test_missing_capabilities_are_named() -> None:
    found = missing(without_capabilities("bpf", "perfmon", "sys_admin"), *PASSIVE)
    for name in (BPF, WAITS, OTHERS):
        assert "lacks CAP_BPF CAP_PERFMON" in found[name]["detail"]
        assert "CapabilityBoundingSet=CAP_BPF CAP_PERFMON" in found[name]["remedy"]


def test_hidden_addresses_name_the_capability() -> None:
    if int(Path("/proc/sys/kernel/kptr_restrict").read_text()) > 1:
        pytest.skip("feature: kernel.kptr_restrict hides them from everybody")
    found = missing(without_capabilities("syslog"))
    assert "lacks CAP_SYSLOG" in found[SYMBOLS]["detail"]
    assert "CapabilityBoundingSet=CAP_SYSLOG and ProtectKernelLogs=no" in found[SYMBOLS]["remedy"]


@pytest.mark.provokes(CauseKind.SECCOMP)
def test_a_seccomp_filter_is_named() -> None:
    found = missing(refused_bpf(), *PASSIVE)
    for name in (BPF, OTHERS):
        assert "seccomp filter refuses bpf" in found[name]["detail"]
        assert "SystemCallFilter=bpf" in found[name]["remedy"]


def test_a_filter_that_lets_bpf_through_is_not_blamed_for_what_a_security_module_refuses() -> None:
    """The unit and every pod have a filter, so the remedy was a setting that they have already."""
    found = missing(denied_bpf(), *PASSIVE)
    for name in (BPF, OTHERS):
        assert "a security module refuses bpf" in found[name]["detail"]
        assert "audit log" in found[name]["remedy"]


@pytest.mark.provokes(CauseKind.USER_NAMESPACE)
def test_a_user_namespace_is_named() -> None:
    """There kallsyms shows no addresses, so nothing else is tried."""
    found = missing(["unshare", "--user", "--map-root-user"], *PASSIVE)
    for name in (SYMBOLS, OTHERS):
        assert "user namespace" in found[name]["detail"]
        assert "PrivateUsers=no" in found[name]["remedy"]
    assert found[BPF]["remedy"] == found[WAITS]["remedy"] == "as for kernel symbols"


@pytest.mark.provokes(CauseKind.KALLSYMS_COVERED)
def test_a_covered_kallsyms_is_named(tmp_path: Path) -> None:
    """As ProtectKernelTunables=yes does it."""
    (tmp_path / "empty").touch()
    found = missing(inside(cover(tmp_path / "empty", "/proc/kallsyms")))
    assert "covered by another file" in found[SYMBOLS]["detail"]
    assert "ProtectKernelTunables=no" in found[SYMBOLS]["remedy"]


@pytest.mark.provokes(CauseKind.KERNEL_CONFIG)
def test_a_kernel_built_without_kprobes_is_named() -> None:
    options = kernel_config(os.uname().release, wanted=("CONFIG_KPROBES", "CONFIG_BPF"))
    if not options or "CONFIG_KPROBES" in options:
        pytest.skip("feature: this kernel has kprobes, or does not tell how it was built")
    found = missing([], "--control", **KPROBE_RUNGS)
    assert found[BPF]["detail"] == "counters only: this kernel was built without CONFIG_KPROBES"
    assert found[WAITS]["detail"] == "this kernel was built without CONFIG_KPROBES"
    assert found["positive control"]["detail"] == "no probe is armed: this kernel was built without CONFIG_KPROBES"
