"""The status file as an outlet: written at each beat."""

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kickwatch import __version__
from kickwatch.outlets.events import Beat, OutletEvent
from kickwatch.outlets.outlet import PlainOutlet
from kickwatch.outlets.status import STATUS_PATH, Status, write

if TYPE_CHECKING:
    from kickwatch.model import Condition


class StatusFileOutlet(PlainOutlet):
    """Writes the file that `kickwatch status` reads."""

    def __init__(self, path: Path = STATUS_PATH) -> None:
        """`path` is replaced at each beat."""
        self._path = path
        self._condition: Condition | None = None
        self._since_unix_s = 0.0

    async def take(self, event: OutletEvent) -> None:
        """Write the file, if it is a beat."""
        if isinstance(event, Beat):
            await asyncio.to_thread(write, self._status(event), self._path)

    def _status(self, beat: Beat) -> Status:
        belief, now_unix_s = beat.belief, time.time()
        if belief.condition != self._condition:
            self._condition, self._since_unix_s = belief.condition, now_unix_s
        return Status(
            pid=os.getpid(),
            version=__version__,
            condition=belief.condition,
            condition_since_unix_s=self._since_unix_s,
            doing=beat.doing,
            updated_unix_s=now_unix_s,
            trials=belief.trials,
            containers=belief.containers,
            alerts={alarm.value: streams for alarm, streams in belief.alerted.items()},
            reasons=belief.reasons,
            verdict_age_s=belief.verdict_age_s,
            more_containers=belief.more_containers,
        )
