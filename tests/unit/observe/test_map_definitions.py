"""Maps read from the debug information of the built probes: as their sources write them."""

import struct

import pytest

from kickwatch.errors import ObserveError
from kickwatch.observe.bpf import PROBES
from kickwatch.observe.elf import ElfObject
from kickwatch.observe.layouts import CALLS_CONFIG, CSD_CONFIG, THIS_CPU
from kickwatch.observe.map_definitions import MapDefinition, map_definitions
from kickwatch.observe.masks import WORD_BITS

HASH, ARRAY, PERCPU_ARRAY, STACK_TRACE, RINGBUF = 1, 2, 6, 7, 27


def definitions(probe: str) -> dict[str, MapDefinition]:
    elf = ElfObject.parse((PROBES / f"{probe}.bpf.o").read_bytes())
    return map_definitions(elf.section(".BTF"))


def test_types_and_numbers_of_the_source() -> None:
    found = definitions("csd")
    assert found["config"].value_bytes == CSD_CONFIG.size
    assert found["each_cpu"].value_bytes == THIS_CPU.size
    assert found["certain_funcs"] == MapDefinition(HASH, 8, found["certain_funcs"].value_bytes, 128)
    assert (found["stacks"].kind, found["stacks"].key_bytes, found["stacks"].value_bytes) == (STACK_TRACE, 4, 48 * 8)
    assert (found["far_targets"].kind, found["far_targets"].value_bytes) == (PERCPU_ARRAY, 8)


def test_sizes_written_as_numbers() -> None:
    found = definitions("calls")
    assert found["masks"].key_bytes % (WORD_BITS // 8) == 0
    assert found["config"] == MapDefinition(ARRAY, 4, CALLS_CONFIG.size, 1)


def test_a_ring_has_no_keys() -> None:
    assert definitions("trace")["ring"] == MapDefinition(RINGBUF, 0, 0, 1 << 24)


@pytest.mark.parametrize("probe", sorted(path.name.removesuffix(".bpf.o") for path in PROBES.glob("*.bpf.o")))
def test_each_map_of_each_probe_can_be_created(probe: str) -> None:
    found = definitions(probe)
    assert found
    for name, definition in found.items():
        assert definition.kind, name
        assert definition.entries, name
        assert definition.kind == RINGBUF or (definition.key_bytes and definition.value_bytes), name


@pytest.mark.parametrize(
    "data", [b"", b"\x9f\xeb", bytes(64), struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 12, 12, 1) + bytes(5)]
)
def test_debug_information_that_is_missing_or_cut_off_is_an_error(data: bytes) -> None:
    with pytest.raises(ObserveError, match="no map definitions"):
        map_definitions(data)
