"""Kernel lockdown (confidentiality) in a guest of its own: what is lost is named, and nothing else is lost."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from bench import ENGINE, Bench
from guest import booted

from kickwatch.node.causes import CauseKind

pytestmark = [pytest.mark.lab, pytest.mark.timeout(2400)]

WORDS = ("lockdown=confidentiality",)
SECURITYFS = "mountpoint -q /sys/kernel/security || mount -t securityfs securityfs /sys/kernel/security"


@pytest.fixture(scope="module")
def locked_down(bench: Bench) -> Iterator[Bench]:
    """A second guest with the kernel of `bench`. Its modules are signed, the fault module is not."""
    if bench.guest.machine.cpus != 4 or bench.wanted != "v2":
        pytest.skip("feature: needs another boot, tested only on the machines with 4 CPUs and cgroup v2")
    with booted(replace(bench.guest.machine, words=WORDS)) as guest:
        guest.shell(SECURITYFS)
        assert "[confidentiality]" in guest.out("cat", "/sys/kernel/security/lockdown")
        yield Bench(guest, bench.wanted, bench.module)


def doctor(bench: Bench) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The result of `doctor --control`, and its capabilities by name."""
    done = bench.guest.run("kickwatch", "doctor", "--control", "--json", *ENGINE, check=False)
    result = json.loads(done.output)
    bench.keep("lockdown_doctor", result)
    return result, {one["name"]: one for one in result["capabilities"]}


@pytest.mark.provokes(CauseKind.LOCKDOWN_READ)
def test_attribution_is_kept_where_lockdown_refuses_reads_of_kernel_memory(locked_down: Bench, bench: Bench) -> None:
    if bench.ipi_rung != "csd":
        pytest.skip("feature: this kernel needs kprobes, which lockdown forbids")
    result, found = doctor(locked_down)
    assert not result["blind"]
    assert found["IPIs by reason"]["detail"] == "tracepoint csd:csd_queue_cpu"
    assert found["positive control"]["satisfied"], found["positive control"]["detail"]
    assert found["lock contention"]["satisfied"]
    assert "lockdown (confidentiality)" in found["slab_mutex"]["detail"]
    assert "lockdown=integrity" in found["slab_mutex"]["remedy"]


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


@pytest.mark.provokes(CauseKind.LOCKDOWN_KPROBES)
def test_where_kprobes_are_needed_lockdown_is_named_as_the_cause(locked_down: Bench, bench: Bench) -> None:
    if bench.ipi_rung == "csd":
        pytest.skip("feature: this kernel needs no kprobes")
    result, found = doctor(locked_down)
    assert result["blind"]
    lost = found["IPIs by reason"]
    assert "kernel lockdown (confidentiality) forbids" in lost["detail"]
    assert "lockdown=integrity" in lost["remedy"]
    assert "libbpf" not in lost["detail"]
    if bench.contention_rung == "tracepoint":
        assert found["lock contention"]["satisfied"], found["lock contention"]["detail"]


def test_a_trace_is_complete_under_lockdown(locked_down: Bench, bench: Bench) -> None:
    if bench.ipi_rung != "csd":
        pytest.skip("feature: single requests are listed only with the tracepoint")
    done = locked_down.guest.run(
        "kickwatch", "trace", "--containers", "2", "--out", "/tmp/trace.json", *ENGINE, check=False
    )
    # What an interrupt sends while the probe runs is lost, here as elsewhere; a guest is slow. It must be explained.
    assert done.status == 0 or "explained by the lost events" in done.errors, done.errors
    assert json.loads(locked_down.guest.read("/tmp/trace.json"))["traceEvents"]
