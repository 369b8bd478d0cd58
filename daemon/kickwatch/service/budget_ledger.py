"""The budget of this node across restarts: containers are charged on disk before they are started."""

import asyncio
import resource
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from kickwatch.configuration.limits import DAY_S, HOUR_S, limits_of
from kickwatch.configuration.types import Config
from kickwatch.history.history import History
from kickwatch.journal.journal import Event, logger
from kickwatch.journal.trouble import TroubleLog
from kickwatch.outlets.live_status import BudgetSpent, BudgetStatus
from kickwatch.service.budget import FILE, Budget, BudgetWait, Spent, load_spent, save_spent

_READ_EVERY_S = 60.0


def own_cpu_s() -> float:
    """CPU seconds of the daemon, and of its native children that have ended."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


class BudgetLedger:
    """A Budget, its file and its clocks. Construct with `open`."""

    def __init__(
        self,
        budget: Budget,
        path: Path,
        now_s: Callable[[], float] = time.monotonic,
        cpu_s: Callable[[], float] = own_cpu_s,
    ) -> None:
        """`path` is the file in the state directory; `cpu_s` returns the CPU time used so far."""
        self._budget = budget
        self._path = path
        self._monotonic_s, self._cpu_s = now_s, cpu_s
        # The wall clock once, then the monotonic one: setting the clock neither grants nor blocks anything.
        self._offset_s = time.time() - now_s()
        # (time, CPU time until then), a minute apart: the share holds in any hour. The start's CPU time counts as well.
        self._readings = deque([(self._now_s() - cpu_s(), 0.0)])
        self._no_trial_yet = True
        self.trouble = TroubleLog(Event.BUDGET_UNWRITTEN, Event.BUDGET_WRITTEN)

    @classmethod
    async def open(
        cls,
        config: Config,
        history: History,
        now_s: Callable[[], float] = time.monotonic,
        cpu_s: Callable[[], float] = own_cpu_s,
    ) -> "BudgetLedger":
        """With what earlier daemons charged. Open it once per daemon: the CPU time counts from here."""
        path = Path(config.state.directory) / FILE
        unreadable = None
        try:
            spent = await asyncio.to_thread(load_spent, path)
        except OSError as error:
            spent, unreadable = None, error
        if spent is None:  # the trials in the history account for most of it
            kept = await asyncio.to_thread(history.spent, time.time() - DAY_S)
            spent = _assumed(config, kept) if unreadable else tuple(kept or ())
        if unreadable:
            containers = sum(count for _, count in spent)
            what = f"{path} cannot be read ({unreadable.strerror}): the budget counts {containers} containers"
            logger().warning(Event.BUDGET_UNREAD, what=what, remedy="make it readable; it is written with each trial")
        return cls(Budget(config.budget, spent), path, now_s, cpu_s)

    def adopt(self, config: Config) -> None:
        """Continue under another configuration. Containers stay charged."""
        share_before = self._budget.limits.cpu_share
        self._budget = Budget(config.budget, self._budget.spent)
        if self._budget.limits.cpu_share != share_before:  # CPU time used under another share is not owed
            self._readings = deque([(self._now_s(), self._cpu_s())])
        self._path = Path(config.state.directory) / FILE

    def wait(self, containers: int) -> BudgetWait:
        """How long until that many fit, and why. The first trial does not wait for its CPU share: a user started it."""
        now_s, cpu_s = self._now_s(), self._cpu_s()
        if now_s >= self._readings[-1][0] + _READ_EVERY_S:
            self._readings.append((now_s, cpu_s))
        while len(self._readings) > 1 and self._readings[1][0] <= now_s - HOUR_S:
            self._readings.popleft()
        since_s, before_s = self._readings[0]
        return self._budget.wait_s(now_s, containers, 0.0 if self._no_trial_yet else cpu_s - before_s, since_s)

    def status(self) -> BudgetStatus:
        """What is spent, for the status file. The CPU share is that of the last hour, or since the daemon started."""
        now_s, (since_s, before_s) = self._now_s(), self._readings[0]
        elapsed_s = now_s - since_s
        return BudgetStatus(
            preset=self._budget.config.preset.value,
            containers=tuple(
                BudgetSpent(window=window, used=used, most=most) for window, used, most in self._budget.used(now_s)
            ),
            cpu_share=round((self._cpu_s() - before_s) / elapsed_s, 5) if elapsed_s > 0 else None,
            cpu_share_most=self._budget.limits.cpu_share,
        )

    async def charge(self, containers: int) -> None:
        """Persist the charge before starting containers, so a crash loop cannot exceed the budget."""
        self._budget.charge(self._now_s(), containers)
        await self._save()

    async def correct(self, containers: int | None = None, *, warm_up: bool = False) -> None:
        """The containers are removed. `containers`: how many actually started. A `warm_up` is not yet a trial."""
        self._no_trial_yet = self._no_trial_yet and (warm_up or containers == 0)
        self._budget.correct(self._now_s(), containers)
        await self._save()

    async def _save(self) -> None:
        what = await asyncio.to_thread(save_spent, self._path, self._budget.spent)
        if what:
            self.trouble.failed(what, "let kickwatch write to state.directory, or set another one")
        else:
            self.trouble.works()

    def _now_s(self) -> float:
        return self._offset_s + self._monotonic_s()


def _assumed(config: Config, kept: Sequence[Spent] | None) -> tuple[Spent, ...]:
    """What to assume was charged if the file is there and cannot be read: a full hour unless the history says more.

    Otherwise a daemon that restarts again and again on a failing disk would have a new budget at each start.
    """
    if kept is not None:
        return tuple(kept)
    most = limits_of(config.budget).containers_per_hour
    return ((time.time(), most),) if most else ()
