"""bpf(2) and perf_event_open(2) through libc's syscall(2), which has no wrapper for either.

Each function returns the kernel's result, or the negated errno if the call failed. The layouts are those of `union
bpf_attr` (uapi linux/bpf.h) and `struct perf_event_attr` (uapi linux/perf_event.h), which only grow.
"""

import ctypes
import errno
import os
import struct
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path
from typing import TypeAlias

from kickwatch.errors import ObserveError
from kickwatch.node.kernel import architecture, online, version_code
from kickwatch.node.roots import HOST
from kickwatch.observe.map_definitions import MapDefinition
from kickwatch.observe.programs import Program

Buffer: TypeAlias = ctypes.Array[ctypes.c_char]

# (bpf, perf_event_open): arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h.
_NUMBERS = {"x86_64": (321, 298), "aarch64": (280, 241)}
_MAP_CREATE, _LOOKUP, _UPDATE, _DELETE, _NEXT_KEY, _PROG_LOAD = range(6)
_OBJECT_INFO, _RAW_TRACEPOINT_OPEN, _LOOKUP_BATCH, _ENABLE_STATS = 15, 17, 24, 32
_NAME_BYTES = 16  # BPF_OBJ_NAME_LEN, with the final zero
_CLOSE_ON_EXEC = 8  # PERF_FLAG_FD_CLOEXEC
_SET_BPF, _ENABLE = 0x40042408, 0x2400  # PERF_EVENT_IOC_SET_BPF, PERF_EVENT_IOC_ENABLE
# type, size, config, sample_period, sample_type, read_format, flags, wakeup_events, bp_type, config1, config2
_PERF_ATTR = struct.Struct("=IIQQQQQIIQQ")  # PERF_ATTR_SIZE_VER1
_LOG_BYTES = 16 << 20
_TOO_LONG_BYTES = 1 << 20  # more than a page
_NO_SUCH_FLAGS = -1
_RETRIES = 5  # loading returns EAGAIN while a signal is pending (Linux 5.1 and later)
# Another attempt that asks for its log would say no more, and needs a descriptor and memory itself.
_NOT_BY_THE_VERIFIER = frozenset({errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class BpfCalls:
    """The commands of bpf(2) that kickwatch uses. `KERNEL` is the one object; tests replace it."""

    def map_create(self, name: str, wanted: MapDefinition) -> int:
        """BPF_MAP_CREATE: a descriptor."""
        words = (wanted.kind, wanted.key_bytes, wanted.value_bytes, wanted.entries, wanted.flags, 0, 0)
        return self._creating(_MAP_CREATE, struct.pack("=7I", *words) + _name(name))

    def lookup(self, fd: int, key: bytes, value: Buffer) -> int:
        """BPF_MAP_LOOKUP_ELEM into `value`."""
        return self._element(_LOOKUP, fd, ctypes.create_string_buffer(key, len(key)), value)

    def update(self, fd: int, key: bytes, value: bytes) -> int:
        """BPF_MAP_UPDATE_ELEM of an entry, which may exist already."""
        buffers = (ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value)))
        return self._element(_UPDATE, fd, *buffers)

    def delete(self, fd: int, key: bytes) -> int:
        """BPF_MAP_DELETE_ELEM."""
        return self._element(_DELETE, fd, ctypes.create_string_buffer(key, len(key)), None)

    def next_key(self, fd: int, key: Buffer | None, following: Buffer) -> int:
        """BPF_MAP_GET_NEXT_KEY: the key after `key`, or the first one."""
        return self._element(_NEXT_KEY, fd, key, following)

    def _element(
        self,
        command: int,
        fd: int,
        key: Buffer | None,
        value: Buffer | None,
    ) -> int:
        return bpf(command, struct.pack("=IIQQQ", fd, 0, _address(key), _address(value), 0))

    def lookup_batch(
        self,
        fd: int,
        token: bytes | None,
        *,
        following: Buffer,
        keys: Buffer,
        values: Buffer,
        count: ctypes.c_uint32,
    ) -> int:
        """BPF_MAP_LOOKUP_BATCH (5.6) of at most `count` entries after `token`; `count` becomes the number read."""
        before = None if token is None else ctypes.create_string_buffer(token, len(token))
        places = (_address(before), _address(following), _address(keys), _address(values))
        attr = ctypes.create_string_buffer(struct.pack("=QQQQIIQQ", *places, count.value, fd, 0, 0))
        result = bpf_into(_LOOKUP_BATCH, attr)
        count.value = struct.unpack_from("=I", attr, 32)[0]
        return result

    def program_load(self, program: Program, code: bytes, terms: bytes) -> tuple[int, str]:
        """BPF_PROG_LOAD: a descriptor, or the negated errno with the verifier's log, if it wrote one.

        `code`: the program's, with its maps. `terms`: the license, which decides what it may call.
        """
        result = self._load(program, code, terms, None)
        if result >= 0 or -result in _NOT_BY_THE_VERIFIER:
            return result, ""
        from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap  # noqa: PLC0415 -- only for a refusal

        with mmap(-1, _LOG_BYTES, MAP_PRIVATE | MAP_ANONYMOUS) as log:  # its pages are used as the log grows
            view = (ctypes.c_char * _LOG_BYTES).from_buffer(log)
            again = self._load(program, code, terms, view)
            del view
            text = log[: max(0, log.find(b"\0"))].decode(errors="replace")
        return (again if again >= 0 else result), text

    def _load(self, program: Program, code: bytes, terms: bytes, log: Buffer | None) -> int:
        text, license_ = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(terms)
        head = (program.kind, len(code) // 8, _address(text), _address(license_))
        logging = (0, 0, 0) if log is None else (1, len(log), _address(log))
        # Kprobe programs had to know the kernel's version until "bpf: drop kern_version check" (5.0).
        attr = struct.pack("=IIQQIIQII", *head, *logging, version_code(), 0) + _name(program.name)
        for _ in range(_RETRIES):
            result = self._creating(_PROG_LOAD, attr)
            if result != -errno.EAGAIN:
                break
        return result

    def raw_tracepoint_open(self, name: str, program: int) -> int:
        """BPF_RAW_TRACEPOINT_OPEN: a descriptor; closing it detaches the program."""
        text = ctypes.create_string_buffer(name.encode())
        return bpf(_RAW_TRACEPOINT_OPEN, struct.pack("=QII", _address(text), program, 0))

    def kprobe_open(self, function: str | None, address: int, program: int, *, at_return: bool) -> int:
        """Attach `program` to a function by its name or, if that is None, its address; closing the descriptor detaches.

        By perf_event_open(2) with the PMU `kprobe`, "perf/core: Implement the 'perf_kprobe' PMU" (4.17). Raises OSError
        without that PMU.
        """
        pmu = HOST.sys / "bus/event_source/devices/kprobe"
        kind = int((pmu / "type").read_text("ascii"))
        config = 1 << _retprobe_bit(pmu) if at_return else 0
        text = None if function is None else ctypes.create_string_buffer(function.encode())
        attr = _PERF_ATTR.pack(kind, _PERF_ATTR.size, config, 0, 0, 0, 0, 0, 0, _address(text), address)
        fd = _perf_event_open(ctypes.create_string_buffer(attr, len(attr)), (online() or [0])[0])
        if fd < 0:
            return fd
        try:
            ioctl(fd, _SET_BPF, program)
            ioctl(fd, _ENABLE, 0)
        except OSError as error:
            os.close(fd)
            return -(error.errno or errno.EINVAL)
        return fd

    def program_info(self, fd: int, info: Buffer) -> int:
        """BPF_OBJ_GET_INFO_BY_FD into `info`, a struct bpf_prog_info of zeros."""
        return bpf(_OBJECT_INFO, struct.pack("=IIQ", fd, len(info), _address(info)))

    def enable_stats(self) -> int:
        """BPF_ENABLE_STATS of run times (5.8): a descriptor; closing it turns them off."""
        return bpf(_ENABLE_STATS, struct.pack("=II", 0, 0))

    def bpf_answers(self) -> bool:
        """True if the kernel itself answers bpf(2): no seccomp filter refuses it.

        An attribute longer than a page is E2BIG, which comes before any security module is asked. This command needs no
        capability since "bpf: refine kernel.unprivileged_bpf_disabled behaviour" (5.19).
        """
        number, _ = _numbers()
        words = (ctypes.c_long(number), ctypes.c_long(_LOOKUP), None, ctypes.c_long(_TOO_LONG_BYTES))
        return _result(_syscall(*words)) == -errno.E2BIG

    def perf_event_open_answers(self) -> bool:
        """The same of perf_event_open(2): flags that do not exist are EINVAL before all else."""
        _, number = _numbers()
        anything = ctypes.c_long(-1)
        words = (ctypes.c_long(number), None, anything, anything, anything, ctypes.c_long(_NO_SUCH_FLAGS))
        return _result(_syscall(*words)) == -errno.EINVAL

    def _creating(self, command: int, attr: bytes) -> int:
        """A command that takes locked memory until "bpf: Eliminate rlimit-based memory accounting" (5.11).

        If it is refused, it is repeated without that limit, which needs CAP_SYS_RESOURCE. Afterwards the limit is what
        it was, since containers inherit it.
        """
        result = bpf(command, attr)
        if result == -errno.EPERM:
            import resource  # noqa: PLC0415 -- only for a refusal

            limits = resource.getrlimit(resource.RLIMIT_MEMLOCK)
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                result = bpf(command, attr)
                resource.setrlimit(resource.RLIMIT_MEMLOCK, limits)
        return result


KERNEL = BpfCalls()
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


def bpf(command: int, attr: bytes) -> int:
    """bpf(2) with an attribute that the kernel does not write to."""
    return bpf_into(command, ctypes.create_string_buffer(attr, len(attr)))


def bpf_into(command: int, attr: Buffer) -> int:
    """bpf(2) with an attribute that returns something."""
    number, _ = _numbers()
    return _result(_syscall(ctypes.c_long(number), ctypes.c_long(command), attr, ctypes.c_long(len(attr))))


def _perf_event_open(attr: Buffer, cpu: int) -> int:
    """Of every process on one CPU, which must be online; a kprobe hits on all CPUs nevertheless."""
    _, number = _numbers()
    process, group = ctypes.c_long(-1), ctypes.c_long(-1)
    words = (process, ctypes.c_long(cpu), group, ctypes.c_long(_CLOSE_ON_EXEC))
    return _result(_syscall(ctypes.c_long(number), attr, *words))


def _result(returned: int) -> int:
    return -ctypes.get_errno() if returned < 0 else returned


def _numbers() -> tuple[int, int]:
    machine = architecture()
    if machine not in _NUMBERS:
        raise ObserveError(f"kickwatch has no BPF programs for {machine}", f"it runs on {' and '.join(_NUMBERS)}")
    return _NUMBERS[machine]


def _address(buffer: Buffer | None) -> int:
    return 0 if buffer is None else ctypes.addressof(buffer)


def _name(name: str) -> bytes:
    return name.encode()[: _NAME_BYTES - 1].ljust(_NAME_BYTES, b"\0")


def _retprobe_bit(pmu: Path) -> int:
    """The bit of perf_event_attr.config that asks for the function's return: `config:0`."""
    return int((pmu / "format/retprobe").read_text("ascii").partition(":")[2])
