"""Budgets: how many containers in any hour and any day, and which share of one CPU the daemon itself may use.

`Budget` is pure: it takes times, and decides how long the next trial has to wait. `load_spent` and `save_spent` keep
the charges in a small file. It is written before containers are started, so neither a restart nor a crash in every
trial refills the budget.

Times are Unix seconds that only rise: the wall clock once at the start, then the monotonic clock. Setting the clock
while the daemon runs changes nothing. Setting it back between two daemons grants nothing; setting it forward between
them grants what that time would have.
"""

from collections import deque
from collections.abc import Iterable
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from kickwatch.configuration.limits import DAY_S, HOUR_S, BudgetWindow, limits_of, require_fits, windows
from kickwatch.configuration.types import BudgetConfig
from kickwatch.process.atomic_file import write_over, write_whole

FILE = "spent.json"
Spent = tuple[float, int]  # a charge: when, how many containers
_FILE_FORM = list[tuple[float, Annotated[int, Meta(ge=0)]]]


class BudgetWait(NamedTuple):
    """How long until a trial fits, and why; 0 and empty if it fits now."""

    seconds: float
    why: str


_FITS = BudgetWait(0.0, "")


def jittered(interval_s: float, jitter: float, draw: float) -> float:
    """The interval, and up to the share `jitter` of it more; `draw` is from [0, 1)."""
    return interval_s * (1.0 + jitter * draw)


class Budget:
    """The charges of the last day, and how many containers still fit. Not thread-safe."""

    def __init__(self, config: BudgetConfig, spent: Iterable[Spent] = ()) -> None:
        """`spent`: the charges of earlier daemons, in any order."""
        self.config = config
        self.limits = limits_of(config)
        self._windows = windows(self.limits)
        self._spent: deque[Spent] = deque(sorted(spent))
        self._open: int | None = None  # containers of the newest charge, until it is corrected

    @property
    def spent(self) -> tuple[Spent, ...]:
        """The charges of the last day, oldest first, to be kept for the next daemon."""
        return tuple(self._spent)

    def charge(self, at_s: float, containers: int) -> None:
        """Charge `containers` before they are started. Call `correct` when they are removed."""
        self._now_is(at_s)
        self._spent.append((at_s, containers))
        self._open = containers

    def correct(self, at_s: float, containers: int | None = None) -> None:
        """Correct the newest charge. It counts from now on, since its last container may have started just now.

        `containers`: how many actually started; None for all of them. Without an open charge this has no effect.
        """
        self._now_is(at_s)
        if self._open is not None:
            # More than the open charge after a clock was set back: later charges were moved to the same time.
            newest = self._spent.pop()[1] if self._spent else self._open
            self._spent.append((at_s, newest - self._open + (self._open if containers is None else containers)))
            self._open = None

    def wait_s(self, at_s: float, containers: int, cpu_s: float, since_s: float) -> BudgetWait:
        """How long a trial has to wait. `cpu_s`: CPU time that the daemon and its children used since `since_s`.

        Raises ConfigError for a trial that is larger than the budget.
        """
        self._now_is(at_s)
        waits = [self._wait_for(window, at_s, containers) for window in self._windows]
        return max((*waits, self._wait_for_cpu(at_s, cpu_s, since_s)), key=lambda wait: wait.seconds)

    def used(self, at_s: float) -> tuple[tuple[str, int, int | None], ...]:
        """(window, containers in it, the most allowed) for the last hour and the last day; None is no limit."""
        self._now_is(at_s)
        given = (
            ("hour", HOUR_S, self.limits.containers_per_hour),
            ("day", DAY_S, self.limits.containers_per_day),
        )
        return tuple(
            (name, sum(count for spent_s, count in self._spent if spent_s + length_s > at_s), most)
            for name, length_s, most in given
        )

    def _now_is(self, at_s: float) -> None:
        """Drop charges older than a day. A charge in the future, from before the clock was set back, counts as now.

        So a clock that is set back grants nothing, and blocks no longer than a window.
        """
        while self._spent and self._spent[0][0] + DAY_S <= at_s:
            self._spent.popleft()
        ahead = 0
        while self._spent and self._spent[-1][0] > at_s:
            ahead += self._spent.pop()[1]
        if ahead:
            self._spent.append((at_s, ahead))

    def _wait_for(self, window: BudgetWindow, at_s: float, containers: int) -> BudgetWait:
        """Until enough charges have left the window for the trial to fit."""
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
    """The charges of earlier daemons; None without a file, or with a damaged one. Raises OSError if unreadable."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_FILE_FORM)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None
    return tuple(found)


def save_spent(path: Path, spent: Iterable[Spent]) -> str:
    """Replace the file, or leave it as it was; returns the error, empty for success.

    Not synced to the disk: the file outlives the daemon, and a node that crashes has its budget back. On a full disk
    the file is overwritten in place, which needs no space.
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
        return f"{path} cannot be written ({error.strerror}): a restart would forget the charged containers"
    return ""
