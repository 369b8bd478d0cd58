"""Reads what may forbid an observation on this node, for the diagnosis of a refusal (diagnosis.py)."""

import resource
from dataclasses import replace
from pathlib import Path

from kickwatch.node import kernel
from kickwatch.node.diagnosis import WANTED_OPTIONS, Facts
from kickwatch.node.privileges import effective, filtered, given_up, withheld
from kickwatch.node.proc_mount import read_proc_mount
from kickwatch.node.roots import HOST, HostRoots

_KPROBE_PMU = "bus/event_source/devices/kprobe/type"
_WHOLE_USER_NAMESPACE = "0 0 4294967295"


def read_facts(host: HostRoots = HOST) -> Facts:
    """The facts now. What cannot be read is left out."""
    from kickwatch.node.kernel_config import kernel_config  # noqa: PLC0415 -- seldom: only after a refusal

    release = kernel.release()
    return replace(
        privileges_now(),
        withheld=_withheld(host.proc),
        profile=_profile(host.proc),
        lockdown=_lockdown(host.sys),
        kptr_restrict=_number(host.proc / "sys/kernel/kptr_restrict"),
        perf_event_paranoid=_number(host.proc / "sys/kernel/perf_event_paranoid"),
        user_namespace=_remapped(_text(host.proc / "self/uid_map")),
        memlock=_memlock(),
        kallsyms_covered=_is_covered(host.proc),
        proc_subset=read_proc_mount(host.proc).subset,
        kprobes_enabled=_number(host.sys / "kernel/debug/kprobes/enabled"),
        ftrace_enabled=_number(host.proc / "sys/kernel/ftrace_enabled"),
        kprobes=(host.sys / _KPROBE_PMU).exists(),
        options=kernel_config(release, host.proc, host.root / "boot", WANTED_OPTIONS),
    )


def privileges_now() -> Facts:
    """The facts that take no file to read, so that the event loop may ask for them: for maps they are enough."""
    return Facts(release=kernel.release(), effective=effective(), given_up=given_up(), seccomp=filtered())


def _withheld(proc: Path) -> int:
    try:
        return withheld(proc)
    except (OSError, ValueError, IndexError):
        return 0


def _profile(proc: Path) -> str:
    """The name of our AppArmor profile, without its mode: `name (enforce)`. Empty without one.

    Another security module may write `current` since 5.1, and then AppArmor has a file of its own.
    """
    attributes = proc / "thread-self" / "attr"
    text = _text(attributes / "apparmor" / "current") or _text(attributes / "current")
    return text.strip("\0\n").rpartition(" (")[0]


def _lockdown(sys: Path) -> str:
    """The level in brackets: `none [integrity] confidentiality`. Empty where securityfs is not mounted."""
    return _text(sys / "kernel/security/lockdown").partition("[")[2].partition("]")[0]


def _remapped(uid_map: str) -> bool:
    return bool(uid_map.split()) and " ".join(uid_map.split()) != _WHOLE_USER_NAMESPACE


def _memlock() -> int | None:
    """The soft limit; None where any process may raise it as far as it likes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if hard == resource.RLIM_INFINITY else soft


def _is_covered(proc: Path) -> bool:
    """True if another file is mounted over `proc`/kallsyms, as ProtectKernelTunables= does."""
    try:
        return (proc / "kallsyms").stat().st_dev != (proc / "self").stat().st_dev
    except OSError:
        return False


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
