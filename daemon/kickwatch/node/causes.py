"""The causes of losses: one table, each cause with the remedy that removes it. Pure; diagnosis.py finds the cause."""

from dataclasses import dataclass
from enum import StrEnum

from kickwatch.node.proc_mount import ProcMount


class CauseKind(StrEnum):
    """The causes of losses."""

    LOCKDOWN_READ = "lockdown_read"
    LOCKDOWN_KPROBES = "lockdown_kprobes"
    CAPABILITY = "capability"
    GIVEN_UP = "given_up"
    CONFINED = "confined"
    USER_NAMESPACE = "user_namespace"
    SECCOMP = "seccomp"
    MEMLOCK = "memlock"
    PERF_PARANOID = "perf_paranoid"
    KPTR_RESTRICT = "kptr_restrict"
    KALLSYMS_COVERED = "kallsyms_covered"
    KALLSYMS_ABSENT = "kallsyms_absent"
    PROC_SUBSET = "proc_subset"
    HIDEPID = "hidepid"
    HIDEPID_PTRACEABLE = "hidepid_ptraceable"
    OLD_KERNEL = "old_kernel"
    KERNEL_CONFIG = "kernel_config"
    NO_TRACEPOINT = "no_tracepoint"
    OTHER_ARGUMENTS = "other_arguments"
    INLINED = "inlined"
    KPROBES_OFF = "kprobes_off"
    FTRACE_OFF = "ftrace_off"
    NO_DESCRIPTOR = "no_descriptor"
    NO_DESCRIPTOR_ON_NODE = "no_descriptor_on_node"
    NO_MEMORY = "no_memory"
    NOT_ALLOWED = "not_allowed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class LossCause:
    """`what` is the case on this node; `remedy` changes it."""

    what: str
    remedy: str


# `{...}` are filled in by `diagnose`. In a unit means: in a drop-in of kickwatch.service.
CAUSES: dict[CauseKind, LossCause] = {
    CauseKind.LOCKDOWN_READ: LossCause(
        "kernel lockdown ({lockdown}) forbids BPF programs to read kernel memory",
        "boot with lockdown=integrity, which is enough for Secure Boot",
    ),
    CauseKind.LOCKDOWN_KPROBES: LossCause(
        "kernel lockdown (confidentiality) forbids kprobes",
        "boot with lockdown=integrity, which is enough for Secure Boot, or a kernel with the tracepoint: Linux {since}",
    ),
    CauseKind.CAPABILITY: LossCause(
        "this process lacks {capabilities}",
        "run kickwatch as root with {capabilities}; in a unit: CapabilityBoundingSet={capabilities}{protect}; in a"
        " container: --cap-add",
    ),
    CauseKind.GIVEN_UP: LossCause(
        "kickwatch gave up {capabilities} when its probes were armed",
        "restart kickwatch, which arms everything at its start",
    ),
    CauseKind.CONFINED: LossCause(
        "the {profile} of this process does not allow {capabilities}",
        "add the rule `capability {rule},` to it, and load it again: apparmor_parser --replace FILE",
    ),
    CauseKind.USER_NAMESPACE: LossCause(
        "this process runs in a user namespace, where no capability counts for {what}",
        "run it in the host's user namespace; in a unit: PrivateUsers=no",
    ),
    CauseKind.SECCOMP: LossCause(
        "a seccomp filter refuses {call}",
        "allow {call} there; in a unit: SystemCallFilter={call}; in a container: its seccomp profile",
    ),
    CauseKind.MEMLOCK: LossCause(
        "RLIMIT_MEMLOCK is {memlock} bytes, and before Linux 5.11 it limits BPF maps",
        "ulimit -l unlimited; in a unit: LimitMEMLOCK=infinity",
    ),
    CauseKind.PERF_PARANOID: LossCause(
        "kernel.perf_event_paranoid is {perf_event_paranoid}, which asks for CAP_SYS_ADMIN",
        "sysctl -w kernel.perf_event_paranoid=2; in a unit: CapabilityBoundingSet=CAP_SYS_ADMIN",
    ),
    CauseKind.KPTR_RESTRICT: LossCause(
        "kernel.kptr_restrict is {kptr_restrict}, which hides all kernel addresses", "sysctl -w kernel.kptr_restrict=1"
    ),
    CauseKind.KALLSYMS_COVERED: LossCause(
        "/proc/kallsyms is covered by another file",
        "in a unit: ProtectKernelTunables=no; in a container: do not mask it",
    ),
    CauseKind.KALLSYMS_ABSENT: LossCause("there is no /proc/kallsyms", "a kernel built with CONFIG_KALLSYMS"),
    CauseKind.PROC_SUBSET: LossCause(
        "/proc is mounted with subset={subset}, which leaves out /proc/kallsyms and all else that is no process",
        "in a unit: ProcSubset=all; elsewhere mount proc without that option",
    ),
    CauseKind.HIDEPID: LossCause(
        "/proc is mounted with {options}, which hides processes of other users, and of root with more capabilities",
        "in a unit: SupplementaryGroups={group}; or: mount -o remount,hidepid=0 /proc",
    ),
    CauseKind.HIDEPID_PTRACEABLE: LossCause(
        "/proc is mounted with {options}, which hides processes of other users, and of root with more capabilities",
        "mount -o remount,hidepid=0 /proc",
    ),
    CauseKind.OLD_KERNEL: LossCause(
        "Linux has {subject} since {since}, and this is {release}", "Linux {since} or later"
    ),
    CauseKind.KERNEL_CONFIG: LossCause("this kernel was built without {option}", "a kernel built with {option}"),
    CauseKind.NO_TRACEPOINT: LossCause("this kernel has no {subject}", "a kernel that has it"),
    CauseKind.OTHER_ARGUMENTS: LossCause(
        "the {subject} of this kernel has fewer arguments than the probe reads",
        "another kernel; report it, with `kickwatch doctor --json`",
    ),
    CauseKind.INLINED: LossCause(
        "the compiler has inlined {subject}, or kprobes may not be placed on it",
        "another build of this kernel, or a kernel with the tracepoint: Linux {since}",
    ),
    CauseKind.KPROBES_OFF: LossCause(
        "/sys/kernel/debug/kprobes/enabled is 0, and no kprobe runs", "echo 1 >/sys/kernel/debug/kprobes/enabled"
    ),
    CauseKind.FTRACE_OFF: LossCause(
        "kernel.ftrace_enabled is 0, and no probe at the entry of a function runs",
        "sysctl -w kernel.ftrace_enabled=1",
    ),
    CauseKind.NO_DESCRIPTOR: LossCause(
        "RLIMIT_NOFILE leaves this process no descriptor",
        "ulimit -n 1024, or more; in a unit: LimitNOFILE=1024, or more",
    ),
    CauseKind.NO_DESCRIPTOR_ON_NODE: LossCause(
        "this node has no descriptor left", "raise fs.file-max, or find what holds so many with `lsof`"
    ),
    CauseKind.NO_MEMORY: LossCause(
        "the kernel has no memory for BPF here: the cgroup of this process is at its limit, or the node is",
        "in a unit: a larger MemoryMax=; in a container: a larger memory limit; elsewhere free some",
    ),
    CauseKind.NOT_ALLOWED: LossCause(
        "a security module refuses {call} (no capability is missing)",
        "look for a denial in the audit log (ausearch -m avc, journalctl -k) and allow it there",
    ),
    CauseKind.UNKNOWN: LossCause("{error}{log}", "report it, with `kickwatch doctor --json`"),
}

LOCKDOWN_UNSEEN = "most likely confidentiality: /sys/kernel/security/lockdown cannot be read"
STATISTICS_SUBJECT = "run-time statistics of BPF programs"
# What was refused -> the first release that has it.
SINCE: dict[str, tuple[int, int]] = {
    "csd_queue_cpu": (6, 5),
    "contention_begin": (5, 19),
    "contention_end": (5, 19),
    "ipi_send_cpu": (6, 4),
    "ipi_send_cpumask": (6, 4),
    STATISTICS_SUBJECT: (5, 8),
}
# Remedies where kprobes cannot see what these can.
TRACEPOINT_FOR_IPIS = "a kernel with the tracepoint csd:csd_queue_cpu (Linux 6.5)"
TRACEPOINTS_FOR_WAITS = "a kernel with the tracepoints lock:contention_begin and contention_end (Linux 5.19)"


def cause_of(kind: CauseKind, **words: object) -> LossCause:
    """A cause of the table with its words filled in."""
    known = {name: str(word) for name, word in words.items()}
    return LossCause(CAUSES[kind].what.format_map(known), CAUSES[kind].remedy.format_map(known))


def hidden_processes(mount: ProcMount) -> LossCause:
    """The cause where proc does not show a process."""
    kind = CauseKind.HIDEPID if mount.group_helps else CauseKind.HIDEPID_PTRACEABLE
    return cause_of(kind, options=mount.options, group=mount.gid or "0")
