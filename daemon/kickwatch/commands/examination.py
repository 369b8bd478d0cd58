"""What `kickwatch doctor` does: start one container, then try everything else. Loaded when it is called."""

from functools import partial

from kickwatch.configuration.types import Config
from kickwatch.experiment.capabilities import examine
from kickwatch.experiment.capability import Capability
from kickwatch.experiment.one_container import ContainerTried, try_container
from kickwatch.process.signals import Shutdown, until_signalled
from kickwatch.service.start_gate import why_no_container


async def examination(config: Config, *, control: bool, container: bool) -> tuple[ContainerTried, list[Capability]]:
    """(what one container showed, everything that was found). A signal ends it after its clean-up."""
    ending = Shutdown()

    async def work() -> tuple[ContainerTried, list[Capability]]:
        tried = ContainerTried(skipped="--no-container")
        if container:
            tried = await try_container(config, partial(why_no_container, config), ending)
        return tried, await examine(config, control=control, container=tried)

    return await until_signalled(work(), stopping=ending.begin)
