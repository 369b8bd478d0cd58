"""Finds the cause of a refused call: from the errno, the verifier's text and the facts of the node (facts.py). Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from errno import EACCES, EINVAL, EMFILE, ENFILE, ENOENT, ENOMEM, ENOSYS, EPERM, errorcode
from os import strerror

from kickwatch.node.causes import LOCKDOWN_UNSEEN, SINCE, CauseKind, LossCause, cause_of
from kickwatch.node.privileges import LinuxCapability


class Act(StrEnum):
    """What was refused."""

    LOAD = "load"  # a BPF program with its maps
    MAP = "map"  # a read or write of a BPF map
    TRACEPOINT = "tracepoint"
    KPROBE = "kprobe"
    STATISTICS = "statistics"  # BPF run-time statistics
    SYMBOLS = "symbols"  # the addresses in /proc/kallsyms


@dataclass(frozen=True)
class Refusal:
    """`code`: the errno. `subject`: the tracepoint or function. `log`: the last line of the verifier, or the map."""

    act: Act
    code: int = 0
    subject: str = ""
    log: str = ""


@dataclass(frozen=True)
class Facts:
    """What may forbid an observation on this node; None and empty values are not known.

    `effective`: this process's capabilities, one bit each; `given_up`: those that it had before; `withheld`: those
    that its AppArmor profile, `profile`, does not allow. `memlock`: RLIMIT_MEMLOCK in bytes, None if the hard limit
    is unlimited. `proc_subset`: the option `subset` of /proc. `options`: the kernel's build configuration.
    `kprobes`: whether perf offers kprobes. `seccomp`: a filter is on; `answered`: it lets the refused system call
    through to the kernel. `kprobes_enabled`, `ftrace_enabled`: switches of all kprobes and of the function tracer.
    """

    release: str = ""
    lockdown: str = ""
    kptr_restrict: int | None = None
    perf_event_paranoid: int | None = None
    effective: int = 0
    given_up: int = 0
    withheld: int = 0
    profile: str = ""
    seccomp: bool = False
    answered: bool = False
    user_namespace: bool = False
    memlock: int | None = None
    kallsyms_covered: bool = False
    proc_subset: str = ""
    kprobes: bool = True
    kprobes_enabled: int | None = None
    ftrace_enabled: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def before(self, version: tuple[int, int]) -> bool:
        """True if the kernel is older than `version`; False if its release has no number."""
        numbers = re.match(r"(\d+)\.(\d+)", self.release)
        return numbers is not None and tuple(map(int, numbers.groups())) < version

    def lacks(self, *capabilities: LinuxCapability) -> tuple[str, ...]:
        """Names of those that this process does not have. CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON (5.8)."""
        if self.before((5, 8)):  # "capabilities: Introduce CAP_BPF", "capabilities: Introduce CAP_PERFMON"
            new = {LinuxCapability.BPF, LinuxCapability.PERFMON}
            wanted = dict.fromkeys(LinuxCapability.SYS_ADMIN if one in new else one for one in capabilities)
        else:
            wanted = dict.fromkeys(capabilities)
        every = LinuxCapability.SYSLOG not in wanted and self.effective >> LinuxCapability.SYS_ADMIN & 1
        return () if every else tuple(f"CAP_{one.name}" for one in wanted if not self.effective >> one & 1)


_ABSENT = frozenset({ENOENT, EINVAL, ENOSYS})
_EXHAUSTED = {
    EMFILE: CauseKind.NO_DESCRIPTOR,
    ENFILE: CauseKind.NO_DESCRIPTOR_ON_NODE,
    ENOMEM: CauseKind.NO_MEMORY,
}
_CONFIDENTIAL = "confidentiality"
_LOW_MEMLOCK = 1 << 26  # bytes: a limit below this is taken for the cause
_LOG_SHOWN = 400  # characters: the end says what was refused
_NO_READ = re.compile(r"(unknown func|cannot use helper) bpf_probe_read")
_OPTIONS = {
    Act.LOAD: ("CONFIG_BPF_SYSCALL", "CONFIG_BPF_EVENTS"),
    Act.TRACEPOINT: ("CONFIG_BPF_SYSCALL", "CONFIG_BPF_EVENTS", "CONFIG_SMP"),
    Act.KPROBE: ("CONFIG_KPROBES", "CONFIG_KPROBE_EVENTS"),
    Act.SYMBOLS: ("CONFIG_KALLSYMS",),
}
_ON_FTRACE = "CONFIG_KPROBES_ON_FTRACE"  # kprobes at the entries of functions use the function tracer
WANTED_OPTIONS = (*dict.fromkeys(option for options in _OPTIONS.values() for option in options), _ON_FTRACE)
_BPF = (LinuxCapability.BPF, LinuxCapability.PERFMON)
_NEEDS = {
    **dict.fromkeys((Act.LOAD, Act.TRACEPOINT, Act.KPROBE), _BPF),
    Act.MAP: (LinuxCapability.BPF,),
    Act.STATISTICS: (LinuxCapability.SYS_ADMIN,),
    Act.SYMBOLS: (LinuxCapability.SYSLOG,),
}


def diagnose(refusal: Refusal, facts: Facts) -> LossCause:
    """The cause of a refusal. Never fails: what is not recognised is `UNKNOWN`, with the error."""
    return exhausted(refusal.code) or cause_of(_kind(refusal, facts), **_words(refusal, facts))


def exhausted(code: int) -> LossCause | None:
    """The cause where descriptors or memory are used up, which leaves none to read facts with; None for another."""
    return cause_of(_EXHAUSTED[code]) if code in _EXHAUSTED else None


def silenced(facts: Facts, *, kprobes: bool) -> LossCause | None:
    """Why no program runs that was attached to a function, by `kprobes` or trampolines; None if that is not known."""
    if kprobes and facts.kprobes_enabled == 0:
        return cause_of(CauseKind.KPROBES_OFF)
    if facts.ftrace_enabled == 0 and (not kprobes or not facts.options or _ON_FTRACE in facts.options):
        return cause_of(CauseKind.FTRACE_OFF)
    return None


def _kind(refusal: Refusal, facts: Facts) -> CauseKind:
    act, code = refusal.act, refusal.code
    if act is Act.SYMBOLS:
        return _of_symbols(refusal, facts)
    if code in {EPERM, EACCES}:
        return _of_permission(refusal, facts)
    if act is Act.LOAD and _locked_down(refusal, facts):
        return CauseKind.LOCKDOWN_READ
    return _of_absence(refusal, facts) if code in _ABSENT else CauseKind.UNKNOWN


def _locked_down(refusal: Refusal, facts: Facts) -> bool:
    """Whether lockdown refuses a program's reads. Where its level cannot be read, the verifier's words show it."""
    if facts.lockdown:
        return facts.lockdown == _CONFIDENTIAL and refusal.code == EINVAL
    return _NO_READ.search(refusal.log) is not None


def too_old(refusal: Refusal, facts: Facts) -> bool:
    """True if the kernel is older than what was refused."""
    since = SINCE.get(refusal.subject)
    return since is not None and facts.before(since) and refusal.code in _ABSENT


def _of_absence(refusal: Refusal, facts: Facts) -> CauseKind:
    if too_old(refusal, facts):
        return CauseKind.OLD_KERNEL
    if _missing_option(refusal.act, facts):
        return CauseKind.KERNEL_CONFIG
    if refusal.act is Act.TRACEPOINT and refusal.code == ENOENT:
        return CauseKind.NO_TRACEPOINT
    if refusal.act is Act.TRACEPOINT and refusal.code == EINVAL:  # bpf_probe_register, kernel/trace/bpf_trace.c
        return CauseKind.OTHER_ARGUMENTS
    return CauseKind.INLINED if refusal.act is Act.KPROBE else CauseKind.UNKNOWN


def _of_symbols(refusal: Refusal, facts: Facts) -> CauseKind:
    if refusal.code == ENOENT:
        return CauseKind.PROC_SUBSET if facts.proc_subset else CauseKind.KALLSYMS_ABSENT
    if facts.kallsyms_covered or refusal.code in {EPERM, EACCES}:
        return CauseKind.KALLSYMS_COVERED
    if (facts.kptr_restrict or 0) > 1:
        return CauseKind.KPTR_RESTRICT
    if facts.user_namespace:
        return CauseKind.USER_NAMESPACE
    return _of_lack(refusal, facts) or CauseKind.UNKNOWN


def _of_permission(refusal: Refusal, facts: Facts) -> CauseKind:
    if refusal.act is Act.KPROBE and facts.lockdown == _CONFIDENTIAL:
        return CauseKind.LOCKDOWN_KPROBES
    if facts.user_namespace:
        return CauseKind.USER_NAMESPACE
    return _of_lack(refusal, facts) or _though_capable(refusal, facts)


def _of_lack(refusal: Refusal, facts: Facts) -> CauseKind | None:
    """Why the process lacks a capability; None if it lacks none."""
    if not _lacking(refusal, facts):
        return None
    for kind, more in ((CauseKind.GIVEN_UP, facts.given_up), (CauseKind.CONFINED, facts.withheld)):
        if not _lacking(refusal, replace(facts, effective=facts.effective | more)):
            return kind
    return CauseKind.CAPABILITY


def _though_capable(refusal: Refusal, facts: Facts) -> CauseKind:
    """The cause where no capability is missing."""
    if facts.seccomp and not facts.answered:
        return CauseKind.SECCOMP
    if refusal.act is Act.LOAD and _memlock_limits(facts):
        return CauseKind.MEMLOCK
    admin = facts.effective >> LinuxCapability.SYS_ADMIN & 1
    if refusal.act is Act.KPROBE and (facts.perf_event_paranoid or 0) > 2 and not admin:
        return CauseKind.PERF_PARANOID
    return CauseKind.NOT_ALLOWED


def _memlock_limits(facts: Facts) -> bool:
    """Whether maps had too little locked memory: with CAP_SYS_RESOURCE the call was repeated without that limit."""
    if not facts.before((5, 11)) or facts.effective >> LinuxCapability.SYS_RESOURCE & 1:
        return False
    return facts.memlock is not None and facts.memlock < _LOW_MEMLOCK


def _lacking(refusal: Refusal, facts: Facts) -> tuple[str, ...]:
    """What the call needs and this process lacks.

    A map needs none since "bpf: refine kernel.unprivileged_bpf_disabled behaviour" (5.19).
    """
    needs = () if refusal.act is Act.MAP and not facts.before((5, 19)) else _NEEDS[refusal.act]
    return facts.lacks(*needs)


def _missing_option(act: Act, facts: Facts) -> str:
    """The first option that this kernel lacks for `act`; empty if its configuration is not known."""
    missing = [option for option in _OPTIONS.get(act, ()) if option not in facts.options] if facts.options else []
    if act is Act.KPROBE and not facts.kprobes:
        return missing[0] if missing else "CONFIG_KPROBE_EVENTS"
    return missing[0] if missing else ""


def _words(refusal: Refusal, facts: Facts) -> dict[str, object]:
    act, since = refusal.act, SINCE.get(refusal.subject)
    error = f"{errorcode[refusal.code]}: {strerror(refusal.code)}" if refusal.code in errorcode else "no error number"
    tracepoint = act is Act.TRACEPOINT or (act is Act.LOAD and since is not None)
    newest = since or SINCE["contention_begin" if "mutex" in refusal.subject else "csd_queue_cpu"]
    return {
        "lockdown": facts.lockdown or LOCKDOWN_UNSEEN,
        "capabilities": " ".join(_lacking(refusal, facts)),
        "profile": f"AppArmor profile {facts.profile}" if facts.profile else "security module's profile",
        "rule": " ".join(name.removeprefix("CAP_").lower() for name in _lacking(refusal, facts)),
        "protect": " and ProtectKernelLogs=no" if act is Act.SYMBOLS else "",
        "what": "kernel addresses" if act is Act.SYMBOLS else "bpf(2)",
        "call": "perf_event_open" if act is Act.KPROBE else "bpf",
        "memlock": facts.memlock,
        "perf_event_paranoid": facts.perf_event_paranoid,
        "kptr_restrict": facts.kptr_restrict,
        "subset": facts.proc_subset,
        "subject": f"tracepoint {refusal.subject}" if tracepoint else refusal.subject or "it",
        "since": f"{newest[0]}.{newest[1]}",
        "release": facts.release,
        "option": _missing_option(act, facts),
        "error": error,
        "log": f" ({' '.join(refusal.log.split())[-_LOG_SHOWN:]})" if refusal.log else "",
    }
