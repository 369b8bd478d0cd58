"""How wide a screen is, and where it has colours."""

import io
import os

import pytest

from kickwatch.terminal.console import columns_of, console, following_console, is_terminal, styled


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1


@pytest.mark.parametrize(("columns", "width"), [("", 80), ("132", 132), ("7", 40), ("no number", 80), ("-3", 80)])
def test_without_a_terminal_columns_says_how_wide(columns: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert columns_of(io.StringIO()) == width
    assert console(io.StringIO()).width == width


def test_a_terminal_says_it_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(os, "get_terminal_size", lambda _descriptor: os.terminal_size((111, 24)))
    assert columns_of(Terminal()) == 111
    monkeypatch.setattr(os, "get_terminal_size", lambda _descriptor: os.terminal_size((0, 0)))
    assert columns_of(Terminal()) == 80


def test_what_is_drawn_again_follows_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "xterm-256color")
    sizes = iter([90, 140])
    monkeypatch.setattr(os, "get_terminal_size", lambda _descriptor: os.terminal_size((next(sizes), 24)))
    drawn = following_console(Terminal())
    assert [drawn.size.width, drawn.size.width] == [90, 140]


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours(environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert styled(Terminal()) == coloured
    assert (console(Terminal()).color_system is not None) == coloured
    assert not styled(io.StringIO())
    assert console(io.StringIO()).color_system is None


def test_a_closed_stream_is_no_terminal() -> None:
    closed = io.StringIO()
    closed.close()
    assert not is_terminal(closed)
