"""What is read of the node for the diagnosis of a refusal."""

import resource
from dataclasses import replace
from pathlib import Path

import pytest

from kickwatch.node import privileges
from kickwatch.node.facts import read_facts
from kickwatch.node.privileges import LinuxCapability, withheld
from kickwatch.node.roots import HOST

UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limits", "memlock"),
    [((65536, 65536), 65536), ((0, 65536), 0), ((65536, UNLIMITED), None), ((UNLIMITED,) * 2, None)],
)
def test_a_limit_of_locked_memory_that_any_process_may_raise_is_none(
    limits: tuple[int, int], memlock: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    assert read_facts(HOST).memlock == memlock


@pytest.mark.parametrize(("text", "number"), [("1\n", 1), ("0\n", 0), (None, None)])
def test_the_switches_of_probes_are_read(text: str | None, number: int | None, tmp_path: Path) -> None:
    """Where debugfs is not mounted, or lockdown closes it, they are not known."""
    for name in ("sys/kernel/debug/kprobes/enabled", "proc/sys/kernel/ftrace_enabled"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        if text is not None:
            path.write_text(text)
    facts = read_facts(replace(HOST, proc=tmp_path / "proc", sys=tmp_path / "sys"))
    assert (facts.kprobes_enabled, facts.ftrace_enabled) == (number, number)


@pytest.mark.parametrize(
    ("files", "profile"),
    [
        ({"apparmor/current": "some//child (enforce)\n", "current": "unconfined_u:unconfined_r\0"}, "some//child"),
        ({"current": "some (complain)\n"}, "some"),
        ({"current": "unconfined\n"}, ""),
        ({"current": "system_u:system_r:init_t:s0\0"}, ""),
        ({}, ""),
    ],
)
def test_the_profile_of_apparmor_is_read_without_its_mode(files: dict[str, str], profile: str, tmp_path: Path) -> None:
    for name, text in files.items():
        path = tmp_path / "thread-self/attr" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert read_facts(replace(HOST, proc=tmp_path)).profile == profile


def test_what_proc_has_and_capget_leaves_out_is_withheld(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thread-self").mkdir()
    (tmp_path / "thread-self/status").write_text("CapPrm:\t000001ffffffffff\nCapEff:\t000000c000200000\n")
    monkeypatch.setattr(privileges, "effective", lambda: 1 << LinuxCapability.SYS_ADMIN | 1 << LinuxCapability.PERFMON)
    assert withheld(tmp_path) == 1 << LinuxCapability.BPF


def test_nothing_is_withheld_from_an_unconfined_process() -> None:
    assert withheld() == 0 == read_facts().withheld
