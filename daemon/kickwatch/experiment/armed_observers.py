"""The armed observers with their latest positive control: what a trial reads."""

from dataclasses import dataclass

from kickwatch.configuration.types import Config
from kickwatch.experiment.own_work import OwnWork, Work
from kickwatch.model import Control, Observers, Window, WindowKind
from kickwatch.node.kernel import parse_cpu_list
from kickwatch.observe.control import positive_control
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.windows import Sample, requests_lost
from kickwatch.workload.names import OWN_CGROUPS


@dataclass
class ArmedObservers:
    """Implements `ports.TrialObservers`.

    `control`: how the latest positive control ended; `control_cpus`: the CPUs that are configured for it.
    """

    observatory: Observatory
    control: Control
    control_cpus: tuple[int, ...] = ()

    @classmethod
    async def open(cls, config: Config | None = None, own: OwnWork | None = None) -> "ArmedObservers":
        """Arm the observers and run a positive control. `close` disarms. `own`: counts what both send.

        In passive mode also those of the containers of others: later the daemon has no capability to arm them.
        """
        config, own = config or Config(), own or OwnWork()
        async with own.during(Work.ARMING):
            observatory, chosen = await Observatory.open(listed=listed_cpus(config)), chosen_cpus(config)
        try:
            if not config.workload.enabled:
                await observatory.arm_passive(OWN_CGROUPS)
            async with own.during(Work.CONTROL, observatory):
                control = await positive_control(observatory, chosen)
            return cls(observatory, control, chosen)
        except BaseException:
            observatory.close()
            raise

    async def prove(self) -> None:
        """Run another positive control. Only between windows."""
        self.control = await positive_control(self.observatory, self.control_cpus)

    def follow(self, config: Config) -> None:
        """Use another configuration, from the next window and the next control on."""
        self.observatory.listed = listed_cpus(config)
        self.control_cpus = chosen_cpus(config)

    def close(self) -> None:
        """Disarm everything."""
        self.observatory.close()

    @property
    def rungs(self) -> Observers:
        """The rungs in use."""
        return self.observatory.observers

    @property
    def slab_mutex_known(self) -> bool:
        """True if the armed probes know the address of slab_mutex."""
        return self.observatory.slab_mutex_known

    @property
    def senders_known(self) -> bool:
        """True if the armed probe can tell whether a sender holds slab_mutex."""
        return self.observatory.senders_known

    @property
    def isolated_cpus(self) -> tuple[int, ...]:
        """The CPUs whose requests are counted separately, because their owner has set them apart."""
        return self.observatory.isolated_cpus

    @property
    def losses(self) -> list[str]:
        """What cannot be observed now, each with its reason."""
        return self.observatory.losses

    async def sample(self) -> Sample:
        """Cumulative figures, now. Raises ObserveError."""
        return await self.observatory.sample()

    def window(self, kind: WindowKind, before: Sample, after: Sample) -> Window:
        """What rose between two samples."""
        return self.observatory.window(kind, before, after)

    def requests_lost(self, before: Sample, after: Sample) -> tuple[int, int]:
        """Requests between two samples that were not counted, and requests that were counted without a stack."""
        return requests_lost(before, after)

    def creation_broadcasts(self) -> int | None:
        """Broadcasts of the creation path since the probes were armed. None without a probe. Raises ObserveError."""
        return self.observatory.creation_broadcasts()

    async def between_windows(self) -> None:
        """Housekeeping that must not happen during a window."""
        await self.observatory.between_windows()


def listed_cpus(config: Config) -> tuple[int, ...]:
    """The CPUs that the configuration adds to the isolated ones."""
    return tuple(parse_cpu_list(config.node.isolated_cpus))


def chosen_cpus(config: Config) -> tuple[int, ...]:
    """The CPUs that are configured for the positive control, in their order."""
    return tuple(parse_cpu_list(config.control.cpus))
