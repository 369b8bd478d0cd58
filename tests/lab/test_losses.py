"""Losses by settings and releases of a kernel: `doctor` names the cause, and its remedy removes the loss."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bench import ENGINE, Bench

from kickwatch.node.causes import CauseKind
from kickwatch.node.privileges import SERVICE, LinuxCapability
from lost_script import LOST

pytestmark = [pytest.mark.lab, pytest.mark.timeout(2400)]

DROP_IN = "/run/systemd/system/kickwatch.service.d/fewer.conf"
KPROBES, FTRACE = "/sys/kernel/debug/kprobes/enabled", "/proc/sys/kernel/ftrace_enabled"
CONFINED = """
profile kickwatch-lab flags=(attach_disconnected,mediate_deleted) {{
  file, network, ptrace, signal, unix, mount, umount, pivot_root, change_profile,
  capability {allowed},
}}
"""
# With fewer descriptors nothing works, and with more nothing is lost.
# The kernel counts files on each CPU, and what file-nr has is off by a hundred: so all are taken, and some given back.
FEW_ON_NODE = f"""{LOST}
import os

limit, in_use = open("/proc/sys/fs/file-max", "r+"), open("/proc/sys/fs/file-nr")
before, found, held = int(limit.read()), [], []
os.sched_setaffinity(0, {{0}})

def allow(number):
    limit.seek(0)
    limit.write(str(number))
    limit.flush()

def leave(number):
    while held:
        os.close(held.pop())
    in_use.seek(0)
    allow(int(in_use.read().split()[0]) + 256)
    try:
        while len(held) < 900:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for _ in range(number):
        os.close(held.pop())

try:
    for number in (*range(8, 128, 8), *range(4, 128, 8)):
        leave(number)
        try:
            found = lost()
        except OSError:  # there was none for the files of /proc, or the event loop
            continue
        if any("descriptor" in what for what, _ in found):
            break
finally:
    allow(before)
    while held:
        os.close(held.pop())
print(json.dumps([found, lost()]))
"""
# mutex_lock and its kin have it inlined, on every kernel.
INLINED = """
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.refused import RefusedError

probe = BpfObject("mutex")
try:
    probe.attach_kprobe("mutex_begin", "__mutex_lock_common")
except RefusedError as error:
    print(f"{error.cause.what}|{error.cause.remedy}")
probe.attach_kprobe("mutex_begin", "mutex_lock")
probe.close()
"""


def doctor(bench: Bench, *prefix: str, **environment: str) -> dict[str, dict[str, Any]]:
    """The capabilities that `doctor` finds, by name."""
    command = (*prefix, "kickwatch", "doctor", "--no-container", "--json", *ENGINE)
    done = bench.guest.run(*command, check=False, **environment)
    assert "libbpf" not in done.output + done.errors
    return {one["name"]: one for one in json.loads(done.output)["capabilities"]}


def controlled(bench: Bench) -> dict[str, dict[str, Any]]:
    """What `doctor --control` finds with kprobes, by name."""
    command = ("kickwatch", "doctor", "--control", "--json", "--no-container")
    done = bench.guest.run(*command, check=False, KICKWATCH_RUNG_IPIS="kprobe")
    return {one["name"]: one for one in json.loads(done.output)["capabilities"]}


@pytest.mark.provokes(CauseKind.KPTR_RESTRICT)
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


@pytest.mark.provokes(CauseKind.OLD_KERNEL)
def test_a_tracepoint_that_came_later_names_the_release(bench: Bench) -> None:
    bench.once("does not depend on the number of CPUs")
    if bench.ipi_rung == "csd":
        pytest.skip("feature: this kernel has the tracepoint")
    lost = doctor(bench, KICKWATCH_RUNG_IPIS="csd")["IPIs by reason"]
    assert "Linux has tracepoint csd_queue_cpu since 6.5" in lost["detail"]
    assert lost["remedy"] == "Linux 6.5 or later"


@pytest.mark.provokes(CauseKind.MEMLOCK)
def test_a_limit_of_locked_memory_is_named_where_it_counts(bench: Bench) -> None:
    bench.once("does not depend on the number of CPUs")
    limited = ("prlimit", "--memlock=65536:65536")
    fewer = ("setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource")
    found = doctor(bench, *limited, *fewer, "--")["IPIs by reason"]
    if tuple(map(int, bench.guest.machine.boot.kernel.release.split(".")[:2])) < (5, 11):
        assert "RLIMIT_MEMLOCK is 65536 bytes" in found["detail"]
        assert "LimitMEMLOCK=infinity" in found["remedy"]
        assert doctor(bench, "prlimit", "--memlock=unlimited", "--")["IPIs by reason"]["satisfied"]
        assert doctor(bench, *limited, "--")["IPIs by reason"]["satisfied"]  # CAP_SYS_RESOURCE lifts it
    else:
        assert found["satisfied"], found["detail"]


def test_a_missing_capability_is_named_as_this_kernel_has_it(bench: Bench) -> None:
    bench.once("does not depend on the number of CPUs")
    dropped = "-bpf,-perfmon,-sys_admin"
    found = doctor(bench, "setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}", "--")["IPIs by reason"]
    assert "this process lacks CAP_BPF CAP_PERFMON" in found["detail"]


@pytest.fixture
def confined(bench: Bench) -> Iterator[Callable[[frozenset[LinuxCapability]], dict[str, dict[str, Any]]]]:
    """What `doctor` finds below a profile of AppArmor that allows these capabilities; it is removed after the test."""
    bench.once("does not depend on the number of CPUs")
    path = "/run/kickwatch-lab.apparmor"

    def found(allowed: frozenset[LinuxCapability]) -> dict[str, dict[str, Any]]:
        names = " ".join(one.name.lower() for one in sorted(allowed))
        bench.guest.shell(f"printf '%s' '{CONFINED.format(allowed=names)}' >{path}; apparmor_parser --replace {path}")
        return doctor(bench, "aa-exec", "--profile=kickwatch-lab", "--")

    yield found
    bench.guest.shell(f"apparmor_parser --remove {path}; rm {path}")


@pytest.mark.provokes(CauseKind.CONFINED)
@pytest.mark.parametrize(
    ("row", "capabilities"),
    [
        ("IPIs by reason", {LinuxCapability.BPF, LinuxCapability.PERFMON}),
        ("kernel symbols", {LinuxCapability.SYSLOG}),
    ],
)
def test_a_profile_of_apparmor_is_named_and_the_rule_of_its_remedy_removes_the_loss(
    bench: Bench,
    paranoid: Callable[[int], None],
    confined: Callable[[frozenset[LinuxCapability]], dict[str, dict[str, Any]]],
    row: str,
    capabilities: set[LinuxCapability],
) -> None:
    """The process has them, and capget(2) says that it lacks them."""
    paranoid(2)
    some = frozenset(LinuxCapability) - capabilities - {LinuxCapability.SYS_ADMIN}
    lost = confined(some)[row]
    bench.keep(f"confined: {row}", lost)
    assert not lost["satisfied"]
    assert "the AppArmor profile kickwatch-lab of this process does not allow CAP_" in lost["detail"], lost
    (rule,) = re.findall(r"`capability ([a-z_ ]+),`", lost["remedy"])
    allowed = {LinuxCapability[name.upper()] for name in rule.split()}
    assert allowed == capabilities
    found = confined(some | allowed)[row]
    assert found["satisfied"], found


@pytest.mark.provokes(CauseKind.NO_DESCRIPTOR_ON_NODE)
def test_a_node_without_descriptors_is_named_and_the_sysctl_of_the_remedy_brings_the_probes_back(bench: Bench) -> None:
    """Root may exceed fs.file-max by CAP_SYS_ADMIN, which the service does not have."""
    bench.once("does not depend on the number of CPUs")
    fewer = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--")
    few, all_of_it = json.loads(bench.guest.out(*fewer, "/opt/kickwatch/bin/python", "-c", FEW_ON_NODE))
    bench.keep("few_descriptors_on_node", few)
    assert "this node has no descriptor left" in {what for what, _ in few}, few
    assert "fs.file-max" in next(remedy for what, remedy in few if what == "this node has no descriptor left")
    assert not [what for what, _ in all_of_it if "descriptor" in what]


def bounding_set(capabilities: frozenset[LinuxCapability]) -> str:
    return f"CapabilityBoundingSet={' '.join(f'CAP_{one.name}' for one in sorted(capabilities))}"


@pytest.fixture
def paranoid(bench: Bench) -> Iterator[Callable[[int], None]]:
    """Sets kernel.perf_event_paranoid, which is what it was after the test."""
    bench.once("does not depend on the number of CPUs")
    before = int(bench.guest.out("sysctl", "-n", "kernel.perf_event_paranoid"))

    def write(level: int) -> None:
        bench.guest.out("sysctl", "-w", f"kernel.perf_event_paranoid={level}")

    yield write
    write(before)


def as_service(bench: Bench, capabilities: frozenset[LinuxCapability]) -> dict[str, dict[str, Any]]:
    """What `doctor --control` finds in a unit with these capabilities and the limit of kickwatch.service."""
    properties = (f"--property={bounding_set(capabilities)}", "--property=LimitMEMLOCK=infinity")
    unit = ("systemd-run", "--quiet", "--wait", "--pipe", *properties, "/usr/local/bin/kickwatch")
    done = bench.guest.run(*unit, "doctor", "--control", "--json", "--no-container", check=False)
    return {one["name"]: one for one in json.loads(done.output)["capabilities"]}


def test_a_service_with_the_units_capabilities_arms_what_root_arms_and_passes_the_control(
    bench: Bench, paranoid: Callable[[int], None]
) -> None:
    paranoid(2)
    service, root = as_service(bench, SERVICE), doctor(bench)
    bench.keep("as_a_service", service)
    assert service["positive control"]["satisfied"], service["positive control"]["detail"]
    assert service["IPIs by reason"]["detail"] == root["IPIs by reason"]["detail"]
    assert service["lock contention"]["detail"] == root["lock contention"]["detail"]
    assert "the service's probes" not in service  # it has no other capabilities
    assert root["the service's probes"]["satisfied"], root["the service's probes"]["detail"]


@pytest.mark.provokes(CauseKind.PERF_PARANOID)
def test_a_sysctl_that_keeps_kprobes_from_the_service_is_named_and_both_its_remedies_bring_them_back(
    bench: Bench, paranoid: Callable[[int], None]
) -> None:
    """Above 2 a patch of Debian's 5.10 and 6.1, and of Ubuntu, asks for CAP_SYS_ADMIN, and 3 is Debian's default."""
    paranoid(4)
    service, root = as_service(bench, SERVICE), doctor(bench)["the service's probes"]
    bench.keep("perf_event_paranoid", {"service": service, "root": root})
    assert root["satisfied"] == service["positive control"]["satisfied"], root["detail"]
    if root["satisfied"]:
        pytest.skip("feature: this kernel needs no kprobes, or lets CAP_PERFMON pass")
    for found in (service["IPIs by reason"], root):
        assert "kernel.perf_event_paranoid is 4, which asks for CAP_SYS_ADMIN" in found["detail"]
    sysctl = re.match(r"sysctl -w kernel.perf_event_paranoid=(\d)", root["remedy"])
    assert sysctl is not None
    paranoid(int(sysctl[1]))
    assert doctor(bench)["the service's probes"]["satisfied"]
    paranoid(4)
    assert "sys-admin.conf" in root["remedy"]
    granted = SERVICE | {LinuxCapability.SYS_ADMIN}
    assert as_service(bench, granted)["positive control"]["satisfied"]


@pytest.mark.provokes(CauseKind.CAPABILITY)
def test_a_unit_without_a_capability_is_found_by_root_and_its_remedy_removes_the_loss(
    bench: Bench, paranoid: Callable[[int], None]
) -> None:
    paranoid(2)

    def found(capabilities: frozenset[LinuxCapability]) -> dict[str, Any]:
        text = f"[Service]\nCapabilityBoundingSet=\n{bounding_set(capabilities)}\n"
        bench.guest.shell(f"mkdir -p {DROP_IN.rpartition('/')[0]}; printf '{text}' >{DROP_IN}; systemctl daemon-reload")
        return doctor(bench)["the service's probes"]

    try:
        lost = found(SERVICE - {LinuxCapability.BPF})
        assert not lost["satisfied"]
        assert "lacks CAP_BPF" in lost["detail"]
        assert "IPIs by reason" in lost["detail"]
        assert "CapabilityBoundingSet=CAP_BPF" in lost["remedy"]
        assert found(SERVICE)["satisfied"]
    finally:
        bench.guest.shell(f"rm -r {DROP_IN.rpartition('/')[0]}; systemctl daemon-reload")


def test_interrupts_to_isolated_cpus_have_a_row_that_names_the_release(bench: Bench) -> None:
    """The daemon logged the loss, and for doctor nothing was missing."""
    bench.once("does not depend on the number of CPUs")
    found = doctor(bench, KICKWATCH_NODE_ISOLATED_CPUS="3")["interrupts to isolated CPUs"]
    assert found["satisfied"] == (bench.ipi_rung == "csd")  # no kernel of Debian has one tracepoint and not the other
    assert found["satisfied"] or found["remedy"] == "Linux 6.4 or later", found


@pytest.mark.provokes(CauseKind.INLINED)
def test_a_function_that_the_compiler_inlined_is_named(bench: Bench) -> None:
    bench.once("does not depend on the number of CPUs")
    if bench.realtime:
        pytest.skip("feature: PREEMPT_RT has other mutexes")
    what, _, remedy = bench.guest.out("/opt/kickwatch/bin/python", "-c", INLINED).partition("|")
    assert what == "the compiler has inlined __mutex_lock_common, or kprobes may not be placed on it"
    assert remedy.endswith("a kernel with the tracepoint: Linux 5.19")


@pytest.mark.provokes(CauseKind.KPROBES_OFF, CauseKind.FTRACE_OFF)
@pytest.mark.parametrize(
    ("switch", "what"),
    [
        (KPROBES, "/sys/kernel/debug/kprobes/enabled is 0, and no kprobe runs"),
        (FTRACE, "kernel.ftrace_enabled is 0, and no probe at the entry of a function runs"),
    ],
)
def test_a_switch_that_silences_attached_kprobes_is_named_and_its_remedy_brings_them_back(
    bench: Bench, switch: str, what: str
) -> None:
    bench.once("does not depend on the number of CPUs")
    if switch == FTRACE and not bench.guest.machine.boot.kernel.has("CONFIG_KPROBES_ON_FTRACE=y"):
        pytest.skip("feature: kprobes of this architecture do without the function tracer")
    bench.guest.shell("mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug")
    bench.guest.shell(f"echo 0 >{switch}")
    try:
        lost = controlled(bench)
        bench.keep(f"silenced_by_{switch.rpartition('/')[2]}", lost)
        assert lost["IPIs by reason"]["satisfied"]  # they can be attached
        assert re.match(rf"counted 0 of 23 .*: {re.escape(what)}$", lost["positive control"]["detail"])
        assert lost["cost per event"]["detail"].endswith(what)
        bench.guest.shell(lost["positive control"]["remedy"])
        assert controlled(bench)["positive control"]["satisfied"]
    finally:
        bench.guest.shell(f"echo 1 >{switch}")


def test_the_cost_per_event_is_measured_and_each_loss_has_its_cost_and_its_fix(bench: Bench) -> None:
    bench.once("does not depend on the number of CPUs")
    found = doctor(bench)
    assert found["cost per event"]["satisfied"], found["cost per event"]
    assert all(one["remedy"] and one["cost"] for one in found.values() if not one["satisfied"])
