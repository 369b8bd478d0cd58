"""The budget of this node as it outlives daemons: what is spent is written down before containers are started."""

import asyncio
import resource
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from kickwatch.configuration.limits import DAY_S, HOUR_S, limits_of
from kickwatch.configuration.types import Config
from kickwatch.history.history import History
from kickwatch.journal.journal import Event, logger
from kickwatch.journal.trouble import TroubleLog
from kickwatch.service.budget import FILE, Budget, BudgetWait, Spent, load_spent, save_spent

_READ_EVERY_S = 60.0


class BudgetLedger:
    """A Budget, its file and its clock. Construct with `open`."""

    def __init__(self, budget: Budget, path: Path) -> None:
        """`path` is the file in the state directory."""
        self._budget = budget
        self._path = path
        # The wall clock once, then the monotonic one: a clock that is set neither grants nor blocks anything.
        self._offset_s = time.time() - time.monotonic()
        # (when, CPU time until then), a minute apart: the share holds in any hour. That of the start is earned, too.
        self._readings = deque([(self._now_s() - own_cpu_s(), 0.0)])
        self._idle = True
        self.trouble = TroubleLog(Event.BUDGET_UNWRITTEN, Event.BUDGET_WRITTEN)

    @classmethod
    async def open(cls, config: Config, history: History) -> "BudgetLedger":
        """With what earlier daemons spent. One for the life of a daemon: its CPU time is counted from here."""
        path = Path(config.state.directory) / FILE
        refused = None
        try:
            spent = await asyncio.to_thread(load_spent, path)
        except OSError as error:
            spent, refused = None, error
        if spent is None:  # the trials that were kept tell most of it
            kept = await asyncio.to_thread(history.spent, time.time() - DAY_S)
            spent = _spent_unread(config, kept) if refused else tuple(kept or ())
        if refused:
            what = (
                f"{path} cannot be read ({refused.strerror}): the budget counts {sum(n for _, n in spent)} containers"
            )
            logger().warning(Event.BUDGET_UNREAD, what=what, remedy="make it readable; it is written with each trial")
        return cls(Budget(config.budget, spent), path)

    def adopt(self, config: Config) -> None:
        """Go on under another configuration; what is spent stays spent."""
        had = self._budget.limits.cpu_share
        self._budget = Budget(config.budget, self._budget.spent)
        if self._budget.limits.cpu_share != had:  # what another share allowed is not owed under this one
            self._readings = deque([(self._now_s(), own_cpu_s())])
        self._path = Path(config.state.directory) / FILE

    def wait(self, containers: int) -> BudgetWait:
        """How long until so many fit, and why. The first trial need not earn its CPU time: somebody asked for it."""
        now_s, cpu_s = self._now_s(), own_cpu_s()
        if now_s >= self._readings[-1][0] + _READ_EVERY_S:
            self._readings.append((now_s, cpu_s))
        while len(self._readings) > 1 and self._readings[1][0] <= now_s - HOUR_S:
            self._readings.popleft()
        since_s, before_s = self._readings[0]
        return self._budget.wait_s(now_s, containers, 0.0 if self._idle else cpu_s - before_s, since_s)

    async def spend(self, containers: int) -> None:
        """So many are about to be started. It is kept before, so a daemon that dies in each trial spends as well."""
        self._budget.spend(self._now_s(), containers)
        await self._keep()

    async def settle(self, containers: int | None = None, *, warm_up: bool = False) -> None:
        """They are gone; `containers`: how many were started in truth. A `warm_up` is no trial yet."""
        self._idle = self._idle and (warm_up or containers == 0)
        self._budget.settle(self._now_s(), containers)
        await self._keep()

    async def _keep(self) -> None:
        what = await asyncio.to_thread(save_spent, self._path, self._budget.spent)
        if what:
            self.trouble.failed(what, "let kickwatch write to state.directory, or set another")
        else:
            self.trouble.works()

    def _now_s(self) -> float:
        return self._offset_s + time.monotonic()


def _spent_unread(config: Config, kept: Sequence[Spent] | None) -> tuple[Spent, ...]:
    """What to assume was spent where the file is there and cannot be read: a full hour where nothing else tells.

    Otherwise a daemon that is restarted again and again on a disk that fails would have a budget for each start.
    """
    if kept is not None:
        return tuple(kept)
    most = limits_of(config.budget).containers_per_hour
    return ((time.time(), most),) if most else ()


def own_cpu_s() -> float:
    """CPU seconds of the daemon and of its native children that have ended."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
