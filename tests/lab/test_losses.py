"""Losses by settings and releases of a kernel: `doctor` names the cause, and its remedy removes the loss."""

import json
from typing import Any

import pytest
from bench import ENGINE, Bench

pytestmark = [pytest.mark.lab, pytest.mark.timeout(2400)]


def doctor(bench: Bench, *prefix: str, **environment: str) -> dict[str, dict[str, Any]]:
    """The capabilities that `doctor` finds, by name."""
    done = bench.guest.run(*prefix, "kickwatch", "doctor", "--json", *ENGINE, check=False, **environment)
    assert "libbpf" not in done.output + done.errors
    return {one["name"]: one for one in json.loads(done.output)["capabilities"]}


def test_hidden_addresses_name_the_sysctl_and_its_remedy_removes_the_loss(bench: Bench) -> None:
    bench.once("does not depend on the number of CPUs")
    before = bench.guest.out("sysctl", "-n", "kernel.kptr_restrict")
    bench.guest.out("sysctl", "-w", "kernel.kptr_restrict=2")
    try:
        lost = doctor(bench)["kernel symbols"]
        assert not lost["satisfied"]
        assert "kernel.kptr_restrict is 2" in lost["detail"]
        bench.guest.out(*lost["remedy"].split())
        assert doctor(bench)["kernel symbols"]["satisfied"]
    finally:
        bench.guest.out("sysctl", "-w", f"kernel.kptr_restrict={before}")


def test_a_tracepoint_that_came_later_names_the_release(bench: Bench) -> None:
    bench.once("does not depend on the number of CPUs")
    if bench.ipi_rung == "csd":
        pytest.skip("feature: this kernel has the tracepoint")
    lost = doctor(bench, KICKWATCH_RUNG_IPIS="csd")["IPIs by reason"]
    assert "Linux has tracepoint csd_queue_cpu since 6.5" in lost["detail"]
    assert lost["remedy"] == "Linux 6.5 or later"


def test_a_limit_of_locked_memory_is_named_where_it_counts(bench: Bench) -> None:
    bench.once("does not depend on the number of CPUs")
    limited = (
        "prlimit",
        "--memlock=65536:65536",
        "setpriv",
        "--bounding-set=-sys_resource",
        "--inh-caps=-sys_resource",
    )
    found = doctor(bench, *limited, "--")["IPIs by reason"]
    if tuple(map(int, bench.guest.machine.boot.kernel.release.split(".")[:2])) < (5, 11):
        assert "RLIMIT_MEMLOCK is 65536 bytes" in found["detail"]
        assert "LimitMEMLOCK=infinity" in found["remedy"]
    else:
        assert found["satisfied"], found["detail"]


def test_a_missing_capability_is_named_as_this_kernel_has_it(bench: Bench) -> None:
    bench.once("does not depend on the number of CPUs")
    dropped = "-bpf,-perfmon,-sys_admin"
    found = doctor(bench, "setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}", "--")["IPIs by reason"]
    assert "this process lacks CAP_BPF CAP_PERFMON" in found["detail"]


def test_the_cost_per_event_is_measured_and_each_loss_has_its_cost_and_its_fix(bench: Bench) -> None:
    bench.once("does not depend on the number of CPUs")
    found = doctor(bench)
    assert found["cost per event"]["satisfied"], found["cost per event"]
    assert all(one["remedy"] and one["cost"] for one in found.values() if not one["satisfied"])
