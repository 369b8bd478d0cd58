"""BPF objects: read, resize maps, load, attach. The node needs no compiler, no binding and no libbpf.

Every call that can fail raises ObserveError: RefusedError, with the cause, where the kernel refused it. Why there is no
libbpf: docs/explanation/loader.md.
"""

import ctypes
import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from kickwatch.errors import ObserveError
from kickwatch.node.causes import STATISTICS_SUBJECT
from kickwatch.node.diagnosis import Act
from kickwatch.observe.bpf_calls import KERNEL
from kickwatch.observe.bpf_map import BpfMap
from kickwatch.observe.elf import ElfObject
from kickwatch.observe.map_definitions import MapDefinition, map_definitions
from kickwatch.observe.programs import Program, programs
from kickwatch.observe.refused import RefusedError, reads_refused, refused

PROBES = Path(__file__).parent / "probes"
_WITHOUT_READS = "_noread"
_Options = tuple[Mapping[str, int], Mapping[str, int], Mapping[str, BpfMap]]
# struct bpf_prog_info (uapi linux/bpf.h): offsets of run_time_ns, run_cnt (5.1) and recursion_misses (5.12).
_PROG_INFO_BYTES = 232
_PROG_INFO_RUN_TIME_NS = 192


class BpfObject:
    """One object file: loaded at construction, attached on request, freed by close()."""

    unread: RefusedError | None = None

    def __init__(
        self,
        name: str,
        max_entries: Mapping[str, int] | None = None,
        key_bytes: Mapping[str, int] | None = None,
        directory: Path = PROBES,
        shared: Mapping[str, BpfMap] | None = None,
    ) -> None:
        """`name`: of the probe's source, without `.bpf.c`. `max_entries`, `key_bytes`: of maps, set before loading.

        `shared`: maps of another loaded object that this one uses instead of its own, by name. `unread` has the reason
        if the kernel accepts only the variant that reads no kernel memory (probe.h).
        """
        self.name = name
        self._calls = KERNEL
        self._links: list[int] = []
        self._closed = False
        options = (max_entries or {}, key_bytes or {}, shared or {})
        try:
            self._load(name, directory, options)
        except RefusedError as error:
            if error.refusal.code != errno.EINVAL or not (directory / f"{name}{_WITHOUT_READS}.bpf.o").exists():
                raise
            self._load_without_reads(error, directory, options)

    def _load_without_reads(self, error: RefusedError, directory: Path, options: _Options) -> None:
        """Load the variant that reads no kernel memory. Raises `error` if the kernel refuses that, too."""
        try:
            self._load(f"{self.name}{_WITHOUT_READS}", directory, options)
        except RefusedError:
            raise error from None
        self.unread = reads_refused(error)

    def _load(self, name: str, directory: Path, options: _Options) -> None:
        """Create the maps and load the programs of one file, all or nothing."""
        path = directory / f"{name}.bpf.o"
        if not path.exists():
            raise ObserveError(f"{path} is missing", "build it with `make native`")
        elf = ElfObject.parse(path.read_bytes())
        self._maps: dict[str, BpfMap] = dict(options[2])
        self._programs: dict[str, int] = {}
        with ExitStack() as failed:
            self._owned = failed  # the descriptors of maps and programs
            self._create_maps(name, map_definitions(elf.section(".BTF")), options)
            for program in programs(elf):
                self._load_program(name, program, elf.section("license").rstrip(b"\0"))
            self._owned = failed.pop_all()

    def _create_maps(self, probe: str, definitions: Mapping[str, MapDefinition], options: _Options) -> None:
        entries, widths, _ = options
        for name in (*entries, *widths, *self._maps):
            if name not in definitions:
                raise ObserveError(f"the probe {self.name} has no map {name}", "rebuild it with `make native`")
        for name, written in definitions.items():
            if name in self._maps:
                continue
            made = replace(
                written,
                entries=entries.get(name, written.entries),
                key_bytes=widths.get(name, written.key_bytes),
            )
            fd = self._calls.map_create(name, made)
            if fd < 0:
                log = f"map {name} of type {made.kind}, {made.entries} entries"
                raise refused(f"loading the probe {probe}", -fd, Act.LOAD, probe, log)
            self._owned.callback(os.close, fd)
            self._maps[name] = BpfMap(name, fd, made)

    def _load_program(self, probe: str, program: Program, terms: bytes) -> None:
        code = program.with_maps({name: found.fd for name, found in self._maps.items()})
        fd, log = self._calls.program_load(program, code, terms)
        if fd < 0:
            raise refused(f"loading the probe {probe}", -fd, Act.LOAD, probe, f"{program.name}: {_last_words(log)}")
        self._owned.callback(os.close, fd)
        self._programs[program.name] = fd

    def attach_raw_tracepoint(self, program: str, tracepoint: str) -> None:
        """Attach one program. Arming a tracepoint patches kernel text, and that broadcasts."""
        link = self._calls.raw_tracepoint_open(tracepoint, self.program_fd(program))
        if link < 0:
            raise refused(f"attaching to tracepoint {tracepoint}", -link, Act.TRACEPOINT, tracepoint)
        self._links.append(link)

    def attach_kprobe(
        self, program: str, function: str, addresses: Sequence[int] = (), *, at_return: bool = False
    ) -> None:
        """Attach one program to the entry or the return of every kernel function of that name, as in kallsyms.

        `addresses`: of these functions. A single one is for kernels that refuse the name: 4.18 to 5.1 name an event
        after the function, and no event may have a dot in its name (`__mutex_lock.constprop.0`: EINVAL). Several are
        always attached by address: their name is refused since "tracing/kprobes: Return EADDRNOTAVAIL when func matches
        several symbols" (6.7), and stands for the first of them before.
        """
        fd, several = self.program_fd(program), len(addresses) > 1
        link = -errno.EADDRNOTAVAIL if several else self._open_kprobe(function, 0, fd, at_return=at_return)
        if link >= 0:
            return
        links = [self._open_kprobe(None, address, fd, at_return=at_return) for address in addresses]
        if min(links, default=link) < 0:
            code = -min(links) if several else -link
            raise refused(f"attaching a kprobe to {function}", code, Act.KPROBE, function)

    def _open_kprobe(self, function: str | None, address: int, fd: int, *, at_return: bool) -> int:
        """A new link, or the negated errno."""
        try:
            link = self._calls.kprobe_open(function, address, fd, at_return=at_return)
        except (OSError, ValueError):  # without the PMU of kprobes
            return -errno.ENOENT
        if link >= 0:
            self._links.append(link)
        return link

    def detach(self) -> None:
        """Detach every program; the maps stay readable."""
        while self._links:
            os.close(self._links.pop())

    def close(self) -> None:
        """Detach, and free the maps and programs. Safe to call twice."""
        self.detach()
        self._owned.close()
        self._closed = True

    def map(self, name: str) -> BpfMap:
        """A map by its name in the C source."""
        self._check_open()
        if name not in self._maps:
            raise ObserveError(f"the probe {self.name} has no map {name}", "rebuild it with `make native`")
        return self._maps[name]

    def program_fd(self, name: str) -> int:
        """The descriptor of a program, valid until the object is closed."""
        self._check_open()
        if name not in self._programs:
            raise ObserveError(f"the probe {self.name} has no program {name}", "rebuild it with `make native`")
        return self._programs[name]

    def run_statistics(self, program: str) -> tuple[int, int, int]:
        """(run_time_ns, runs, recursion_misses) of a program; the first two rise only while BPF statistics are on.

        The last is 0 before 5.12. Raises ObserveError if the kernel refuses.
        """
        info = ctypes.create_string_buffer(_PROG_INFO_BYTES)
        result = self._calls.program_info(self.program_fd(program), info)
        if result != 0:
            raise refused(f"BPF program {program}: its statistics", -result)
        words = (ctypes.c_uint64 * 3).from_buffer(info, _PROG_INFO_RUN_TIME_NS)
        return (words[0], words[1], words[2])

    def _check_open(self) -> None:
        """A descriptor that was closed may meanwhile be another file."""
        if self._closed:
            raise ObserveError(f"the probe {self.name} is closed", "report it")


def enable_statistics() -> int:
    """Turn BPF run-time statistics on; closing the descriptor turns them off. Both flip a static key (broadcasts)."""
    fd = KERNEL.enable_stats()
    if fd < 0:
        raise refused("enabling BPF run-time statistics", -fd, Act.STATISTICS, STATISTICS_SUBJECT)
    return fd


def _last_words(log: str) -> str:
    """The last line of the verifier's log that is about the program."""
    lines = [line for line in log.splitlines() if line and not line.startswith(("processed ", "verification time"))]
    return lines[-1] if lines else "no log"
