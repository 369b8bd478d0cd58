"""Arms the observers of the daemon, and gives up what only that took."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from kickwatch.errors import KickwatchError
from kickwatch.experiment.armed_observers import ArmedObservers
from kickwatch.journal.journal import Event, logger
from kickwatch.node.privileges import give_up

_THREADS_END_WITHIN_S = 5.0
_POLL_S = 0.01


async def arm(*, keep: bool = False) -> ArmedObservers:
    """Arm the probes, then give up what only that took. Worker threads of before end first: they would keep it.

    `keep` gives up nothing: a process that makes containers itself needs most of it.
    """
    loop = asyncio.get_running_loop()
    arming = ThreadPoolExecutor(thread_name_prefix="arming")
    loop.set_default_executor(arming)
    armed = await ArmedObservers.open()
    arming.shutdown()  # its threads are idle: nothing is waited for
    loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="worker"))
    if not keep:
        until = loop.time() + _THREADS_END_WITHIN_S
        # asyncio waits for each child that ends in a thread of its own.
        while threading.active_count() > 1 and loop.time() < until:  # noqa: ASYNC110 -- a thread that ends sets no event
            await asyncio.sleep(_POLL_S)
        try:
            give_up(lambda: _works(armed))
        except KickwatchError as error:  # the watch matters more
            logger().warning(Event.CAPABILITIES_KEPT, what=error.what, remedy=error.remedy)
        if not _works(armed):
            await armed.prove()  # the control of the start passed with all capabilities: this one says why it fails
    return armed


def _works(armed: ArmedObservers) -> bool:
    """Whether the probes' maps can be read and written as things are."""
    try:
        armed.observatory.try_probes()
    except KickwatchError:
        return False
    return True
