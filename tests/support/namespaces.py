"""Commands in a mount namespace of their own, where files of /proc are covered; commands that are refused BPF.

Nothing of it is seen by the rest of the node, and all of it is gone with the command.
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
_LOAD, _IS, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
_ERRNO, _ALLOW = 0x00050000, 0x7FFF0000  # seccomp(2)
_SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277, "riscv64": 277}
REFUSE_BPF = signal.SIGRTMIN


def cover(source: Path, target: str) -> Step:
    """A step that puts `source` over `target`."""
    return ("mount", "--bind", source, target)


def inside(*steps: Step) -> list[str]:
    """The words before a command that give it a mount namespace of its own, in which the steps are done first.

    The process stays the one that was started: its pid is the command's.
    """
    script = "; ".join([*(shlex.join(map(str, step)) for step in steps), 'exec "$@"'])
    return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh"]


def enter(pid: int, *steps: Step) -> None:
    """Do further steps in the mount namespace of a process that runs."""
    for step in steps:
        subprocess.run(["nsenter", "--target", str(pid), "--mount", *map(str, step)], check=True, capture_output=True)


def without_capabilities(*names: str) -> list[str]:
    """The words before a command that run it as root without these: `bpf`, `perfmon`, `sys_admin`."""
    dropped = ",".join(f"-{name}" for name in names)
    return ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}", "--"]


def refused_bpf() -> list[str]:
    """The words before a command to which a seccomp filter answers bpf(2) with EPERM, as container engines' do."""
    return [sys.executable, __file__, "now"]


def refused_bpf_later() -> list[str]:
    """The words before `python -m MODULE ...` with which it goes on as ever until it gets REFUSE_BPF."""
    return [sys.executable, __file__, "later"]


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def refuse_bpf() -> None:
    """Install the filter on all threads of this process: a system call's number is its first word (seccomp(2))."""
    program = (_Instruction * 4)(
        _Instruction(_LOAD, 0, 0, 0),
        _Instruction(_IS, 0, 1, _SYS_BPF[platform.machine()]),
        _Instruction(_RETURN, 0, 0, _ERRNO | errno.EPERM),
        _Instruction(_RETURN, 0, 0, _ALLOW),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)  # a filter takes that, or CAP_SYS_ADMIN, which may be given up
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
        refuse_bpf()
        os.execvp(command[0], command)  # noqa: S606 -- a prefix, as setpriv is one
