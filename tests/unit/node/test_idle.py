"""Whether idle CPUs halt: as the idle states of hardware and of virtual machines show it."""

from pathlib import Path

import pytest

from idling import idling_node, set_states
from kickwatch.node.idle import idle_cpus_halt
from kickwatch.node.roots import HostRoots


@pytest.mark.parametrize(
    "descriptions",
    [
        ("MWAIT 0x00", "MWAIT 0x01", "MWAIT 0x20"),  # intel_idle
        ("ACPI FFH MWAIT 0x0",),  # acpi_idle
        ("ACPI FFH INTEL MWAIT 0x0", "ACPI FFH INTEL MWAIT 0x20"),  # as older kernels have it
    ],
)
def test_cpus_that_wait_in_mwait_do_not_halt(tmp_path: Path, descriptions: tuple[str, ...]) -> None:
    assert not idle_cpus_halt(idling_node(tmp_path, *descriptions))


@pytest.mark.parametrize(
    "descriptions",
    [
        (),  # no driver: this kernel may halt
        ("ACPI HLT",),
        ("ACPI FFH MWAIT 0x0", "ACPI IOPORT 0x414"),
        ("default architecture idle",),  # haltpoll
        ("HLT", "Long HLT"),  # intel_idle in a guest
    ],
)
def test_one_state_that_halts_is_enough(tmp_path: Path, descriptions: tuple[str, ...]) -> None:
    assert idle_cpus_halt(idling_node(tmp_path, *descriptions))


def test_each_online_cpu_counts(tmp_path: Path) -> None:
    host = idling_node(tmp_path, "MWAIT 0x00", cpus=4)
    set_states(tmp_path, 3, "ACPI HLT")
    assert idle_cpus_halt(host)
    (host.sys / "devices/system/cpu/online").write_text("0-2\n")
    assert not idle_cpus_halt(host)
    (host.sys / "devices/system/cpu/online").write_text("0-2,4\n")  # without a driver
    assert idle_cpus_halt(host)


@pytest.mark.parametrize(
    ("flags", "bugs"), [("fpu sse2", "mds"), ("fpu sse2 monitor", "mds monitor"), ("fpu monitorx", "")]
)
def test_mwait_that_cannot_be_used_or_needs_an_interrupt_is_no_polling(tmp_path: Path, flags: str, bugs: str) -> None:
    assert idle_cpus_halt(idling_node(tmp_path, "MWAIT 0x00", flags=flags, bugs=bugs))


def test_idle_poll_polls_without_any_driver(tmp_path: Path) -> None:
    host = idling_node(tmp_path, flags="fpu sse2")
    (host.proc / "cmdline").write_text("root=/dev/vda idle=poll quiet\n")
    assert not idle_cpus_halt(host)


def test_what_cannot_be_read_halts(tmp_path: Path) -> None:
    assert idle_cpus_halt(HostRoots.below(tmp_path))
    host = idling_node(tmp_path, "MWAIT 0x00")
    (host.proc / "cpuinfo").unlink()
    assert idle_cpus_halt(host)
