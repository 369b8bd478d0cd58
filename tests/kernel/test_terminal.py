"""Commands that examine the node, at a real terminal: on a node with all capabilities, and on one without names."""

from pathlib import Path

import pytest

from at_a_terminal import INTERRUPT, KICKWATCH, AtATerminal
from leftovers import leftovers
from namespaces import cover, inside

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(200)]


@pytest.mark.parametrize("columns", [80, 200])
def test_doctor(columns: int) -> None:
    with AtATerminal([*KICKWATCH, "doctor"], columns=columns) as command:
        assert command.ended() == 0, command.text
    assert "kickwatch can do its whole job here" in command.text or "verdicts are possible here" in command.text
    assert max(map(len, command.text.splitlines())) <= columns
    assert "Traceback" not in command.text


def test_doctor_with_the_positive_control() -> None:
    with AtATerminal([*KICKWATCH, "doctor", "--control"], columns=80) as command:
        assert command.ended() == 0, command.text
    assert "control" in command.text
    assert "Traceback" not in command.text


def test_doctor_of_a_node_without_names(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text("", encoding="utf-8")
    hidden = inside(cover(tmp_path / "kallsyms", "/proc/kallsyms"))
    with AtATerminal([*hidden, *KICKWATCH, "doctor", "--control"], columns=80) as command:
        assert command.ended() == 4, command.text
    assert "MISSING" in command.text
    assert "blind: no verdict is possible here" in command.text
    assert "Traceback" not in command.text


@pytest.mark.parametrize("how", ["Ctrl-C", "closed"])
def test_an_interrupted_reproduce_leaves_nothing(how: str) -> None:
    """The terminal signals all foreground processes, also the native child that creates the memory cgroups."""
    before = leftovers()["cgroups"]
    with AtATerminal([*KICKWATCH, "reproduce", "-n", "20000", "--force"], columns=80) as command:
        command.shows("%")
        command.until(lambda: leftovers()["cgroups"] != before, "the first memory cgroups")
        if how == "closed":
            command.close()
        else:
            command.press(INTERRUPT)
        assert command.ended() == 1
        assert how == "closed" or "kickwatch: interrupted: everything it started has been removed\n" in command.text
        assert "Traceback" not in command.text
    assert leftovers()["cgroups"] == before


@pytest.mark.long
def test_reproduce() -> None:
    before = leftovers()["cgroups"]
    with AtATerminal([*KICKWATCH, "reproduce", "-n", "50"], columns=80) as command:
        assert command.ended() == 0, command.text
    assert "creating" in command.text
    assert "Control: passed" in command.text
    assert "Traceback" not in command.text
    assert leftovers()["cgroups"] == before
