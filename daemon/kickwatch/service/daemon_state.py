"""What outlives a reload and a lost engine, and belongs to no configuration."""

from dataclasses import dataclass

from kickwatch.outlets.live_status import OthersStatus
from kickwatch.service.drain import Drain
from kickwatch.service.engine_backoff import EngineBackoff
from kickwatch.service.node_guard import NodeGuard
from kickwatch.workload.engine import EngineInfo
from kickwatch.workload.engine_choice import EngineNames


@dataclass
class DaemonState:
    """Sessions read it and write it; nothing is copied from one session to the next.

    `due_s`: monotonic time from which the next trial is due; `budget_until_s`: until when the budget blocks it, as last
    looked. `trial_since_s`: when the trial under way began. `trials`: how many to make in all, None for no limit.
    `swept`: the containers that a killed kickwatch left are removed; `sweep_from_s`: not tried again before.
    `engine`: the one that answered last.
    `others`: what passive mode has counted; None in any other.
    """

    drain: Drain
    guard: NodeGuard
    backoff: EngineBackoff
    trials: int | None = None
    trials_begun: int = 0
    due_s: float = 0.0
    budget_until_s: float = 0.0
    trial_since_s: float | None = None
    swept: bool = False
    sweep_from_s: float = 0.0
    engine: EngineInfo | None = None
    others: OthersStatus | None = None

    @property
    def more(self) -> bool:
        """True while there are trials to make."""
        return self.trials is None or self.trials_begun < self.trials

    @property
    def engine_name(self) -> str:
        """The name of the engine that answered last; empty before the first."""
        return self.engine.name if self.engine is not None else ""

    @property
    def known_engine(self) -> EngineNames | None:
        """How that engine named itself and its runtime; None if it could not."""
        if self.engine is None or self.engine.unnamed_fields:
            return None
        return EngineNames.of(self.engine)
