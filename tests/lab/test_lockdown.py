"""Kernel lockdown in guests of their own: with confidentiality what is lost is named, and with integrity nothing is."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from bench import ENGINE, Bench
from guest import booted

from kickwatch.node.causes import CauseKind

pytestmark = [pytest.mark.lab, pytest.mark.timeout(2400)]

READS = "kernel lockdown (confidentiality) forbids BPF programs to read kernel memory"
KPROBES = "kernel lockdown (confidentiality) forbids kprobes"
REMEDY = "boot with lockdown=integrity, which is enough for Secure Boot"
ATTACHES_A_KPROBE = """
import sys
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.refused import RefusedError

probe = BpfObject(sys.argv[1])
try:
    probe.attach_kprobe(sys.argv[2], "mutex_lock")
    print("attached")
except RefusedError as error:
    print(f"{error.cause.what}|{error.cause.remedy}")
probe.close()
"""
SECURITYFS = "mountpoint -q /sys/kernel/security || mount -t securityfs securityfs /sys/kernel/security"


@contextmanager
def booted_with(level: str, bench: Bench) -> Iterator[Bench]:
    """A second guest with the kernel of `bench`. Its modules are signed, the fault module is not."""
    if bench.guest.machine.cpus != 4 or bench.wanted != "v2":
        pytest.skip("feature: needs another boot, tested only on the machines with 4 CPUs and cgroup v2")
    with booted(replace(bench.guest.machine, words=(f"lockdown={level}",))) as guest:
        guest.shell(SECURITYFS)
        assert f"[{level}]" in guest.out("cat", "/sys/kernel/security/lockdown")
        yield Bench(guest, bench.wanted, bench.module)


@pytest.fixture(scope="module")
def locked_down(bench: Bench) -> Iterator[Bench]:
    with booted_with("confidentiality", bench) as guest:
        yield guest


def attach_a_kprobe(bench: Bench, probe: str, program: str) -> str:
    """`attached`, or the cause and its remedy."""
    return bench.guest.out("/opt/kickwatch/bin/python", "-c", ATTACHES_A_KPROBE, probe, program)


def doctor(bench: Bench) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The result of `doctor --control`, and its capabilities by name."""
    done = bench.guest.run("kickwatch", "doctor", "--control", "--json", *ENGINE, check=False)
    result = json.loads(done.output)
    bench.keep("lockdown_doctor", result)
    return result, {one["name"]: one for one in result["capabilities"]}


def test_with_integrity_which_is_the_remedy_nothing_is_lost(bench: Bench) -> None:
    """First, so that there is one guest beside that of `bench` at a time. The probe of mutexes reads kernel memory."""
    if bench.ipi_rung == "csd":
        pytest.skip("feature: a boot for the remedy, on a kernel that needs kprobes as well as reads")
    with booted_with("integrity", bench) as guest:
        result, found = doctor(guest)
        assert attach_a_kprobe(guest, "mutex", "mutex_begin") == "attached"
    for name in ("IPIs by reason", "lock contention", "slab_mutex", "positive control"):
        assert found[name]["satisfied"], found[name]["detail"]
    assert "lockdown" not in json.dumps(result)


@pytest.mark.provokes(CauseKind.LOCKDOWN_READ)
def test_attribution_is_kept_where_lockdown_refuses_reads_of_kernel_memory(locked_down: Bench, bench: Bench) -> None:
    if bench.ipi_rung != "csd":
        pytest.skip("feature: this kernel needs kprobes, which lockdown forbids")
    result, found = doctor(locked_down)
    assert not result["blind"]
    assert found["IPIs by reason"]["detail"] == "tracepoint csd:csd_queue_cpu"
    assert found["positive control"]["satisfied"], found["positive control"]["detail"]
    assert found["lock contention"]["satisfied"]
    assert found["slab_mutex"]["detail"].endswith(f"; {READS}")
    assert found["slab_mutex"]["remedy"] == REMEDY


def test_a_healthy_container_is_quiet_under_lockdown_and_no_sender_is_said_to_hold_slab_mutex(
    locked_down: Bench, bench: Bench
) -> None:
    if bench.ipi_rung != "csd":
        pytest.skip("feature: this kernel needs kprobes, which lockdown forbids")
    result = locked_down.trial("healthy", containers=23)
    assert (result["verdict"], result["status"]) == ("quiet", 0), result["reasons"]
    assert {cell["under_slab_mutex"] for cell in result["bill"]} == {None}
    (note,) = [note for note in result["notes"] if "lockdown" in note]
    assert "whether a sender holds slab_mutex, who holds slab_mutex" in note


def test_200_healthy_containers_are_quiet_under_lockdown(locked_down: Bench, bench: Bench) -> None:
    bench.on_request("takes ten minutes")
    if bench.ipi_rung != "csd":
        pytest.skip("feature: this kernel needs kprobes, which lockdown forbids")
    result = locked_down.trial("healthy_200", containers=200)
    assert (result["status"], result["findings"]) == (0, []), (result["verdict"], result["reasons"])
    assert not [line for line in result["log"] if line["event"].endswith(("_detected", "_broken"))]


@pytest.mark.provokes(CauseKind.LOCKDOWN_KPROBES)
def test_a_kprobe_that_lockdown_refuses_names_it(locked_down: Bench) -> None:
    """With the programs of another probe, which read no kernel memory: those of kprobes are not even loaded.

    They are from 5.4 to 5.12, without "bpf, lockdown, audit: Fix buggy SELinux lockdown permission checks" (5.13, and
    later updates of 5.10), and then it is the kprobe that is refused.
    """
    what, _, remedy = attach_a_kprobe(locked_down, "contention", "contention_begin").partition("|")
    assert what == KPROBES
    assert remedy == f"{REMEDY}, or a kernel with the tracepoint: Linux 5.19"


def test_where_kprobes_are_needed_lockdown_is_named_as_the_cause(locked_down: Bench, bench: Bench) -> None:
    if bench.ipi_rung == "csd":
        pytest.skip("feature: this kernel needs no kprobes")
    result, found = doctor(locked_down)
    assert result["blind"]
    lost = found["IPIs by reason"]
    assert lost["detail"].endswith(f"; {READS}")
    assert lost["remedy"].endswith(f"; {REMEDY}")
    assert "libbpf" not in lost["detail"]
    if bench.contention_rung == "tracepoint":
        assert found["lock contention"]["satisfied"], found["lock contention"]["detail"]


def test_a_trace_is_complete_under_lockdown(locked_down: Bench, bench: Bench) -> None:
    if bench.ipi_rung != "csd":
        pytest.skip("feature: single requests are listed only with the tracepoint")
    done = locked_down.guest.run(
        "kickwatch", "trace", "--containers", "2", "--out", "/tmp/trace.json", *ENGINE, check=False
    )
    # What an interrupt sends while a probe runs is lost, here as elsewhere; a guest is slow. It must be explained.
    explained = ("explained by the lost events", "the counting probe lost")
    assert done.status == 0 or any(cause in done.errors for cause in explained), done.errors
    assert json.loads(locked_down.guest.read("/tmp/trace.json"))["traceEvents"]
