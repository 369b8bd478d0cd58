"""In a network namespace of its own: the outlet starts before the interface of its address, which is later made again.

Prints why the outlet waits, and what it answers each time.
"""

import asyncio
import subprocess
import sys

import structlog
from msgspec.structs import replace

from kickwatch.configuration.listen import parse_listen
from kickwatch.configuration.types import Config, MetricsConfig, StateConfig
from kickwatch.errors import ObserveError
from kickwatch.observe.windows import Sample
from kickwatch.outlets.metrics import outlet as module
from kickwatch.outlets.metrics.outlet import PrometheusOutlet


class BlindObservatory:
    """Stands in for the armed observers: the kernel refuses each reading."""

    async def sample(self) -> Sample:
        raise ObserveError("nothing is armed", "none is needed here")


async def answer(listen: str) -> str:
    """The first line of the answer to a scrape, once there is one."""
    async with asyncio.timeout(10.0):
        while True:
            try:
                reader, writer = await asyncio.open_connection(*parse_listen(listen))
                break
            except OSError:
                await asyncio.sleep(0.02)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n")
    line = (await reader.readline()).decode().strip()
    writer.close()
    return line


def run(command: str) -> None:
    """Run it; no part of it has a space."""
    subprocess.run(command.split(), check=True)


def make_interface(address: str) -> None:
    """Make kw0 with this address, and bring it up."""
    run("ip link add kw0 type veth peer name kw1")
    run(f"ip address add {address} dev kw0 {'nodad' if ':' in address else ''}")
    run("ip link set kw1 up")
    run("ip link set kw0 up")


async def main(listen: str, address: str) -> None:
    """`address` comes up on the interface kw0 once the outlet waits for it, and again once it has answered."""
    module._LISTEN_EVERY_S = 0.05
    metrics = MetricsConfig(listen=listen)
    outlet = PrometheusOutlet(BlindObservatory())  # type: ignore[arg-type]
    with structlog.testing.capture_logs() as logs:
        await outlet.start(replace(Config(), metrics=metrics, state=StateConfig(directory="/nowhere")))
        await asyncio.sleep(0.3)
        (waits,) = logs
        await asyncio.to_thread(make_interface, address)
        first = await answer(listen)
        await asyncio.to_thread(run, "ip link delete kw0")
        await asyncio.to_thread(make_interface, address)
        again = await answer(listen)
    sys.stdout.write(f"{waits['what']}\n{first}\n{again}\n")
    await outlet.close()


if __name__ == "__main__":
    run("ip link set lo up")  # before that a namespace has any IPv4 address
    asyncio.run(main(*sys.argv[1:]))
