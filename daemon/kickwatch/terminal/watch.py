"""The three forms of `kickwatch watch`: a screen, lines, and one screen on paper (`--once`)."""

import json
import os
import sys
from collections.abc import Callable
from typing import TextIO

import msgspec

from kickwatch.terminal.console import columns_of, console, is_terminal
from kickwatch.terminal.watch_layout import screen
from kickwatch.terminal.watch_lines import changes
from kickwatch.terminal.watch_screen import Screen, Waiter
from kickwatch.terminal.watch_view import View, Viewer

_KEYS = "q: quit   Ctrl-L: redraw   colours repeat what the words say"


def can_show_screens(stream: TextIO) -> bool:
    """Whether `stream` is a terminal whose cursor can be moved."""
    return is_terminal(stream) and os.environ.get("TERM", "dumb") != "dumb"


def watch_screen(viewer: Viewer, interval_s: float) -> None:
    """Until `q` or a signal. The terminal is restored, whatever happens."""
    with Waiter() as waiter, Screen(waiter) as shown:
        while not waiter.ended:
            view, size = viewer.view(), shown.size
            shown.show(screen(view, *size, footer=_KEYS), size)
            shown.wait(interval_s)


def watch_lines(
    viewer: Viewer, interval_s: float, lines_of: Callable[[View | None, View], list[str]] = changes
) -> None:
    """Until a signal, or the end of the reader: what changed, flushed at once."""
    before = None
    with Waiter() as waiter:
        while not waiter.ended:
            view = viewer.view()
            for line in lines_of(before, view):
                sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
            before = view
            waiter.wait(interval_s, reader=sys.stdout.fileno())


def json_lines(before: View | None, view: View) -> list[str]:
    """One JSON object if anything but times changed: `presence`, `status`, and `last` of a dead daemon."""
    shown = _as_json(view)
    if before is not None and _without_times(_as_json(before)) == _without_times(shown):
        return []
    return [json.dumps(shown)]


def print_once(view: View) -> None:
    """The whole screen, as high as it needs to be."""
    columns = columns_of(sys.stdout)
    drawing = console(sys.stdout, columns=columns)
    for line in screen(view, columns, None):
        drawing.print(line, no_wrap=True, crop=True)


def _as_json(view: View) -> dict[str, object]:
    return {
        "schema": 1,
        "presence": view.sight.presence.value,
        "at_unix_s": round(view.now_unix_s, 3),
        "seen_until_unix_s": view.seen_until_unix_s,
        "status": msgspec.to_builtins(view.status),
        "last": msgspec.to_builtins(view.last),
    }


def _without_times(shown: dict[str, object]) -> dict[str, object]:
    return {
        key: _without_times(found) if isinstance(found, dict) else found
        for key, found in shown.items()
        if key not in {"at_unix_s", "updated_unix_s", "verdict_age_s", "age_s", "trial_since_s", "next_trial_in_s"}
    }
