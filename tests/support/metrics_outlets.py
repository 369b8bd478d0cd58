"""Outlets of metrics without probes: an observatory that sees nothing, and how they are configured."""

import asyncio
from pathlib import Path

from msgspec.structs import replace

from kickwatch.configuration.types import Config, MetricsConfig, StateConfig
from kickwatch.observe.interrupts import InterruptSample
from kickwatch.observe.windows import Sample
from kickwatch.outlets.metrics.outlet import PrometheusOutlet


class FakeObservatory:
    """Stands in for the armed observers, which see nothing. `refuses`: what a reading raises."""

    refuses: Exception | None = None

    def __init__(self) -> None:
        self.contention = None
        self.containers = None
        self.passive = False
        self.waits_known = False

    async def sample(self) -> Sample:
        if self.refuses is not None:
            raise self.refuses
        return Sample(1, InterruptSample((), {}), None, None)


def an_outlet() -> PrometheusOutlet:
    return PrometheusOutlet(FakeObservatory())  # type: ignore[arg-type]


def configured(metrics: MetricsConfig, state: Path = Path("/dev/null/state")) -> Config:
    return replace(Config(), metrics=metrics, state=StateConfig(directory=str(state)))


async def until_written(path: Path) -> None:
    """The file is written by a task of its own."""
    for _ in range(1000):
        if path.exists():  # noqa: ASYNC240 -- a test may block for a moment
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{path} is not written")
