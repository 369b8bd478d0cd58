"""Symbols: what is kept of /proc/kallsyms, and how addresses and names are found."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickwatch.errors import ObserveError
from kickwatch.observe.symbols import Symbols

# The shape of an x86-64 list: a percpu offset, text, data, then modules and BPF programs out of order.
KALLSYMS = """\
0000000000000000 A fixed_percpu_data
0000000000030000 A cpu_kick_mask
ffffffff81000000 T _stext
ffffffff81000000 T startup_64
ffffffff81000100 T __pfx_do_one
ffffffff81000110 T do_one
ffffffff81000200 t __cfi_do_two
ffffffff81000210 t do_two.isra.0
ffffffff81000300 t do_two.isra.0.cold
ffffffff81000380 W do_two
ffffffff81000400 T do_two_more
ffffffff81000500 T _etext
ffffffff82000000 D slab_mutex
ffffffff82000100 B other_data
ffffffffc0203000 t late_in_module\t[veth]
ffffffffc0201000 t early_in_module\t[veth]
ffffffffc0204000 d slab_mutex\t[veth]
ffffffffc0202000 t bpf_prog_6deef7357e7b4530_sd_devices\t[bpf]
"""


@pytest.fixture
def symbols() -> Symbols:
    return Symbols.parse(KALLSYMS)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (0xFFFFFFFF81000110, "do_one"),
        (0xFFFFFFFF81000110 + 0x7F, "do_one"),
        (0xFFFFFFFF81000210, "do_two.isra.0"),
        (0xFFFFFFFF81000301, "do_two.isra.0.cold"),
        (0xFFFFFFFF81000000, "_stext"),  # the first of two names, as in the kernel itself
        (0xFFFFFFFFC0201010, "early_in_module"),
        (0xFFFFFFFFC0202010, "bpf_prog_6deef7357e7b4530_sd_devices"),
        (0xFFFFFFFFC0203FFF, "late_in_module"),
    ],
)
def test_text_addresses_have_names(symbols: Symbols, address: int, name: str) -> None:
    assert symbols.resolve(address) == name


@pytest.mark.parametrize(
    "address",
    [
        0,
        0x30000,  # a percpu offset, not a function
        0xFFFFFFFF80FFFFFF,  # below all text
        0xFFFFFFFF82000001,  # data after the kernel's text
        0xFFFFFFFFC0000000,  # nothing between kernel and modules
        0xFFFFFFFFC0204010,  # data after a module's text
        0xFFFFFFFFFFFFFFFF,
    ],
)
def test_other_addresses_are_shown_in_hex(symbols: Symbols, address: int) -> None:
    assert symbols.resolve(address) == f"{address:#x}"


def test_far_after_the_last_symbol_there_is_no_function() -> None:
    last = Symbols.parse("ffffffff81000000 T only\n")
    assert last.resolve(0xFFFFFFFF81000FFF) == "only"
    assert last.resolve(0xFFFFFFFF82000000) == "0xffffffff82000000"


def test_ranges_include_every_clone_and_no_other_function(symbols: Symbols) -> None:
    assert symbols.ranges("do_two") == [
        (0xFFFFFFFF81000210, 0xFFFFFFFF81000300),
        (0xFFFFFFFF81000300, 0xFFFFFFFF81000380),
        (0xFFFFFFFF81000380, 0xFFFFFFFF81000400),
    ]
    assert symbols.ranges("do_one") == [(0xFFFFFFFF81000110, 0xFFFFFFFF81000210)]
    assert symbols.ranges("late_in_module") == [(0xFFFFFFFFC0203000, 0xFFFFFFFFC0204000)]


@pytest.mark.parametrize("name", ["", "do_tw", "do", "slab_mutex", "__pfx_do_one", "absent"])
def test_a_name_that_is_not_a_text_symbol_has_no_ranges(symbols: Symbols, name: str) -> None:
    assert symbols.ranges(name) == []


def test_only_wanted_data_of_the_kernel_itself_has_an_address(symbols: Symbols) -> None:
    assert symbols.address_of("slab_mutex") == 0xFFFFFFFF82000000
    assert symbols.address_of("other_data") is None
    assert Symbols.parse(KALLSYMS, {"other_data"}).address_of("other_data") == 0xFFFFFFFF82000100


@pytest.mark.parametrize("text", ["", "\n", "0000000000000000 T _stext\n0000000000000000 T do_one\n", "garbage\n"])
def test_symbols_are_hidden_if_no_address_is_shown(text: str) -> None:
    hidden = Symbols.parse(text)
    assert hidden.hidden
    assert hidden.resolve(0xFFFFFFFF81000000) == "0xffffffff81000000"
    assert hidden.ranges("do_one") == []


def test_symbols_with_addresses_are_not_hidden(symbols: Symbols) -> None:
    assert not symbols.hidden


def test_modules_below_the_kernel_are_found() -> None:
    """On arm64 modules are below the kernel's own text."""
    text = "ffff800080000000 T _text\nffff800080001000 T kernel_fn\nffff80007a000000 t module_fn\t[overlay]\n"
    symbols = Symbols.parse(text)
    assert symbols.resolve(0xFFFF80007A000010) == "module_fn"
    assert symbols.resolve(0xFFFF800080001010) == "kernel_fn"


async def test_the_file_is_read_below_the_given_root(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    symbols = await Symbols.load(tmp_path)
    assert symbols.resolve(0xFFFFFFFF81000111) == "do_one"
    assert symbols.address_of("slab_mutex") == 0xFFFFFFFF82000000


async def test_a_missing_file_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ObserveError, match="kallsyms") as failure:
        await Symbols.load(tmp_path)
    assert "CONFIG_KALLSYMS" in failure.value.remedy


addresses = st.lists(st.integers(1, 2**64 - 1), min_size=1, max_size=40, unique=True)


@given(addresses)
def test_every_symbol_has_its_own_name_in_any_order(found: list[int]) -> None:
    text = "".join(f"{address:016x} t fn{index}\n" for index, address in enumerate(found))
    symbols = Symbols.parse(text)
    for index, address in enumerate(found):
        assert symbols.resolve(address) == f"fn{index}"
        ((start, end),) = symbols.ranges(f"fn{index}")
        assert start == address < end
        assert not any(start < other < end for other in found)


@given(addresses, st.integers(0, 2**64 - 1))
def test_an_address_has_the_nearest_symbol_below_or_none(found: list[int], address: int) -> None:
    text = "".join(f"{value:016x} T fn{index}\n" for index, value in enumerate(found))
    below = [(value, index) for index, value in enumerate(found) if value <= address]
    name = Symbols.parse(text).resolve(address)
    if below and address - max(below)[0] < 1 << 20:
        assert name == f"fn{max(below)[1]}"
    else:
        assert name == f"{address:#x}"


@given(st.text(alphabet="0123456789abcdef tTwWdD_.x\t[]\n", max_size=300))
def test_any_text_can_be_parsed(text: str) -> None:
    symbols = Symbols.parse(text)
    assert symbols.hidden == (len(symbols) == 0)
    symbols.resolve(0x1000)


@pytest.mark.parametrize(
    "suffix",
    [
        "constprop.0",
        "isra.0.cold",
        "part.0",
        "cold",
        "llvm.1234567890123456789",
        "__uniq.300142961632461423428385862174312345678",
        "__uniq.3001.llvm.42",
        "lto_priv.0",
        "lto_priv.0.cold",
    ],
)
def test_ranges_include_names_with_compiler_suffixes(suffix: str) -> None:
    text = f"1000 t many.{suffix}\n2000 t many.{suffix}.fn\n3000 t many_{suffix}\n4000 t end\n"
    assert Symbols.parse(text).ranges("many") == [(0x1000, 0x2000)]


def test_entries_are_the_addresses_of_function_pointers() -> None:
    """Neither a part that rarely runs nor a clone for one caller."""
    symbols = Symbols.parse(
        "1000 t fn.cold\n2000 t fn.part.0\n3000 t fn.constprop.0\n4000 t fn\n5000 t other.llvm.77\n"
        "6000 t twice.__uniq.1\n7000 t twice.__uniq.2.cold\nf000 t twice\t[veth]\n"
    )
    entries = symbols.entries(["fn", "other", "twice", "absent", "", "fn"])
    assert entries == {"fn": [0x4000], "other": [0x5000], "twice": [0x6000, 0xF000], "absent": [], "": []}


def test_a_function_has_one_string_object(symbols: Symbols) -> None:
    assert symbols.resolve(0xFFFFFFFF81000110) is symbols.resolve(0xFFFFFFFF81000150)


MODULES = """veth 40960 0 - Live 0xffffffffc0201000
bridge 311296 1 br_netfilter, Live 0xffffffffc0300000 (OE)
"""


async def test_symbols_are_read_again_when_modules_change(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    (tmp_path / "modules").write_text(MODULES)
    symbols = await Symbols.load(tmp_path)
    assert not await symbols.follow_modules()
    (tmp_path / "kallsyms").write_text(KALLSYMS + "ffffffffc0206000 t br_fn\t[br]\n")
    (tmp_path / "modules").write_text(MODULES.replace("veth 40960 0", "veth 40960 17"))
    assert not await symbols.follow_modules()  # only the use count changed, as with every container
    (tmp_path / "modules").write_text(MODULES + "br 4096 0 - Live 0xffffffffc0206000\n")
    assert await symbols.follow_modules()
    assert not await symbols.follow_modules()
    assert symbols.resolve(0xFFFFFFFFC0206010) == "br_fn"
    assert symbols.resolve(0xFFFFFFFFC0201010) == "early_in_module"
    assert symbols.resolve(0xFFFFFFFF81000110) == "do_one"
    assert symbols.address_of("slab_mutex") == 0xFFFFFFFF82000000


async def test_a_removed_module_has_no_names(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    (tmp_path / "modules").write_text(MODULES)
    symbols = await Symbols.load(tmp_path)
    kept = [line for line in KALLSYMS.splitlines(keepends=True) if "[veth]" not in line]
    (tmp_path / "kallsyms").write_text("".join(kept))
    (tmp_path / "modules").write_text("")
    assert await symbols.follow_modules()
    assert symbols.resolve(0xFFFFFFFFC0201010) == "0xffffffffc0201010"


async def test_a_kernel_without_modules_never_changes(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    symbols = await Symbols.load(tmp_path)
    assert not await symbols.follow_modules()
    assert not await Symbols.parse(KALLSYMS).follow_modules()


async def test_a_file_of_many_pieces_is_read_completely(tmp_path: Path) -> None:
    """It is longer than one read, and lines cross the ends of the pieces."""
    count = 20_000
    lines = [f"{0xFFFFFFFF81000000 + 64 * index:x} t function_number_{index}\n" for index in range(count)]
    (tmp_path / "kallsyms").write_text("".join(lines).removesuffix("\n"))
    symbols = await Symbols.load(tmp_path)
    assert len(symbols) == count
    assert all(symbols.resolve(0xFFFFFFFF81000001 + 64 * n) == f"function_number_{n}" for n in range(0, count, 37))
    assert symbols.resolve(0xFFFFFFFF81000000 + 64 * (count - 1)) == f"function_number_{count - 1}"
