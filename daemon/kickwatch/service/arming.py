"""Arms the daemon's observers, then drops the capabilities that only arming needed."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from kickwatch.configuration.types import Config
from kickwatch.errors import KickwatchError
from kickwatch.experiment.armed_observers import ArmedObservers
from kickwatch.journal.journal import Event, logger
from kickwatch.node.privileges import give_up

_THREADS_END_WITHIN_S = 5.0
_POLL_S = 0.01


async def arm(config: Config, *, keep: bool = False) -> ArmedObservers:
    """Arm the probes, then drop the capabilities that only arming needed.

    Worker threads end before that, since each thread has its own capabilities. `keep` drops nothing: a process that
    starts containers itself needs most of them.
    """
    loop = asyncio.get_running_loop()
    arming = ThreadPoolExecutor(thread_name_prefix="arming")
    loop.set_default_executor(arming)
    armed = await ArmedObservers.open(config)
    arming.shutdown()  # returns at once: its threads are idle
    loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="worker"))
    if not keep:
        until = loop.time() + _THREADS_END_WITHIN_S
        # asyncio waits for each child process in a separate thread.
        while threading.active_count() > 1 and loop.time() < until:  # noqa: ASYNC110 -- a thread that ends sets no event
            await asyncio.sleep(_POLL_S)
        try:
            give_up(lambda: _works(armed))
        except KickwatchError as error:  # not worth ending the daemon
            logger().warning(Event.CAPABILITIES_KEPT, what=error.what, remedy=error.remedy)
        if not _works(armed):
            await armed.prove()  # the first control had all capabilities: this one finds out why it fails
    return armed


def _works(armed: ArmedObservers) -> bool:
    """True if the probes' maps can be read and written with the present capabilities."""
    try:
        armed.observatory.try_probes()
    except KickwatchError:
        return False
    return True
