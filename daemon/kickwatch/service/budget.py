"""Budgets: how many containers in any hour and any day, and what share of one CPU for the daemon itself.

`Budget` is pure: it is given times and decides how long the next trial has to wait. `load_spent` and `save_spent` keep
what was spent in a small file, written before containers are started, so that neither a restart nor a daemon that is
killed in every trial refills the budget.

Times are Unix seconds that go on steadily: the wall clock once at the start, and the monotonic clock from there. So a
clock that is set while the daemon runs changes nothing; one that is set back between two daemons grants nothing, and
one that is set forward then grants what seems to be due.
"""

from collections import deque
from collections.abc import Iterable
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from kickwatch.configuration.limits import DAY_S, BudgetWindow, limits_of, require_fits, windows
from kickwatch.configuration.types import BudgetConfig
from kickwatch.process.atomic_file import write_over, write_whole

FILE = "spent.json"
Spent = tuple[float, int]  # when, how many containers
_FILE_FORM = list[tuple[float, Annotated[int, Meta(ge=0)]]]


class BudgetWait(NamedTuple):
    """How long until a trial fits, and why; 0 and nothing when it fits now."""

    seconds: float
    why: str


_FITS = BudgetWait(0.0, "")


def jittered(interval_s: float, jitter: float, draw: float) -> float:
    """The pause with the share of it that chance adds; `draw` is from [0, 1)."""
    return interval_s * (1.0 + jitter * draw)


class Budget:
    """What was spent in the last day, and what still fits. Not thread-safe."""

    def __init__(self, config: BudgetConfig, spent: Iterable[Spent] = ()) -> None:
        """`spent`: what earlier daemons spent, in any order."""
        self.config = config
        self.limits = limits_of(config)
        self._windows = windows(self.limits)
        self._spent: deque[Spent] = deque(sorted(spent))
        self._open: int | None = None  # the latest of them, while it is under way

    @property
    def spent(self) -> tuple[Spent, ...]:
        """The spendings of the last day, oldest first: what is to be kept for the next daemon."""
        return tuple(self._spent)

    def charge(self, at_s: float, containers: int) -> None:
        """So many containers are about to be started. Call `settle` when they are gone."""
        self._now_is(at_s)
        self._spent.append((at_s, containers))
        self._open = containers

    def correct(self, at_s: float, containers: int | None = None) -> None:
        """What was spent last is over: it counts from now on, since its last container may have been started now.

        `containers`: how many were started in truth; None is as many as were meant to be. Nothing under way: no effect.
        """
        self._now_is(at_s)
        if self._open is not None:
            held = self._spent.pop()[1] if self._spent else self._open  # more than its own after a clock was set back
            self._spent.append((at_s, held - self._open + (self._open if containers is None else containers)))
            self._open = None

    def wait_s(self, at_s: float, containers: int, cpu_s: float, since_s: float) -> BudgetWait:
        """How long a trial has to wait. `cpu_s`: CPU time of the daemon and its children since `since_s`.

        Raises ConfigError for a trial that is larger than the budget.
        """
        self._now_is(at_s)
        waits = [self._wait_for(window, at_s, containers) for window in self._windows]
        return max((*waits, self._wait_for_cpu(at_s, cpu_s, since_s)), key=lambda wait: wait.seconds)

    def _now_is(self, at_s: float) -> None:
        """Forget what is older than a day. What lies ahead was spent before the clock was set back: it counts as now.

        So a clock that is set back grants nothing, and holds up no longer than a window is.
        """
        while self._spent and self._spent[0][0] + DAY_S <= at_s:
            self._spent.popleft()
        ahead = 0
        while self._spent and self._spent[-1][0] > at_s:
            ahead += self._spent.pop()[1]
        if ahead:
            self._spent.append((at_s, ahead))

    def _wait_for(self, window: BudgetWindow, at_s: float, containers: int) -> BudgetWait:
        """Until so much has left the window that the trial fits in."""
        require_fits(window, containers, self.config)
        room = window.most - containers
        within = free_at_s = 0.0
        for spent_s, count in reversed(self._spent):
            if spent_s + window.length_s <= at_s:
                break
            within += count
            if within > room:
                free_at_s = max(free_at_s, spent_s + window.length_s)
        if free_at_s <= at_s:
            return _FITS
        why = f"{within:.0f} of {window.most} containers in the last {window.name}, a trial needs {containers}"
        return BudgetWait(free_at_s - at_s, why)

    def _wait_for_cpu(self, at_s: float, cpu_s: float, since_s: float) -> BudgetWait:
        share, elapsed_s = self.limits.cpu_share, max(0.0, at_s - since_s)
        if share is None or cpu_s <= share * elapsed_s:
            return _FITS
        why = f"{cpu_s:.1f} s of CPU time in {elapsed_s:.0f} s is more than {100.0 * share:.10g} % of one CPU"
        return BudgetWait(cpu_s / share - elapsed_s, why)


def load_spent(path: Path) -> tuple[Spent, ...] | None:
    """What earlier daemons spent; None where there is no such file, or it is damaged. Raises OSError.

    A file that cannot be read is not an empty one.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_FILE_FORM)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None
    return tuple(found)


def save_spent(path: Path, spent: Iterable[Spent]) -> str:
    """Keep it whole or leave the file as it was; returns why it could not be kept, empty for success.

    Not synced to the disk: it outlives the daemon, and a node that crashes has its budget back. On a full disk the file
    is written over, which takes no room.
    """
    content = msgspec.json.encode(list(spent))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_whole(path, content)
        except OSError as error:
            if error.errno not in {ENOSPC, EDQUOT}:
                raise
            write_over(path, content)
    except OSError as error:
        return f"{path} cannot be written ({error.strerror}): a restart would forget what was spent"
    return ""
