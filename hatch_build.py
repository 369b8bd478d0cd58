"""What a wheel carries beside Python: the native programs and the BPF objects of one machine, which its tag names.

`make native` builds them in the package, `make native ARCH=arm64` in build/arm64/kickwatch (KICKWATCH_WHEEL_ARCH names
it to this hook). A wheel without them, or with those of another machine, would install and fail on the node, so it is
not built. An editable installation (`make setup`) comes before they are built, and needs none.
"""

import os
import platform
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROGRAMS = ("workload", "pause", "kw-helper")
# Named as in a wheel's tag: e_machine of its programs, and the end of the compiler's name in BPF objects' debug
# information (DW_AT_producer), which the Makefile adds.
MACHINES = {"x86_64": (62, b" __TARGET_ARCH_x86\0"), "aarch64": (183, b" __TARGET_ARCH_arm64\0")}
# The programs are static and the probes need no library, so that every glibc will do for which there are Pythons and
# wheels of the dependencies; manylinux_2_17 is the oldest of those.
TAG = "py3-none-manylinux_2_17_{machine}"
_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}
_BPF = 247  # EM_BPF
_INTERPRETER = 3  # PT_INTERP


class ArtifactsHook(BuildHookInterface):
    """Adds the artifacts of one machine, and the tag."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Hatchling calls it before each build; SystemExit ends the build with one line."""
        if version == "editable":
            return
        machine = _named(os.environ.get("KICKWATCH_WHEEL_ARCH") or platform.machine())
        home = package(Path(self.root), machine)
        found = list(problems(home, Path(self.root), machine))
        if found:
            raise SystemExit(f"kickwatch: no wheel for {machine}: {found[0]}: {_remedy(machine)}")
        build_data["tag"] = TAG.format(machine=machine)
        build_data["pure_python"] = False
        for path in artifacts(home, Path(self.root)):
            build_data["force_include"][str(path)] = f"kickwatch/{path.relative_to(home)}"


def package(root: Path, machine: str) -> Path:
    """The directory in which the artifacts of `machine` are, laid out as the package."""
    if machine == _named(platform.machine()):
        return root / "daemon/kickwatch"
    return root / "build" / _make_name(machine) / "kickwatch"


def artifacts(home: Path, root: Path) -> list[Path]:
    """What has to be there: each program, and an object for each probe's source."""
    sources = sorted((root / "daemon/kickwatch/observe/probes").glob("*.bpf.c"))
    programs = [home / "native/bin" / name for name in PROGRAMS]
    return [*programs, *(home / "observe/probes" / f"{source.stem}.o" for source in sources)]


def problems(home: Path, root: Path, machine: str) -> Iterator[str]:
    """Why the artifacts in `home` are not those of `machine`: one sentence for each file."""
    if machine not in MACHINES:
        yield f"kickwatch has no BPF programs for it, only for {' and '.join(MACHINES)}"
        return
    for path in artifacts(home, root):
        name = path.relative_to(home)
        if not path.is_file():
            yield f"{name} is not built"
        elif problem := _problem(path.read_bytes(), machine, bpf=path.suffix == ".o"):
            yield f"{name} {problem}"
    for source in sorted((root / "daemon/kickwatch/workload").glob("*.proto")):  # in the package, for any machine
        if not source.with_name(f"{source.stem}_pb2.py").is_file():
            yield f"workload/{source.stem}_pb2.py is not generated"


def _problem(data: bytes, machine: str, *, bpf: bool) -> str:
    wanted, _ = MACHINES[machine]
    if data[:6] != b"\x7fELF\x02\x01":
        return "is no 64-bit little-endian ELF file"
    (found,) = struct.unpack_from("<H", data, 18)
    if found != (_BPF if bpf else wanted):
        other = next((name for name, (number, _) in MACHINES.items() if number == found), f"machine {found}")
        return f"is for {other}"
    if bpf:
        return _wrong_target(data, machine)
    return "needs shared libraries" if _INTERPRETER in _segments(data) else ""


def _wrong_target(data: bytes, machine: str) -> str:
    """A BPF object is for one machine as well: registers and the depth of stacks differ."""
    found = [name for name, (_, mark) in MACHINES.items() if mark in data]
    if not found:
        return "does not name its machine"
    return "" if found == [machine] else f"is compiled for {' and '.join(found)}"


def _segments(data: bytes) -> set[int]:
    """The types of a program's segments (elf(5): e_phoff, e_phentsize, e_phnum)."""
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    return {struct.unpack_from("<I", data, table + size * index)[0] for index in range(count)}


def _named(machine: str) -> str:
    return _ALIASES.get(machine, machine)


def _make_name(machine: str) -> str:
    """As the Makefile calls it: the Debian word for arm64."""
    return "arm64" if machine == "aarch64" else machine


def _remedy(machine: str) -> str:
    return "`make wheel`" if machine == _named(platform.machine()) else f"`make wheel ARCH={_make_name(machine)}`"
