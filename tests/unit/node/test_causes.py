"""Every cause of a loss is found from the errno and the facts of the node, and its remedy removes it."""

import errno
import re
from dataclasses import replace
from pathlib import Path

import pytest

from kickwatch.node.causes import CAUSES, STATISTICS_SUBJECT, CauseKind, cause_of, hidden_processes
from kickwatch.node.diagnosis import Act, Facts, Refusal, diagnose, silenced
from kickwatch.node.privileges import LinuxCapability
from kickwatch.node.proc_mount import ProcMount

ROOT = (1 << 41) - 1
KPROBES = {"CONFIG_KPROBES": "y", "CONFIG_KPROBE_EVENTS": "y"}
ON_FTRACE = KPROBES | {"CONFIG_KPROBES_ON_FTRACE": "y"}
BPF = {"CONFIG_BPF_SYSCALL": "y", "CONFIG_BPF_EVENTS": "y", "CONFIG_SMP": "y", "CONFIG_KALLSYMS": "y"}
NODE = Facts(release="6.12.1", effective=ROOT, kptr_restrict=1, perf_event_paranoid=2, options=BPF | KPROBES)


def without(*names: LinuxCapability) -> int:
    return ROOT & ~sum(1 << name for name in names)


NO_BPF = without(LinuxCapability.BPF, LinuxCapability.PERFMON, LinuxCapability.SYS_ADMIN)
BEFORE_5_11: dict[str, object] = {"release": "5.10.0", "effective": without(LinuxCapability.SYS_RESOURCE)}
LET_THROUGH: dict[str, object] = {"seccomp": True, "answered": True}
CSD, PROBE = "csd_queue_cpu", "smp_call_function_many_cond"
NO_HELPER = "program of this type cannot use helper bpf_probe_read#4"

# (what is expected, the refusal, what differs on the node, words of the sentence, words of the remedy)
CASES: list[tuple[CauseKind, Refusal, dict[str, object], str, str]] = [
    (CauseKind.LOCKDOWN_READ, Refusal(Act.LOAD, errno.EINVAL, "ipis", NO_HELPER), {}, "lockdown", "lockdown=integrity"),
    (
        CauseKind.LOCKDOWN_READ, Refusal(Act.LOAD, errno.EINVAL, "ipis"), {"lockdown": "confidentiality"},
        "kernel lockdown (confidentiality)", "lockdown=integrity",
    ),
    (
        CauseKind.LOCKDOWN_KPROBES, Refusal(Act.KPROBE, errno.EPERM, PROBE), {"lockdown": "confidentiality"},
        "forbids kprobes", "Linux 6.5",
    ),
    (
        CauseKind.CAPABILITY, Refusal(Act.LOAD, errno.EPERM, "csd"), {"effective": NO_BPF, "seccomp": True},
        "lacks CAP_BPF CAP_PERFMON", "CapabilityBoundingSet=CAP_BPF CAP_PERFMON",
    ),
    (
        CauseKind.CAPABILITY, Refusal(Act.LOAD, errno.EPERM, "calls"), {"effective": NO_BPF, "release": "5.4.0"},
        "lacks CAP_SYS_ADMIN", "CapabilityBoundingSet=CAP_SYS_ADMIN",
    ),
    (
        CauseKind.CAPABILITY, Refusal(Act.SYMBOLS), {"effective": without(LinuxCapability.SYSLOG)},
        "lacks CAP_SYSLOG", "ProtectKernelLogs=no",
    ),
    (
        CauseKind.CAPABILITY, Refusal(Act.MAP, errno.EPERM), {"effective": NO_BPF, "release": "5.10.0"},
        "lacks CAP_BPF", "CAP_BPF",
    ),
    (
        CauseKind.GIVEN_UP, Refusal(Act.LOAD, errno.EPERM, "ipis"), {"effective": NO_BPF, "given_up": ROOT},
        "gave up CAP_BPF CAP_PERFMON", "restart kickwatch",
    ),
    (
        CauseKind.CONFINED, Refusal(Act.LOAD, errno.EPERM, "csd"),
        {"effective": NO_BPF, "withheld": ROOT & ~NO_BPF, "profile": "some"},
        "the AppArmor profile some of this process does not allow CAP_BPF CAP_PERFMON", "`capability bpf perfmon,`",
    ),
    (
        CauseKind.CONFINED, Refusal(Act.SYMBOLS),
        {"effective": without(LinuxCapability.SYSLOG), "withheld": 1 << LinuxCapability.SYSLOG},
        "the security module's profile of this process does not allow CAP_SYSLOG", "`capability syslog,`",
    ),
    (
        CauseKind.CAPABILITY, Refusal(Act.LOAD, errno.EPERM, "csd"),
        {"effective": NO_BPF, "withheld": 1 << LinuxCapability.BPF}, "lacks CAP_BPF CAP_PERFMON", "in a container",
    ),
    (
        CauseKind.USER_NAMESPACE, Refusal(Act.LOAD, errno.EPERM, "csd"), {"user_namespace": True},
        "user namespace", "PrivateUsers=no",
    ),
    (CauseKind.SECCOMP, Refusal(Act.LOAD, errno.EPERM, "csd"), {"seccomp": True}, "seccomp", "SystemCallFilter=bpf"),
    (
        CauseKind.SECCOMP, Refusal(Act.MAP, errno.EPERM), {"seccomp": True, "effective": NO_BPF},
        "seccomp", "SystemCallFilter=bpf",
    ),
    (
        CauseKind.SECCOMP, Refusal(Act.KPROBE, errno.EPERM, PROBE), {"seccomp": True},
        "refuses perf_event_open", "SystemCallFilter=perf_event_open",
    ),
    (
        CauseKind.MEMLOCK, Refusal(Act.LOAD, errno.EPERM, "calls"), BEFORE_5_11 | {"memlock": 65536},
        "RLIMIT_MEMLOCK is 65536", "LimitMEMLOCK=infinity",
    ),
    (
        CauseKind.MEMLOCK, Refusal(Act.LOAD, errno.EPERM, "calls"), BEFORE_5_11 | {"memlock": 0},
        "RLIMIT_MEMLOCK is 0", "LimitMEMLOCK=infinity",
    ),
    (
        CauseKind.MEMLOCK, Refusal(Act.LOAD, errno.EPERM, "calls"), BEFORE_5_11 | LET_THROUGH | {"memlock": 65536},
        "RLIMIT_MEMLOCK is 65536", "LimitMEMLOCK=infinity",
    ),
    (
        CauseKind.SECCOMP, Refusal(Act.LOAD, errno.EPERM, "calls"), BEFORE_5_11 | {"memlock": 65536, "seccomp": True},
        "seccomp", "SystemCallFilter=bpf",
    ),
    (
        CauseKind.NOT_ALLOWED, Refusal(Act.LOAD, errno.EPERM, "calls"),
        BEFORE_5_11 | {"memlock": 65536, "effective": ROOT}, "security module", "audit log",
    ),
    (
        CauseKind.SECCOMP, Refusal(Act.LOAD, errno.EPERM, "calls"),
        BEFORE_5_11 | {"memlock": 65536, "effective": ROOT, "seccomp": True}, "seccomp", "SystemCallFilter=bpf",
    ),
    (
        CauseKind.PERF_PARANOID, Refusal(Act.KPROBE, errno.EACCES, PROBE),
        LET_THROUGH | {"perf_event_paranoid": 3, "effective": without(LinuxCapability.SYS_ADMIN)},
        "perf_event_paranoid is 3", "sysctl -w kernel.perf_event_paranoid=2",
    ),
    (
        CauseKind.KPTR_RESTRICT, Refusal(Act.SYMBOLS), {"kptr_restrict": 2},
        "kernel.kptr_restrict is 2", "sysctl -w kernel.kptr_restrict=1",
    ),
    (
        CauseKind.KALLSYMS_COVERED, Refusal(Act.SYMBOLS), {"kallsyms_covered": True, "kptr_restrict": 2},
        "covered by another file", "ProtectKernelTunables=no",
    ),
    (CauseKind.KALLSYMS_COVERED, Refusal(Act.SYMBOLS, errno.EACCES), {}, "covered", "ProtectKernelTunables=no"),
    (
        CauseKind.PROC_SUBSET, Refusal(Act.SYMBOLS, errno.ENOENT), {"proc_subset": "pid"},
        "/proc is mounted with subset=pid", "ProcSubset=all",
    ),
    (CauseKind.KALLSYMS_ABSENT, Refusal(Act.SYMBOLS, errno.ENOENT), {}, "no /proc/kallsyms", "CONFIG_KALLSYMS"),
    (
        CauseKind.OLD_KERNEL, Refusal(Act.TRACEPOINT, errno.ENOENT, CSD), {"release": "6.1.0-56-amd64"},
        "Linux has tracepoint csd_queue_cpu since 6.5, and this is 6.1.0-56-amd64", "Linux 6.5 or later",
    ),
    (
        CauseKind.OLD_KERNEL, Refusal(Act.STATISTICS, errno.EINVAL, STATISTICS_SUBJECT), {"release": "4.19.304"},
        "run-time statistics of BPF programs since 5.8, and this is 4.19.304", "Linux 5.8 or later",
    ),
    (
        CauseKind.KERNEL_CONFIG, Refusal(Act.KPROBE, errno.ENOENT, PROBE), {"options": BPF, "kprobes": False},
        "built without CONFIG_KPROBES", "CONFIG_KPROBES",
    ),
    (
        CauseKind.KERNEL_CONFIG, Refusal(Act.KPROBE, errno.ENOENT, PROBE), {"options": {}, "kprobes": False},
        "built without CONFIG_KPROBE_EVENTS", "CONFIG_KPROBE_EVENTS",
    ),
    (
        CauseKind.KERNEL_CONFIG, Refusal(Act.LOAD, errno.ENOSYS, "csd"), {"options": KPROBES},
        "built without CONFIG_BPF_SYSCALL", "CONFIG_BPF_SYSCALL",
    ),
    (
        CauseKind.NO_TRACEPOINT, Refusal(Act.TRACEPOINT, errno.ENOENT, "cgroup_attach_task"), {},
        "this kernel has no tracepoint cgroup_attach_task", "a kernel that has it",
    ),
    (
        CauseKind.OTHER_ARGUMENTS, Refusal(Act.TRACEPOINT, errno.EINVAL, "cgroup_mkdir"), {},
        "the tracepoint cgroup_mkdir of this kernel has fewer arguments", "report it",
    ),
    (CauseKind.INLINED, Refusal(Act.KPROBE, errno.ENOENT, PROBE), {}, PROBE, "Linux 6.5"),
    (CauseKind.INLINED, Refusal(Act.KPROBE, errno.EINVAL, "__mutex_lock.isra.0"), {}, "__mutex_lock", "Linux 5.19"),
    (CauseKind.NOT_ALLOWED, Refusal(Act.LOAD, errno.EPERM, "csd"), {}, "security module", "audit log"),
    (CauseKind.NOT_ALLOWED, Refusal(Act.LOAD, errno.EACCES, "csd"), LET_THROUGH, "module refuses bpf", "audit log"),
    (CauseKind.NOT_ALLOWED, Refusal(Act.MAP, errno.EPERM), LET_THROUGH, "module refuses bpf", "audit log"),
    (
        CauseKind.NOT_ALLOWED, Refusal(Act.KPROBE, errno.EPERM, PROBE), LET_THROUGH,
        "module refuses perf_event_open", "audit log",
    ),
    (CauseKind.NO_DESCRIPTOR, Refusal(Act.LOAD, errno.EMFILE, "csd"), {}, "RLIMIT_NOFILE", "LimitNOFILE="),
    (CauseKind.NO_DESCRIPTOR_ON_NODE, Refusal(Act.MAP, errno.ENFILE), {}, "no descriptor left", "fs.file-max"),
    (CauseKind.NO_MEMORY, Refusal(Act.MAP, errno.ENOMEM), {}, "no memory for BPF", "MemoryMax="),
    (CauseKind.UNKNOWN, Refusal(Act.LOAD, errno.E2BIG, "csd", "too many insns"), {}, "too many insns", "report it"),
]  # fmt: skip
BY_MOUNT = {CauseKind.HIDEPID, CauseKind.HIDEPID_PTRACEABLE}
BY_SWITCH = {CauseKind.KPROBES_OFF, CauseKind.FTRACE_OFF}


@pytest.mark.parametrize(("kind", "refusal", "differs", "what", "remedy"), CASES, ids=[case[0] for case in CASES])
def test_a_loss_names_its_true_cause(
    kind: CauseKind, refusal: Refusal, differs: dict[str, object], what: str, remedy: str
) -> None:
    found = diagnose(refusal, replace(NODE, **differs))  # type: ignore[arg-type]
    assert what in found.what
    assert remedy in found.remedy
    template = CAUSES[kind]
    assert found.what.startswith(template.what.partition("{")[0])
    assert found.remedy.startswith(template.remedy.partition("{")[0])
    assert "{" not in found.what + found.remedy


TESTS = Path(__file__).parents[2]
# Only from made-up facts, since no kernel or program that can be had here does it.
MADE_UP = {
    CauseKind.KALLSYMS_ABSENT: "a kernel without CONFIG_KALLSYMS; Debian builds none",
    CauseKind.NOT_ALLOWED: "SELinux, of which no guest has a policy; a filter stands for one (kernel/test_losses.py)",
    CauseKind.UNKNOWN: "what is not recognised",
}


def test_every_cause_of_the_table_has_a_case() -> None:
    assert {case[0] for case in CASES} | BY_MOUNT | BY_SWITCH == set(CauseKind) == set(CAUSES)


def test_every_cause_is_provoked_on_a_real_kernel_or_it_says_why_not() -> None:
    """There the remedy is applied, or the node has what the remedy asks for, and the loss is gone."""
    texts = [path.read_text() for path in (*TESTS.glob("kernel/test_*.py"), *TESTS.glob("lab/test_*.py"))]
    marks = [mark for text in texts for mark in re.findall(r"^@pytest\.mark\.provokes\((.*)\)$", text, re.MULTILINE)]
    provoked = {CauseKind[name] for mark in marks for name in re.findall(r"CauseKind\.(\w+)", mark)}
    assert provoked | MADE_UP.keys() == set(CauseKind)
    assert not provoked & MADE_UP.keys()


@pytest.mark.parametrize(
    ("mount", "what", "remedy"),
    [
        (ProcMount("invisible", "26"), "/proc is mounted with hidepid=invisible,gid=26", "SupplementaryGroups=26"),
        (ProcMount("1"), "/proc is mounted with hidepid=1,", "SupplementaryGroups=0"),
        (ProcMount("ptraceable", "26"), "hidepid=ptraceable,gid=26", "remount,hidepid=0"),
    ],
)
def test_hidden_processes_name_the_mount_option(mount: ProcMount, what: str, remedy: str) -> None:
    found = hidden_processes(mount)
    assert what in found.what
    assert remedy in found.remedy
    assert ("SupplementaryGroups" in found.remedy) == mount.group_helps


@pytest.mark.parametrize(
    ("differs", "kprobes", "kind"),
    [
        ({"kprobes_enabled": 0}, True, CauseKind.KPROBES_OFF),
        ({"kprobes_enabled": 0}, False, None),
        ({"ftrace_enabled": 0, "options": ON_FTRACE}, True, CauseKind.FTRACE_OFF),
        ({"ftrace_enabled": 0, "options": {}}, True, CauseKind.FTRACE_OFF),
        ({"ftrace_enabled": 0}, True, None),  # as on arm64, where a kprobe is a breakpoint
        ({"ftrace_enabled": 0}, False, CauseKind.FTRACE_OFF),
        ({"kprobes_enabled": 1, "ftrace_enabled": 1, "options": ON_FTRACE}, True, None),
        ({}, True, None),
    ],
)
def test_a_switch_that_stops_attached_probes_is_named(
    differs: dict[str, object], kprobes: bool, kind: CauseKind | None
) -> None:
    found = silenced(replace(NODE, **differs), kprobes=kprobes)  # type: ignore[arg-type]
    assert found == (cause_of(kind) if kind else None)


def test_what_is_not_known_is_no_cause() -> None:
    """Without readable facts nothing is blamed."""
    unknown = Facts(effective=ROOT)
    assert diagnose(Refusal(Act.TRACEPOINT, errno.E2BIG, CSD), unknown).what.startswith("E2BIG")
    assert diagnose(Refusal(Act.LOAD, 0), unknown).what.startswith("no error number")
    assert cause_of(CauseKind.OLD_KERNEL, subject="it", since="6.5", release="6.1").remedy == "Linux 6.5 or later"
