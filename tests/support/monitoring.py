"""A real Prometheus, a real Alertmanager, and the receiver of its notifications, each on a free port of loopback."""

import asyncio
import json
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
WAIT_S = 60.0

Values = dict[tuple[str, ...], float]


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def get_json(url: str) -> Any:
    """The JSON at a URL of one of our servers."""
    with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 -- our own server on loopback
        return json.load(answer)


@dataclass
class Prometheus:
    """A running Prometheus and its HTTP API."""

    url: str
    log: Path
    pid: int = 0

    async def ask(self, path: str, **query: str) -> Any:
        """The `data` of an answer."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        return (await asyncio.to_thread(get_json, url))["data"]

    async def values(self, query: str) -> Values:
        """An instant query: the values of the labels, sorted by label without the name, and the value."""
        found = (await self.ask("query", query=query))["result"]
        labels = [{label: value for label, value in one["metric"].items() if label != "__name__"} for one in found]
        keys = [tuple(value for _, value in sorted(own.items())) for own in labels]
        return {key: float(one["value"][1]) for key, one in zip(keys, found, strict=True)}

    async def until(self, query: str, right: Callable[[Values], bool]) -> Values:
        """Repeat the query until its result is right; return the result."""
        loop = asyncio.get_running_loop()
        end, values = loop.time() + WAIT_S, await self.values(query)
        while not right(values):
            assert loop.time() < end, f"{query} is {values}; {await asyncio.to_thread(self.log.read_text)}"
            await asyncio.sleep(0.2)
            values = await self.values(query)
        return values


def write_configuration(
    directory: Path, targets: list[dict[str, Any]], interval: str = "2s", alertmanager: str = "", nodes: str = ""
) -> Path:
    """Write scrape.yml and rules.yml with other targets (as of file_sd) and intervals.

    `interval` is also the timeout of a scrape, and a machine may stand still for half a second.
    `nodes`: the interval of the rules on single nodes, if it differs.
    """
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "scrape.yml").read_text())
    (job,) = configuration["scrape_configs"]
    (directory / "targets.yml").write_text(yaml.safe_dump(targets))
    job |= {
        "file_sd_configs": [{"files": [str(directory / "targets.yml")]}],
        "scrape_interval": interval,
        "scrape_timeout": interval,
    }
    rules = (DEPLOY / "prometheus" / "rules.yml").read_text().replace("interval: 5m", f"interval: {interval}")
    (directory / "rules.yml").write_text(rules)
    configuration |= {
        "global": {"evaluation_interval": nodes or interval},
        "rule_files": [str(directory / "rules.yml")],
    }
    if alertmanager:
        configuration["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(configuration))
    return path


@asynccontextmanager
async def running(command: list[str], log: Path, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A server that answers at `url`, and is stopped at the end."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=subprocess.STDOUT)
    try:
        await _answers(url, log, process)
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 30)


async def _answers(url: str, log: Path, process: asyncio.subprocess.Process) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + WAIT_S
    while True:
        try:
            await asyncio.to_thread(get_json, url)
        except OSError:
            assert process.returncode is None, await asyncio.to_thread(log.read_text)
            assert loop.time() < end, await asyncio.to_thread(log.read_text)
            await asyncio.sleep(0.1)
        else:
            return


@asynccontextmanager
async def prometheus_at(root: Path, configuration: Path) -> AsyncIterator[Prometheus]:
    """A Prometheus with this configuration. It waits five seconds before it discovers targets."""
    url, log = f"http://127.0.0.1:{free_port()}", root / "prometheus.log"
    command = [
        "prometheus",
        f"--config.file={configuration}",
        f"--storage.tsdb.path={root / 'data'}",
        f"--web.listen-address={url.removeprefix('http://')}",
    ]
    async with running(command, log, f"{url}/api/v1/status/buildinfo") as process:
        yield Prometheus(url, log, process.pid)


@asynccontextmanager
async def alertmanager_at(root: Path, configuration: Path) -> AsyncIterator[str]:
    """An Alertmanager with this configuration, alone: its host and port."""
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus-alertmanager",
        f"--config.file={configuration}",
        f"--storage.path={root / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    async with running(command, root / "alertmanager.log", f"http://{address}/api/v2/status"):
        yield address


@dataclass
class Receiver:
    """The receiver of webhooks: what was sent to each path, in order."""

    address: str = ""
    sent: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def notifications(self, name: str) -> list[tuple[str, str, str]]:
        """(status, alertname, release) of each notification of a receiver, by the group's common labels."""
        return [
            (one["status"], one["commonLabels"]["alertname"], one["commonLabels"].get("release", ""))
            for one in self.sent.get(name, [])
        ]

    async def until(self, name: str, wanted: int) -> list[tuple[str, str, str]]:
        """Wait for that many notifications; more of them fail as well."""
        loop = asyncio.get_running_loop()
        end = loop.time() + WAIT_S
        while len(self.sent.get(name, [])) < wanted:
            assert loop.time() < end, self.sent
            await asyncio.sleep(0.1)
        found = self.notifications(name)
        assert len(found) == wanted, found
        return found


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """Answers every POST with 200."""
    made = Receiver()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length")
        )
        body = json.loads(await reader.readexactly(length))
        made.sent.setdefault(head.split()[1].strip("/"), []).append(body)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    made.address = f"{host}:{port}"
    async with server:
        yield made
