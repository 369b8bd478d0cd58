"""Run commands in a new mount namespace in which files of /proc are covered, or without permission to use BPF.

The rest of the node does not see this, and it ends with the command.
"""

import ctypes
import errno
import os
import platform
import runpy
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

Step = Sequence[str | Path]
_SECCOMP_SET_MODE_FILTER, _TSYNC = 1, 1
_PR_SET_NO_NEW_PRIVS = 38
_LOAD, _RETURN = 0x20, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_RET|BPF_K
_IS, _ABOVE = 0x15, 0x25  # BPF_JMP|BPF_JEQ|BPF_K, BPF_JMP|BPF_JGT|BPF_K
_NUMBER, _SIZE, _PAGE = 0, 32, 4096  # in its data, of which the third argument of bpf(2) is the size of the attribute
_ERRNO, _ALLOW = 0x00050000, 0x7FFF0000  # seccomp(2)
_SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277, "riscv64": 277}
REFUSE_BPF = signal.SIGRTMIN
GROUP = 64321  # that no process has
HIDDEN = (f"hidepid=1,gid={GROUP}", f"hidepid=2,gid={GROUP}", "hidepid=4")


def cover(source: Path, target: str) -> Step:
    """A step that mounts `source` over `target`."""
    return ("mount", "--bind", source, target)


def hiding(options: str) -> Step:
    """A step that mounts a new /proc with these options, such as one of HIDDEN."""
    return ("mount", "-t", "proc", "-o", options, "proc", "/proc")


def inside(*steps: Step) -> list[str]:
    """Arguments to put before a command: it runs in a new mount namespace, after these steps.

    The command keeps the pid of the started process.
    """
    script = "; ".join([*(shlex.join(map(str, step)) for step in steps), 'exec "$@"'])
    return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh"]


def enter(pid: int, *steps: Step) -> None:
    """Run further steps in the mount namespace of a running process."""
    for step in steps:
        subprocess.run(["nsenter", "--target", str(pid), "--mount", *map(str, step)], check=True, capture_output=True)


def without_capabilities(*names: str) -> list[str]:
    """Arguments to put before a command: it runs as root without these capabilities (`bpf`, `perfmon`, `sys_admin`)."""
    dropped = ",".join(f"-{name}" for name in names)
    return ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}", "--"]


def refused_bpf() -> list[str]:
    """Arguments to put before a command: a seccomp filter fails its bpf(2) calls with EPERM, like an engine's."""
    return [sys.executable, __file__, "now"]


def refused_bpf_later() -> list[str]:
    """Arguments to put before `python -m MODULE ...`: the filter is installed once it receives REFUSE_BPF."""
    return [sys.executable, __file__, "later"]


def denied_bpf() -> list[str]:
    """Arguments to put before a command: its bpf(2) calls fail with EPERM as by a security module, with a filter on.

    The kernel looks at the size of the attribute before it asks a module: this filter lets calls through whose size
    the kernel refuses.
    """
    return [sys.executable, __file__, "denied"]


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def refuse_bpf(largest: int = 0xFFFFFFFF) -> None:
    """Install the filter (seccomp(2)) on all threads: it refuses bpf(2) with at most `largest` bytes of attribute."""
    program = (_Instruction * 6)(
        _Instruction(_LOAD, 0, 0, _NUMBER),
        _Instruction(_IS, 0, 3, _SYS_BPF[platform.machine()]),
        _Instruction(_LOAD, 0, 0, _SIZE),
        _Instruction(_ABOVE, 1, 0, largest),
        _Instruction(_RETURN, 0, 0, _ERRNO | errno.EPERM),
        _Instruction(_RETURN, 0, 0, _ALLOW),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)  # a filter needs that or CAP_SYS_ADMIN, which may be dropped
    filtered = _Program(len(program), program)
    number = _SYS_SECCOMP[platform.machine()]
    if libc.syscall(number, _SECCOMP_SET_MODE_FILTER, _TSYNC, ctypes.byref(filtered)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    when, *command = sys.argv[1:]
    if when == "later":
        _, _, module, *arguments = command
        signal.signal(REFUSE_BPF, lambda *_: refuse_bpf())
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        refuse_bpf(*((_PAGE,) if when == "denied" else ()))
        os.execvp(command[0], command)  # noqa: S606 -- it becomes the command, as setpriv does
