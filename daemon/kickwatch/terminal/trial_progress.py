"""The progress of a trial on standard error: a bar at a terminal, lines at a dumb one, nothing in a log.

The bar is drawn when a step is reported, and by no thread of its own: between two steps this process measures, and a
bar that moves by itself would wake CPUs meanwhile.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import ProgressColumn, Task
from rich.text import Text

from kickwatch.experiment.steps import Progress as Report
from kickwatch.experiment.steps import RunStep, texts_to
from kickwatch.process.descriptors import wait_writable
from kickwatch.terminal.bar import StepBar
from kickwatch.terminal.console import following_console, is_terminal

Relog = Callable[["AboveTheBar | None"], None]  # log to this from now on; None: to standard error itself


@contextmanager
def trial_progress(stream: TextIO, relog: Relog) -> Iterator[Report]:
    """What to call at each step. While a bar is drawn, log records are written above it, through `relog`."""
    if not is_terminal(stream):
        yield lambda _step: None
    elif os.environ.get("TERM") == "dumb":
        yield texts_to(lambda text: stream.write(f"{text}\n"))
    else:
        console = following_console(stream)
        bar = StepBar(console, _Containers(), _TimeLeft())
        relog(AboveTheBar(stream, console))
        try:
            yield _Shown(bar, stream).show
        finally:
            bar.stop()
            relog(None)


class _Shown:
    """One bar for the whole run."""

    def __init__(self, bar: StepBar, stream: TextIO) -> None:
        self._bar, self._stream = bar, stream
        self._task = bar.add_task("", total=None, ends_s=None, containers=0)

    def show(self, step: RunStep) -> None:
        """Draw the bar at this step, unless the terminal is stopped (Ctrl-S): then the run would wait for it."""
        ends_s = None if step.left_s is None else time.monotonic() + step.left_s
        self._bar.update(
            self._task,
            description=step.phase.value,
            completed=step.done,
            total=step.total or None,
            ends_s=ends_s,
        )
        if wait_writable(self._stream, 0):
            self._bar.start()
            self._bar.refresh()


class _Containers(ProgressColumn):
    """`12/23 containers`; empty before the first."""

    def render(self, task: Task) -> Text:
        """The text."""
        return Text(f"{task.completed:.0f}/{task.total:.0f} containers" if task.total else "", no_wrap=True)


class _TimeLeft(ProgressColumn):
    """`about 14 s left`; empty while that is not known."""

    max_refresh = None

    def render(self, task: Task) -> Text:
        """The text."""
        ends_s = task.fields["ends_s"]
        if ends_s is None:
            return Text("")
        return Text(f"about {max(1, round(ends_s - time.monotonic()))} s left", no_wrap=True)


class AboveTheBar:
    """A stream for log records: they are written above the bar, which is drawn again below them."""

    def __init__(self, stream: TextIO, console: Console) -> None:
        """`console`: the one that the bar is drawn on; `stream`: its terminal."""
        self._stream, self._console = stream, console
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        """The number of characters written."""
        self._console.out(text, end="", highlight=False)
        return len(text)

    def flush(self) -> None:
        """Nothing is kept."""

    def isatty(self) -> bool:
        """No: the log would write to the terminal itself, over the bar."""
        return False

    def fileno(self) -> int:
        """That of the terminal."""
        return self._stream.fileno()
