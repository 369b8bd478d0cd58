"""Arms the observers of the daemon, and gives up what only that took."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from kickwatch.errors import KickwatchError
from kickwatch.laboratory import Eyes
from kickwatch.node.privileges import give_up


async def arm(*, keep: bool = False) -> Eyes:
    """Arm the probes, then give up what only that took. Worker threads of before end first: they would keep it.

    `keep` gives up nothing: a process that makes containers itself needs most of it.
    """
    loop = asyncio.get_running_loop()
    arming = ThreadPoolExecutor(thread_name_prefix="arming")
    loop.set_default_executor(arming)
    eyes = await Eyes.open()
    arming.shutdown()  # its threads are idle: nothing is waited for
    loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="worker"))
    if not keep:
        give_up(lambda: _reads(eyes))
    return eyes


def _reads(eyes: Eyes) -> bool:
    """Whether the probes' maps can be read as things are."""
    try:
        eyes.observatory.read_probes()
    except (KickwatchError, OSError):
        return False
    return True
