"""Whether the daemon would start a container on this node now: what its drain file and its guard say."""

import asyncio
import time
from pathlib import Path

from kickwatch.configuration.types import Config
from kickwatch.errors import KickwatchError
from kickwatch.node.cgroups import Cgroups
from kickwatch.node.pressure import DyingMemcgs, read_pressure
from kickwatch.process.signals import Switches
from kickwatch.service.drain import drained_text
from kickwatch.service.guard import Guard
from kickwatch.workload.engine import Engine, EngineInfo


async def why_no_container(config: Config, engine: Engine, info: EngineInfo, cgroups: Cgroups) -> str:
    """The reason for not starting one; empty if there is none. One reading of the guard, without its memory."""
    by = await Switches(config.service.drain_file).drained_by()
    if by:
        return drained_text(by)
    try:
        running = await engine.count_running()
    except KickwatchError:
        running = None
    pressure = await asyncio.to_thread(read_pressure, Path(info.root), running, DyingMemcgs(cgroups))
    decision = Guard(config.guard, config.budget.preset).look(pressure, time.monotonic())
    return f"the guard says no: {decision.what}" if decision.paused else ""
