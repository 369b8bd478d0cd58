"""What sessions work with. All of it outlives a reload; none of it knows the configuration in force."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from kickwatch.configuration.types import Config
from kickwatch.outlets.events import Beat
from kickwatch.outlets.outlet import Report
from kickwatch.service.budget_ledger import BudgetLedger
from kickwatch.service.daemon_state import DaemonState
from kickwatch.service.drain import DrainSource
from kickwatch.service.experiments import Experiments
from kickwatch.service.heartbeat import Heartbeat
from kickwatch.service.watch import Watch

T = TypeVar("T")
_BLIND_RETRY_S = 60.0  # a control can fail for a reason that passes, such as no free file descriptor


class DaemonSwitches(DrainSource, Protocol):
    """What signals and the drain file ask for: reload and drain. On a node this is `process.signals.Switches`."""

    drain_file: str
    reload_asked: bool

    async def sleep(self, seconds: float) -> None:
        """Return early when something is asked for."""

    async def unless_drained(self, work: Coroutine[Any, Any, T], poll_s: float) -> T:
        """The result of `work`. Raises DrainedError after its clean-up if the node is drained meanwhile."""


class Lock(Protocol):
    """The node's lock, held by this process."""

    @property
    def path(self) -> Path:
        """The locked file."""

    def renew(self) -> bool:
        """Take it again if its file was removed; True if so. Raises BusyError, KickwatchError."""


@dataclass(frozen=True)
class Parts:
    """The parts of a daemon. `now_s` is monotonic; `draw` returns random numbers from [0, 1)."""

    state: DaemonState
    switches: DaemonSwitches
    lock: Lock
    experiments: Experiments
    watch: Watch
    ledger: BudgetLedger
    heartbeat: Heartbeat
    report: Report
    now_s: Callable[[], float]
    draw: Callable[[], float]

    async def beat(self, config: Config) -> None:
        """What is due between trials and while waiting: the positive control, the verdict's age, the outlets."""
        period_s = config.trial.control_period_s
        await self.watch.control_if_due(min(period_s, _BLIND_RETRY_S) if self.watch.blind else period_s)
        await self.watch.check_age()
        engine_lost, unwritten = self.state.backoff.waiting, self.ledger.trouble.lasts
        await self.report(Beat(self.watch.belief(), self.heartbeat.doing, engine_lost, unwritten))

    async def wait(self, config: Config, seconds: float) -> None:
        """Wait, at most until something is asked for."""
        self.heartbeat.progress()
        await self.beat(config)
        await self.switches.sleep(seconds)

    def step(self, text: str) -> None:
        """A trial has made a step: `text` says what it does now."""
        self.heartbeat.progress()
        self.heartbeat.status(f"{self.watch.condition}; trial {self.state.trials_begun}: {text}")

    def passive_step(self, text: str) -> None:
        """Passive mode has looked: `text` says what it counts."""
        self.heartbeat.progress()
        self.heartbeat.status(f"{self.watch.condition}; {text}")
