"""Programs put together from an object file: calls directed to functions that are appended, maps to their places."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from kickwatch.errors import ObserveError
from kickwatch.observe.bpf import PROBES
from kickwatch.observe.elf import ElfObject, Relocation, Section, Symbol
from kickwatch.observe.programs import Program, programs

CALL, EXIT, LOAD_64, MOVE = 0x85, 0x95, 0x18, 0xB7
MAPS, TEXT, PROBE = 0, 1, 2
CONFIG = Symbol("config", 1, MAPS, 0, 32)
TEXT_SECTION = Symbol("", 3, TEXT, 0, 0)


def code(*instructions: tuple[int, int, int]) -> bytes:
    """(opcode, source register, immediate) of each instruction."""
    return b"".join(struct.pack("<BBhi", opcode, source << 4, 0, value) for opcode, source, value in instructions)


def instructions(program: Program) -> Iterator[tuple[int, int, int]]:
    for opcode, registers, _, value in struct.iter_unpack("<BBhi", program.code):
        yield opcode, registers >> 4, value


def elf(probe: bytes, text: bytes, *places: Relocation, functions: tuple[Symbol, ...] = ()) -> ElfObject:
    """A program in the section `kprobe`, which has relocations, and functions in `.text`."""
    names = (".maps", ".text", "kprobe")
    sections = tuple(Section(name, 1, 0, 0, data) for name, data in zip(names, (b"", text, probe), strict=True))
    return ElfObject(
        sections, (CONFIG, TEXT_SECTION, *functions, Symbol("main", 2, PROBE, 0, len(probe))), {PROBE: places}
    )


def test_a_map_has_its_descriptor_where_the_source_names_it() -> None:
    (program,) = programs(elf(code((LOAD_64, 0, 0), (0, 0, 0), (EXIT, 0, 0)), b"", Relocation(0, 1, CONFIG)))
    assert program.maps == ((0, "config"),)
    first = struct.unpack_from("<BBhi", program.with_maps({"config": 77}))
    assert first == (LOAD_64, 1 << 4, 0, 77)


def test_a_called_function_is_appended_once_and_what_it_calls_as_well() -> None:
    """`.text` has: unused, inner, outer (which calls inner, in the same section, without a relocation)."""
    unused = code((MOVE, 0, 9), (EXIT, 0, 0))
    inner = code((MOVE, 0, 1), (EXIT, 0, 0))
    outer = code((CALL, 1, -3), (EXIT, 0, 0))
    functions = (Symbol("unused", 2, TEXT, 0, 16), Symbol("inner", 2, TEXT, 16, 16), Symbol("outer", 2, TEXT, 32, 16))
    main = code((CALL, 1, 3), (CALL, 1, 3), (EXIT, 0, 0))
    places = (Relocation(0, 10, TEXT_SECTION), Relocation(8, 10, TEXT_SECTION))
    (program,) = programs(elf(main, unused + inner + outer, *places, functions=functions))
    assert list(instructions(program)) == [
        (CALL, 1, 2),
        (CALL, 1, 1),
        (EXIT, 0, 0),
        (CALL, 1, 1),
        (EXIT, 0, 0),
        (MOVE, 0, 1),
        (EXIT, 0, 0),
    ]


def test_a_call_by_the_name_of_a_function() -> None:
    function = Symbol("called", 2, TEXT, 8, 8)
    main = code((CALL, 1, -1), (EXIT, 0, 0))
    place = Relocation(0, 10, function)
    (program,) = programs(elf(main, bytes(8) + code((EXIT, 0, 0)), place, functions=(function,)))
    assert list(instructions(program)) == [(CALL, 1, 1), (EXIT, 0, 0), (EXIT, 0, 0)]


def test_a_helper_of_the_kernel_is_no_function_of_ours() -> None:
    (program,) = programs(elf(code((CALL, 0, 5), (EXIT, 0, 0)), b""))
    assert list(instructions(program)) == [(CALL, 0, 5), (EXIT, 0, 0)]


def test_a_global_variable_is_an_error() -> None:
    variable = Symbol("counter", 1, TEXT, 0, 8)
    with pytest.raises(ObserveError, match="counter"):
        list(programs(elf(code((LOAD_64, 0, 0), (0, 0, 0)), b"", Relocation(0, 1, variable))))


def test_a_call_to_no_function_is_an_error() -> None:
    with pytest.raises(ObserveError, match="no function"):
        list(programs(elf(code((CALL, 1, 40), (EXIT, 0, 0)), b"")))


@pytest.mark.parametrize("path", sorted(PROBES.glob("*.bpf.o")), ids=lambda path: path.name)
def test_every_call_in_the_built_probes_ends_in_the_program(path: Path) -> None:
    found = list(programs(ElfObject.parse(path.read_bytes())))
    assert found
    for program in found:
        listed = list(instructions(program))
        assert listed[-1][0] in {EXIT, 0x05}
        for index, (opcode, source, value) in enumerate(listed):
            assert opcode != CALL or source != 1 or 0 <= index + 1 + value < len(listed)


@pytest.mark.parametrize(
    "data", [b"", b"\x7fELF", b"\x7fELF\x01\x01" + bytes(80), b"\x7fELF\x02\x01" + bytes(58), b"no ELF file" * 10]
)
def test_a_file_that_is_no_bpf_object_is_an_error(data: bytes) -> None:
    with pytest.raises(ObserveError, match="not an object file"):
        ElfObject.parse(data)


def test_a_program_of_this_machine_is_no_bpf_object() -> None:
    (path,) = PROBES.parents[1].glob("native/bin/workload")
    with pytest.raises(ObserveError, match="another machine"):
        ElfObject.parse(path.read_bytes())
