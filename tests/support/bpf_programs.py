"""The BPF programs that are loaded in the kernel, listed with bpf(2)."""

import ctypes
import platform

# The kernel cuts names to 15 characters.
OURS = (
    frozenset({"csd_queue_cpu", "contention_begi", "contention_end", "mutex_begin", "mutex_end", "task_rename"})
    | {f"calls_{name}" for name in ("many", "queued", "single", "async", "sent_many", "sent_one")}
    | {"ipi_send_cpu", "ipi_send_cpumas"}
    | {f"containers_{name}" for name in ("exit", "fork", "exec", "atta", "rmdi", "mkdi")}
    | {f"trace_{name}" for name in ("queue", "entry", "exit", "exec", "end", "wait", "taken", "mkdir", "rmdir")}
)
_SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_GET_NEXT_ID, _GET_FD_BY_ID, _INFO_BY_FD = 11, 13, 15  # BPF_PROG_*, BPF_OBJ_GET_INFO_BY_FD (uapi linux/bpf.h)
_INFO_BYTES, _NAME_AT, _NAME_BYTES = 232, 64, 16  # struct bpf_prog_info


class _Ids(ctypes.Structure):
    _fields_ = (("id", ctypes.c_uint32), ("next_id", ctypes.c_uint32), ("flags", ctypes.c_uint32))


class _Info(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_uint32), ("length", ctypes.c_uint32), ("info", ctypes.c_uint64))


def _bpf(command: int, attributes: ctypes.Structure) -> int:
    size = ctypes.c_uint(ctypes.sizeof(attributes))
    return int(ctypes.CDLL(None).syscall(_SYS_BPF[platform.machine()], command, ctypes.byref(attributes), size))


def names() -> dict[int, str]:
    """Id to name of every program."""
    found, ids = {}, _Ids()
    libc = ctypes.CDLL(None)
    while _bpf(_GET_NEXT_ID, ids) == 0:
        ids = _Ids(ids.next_id)
        fd = _bpf(_GET_FD_BY_ID, ids)
        if fd < 0:
            continue  # it was unloaded in the meantime
        info = ctypes.create_string_buffer(_INFO_BYTES)
        if _bpf(_INFO_BY_FD, _Info(fd, _INFO_BYTES, ctypes.addressof(info))) == 0:
            found[ids.id] = info.raw[_NAME_AT : _NAME_AT + _NAME_BYTES].partition(b"\0")[0].decode()
        libc.close(fd)
    return found


def ours() -> dict[int, str]:
    """Programs with the names of kickwatch's, whichever process loaded them."""
    return {number: name for number, name in names().items() if name in OURS}
