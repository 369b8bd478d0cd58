"""What is read of the node for the diagnosis of a refusal."""

import resource
from dataclasses import replace
from pathlib import Path

import pytest

from kickwatch.node.facts import read_facts
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
