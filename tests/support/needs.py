"""What tests may need of a node, checked by trying: root, BPF, an engine, Prometheus, systemd, a virtual machine."""

import ctypes
import functools
import os
import platform
import shutil
import socket
from collections.abc import Callable

ENGINE_SOCKET = os.environ.get("ENGINE_SOCKET", "/var/run/docker.sock")
FEATURE = "feature:"

_SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_BPF_PROG_LOAD, _BPF_RAW_TRACEPOINT_OPEN = 5, 17
_BPF_PROG_TYPE_RAW_TRACEPOINT = 17
_RETURN_0 = bytes.fromhex("b700000000000000 9500000000000000")  # r0 = 0; exit


class _ProgLoad(ctypes.Structure):
    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_char_p),
        ("license", ctypes.c_char_p),
        ("rest", ctypes.c_uint8 * 96),
    )


class _RawTracepointOpen(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("prog_fd", ctypes.c_uint32), ("rest", ctypes.c_uint8 * 108))


def _bpf(command: int, attributes: ctypes.Structure) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.c_uint(ctypes.sizeof(attributes))
    fd = int(libc.syscall(_SYS_BPF[platform.machine()], command, ctypes.byref(attributes), size))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


def _unmet_kernel() -> str:
    """Attach a program, as the daemon does: tracefs need not be mounted, and a version number would prove nothing."""
    return unattached("sched_switch")


@functools.cache
def ipi_rung() -> str:
    """The best rung for IPIs on this kernel; without csd:csd_queue_cpu (6.5) the tests run on kprobes."""
    return "kprobe" if unattached("csd_queue_cpu") else "csd"


def unattached(tracepoint: str) -> str:
    """Why a program does not attach to this raw tracepoint; empty if it does."""
    if os.geteuid() != 0:
        return "not root"
    if platform.machine() not in _SYS_BPF:
        return f"the number of bpf(2) on {platform.machine()} is unknown to the tests"
    try:
        program = _bpf(_BPF_PROG_LOAD, _ProgLoad(_BPF_PROG_TYPE_RAW_TRACEPOINT, 2, _RETURN_0, b"GPL"))
    except OSError as error:
        return f"cannot load a BPF program ({error.strerror})"
    try:
        os.close(_bpf(_BPF_RAW_TRACEPOINT_OPEN, _RawTracepointOpen(tracepoint.encode(), program)))
    except OSError as error:
        return f"no raw tracepoint {tracepoint} ({error.strerror})"
    finally:
        os.close(program)
    return ""


def _unmet_docker() -> str:
    if os.geteuid() != 0:
        return "not root"
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(ENGINE_SOCKET)
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
            status = connection.recv(64)
    except OSError as error:
        return f"no engine at {ENGINE_SOCKET} ({error.strerror or 'no answer'})"
    return "" if b" 200 " in status else f"{ENGINE_SOCKET} does not answer as an engine"


def _unmet_systemd() -> str:
    """Such tests boot systemd and an engine in a container that runc starts."""
    if os.geteuid() != 0:
        return "not root"
    remedies = {"runc": "deploy/setup engine", "mmdebstrap": "deploy/setup test-packages"}
    missing = [f"no {program}: {remedy}" for program, remedy in remedies.items() if shutil.which(program) is None]
    return "; ".join(missing)


def _unmet_prometheus() -> str:
    """Such tests start servers and use their tools; Debian's prometheus and prometheus-alertmanager have them."""
    programs = ("prometheus", "promtool", "prometheus-alertmanager", "amtool")
    missing = [program for program in programs if shutil.which(program) is None]
    return f"no {' and no '.join(missing)} on PATH: deploy/setup test-packages" if missing else ""


def _unmet_guest() -> str:
    """Such tests boot Debian's kernels in QEMU; see docs/laboratory.md."""
    if os.geteuid() != 0:
        return "not root"
    programs = ("qemu-system-x86_64", "mmdebstrap", "depmod", "mke2fs", "unshare", "chrt")
    missing = [program for program in programs if shutil.which(program) is None]
    return f"no {' and no '.join(missing)} on PATH: deploy/setup lab-packages" if missing else ""


def _unmet_cross() -> str:
    return "" if shutil.which("aarch64-linux-gnu-gcc") else "no aarch64-linux-gnu-gcc: deploy/setup cross-packages"


def _unmet_browser() -> str:
    return "" if shutil.which("chromium") else "no chromium on PATH: make test-packages"


def _unmet_userland() -> str:
    """Such tests run in a Debian of another release, which mmdebstrap builds."""
    if os.geteuid() != 0:
        return "not root"
    missing = [program for program in ("mmdebstrap", "unshare", "chrt") if shutil.which(program) is None]
    return f"no {' and no '.join(missing)} on PATH: deploy/setup test-packages" if missing else ""


NEEDS: dict[str, Callable[[], str]] = {
    "kernel": _unmet_kernel,
    "docker": _unmet_docker,
    "systemd": _unmet_systemd,
    "prometheus": _unmet_prometheus,
    "guest": _unmet_guest,
    "browser": _unmet_browser,
    "userland": _unmet_userland,
    "cross": _unmet_cross,
}


@functools.cache
def unmet(need: str) -> str:
    """Why `need` is not met on this machine; empty if it is."""
    return NEEDS[need]()
