"""Where a screen is drawn: how wide, with colours or without. The words are the same everywhere."""

import os
from typing import Any, TextIO

from rich.console import Console

PLAIN_COLUMNS = 80  # where no terminal and no COLUMNS says otherwise
_LEAST_COLUMNS = 40


def console(stream: TextIO, *, columns: int | None = None) -> Console:
    """A console on `stream`. It styles text on a terminal only, and not if NO_COLOR is set or the terminal is dumb.

    Without styles no escape code is written. `columns`: the width; None: that of the terminal, or else of COLUMNS.
    Styles never carry meaning: what they mark is also in the words.
    """
    return _console(stream, width=columns or columns_of(stream))


def following_console(stream: TextIO) -> Console:
    """A console on a terminal for what is drawn again and again: its width is that of the terminal at each time."""
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    return _console(stream, _environ=environment)


def _console(stream: TextIO, **given: Any) -> Console:
    return Console(
        file=stream,
        force_terminal=is_terminal(stream),
        color_system="auto" if styled(stream) else None,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
        **given,
    )


def styled(stream: TextIO) -> bool:
    """Whether to use colours: NO_COLOR (https://no-color.org) counts if it is not empty."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def is_terminal(stream: TextIO) -> bool:
    """False also for a stream that is closed."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def columns_of(stream: TextIO) -> int:
    """The width of the terminal that `stream` is, else COLUMNS, else 80. At least 40."""
    if is_terminal(stream):
        try:
            return max(_LEAST_COLUMNS, os.get_terminal_size(stream.fileno()).columns or PLAIN_COLUMNS)
        except (OSError, ValueError):
            pass
    asked = os.environ.get("COLUMNS", "")
    return max(_LEAST_COLUMNS, int(asked)) if asked.isdecimal() else PLAIN_COLUMNS
