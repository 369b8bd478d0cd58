"""Whether idle CPUs halt, so that a wakeup has to interrupt them. An x86 CPU that polls while idle is not interrupted.

A wakeup of an idle CPU sends no interrupt if that CPU shows that it polls (TIF_POLLING_NRFLAG, set_nr_if_polling() in
kernel/sched/core.c). Of the ways in which an x86 CPU idles only two do so: the polling loop, and MWAIT
(mwait_idle_with_hints()), unless the CPU has the bug `monitor` ("IPI required to wake up remote CPU").
"""

from collections.abc import Iterable
from pathlib import Path

from kickwatch.node import kernel
from kickwatch.node.roots import HOST, HostRoots

_POLL, _MWAIT = "POLL", "MWAIT"
_MONITOR = "monitor"  # the flag of MWAIT, and the name of the bug


def idle_cpus_halt(host: HostRoots = HOST) -> bool:
    """False only if all online CPUs are seen to poll while idle: with idle=poll, or in each of their idle states.

    What cannot be read counts as halting. So does a node without a cpuidle driver: its kernel may use MWAIT all the
    same (mwait_idle()), but whether it does depends on vendor, release, CPUID and hypervisor, and is shown nowhere.
    /proc/cpuinfo is read last: kernels before 5.18 interrupt busy CPUs to fill in their frequencies.
    """
    if "idle=poll" in kernel.command_line(host.proc).split():
        return False
    cpus = kernel.online(host.sys)
    states = [host.sys / f"devices/system/cpu/cpu{cpu}/cpuidle" for cpu in cpus]
    return not (cpus and all(map(_polls, states)) and _mwait_polls(_text(host.proc / "cpuinfo").splitlines()))


def _polls(cpuidle: Path) -> bool:
    """True if a CPU polls in all its idle states, of which there is at least one.

    intel_idle describes its states as `MWAIT 0x00`, acpi_idle as `ACPI FFH MWAIT 0x0`, and those that halt as
    `ACPI HLT` or `ACPI IOPORT 0x414` (C2 of many AMD machines). haltpoll has `default architecture idle`: it halts
    after a while.
    A state that is disabled counts, since it can be enabled at any time.
    """
    states = list(cpuidle.glob("state*"))
    return bool(states) and all(
        _text(state / "name").strip() == _POLL or _MWAIT in _text(state / "desc").split() for state in states
    )


def _mwait_polls(cpuinfo: Iterable[str]) -> bool:
    """True if MWAIT can be used, and writing to the flags that a CPU waits on wakes it up."""
    flags, bugs = _words(cpuinfo, "flags"), _words(cpuinfo, "bugs")
    return _MONITOR in flags and _MONITOR not in bugs


def _words(cpuinfo: Iterable[str], name: str) -> list[str]:
    """The words of the first CPU's line `name`; all CPUs have the same."""
    lines = (line.partition(":") for line in cpuinfo)
    return next((words.split() for field, _, words in lines if field.strip() == name), [])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
