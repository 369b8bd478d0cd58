"""In a network namespace of its own: the outlet starts before the interface of its address. Prints what it answers."""

import asyncio
import subprocess
import sys

import structlog
from msgspec.structs import replace

from kickwatch.configuration.listen import parse_listen
from kickwatch.configuration.types import Config, MetricsConfig, StateConfig
from kickwatch.errors import ObserveError
from kickwatch.observe.observatory import Sample
from kickwatch.outlets.metrics import outlet as module
from kickwatch.outlets.metrics.outlet import PrometheusOutlet


class BlindObservatory:
    """Stands in for the armed observers: the kernel refuses each reading."""

    async def sample(self) -> Sample:
        raise ObserveError("nothing is armed", "none is needed here")


async def answer(listen: str) -> str:
    """The first line of the answer to a scrape."""
    reader, writer = await asyncio.open_connection(*parse_listen(listen))
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n")
    line = (await reader.readline()).decode().strip()
    writer.close()
    return line


async def main(listen: str, address: str) -> None:
    """`address` comes up on the interface kw0 once the outlet waits for it."""
    module._LISTEN_EVERY_S = 0.05
    metrics = MetricsConfig(listen=listen)
    outlet = PrometheusOutlet(BlindObservatory())  # type: ignore[arg-type]
    with structlog.testing.capture_logs() as logs:
        await outlet.start(replace(Config(), metrics=metrics, state=StateConfig(directory="/nowhere")))
        await asyncio.sleep(0.3)
        (waits,) = logs
        add = ["ip", "address", "add", address, "dev", "kw0"]
        for command in (
            ["ip", "link", "add", "kw0", "type", "veth", "peer", "name", "kw1"],
            [*add, "nodad"] if ":" in address else add,
            ["ip", "link", "set", "kw1", "up"],
            ["ip", "link", "set", "kw0", "up"],
        ):
            await asyncio.to_thread(subprocess.run, command, check=True)
        async with asyncio.timeout(10.0):
            while len(logs) < 2:  # noqa: ASYNC110 -- nothing sets an event
                await asyncio.sleep(0.02)
    sys.stdout.write(f"{waits['what']}\n{await answer(listen)}\n")
    await outlet.close()


if __name__ == "__main__":
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # before that a namespace has any IPv4 address
    asyncio.run(main(*sys.argv[1:]))
