"""The progress of `kickwatch reproduce` on standard error: a bar at a terminal, a line for each phase elsewhere."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.progress import ProgressColumn, Task, TaskProgressColumn
from rich.text import Text

from kickwatch.terminal.bar import StepBar
from kickwatch.terminal.console import following_console, is_terminal

Report = Callable[[str, int, int], None]  # the phase, how much of it is done, of how much
# The rate is not known from fewer: the first 20 loops start only after the background was measured.
LEAST_LOOPS, LEAST_S = 200, 1.0
_WAITS = {
    "settle": "waiting up to 40 s for the kernel's asynchronous work",
    "remove": "removing the memory cgroups, then waiting up to 40 s",
}


@contextmanager
def reproduce_progress(loops: int, stream: TextIO) -> Iterator[Report]:
    """What to call with each step."""
    if not is_terminal(stream) or os.environ.get("TERM") == "dumb":
        yield _Lines(stream).show
        return
    with StepBar(following_console(stream), TaskProgressColumn(), _TimeLeft()) as bar:
        yield _Shown(bar, loops).show


class _Shown:
    def __init__(self, bar: StepBar, loops: int) -> None:
        self._bar = bar
        self._task = bar.add_task("measuring the background", total=loops, began_s=None)
        bar.refresh()

    def show(self, what: str, done: int, of: int) -> None:
        """Draw the bar at this step."""
        if what == "create":
            began_s = self._bar.tasks[self._task].fields["began_s"]
            began_s = self._bar.get_time() if began_s is None else began_s
            self._bar.update(self._task, description="creating", completed=done, total=of, began_s=began_s)
        elif what in _WAITS:
            self._bar.update(self._task, description=_WAITS[what], began_s=None)
        self._bar.refresh()


class _TimeLeft(ProgressColumn):
    """`about 12 s left`, once the rate is known; empty before, and while something else is waited for."""

    max_refresh = None

    def render(self, task: Task) -> Text:
        """The text."""
        left_s = time_left_s(task.fields["began_s"], task.get_time(), int(task.completed), int(task.total or 0))
        return Text("" if left_s is None else f"about {max(1, round(left_s))} s left", no_wrap=True)


def time_left_s(began_s: float | None, now_s: float, done: int, of: int) -> float | None:
    """How long the rest takes at the rate so far; None while that is not known. `began_s`: of the first loop."""
    if began_s is None or done < min(LEAST_LOOPS, of) or now_s - began_s < LEAST_S:
        return None
    return (of - done) * (now_s - began_s) / done


class _Lines:
    """A line as each phase begins."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._phase = stream, ""

    def show(self, what: str, _done: int, of: int) -> None:
        """Print a line if the phase is a new one."""
        if what == self._phase:
            return
        self._phase = what
        line = f"creating {of} memory cgroups" if what == "create" else _WAITS.get(what, "")
        if line:
            self._stream.write(f"{line}\n")
