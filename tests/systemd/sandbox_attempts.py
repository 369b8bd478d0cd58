"""Attempts to do something inside the sandbox, by name, and the kernel's result of each.

    python3 sandbox_attempts.py NAME...

prints one JSON object: for each name 0, an errno, or minus the number of the signal that killed the attempt. Each
attempt runs in a child process. Runs in the node with the system's Python, so it uses only the standard library.

The attempts change nothing: files are opened but not written, values are set to what they are, new objects are removed.
"""

import ctypes
import json
import mmap
import os
import platform
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
# System calls without a wrapper in glibc, by machine.
_NUMBERS = {
    "x86_64": {"add_key": 248, "bpf": 321, "finit_module": 313, "membarrier": 324, "userfaultfd": 323, "capset": 126},
    "aarch64": {"add_key": 217, "bpf": 280, "finit_module": 273, "membarrier": 283, "userfaultfd": 282, "capset": 91},
}[platform.machine()]
_CLONE_NEWUTS, _CLONE_NEWNS, _CLONE_NEWUSER = 0x04000000, 0x00020000, 0x10000000
_PTRACE_TRACEME, _ADDR_NO_RANDOMIZE, _ADJ_TICK = 0, 0x0040000, 0x4000
_PROG_LOAD, _RAW_TRACEPOINT = 5, 17
OTHER_USER = 65534
SHARED_MEMORY_KEY = 0x6B77  # created outside the sandbox by the test


def _call(name: str, *arguments: object) -> int:
    """Call a function of libc; raise OSError if it returns -1."""
    result = int(getattr(_LIBC, name)(*arguments))
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


def _syscall(name: str, *arguments: object) -> int:
    return _call("syscall", ctypes.c_long(_NUMBERS[name]), *arguments)


def _make(directory: str) -> Callable[[], object]:
    def attempt() -> None:
        path = Path(directory) / f"kw-attempt-{os.getpid()}"
        path.touch()
        path.unlink()

    return attempt


def _open(path: str, flags: int = os.O_RDONLY) -> Callable[[], object]:
    return lambda: os.close(os.open(path, flags))


def _read_some(path: str) -> Callable[[], object]:
    def attempt() -> None:
        with Path(path).open("rb", buffering=0) as file:
            file.read(64)

    return attempt


def _run_written_program(directory: str) -> Callable[[], object]:
    def attempt() -> None:
        path = Path(directory) / f"kw-program-{os.getpid()}"
        path.write_text("#!/bin/sh\nexit 0\n")
        path.chmod(0o700)
        try:
            if child := os.fork():
                error_number = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                if error_number:
                    raise OSError(error_number, "execve")
                return
            try:
                os.execv(path, [str(path)])  # noqa: S606 -- without a shell on purpose
            except OSError as error:
                os._exit(error.errno)
        finally:
            path.unlink()

    return attempt


def _make_set_uid() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "file"
        path.touch()
        path.chmod(0o4755)


def _give_away() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chown(directory, OTHER_USER, OTHER_USER)


def _make_device() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.mknod(f"{directory}/kmsg", 0o600 | 0o020000, os.makedev(1, 11))


def _set_clock() -> None:
    """Set the length of a tick, in microseconds, to its current value."""
    timex = (ctypes.c_long * 32)()
    _call("adjtimex", timex)
    tick = timex[11]  # struct timex: modes, offset, freq, maxerror, esterror, status, constant, precision, tolerance,
    again = (ctypes.c_long * 32)()  # time (2 words), tick
    again[0], again[11] = _ADJ_TICK, tick
    _call("adjtimex", again)


def _set_host_name() -> None:
    name = socket.gethostname().encode()
    _call("sethostname", name, len(name))


def _write_and_run_memory() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def _call_as_32_bits() -> None:
    """The 32-bit getpid: mov eax, 20; int 0x80; ret."""
    if platform.machine() != "x86_64":
        raise NotImplementedError
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("b814000000 cd80 c3"))
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    pid = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    if pid < 0:
        raise OSError(-pid, "int 0x80")


def _load_bpf() -> None:
    """Load a raw tracepoint program that returns 0, without attaching it."""
    code, licence = bytes.fromhex("b700000000000000 9500000000000000"), b"GPL\0"
    attributes = ctypes.create_string_buffer(128)
    held = ctypes.create_string_buffer(code), ctypes.create_string_buffer(licence)
    ctypes.memmove(attributes, ctypes.byref((ctypes.c_uint32 * 2)(_RAW_TRACEPOINT, 2)), 8)
    ctypes.memmove(
        ctypes.addressof(attributes) + 8, ctypes.byref((ctypes.c_uint64 * 2)(*map(ctypes.addressof, held))), 16
    )
    os.close(_syscall("bpf", ctypes.c_int(_PROG_LOAD), attributes, ctypes.c_uint(128)))


def _see_addresses() -> None:
    """Raise EPERM if the kernel shows zeros instead of addresses."""
    with Path("/proc/kallsyms").open(encoding="ascii") as file:
        if int(file.readline().split()[0], 16) == 0:
            raise PermissionError(1, "zeros")


def _make_memory_cgroup() -> None:
    """Below the unit's own: the root of a hierarchy is read-only for root without CAP_DAC_OVERRIDE."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    own = {controllers: path.lstrip("/") for _, controllers, path in lines}
    root = Path("/sys/fs/cgroup")
    parent = root / "memory" / own["memory"] if "memory" in own else root / own[""]
    directory = parent / f"kickwatch-attempt-{os.getpid()}"
    directory.mkdir()
    directory.rmdir()


def _signal_another_user() -> None:
    """Send signal 0 to the process of that user with the lowest pid."""
    for entry in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        if entry.stat().st_uid == OTHER_USER:
            pidfd = os.pidfd_open(int(entry.name))
            signal.pidfd_send_signal(pidfd, 0)
            os.close(pidfd)
            return
    raise ProcessLookupError(3, "no such process")


def _pin() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _drop_capabilities() -> None:
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    _syscall("capset", header, nothing)


def _connect(address: str | tuple[str, int]) -> Callable[[], object]:
    def attempt() -> None:
        with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as connection:
            connection.connect(address)

    return attempt


def _listen(family: socket.AddressFamily, address: str) -> Callable[[], object]:
    def attempt() -> None:
        with socket.socket(family) as server:
            server.bind((address, 0))
            server.listen(1)

    return attempt


def _callback() -> None:
    """Let C code call Python, which takes memory to write and run on some machines."""
    seen: list[int] = []
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    _LIBC.qsort((ctypes.c_int * 2)(2, 1), 2, 4, compare(lambda *_: seen.append(1) or 0))
    if not seen:
        raise OSError(1, "the callback was not called")


def _share_mounts() -> None:
    if Path("/proc/self/ns/mnt").stat().st_ino != Path("/proc/1/ns/mnt").stat().st_ino:
        raise PermissionError(1, "separate mounts")


def _gain_privileges() -> None:
    if _call("prctl", 39, 0, 0, 0, 0):  # PR_GET_NO_NEW_PRIVS
        raise PermissionError(1, "no new privileges")


def _make_readable() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "file"
        path.touch()
        if path.stat().st_mode & 0o077 == 0:
            raise PermissionError(1, "not readable by others")


ATTEMPTS: dict[str, Callable[[], object]] = {
    # What the sandbox must refuse.
    "write /etc": _make("/etc"),
    "write the configuration": _make("/etc/kickwatch"),
    "write /usr": _make("/usr"),
    "write /opt/kickwatch": _make("/opt/kickwatch"),
    "write /run": _make("/run"),
    "write /var/lib": _make("/var/lib"),
    "read /root": _read_some("/root/kw-secret"),
    "read /home": _read_some("/home/kw-secret"),
    "read another's /tmp": _read_some("/tmp/kw-secret"),
    "run a written program": _run_written_program("/var/lib/kickwatch"),
    "run a program written to /tmp": _run_written_program("/tmp"),
    "run a program written to /dev/shm": _run_written_program("/dev/shm"),
    "write a kernel setting": _open("/proc/sys/kernel/core_pattern", os.O_WRONLY),
    "write to sysfs": _open("/sys/kernel/rcu_expedited", os.O_WRONLY),
    "press sysrq": _open("/proc/sysrq-trigger", os.O_WRONLY),
    "read the kernel's memory": _open("/proc/kcore"),
    "open a device": _open("/dev/kw-device"),
    "make a device": _make_device,
    "set the clock": _set_clock,
    "set the host's name": _set_host_name,
    "load a module": lambda: _syscall("finit_module", -1, b"", 0),
    "reach another's shared memory": lambda: _call("shmget", SHARED_MEMORY_KEY, 0, 0),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "a namespace": lambda: _call("unshare", _CLONE_NEWUTS),
    "a user namespace": lambda: _call("unshare", _CLONE_NEWUSER),
    "real time": lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(0)),  # no such priority: EINVAL
    "a set-uid file": _make_set_uid,
    "another personality": lambda: _call("personality", _ADDR_NO_RANDOMIZE),
    "memory to write and run": _write_and_run_memory,
    "32-bit system calls": _call_as_32_bits,
    "mount": lambda: _call("mount", b"none", b"/mnt", b"tmpfs", 0, None),
    "trace": lambda: _call("ptrace", _PTRACE_TRACEME, 0, 0, 0),
    "change the root": lambda: os.chroot("/"),
    "become another user": lambda: os.setresuid(OTHER_USER, OTHER_USER, OTHER_USER),
    "give a file away": _give_away,
    "become more urgent": lambda: os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0)),
    "handle page faults": lambda: _syscall("userfaultfd", os.O_CLOEXEC),
    "keep keys": lambda: _syscall("add_key", b"user", b"kw", b"x", 1, -2),
    "reboot": lambda: _call("reboot", 1),  # no such command: EINVAL if permitted
    "share the node's mounts": _share_mounts,
    "gain privileges": _gain_privileges,
    "make a readable file": _make_readable,
    # What kickwatch needs.
    "write the history": _make("/var/lib/kickwatch"),
    "write the drain file": _make("/run/kickwatch"),
    "write to its own /tmp": _make("/tmp"),
    "open the lock": _open("/run/kickwatch.lock", os.O_RDWR),
    "read the configuration": _read_some("/etc/kickwatch/kickwatch.toml"),
    "read interrupts": _read_some("/proc/interrupts"),
    "read slabinfo": _read_some("/proc/slabinfo"),
    "see addresses": _see_addresses,
    "load a BPF program": _load_bpf,
    "make a memory cgroup": _make_memory_cgroup,
    "signal another user": _signal_another_user,
    "pin a thread": _pin,
    "a barrier": lambda: _syscall("membarrier", 0, 0, 0),
    "drop capabilities": _drop_capabilities,
    "reach the engine": _connect("/var/run/docker.sock"),
    "reach systemd": _connect("/run/systemd/private"),
    "reach the node's loopback": _connect(("127.0.0.1", 9)),  # the test listens there
    "serve metrics": _listen(socket.AF_INET, "127.0.0.1"),
    "serve metrics on IPv6": _listen(socket.AF_INET6, "::1"),
    "be called back from C": _callback,
}


def result_of(name: str) -> int:
    """The result of one attempt, made in a child process."""
    child = os.fork()
    if not child:
        try:
            ATTEMPTS[name]()
        except OSError as error:
            os._exit(error.errno or 255)
        except NotImplementedError:
            os._exit(254)
        except BaseException as error:  # noqa: BLE001 -- a bug in the attempt must not count as a refusal
            sys.stderr.write(f"{name}: {error!r}\n")
            os._exit(253)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    json.dump({name: result_of(name) for name in sys.argv[1:] or ATTEMPTS}, sys.stdout)
