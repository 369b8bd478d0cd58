"""What a session needs of this node, as Protocols.

Everything that starts containers or reads the kernel is reached through these. `node_experiments` is the node itself;
unit tests put fakes in its place.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from kickwatch.configuration.types import Config
from kickwatch.experiment.passive_count import Counted
from kickwatch.journal.remark import Remark
from kickwatch.model import Observers, Trial
from kickwatch.node.pressure import Pressure
from kickwatch.observe.containers import ContainersRung
from kickwatch.observe.losses import Loss
from kickwatch.workload.engine import EngineInfo
from kickwatch.workload.engine_choice import EngineNames

Step = Callable[[str], None]  # takes what a trial does now


class TrialUnderWay(Protocol):
    """One trial."""

    @property
    def begun(self) -> int:
        """Containers requested from the engine so far, however the trial ends."""

    @property
    def remarks(self) -> list[Remark]:
        """What a person should know about it."""

    async def run(self) -> Trial:
        """Run it to its end. Raises KickwatchError, OSError."""


class SessionRig(Protocol):
    """An engine that answers, with everything a trial needs set up."""

    @property
    def info(self) -> EngineInfo:
        """Name, version and runtime of the engine."""

    @property
    def remarks(self) -> Iterable[Remark]:
        """What a person should know of the set-up."""

    @property
    def reaped(self) -> int:
        """Containers of an earlier kickwatch, removed at the start."""

    def trial(self, containers: int, step: Step, number: int) -> TrialUnderWay:
        """Prepare the trial with this number; the number selects its random order."""

    async def pressure(self) -> Pressure:
        """Read everything the guard decides from."""

    async def engine_changed(self) -> bool:
        """True if the engine is another one than at the start. Raises EngineAbsentError."""

    async def tidy(self) -> int:
        """After a trial: remove containers it could not; returns how many."""

    async def recover(self) -> None:
        """After a failed trial: remove everything it may have left. Raises EngineAbsentError."""

    def shorten_timeouts(self) -> None:
        """Give up calls to the engine soon: it is gone. The next start removes what cannot be removed now."""


class RigOpening(Protocol):
    """Sets a rig up, and takes it down. `begun`: containers that the start asked the engine for."""

    @property
    def begun(self) -> int:
        """Also valid after a start that failed."""

    async def __aenter__(self) -> SessionRig:
        """Raises KickwatchError, OSError; everything is taken down then."""

    async def __aexit__(self, *_: object) -> None:
        """To the end, whatever happens, within a limit."""


class PassiveWatch(Protocol):
    """The bill of containers that others start."""

    async def look(self) -> None:
        """Count what happened since the last look. Raises ObserveError."""

    def counted(self) -> tuple[Counted, str]:
        """(the containers since the probe was armed, why some may be missing: empty if none is)."""

    def record_if_due(self) -> Trial | None:
        """What the streams observe of it; None before it is due. Raises OSError."""

    def summary_if_due(self, period_s: float) -> dict[str, Any] | None:
        """The fields of `kickwatch.summary` once per period; None before."""

    async def aclose(self) -> None:
        """End what runs beside."""


class Experiments(Protocol):
    """This node, for a session."""

    @property
    def cpus_online(self) -> int:
        """CPUs that are online."""

    @property
    def observers(self) -> Observers:
        """Which observers are armed, on which rung."""

    @property
    def containers_rung(self) -> ContainersRung:
        """How the containers of others are counted, in passive mode."""

    @property
    def losses(self) -> tuple[Loss, ...]:
        """What the observers cannot see, each with its cause."""

    def open_rig(self, config: Config, known: EngineNames | None) -> RigOpening:
        """`known`: how the engine named itself before, for one that cannot now."""

    def passive(self, config: Config, step: Step) -> PassiveWatch:
        """Watch without containers of our own."""

    async def sweep(self, config: Config) -> int:
        """Remove what a killed kickwatch left, without a rig; returns how many containers. Raises KickwatchError."""

    async def pressure(self) -> Pressure:
        """What the guard can read before an engine answers."""
