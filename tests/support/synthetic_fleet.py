"""Thousands of nodes behind one server: real e-processes and detectors, in the real exposition of one node.

The text of a real `Metrics` is the template; only the lines that differ between nodes are written for each of them.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from kickwatch.detect.edetector import EDetector
from kickwatch.detect.eprocess import EpochEProcess
from kickwatch.detect.simulate.laws import draw, poisson
from kickwatch.detect.streams import CREATION_PATH
from kickwatch.detect.wager import Null, Wager, Wealth
from kickwatch.outlets.metrics.registry import Metrics
from monitoring import DEPLOY

WAGER = Wager(Null(CREATION_PATH.mean, CREATION_PATH.clip))
PROCESS, DETECTOR = EpochEProcess(WAGER), EDetector(WAGER, 1e9)
VARIES = re.compile(
    r"^(kickwatch_e_process(?:_start_timestamp_seconds)?|kickwatch_evidence|kickwatch_kernel_info)([ {].*)$",
    re.MULTILINE,
)


def template() -> str:
    """The exposition of a quiet node: the series that the rules ask for, a sixth of all.

    With all of them a Prometheus on two busy CPUs takes minutes for what the rules see here in seconds.
    """
    asked = set(re.findall(r"\bkickwatch_[a-z_]+", (DEPLOY / "prometheus" / "rules.yml").read_text()))
    metrics = Metrics("1.2.3")
    metrics.condition("quiet")
    metrics.control(passed=True)
    metrics.verdict_age(60.0)
    lines = metrics.text().decode().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("#") and re.split("[ {]", line)[0] in asked)


@dataclass
class SyntheticNode:
    """One node. Its containers make Poisson broadcasts of this mean, which only `attributed` sees."""

    release: str
    mean: float
    since_unix_s: int
    up: bool = True
    scrapes: int = 0
    pooled: Wealth = field(default_factory=PROCESS.start)
    silent: Wealth = field(default_factory=PROCESS.start)
    own: Wealth = field(default_factory=DETECTOR.start)
    shown: bytes = b""  # until the next trial

    def begin_again(self, now_unix_s: int) -> None:
        """The node is installed again, or replaced under its address."""
        self.since_unix_s = now_unix_s
        self.pooled = self.silent = PROCESS.start()
        self.own, self.shown = DETECTOR.start(), b""

    def trial(self, containers: int, random: Random) -> None:
        """One more trial."""
        law = poisson(self.mean)
        xs = tuple(draw(law, random) for _ in range(containers))
        self.pooled, self.silent = PROCESS.step_trial(self.pooled, xs), PROCESS.step(self.silent, 0.0)
        for x in xs:
            self.own = DETECTOR.step(self.own, x)
        self.shown = b""

    def text(self, pieces: list[str]) -> str:
        """The exposition of this node."""
        attributed, others = PROCESS.published(self.pooled), PROCESS.published(self.silent)
        evidence = self.own.total().capped(1e300)

        def line(name: str, rest: str) -> str:
            labels = rest.rpartition(" ")[0]
            guilty = 'stream="attributed"' in labels
            match name:
                case "kickwatch_kernel_info":
                    return f'{name}{{release="{self.release}"}} 1.0'
                case "kickwatch_e_process":
                    return f"{name}{labels} {attributed if guilty else others}"
                case "kickwatch_evidence":
                    return f"{name}{labels} {evidence if guilty else 0.0}"
                case _:
                    return f"{name} {self.since_unix_s}"

        same, names, rests = pieces[::3], pieces[1::3], pieces[2::3]
        varied = [line(name, rest) for name, rest in zip(names, rests, strict=True)]
        return "".join(part + own for part, own in zip(same, [*varied, ""], strict=True))


@dataclass
class SyntheticFleet:
    """The nodes, and the server that answers for node N at /N."""

    nodes: list[SyntheticNode]
    pieces: list[str] = field(default_factory=lambda: VARIES.split(template()))
    address: str = ""

    def targets(self) -> list[dict[str, Any]]:
        """For file_sd."""
        return [
            {"targets": [self.address], "labels": {"__metrics_path__": f"/{number}", "instance": f"node{number:04}"}}
            for number in range(len(self.nodes))
        ]

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """Answer scrapes."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=1024)
        host, port = server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        async with server:
            yield

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            node = self.nodes[int(head.split(b" ")[1].strip(b"/"))]
            node.scrapes += 1
            node.shown = node.shown or node.text(self.pieces).encode()
            status, body = ("200 OK", node.shown) if node.up else ("503 Away", b"")
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # Prometheus gave up
        finally:
            writer.close()
