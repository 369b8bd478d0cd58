"""The reader of /proc/interrupts: real texts, other architectures, torn reads, resets."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickwatch.errors import ObserveError
from kickwatch.model import Disturbance, Interrupts
from kickwatch.observe.interrupts import (
    READ_ATTEMPTS,
    InterruptSample,
    IpiKind,
    Reset,
    TornSampleError,
    parse_interrupts,
    read_interrupts,
    rise,
)

FIXTURES = Path(__file__).parents[2] / "fixtures" / "interrupts"
X86_NAMES = {
    IpiKind.RES: "Rescheduling interrupts",
    IpiKind.CAL: "Function call interrupts",
    IpiKind.TLB: "TLB shootdowns",
}
counts = st.integers(min_value=0, max_value=2**32 - 1)


def sample(name: str) -> InterruptSample:
    return parse_interrupts((FIXTURES / name).read_text())


def x86_text(cpus: list[int], rows: dict[IpiKind, list[int]]) -> str:
    """A text as on x86, with rows of other widths around the given ones."""
    lines = [" " * 11 + "".join(f"CPU{cpu:<8d}" for cpu in cpus)]
    lines.append("  0: " + "".join(f"{7:10d} " for _ in cpus) + "  IO-APIC   2-edge      timer")
    for kind, values in rows.items():
        lines.append(f"{kind.value}: " + "".join(f"{value:10d} " for value in values) + f"  {X86_NAMES[kind]}")
    return "\n".join([*lines, "ERR:          0", "MIS:          0"]) + "\n"


def test_recorded_6_18() -> None:
    found = sample("interrupts-x86_64-6.18-2cpu.txt")
    assert found.cpus == (0, 1)
    assert found.row("CAL") == {0: 723428, 1: 496334}
    assert found.row("TLB") == {0: 56172, 1: 53565}
    assert found.row("RES") == {0: 442796, 1: 385086}


@pytest.mark.parametrize(
    ("name", "cal", "tlb"),
    [
        ("interrupts-x86_64-4.19-4cpu-patched.txt", {0: 1168, 1: 574, 2: 766, 3: 1013}, {0: 1, 1: 3, 2: 4, 3: 3}),
        ("interrupts-x86_64-4.19-4cpu-unpatched.txt", {0: 1754, 1: 2001, 2: 1821, 3: 1091}, {0: 2, 1: 2, 2: 4, 3: 2}),
    ],
)
def test_recorded_4_19(name: str, cal: dict[int, int], tlb: dict[int, int]) -> None:
    found = sample(name)
    assert found.row("CAL") == cal
    assert found.row("TLB") == tlb


def test_arm64_with_no_space_after_the_label_and_with_sparse_cpus() -> None:
    found = sample("interrupts-arm64-sparse-4cpu.txt")
    assert found.row("CAL") == {0: 1234567890, 1: 88211, 4: 4294967295, 7: 3102}
    assert found.row("RES") == {0: 4123456789, 1: 21903, 4: 774, 7: 30412}
    assert found.row("TLB") is None


def test_arm64_with_labels_of_four_characters() -> None:
    found = sample("interrupts-arm64-wide-label-2cpu.txt")
    assert found.row("CAL") == {0: 63, 1: 74}
    assert found.row("RES") == {0: 41, 1: 52}


def test_a_description_goes_before_a_label() -> None:
    text = x86_text([0, 1], {IpiKind.CAL: [1, 2]}) + "IPI3:  5  6  Function call interrupts\n"
    with pytest.raises(ObserveError, match="two rows named 'function call interrupts'"):
        parse_interrupts(text)
    renamed = text.replace("CAL:", "XYZ:", 1).replace("IPI3:", "CAL:").replace("5  6  Function", "5  6  Other function")
    assert parse_interrupts(renamed).row("CAL") == {0: 1, 1: 2}


def test_a_label_is_enough_if_the_description_is_unknown() -> None:
    text = x86_text([0, 1], {IpiKind.CAL: [1, 2]}).replace("Function call interrupts", "calls of functions")
    assert parse_interrupts(text).row("CAL") == {0: 1, 1: 2}


def test_longer_descriptions_with_the_same_end_are_other_rows() -> None:
    text = x86_text([0, 1], {IpiKind.RES: [1, 2]}) + "IPI4:  5  6  Single function call interrupts\n"
    assert parse_interrupts(text).row("CAL") is None


def test_a_device_row_is_never_an_ipi_row() -> None:
    text = x86_text([0, 1], {IpiKind.RES: [1, 2]}) + " 52:  5  6  Function call interrupts\n"
    assert parse_interrupts(text).row("CAL") is None


def test_an_unknown_kind_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="LOC"):
        sample("interrupts-x86_64-6.18-2cpu.txt").row("LOC")


@given(cut=st.integers(min_value=0, max_value=2251))
def test_a_text_cut_off_within_a_line_is_an_error(cut: int) -> None:
    text = (FIXTURES / "interrupts-x86_64-6.18-2cpu.txt").read_text()[:cut]
    if text.endswith("\n") and text.count("\n") > 1:
        parse_interrupts(text)
    else:
        with pytest.raises(ObserveError, match=r"^/proc/interrupts .*: read the whole file"):
            parse_interrupts(text)


@pytest.mark.parametrize(
    "text", ["hello\nworld\n", "CPU0 CPUx\nRES: 1 2\n", "CPU0 CPU0\nRES: 1 2\n", "\n\n", "CPU\n1\n"]
)
def test_another_text_than_an_interrupts_file_is_an_error(text: str) -> None:
    with pytest.raises(ObserveError, match=r"/somewhere/interrupts .*own /proc/interrupts"):
        parse_interrupts(text, "/somewhere/interrupts")


@pytest.mark.parametrize("values", [[1], [1, 2, 3], []])
def test_an_ipi_row_without_one_count_per_cpu_is_torn(values: list[int]) -> None:
    with pytest.raises(TornSampleError, match=f"row 'CAL' has {len(values)} counts under a header of 2 CPUs"):
        parse_interrupts(x86_text([0, 1], {IpiKind.CAL: values}))


@given(
    st.lists(st.integers(0, 9000), min_size=1, max_size=70, unique=True).flatmap(
        lambda cpus: st.tuples(
            st.just(cpus),
            st.dictionaries(st.sampled_from(IpiKind), st.lists(counts, min_size=len(cpus), max_size=len(cpus))),
        )
    )
)
def test_every_count_is_read_as_printed(printed: tuple[list[int], dict[IpiKind, list[int]]]) -> None:
    cpus, rows = printed
    found = parse_interrupts(x86_text(cpus, rows))
    for kind in IpiKind:
        expected = dict(zip(cpus, rows[kind], strict=True)) if kind in rows else None
        assert found.row(kind) == expected


@given(st.text(alphabet=st.sampled_from("CPU01RESAL: \nTfinterup"), max_size=200))
def test_any_text_is_a_sample_or_an_observe_error(text: str) -> None:
    with suppress(ObserveError):
        found = parse_interrupts("CPU0 CPU1\n" + text + "\n")
        assert all(len(row) == 2 for row in found.counts.values())


def made(rows: dict[IpiKind, tuple[int, ...]], cpus: tuple[int, ...] = (0, 1)) -> InterruptSample:
    return InterruptSample(cpus, rows)


def test_the_rise_is_summed_over_cpus() -> None:
    before = made({IpiKind.CAL: (10, 20), IpiKind.TLB: (1, 2), IpiKind.RES: (0, 0)})
    after = made({IpiKind.CAL: (15, 27), IpiKind.TLB: (1, 3), IpiKind.RES: (100, 1)})
    assert rise(before, after) == Interrupts(cal=12, tlb=1, res=101)


def test_the_rise_of_a_missing_row_is_none() -> None:
    assert rise(made({IpiKind.CAL: (1, 1)}), made({IpiKind.CAL: (1, 2)})) == Interrupts(cal=1, tlb=None, res=None)


def test_a_cpu_that_came_or_went_is_a_reset() -> None:
    found = rise(made({IpiKind.CAL: (1, 1)}, (0, 1)), made({IpiKind.CAL: (1, 1)}, (0, 4)))
    assert found == Reset(Disturbance.CPUS_CHANGED, "CPUs removed: [1], CPUs added: [4]")


def test_a_row_that_came_or_went_is_a_reset() -> None:
    found = rise(made({IpiKind.CAL: (1, 1)}), made({IpiKind.CAL: (1, 1), IpiKind.TLB: (0, 0)}))
    assert isinstance(found, Reset)
    assert found.reason is Disturbance.ROWS_CHANGED


def test_a_counter_that_fell_is_a_reset_even_if_the_sum_rose() -> None:
    found = rise(made({IpiKind.CAL: (10, 2**32 - 1)}), made({IpiKind.CAL: (2**32 - 1, 4)}))
    assert found == Reset(Disturbance.COUNTER_FELL, "CAL of CPU 1 fell from 4294967295 to 4")


@given(st.lists(st.tuples(counts, counts), min_size=1, max_size=8))
def test_a_rise_is_never_negative(pairs: list[tuple[int, int]]) -> None:
    cpus = tuple(range(len(pairs)))
    before = made({IpiKind.CAL: tuple(old for old, _ in pairs)}, cpus)
    after = made({IpiKind.CAL: tuple(new for _, new in pairs)}, cpus)
    found = rise(before, after)
    if any(new < old for old, new in pairs):
        assert isinstance(found, Reset)
    else:
        assert found == Interrupts(cal=sum(new - old for old, new in pairs))


async def test_the_file_is_read_below_the_given_root(tmp_path: Path) -> None:
    (tmp_path / "interrupts").write_bytes(b"CPU0 CPU1\nCAL: 1 2 Function call interrupts\n 5: 0 0 caf\xe9\n")
    assert (await read_interrupts(tmp_path)).row("CAL") == {0: 1, 1: 2}


async def test_a_missing_file_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ObserveError, match=f"{tmp_path}/interrupts cannot be read .No such file or directory.: check"):
        await read_interrupts(tmp_path)


async def test_a_torn_read_is_repeated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torn, whole = x86_text([0, 1], {IpiKind.CAL: [1]}), x86_text([0, 1], {IpiKind.CAL: [1, 2]})
    texts = iter([torn] * (READ_ATTEMPTS - 1) + [whole])

    async def next_text(path: Path) -> str:
        return next(texts)

    monkeypatch.setattr("kickwatch.observe.interrupts._read_whole", next_text)
    assert (await read_interrupts(tmp_path)).row("CAL") == {0: 1, 1: 2}


async def test_a_read_that_stays_torn_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "interrupts").write_text(x86_text([0, 1], {IpiKind.CAL: [1]}))
    with pytest.raises(TornSampleError, match=f"{tmp_path}/interrupts"):
        await read_interrupts(tmp_path)


async def test_the_counters_of_this_node_never_fall() -> None:
    before = await read_interrupts(Path("/proc"))
    after = await read_interrupts(Path("/proc"))
    found = rise(before, after)
    assert isinstance(found, Interrupts)
    assert all(value is None or value >= 0 for value in (found.cal, found.tlb, found.res))
