"""Builds for arm64: programs and BPF objects of that machine, beside this machine's, and the wheel with them."""

import hashlib
import platform
import struct
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from elf import functions, sections
from kickwatch.observe.bpf import PROBES

ROOT = Path(__file__).parents[3]
HERE = ROOT / "daemon" / "kickwatch"
THERE = ROOT / "build" / "arm64" / "kickwatch"
EM_X86_64, EM_AARCH64, EM_BPF = 62, 183, 247
# Where struct pt_regs has the first five arguments of a function, in bytes (asm/ptrace.h).
ARGUMENTS = {"x86_64": (112, 104, 96, 88, 72), "aarch64": (0, 8, 16, 24, 32)}
# Where the return address is: on top of the stack, and in the link register.
RETURN = {"x86_64": 152, "aarch64": 240}
_MOVE, _LOAD_64, _CALL = 0xBF, 0x79, 0x85
_WRITES = frozenset({0x00, 0x01, 0x04, 0x07})  # classes LD, LDX, ALU, ALU64 write their first register


def machine(path: Path) -> int:
    """e_machine of an ELF file."""
    (found,) = struct.unpack_from("<H", path.read_bytes(), 0x12)
    return int(found)


def is_elf(path: Path) -> bool:
    """True for a program, a library and an object file."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def read_from_context(code: bytes) -> Iterator[int]:
    """Offsets of the 64-bit words that a program reads from its context, which is in r1 at its start."""
    context = {1}
    for opcode, registers, offset, _immediate in struct.iter_unpack("<BBhi", code):
        target, source = registers & 0xF, registers >> 4
        if opcode == _LOAD_64 and source in context:
            yield offset
        if opcode == _MOVE and source in context:
            context.add(target)
        elif opcode == _CALL:
            context -= {1, 2, 3, 4, 5}
        elif opcode & 0x07 in _WRITES:
            context.discard(target)


def registers_read(objects: Path) -> set[int]:
    """What the kprobes of all objects in a directory read of the registers."""
    probes = [one for path in objects.glob("*.bpf.o") for one in functions(path) if one[0].startswith("kprobe")]
    assert len(probes) >= 7
    return {offset for _section, _name, code in probes for offset in read_from_context(code)}


def check_registers(objects: Path, machine_name: str) -> None:
    """Two arguments and the return address are read, and nothing that is neither."""
    wanted, caller = ARGUMENTS[machine_name], RETURN[machine_name]
    assert {wanted[0], wanted[1], caller} <= registers_read(objects) <= {*wanted, caller}


def digests(tree: Path) -> dict[str, str]:
    built = [*tree.rglob("native/bin/*"), *tree.rglob("*.bpf.o")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in built}


def test_the_probes_of_this_machine_read_this_machines_registers() -> None:
    check_registers(PROBES, platform.machine())


@pytest.mark.long
@pytest.mark.cross
def test_a_cross_build_is_of_the_other_machine_and_leaves_this_machines_files_alone() -> None:
    """It failed with "incomplete definition of type 'struct user_pt_regs'": the headers were this machine's."""
    before = digests(HERE)
    subprocess.run(["make", "-B", "-C", ROOT, "native", "ARCH=arm64"], check=True, capture_output=True, timeout=300)
    assert digests(HERE) == before
    programs = sorted((THERE / "native/bin").iterdir())
    assert [path.name for path in programs] == ["kw-helper", "pause", "workload"]
    assert {machine(path) for path in programs} == {EM_AARCH64}
    assert not {".interp", ".dynamic"} & {name for path in programs for name, _ in sections(path)}  # static
    objects = sorted((THERE / "observe/probes").glob("*.bpf.o"))
    assert [path.name for path in objects] == sorted(path.name for path in PROBES.glob("*.bpf.o"))
    assert {machine(path) for path in objects} == {EM_BPF}
    check_registers(THERE / "observe/probes", "aarch64")


@pytest.mark.long
@pytest.mark.cross
def test_a_wheel_for_arm64_carries_no_file_of_another_machine(tmp_path: Path) -> None:
    """Wheels had no platform, and programs and probes of x86-64: they installed on arm64, and failed there."""
    command = ["make", "-C", ROOT, "wheel", "ARCH=arm64", f"WHEEL_DIR={tmp_path}"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-manylinux_2_17_aarch64.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "node")
    (about,) = (tmp_path / "node").glob("*.dist-info/WHEEL")
    assert {"Tag: py3-none-manylinux_2_17_aarch64", "Root-Is-Purelib: false"} <= set(about.read_text().splitlines())
    there = tmp_path / "node/kickwatch"
    binaries = {path for path in (tmp_path / "node").rglob("*") if path.is_file() and is_elf(path)}
    programs = {there / "native/bin" / name for name in ("kw-helper", "pause", "workload")}
    objects = {there / "observe/probes" / path.name for path in PROBES.glob("*.bpf.o")}
    assert binaries == programs | objects
    assert {machine(path) for path in programs} == {EM_AARCH64}
    assert {machine(path) for path in objects} == {EM_BPF}
    check_registers(there / "observe/probes", "aarch64")
