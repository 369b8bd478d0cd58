"""A real Prometheus scrapes the servers of two daemons with scrape.yml and rules.yml; the tests query it.

Only the intervals and the targets are changed.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from builders import kick, trial
from kickwatch.detect.state import StreamFigures, TrialOutcome
from kickwatch.model import Verdict
from kickwatch.outlets.metrics import label_values as words
from kickwatch.outlets.metrics.live import Live
from kickwatch.outlets.metrics.registry import Metrics
from kickwatch.outlets.metrics.serve import Server
from monitoring import Prometheus, prometheus_at, write_configuration

# One Prometheus for all tests, because it waits five seconds before it discovers targets.
pytestmark = [pytest.mark.prometheus, pytest.mark.asyncio(loop_scope="module")]


@dataclass
class Node:
    """A daemon's metrics, served."""

    metrics: Metrics
    server: Server
    scrapes: int = 0

    @property
    def instance(self) -> str:
        host, port = self.server.address
        return f"{host}:{port}"


async def node() -> Node:
    metrics = await asyncio.to_thread(Metrics, "1.2.3")

    async def refresh() -> None:
        made.scrapes += 1
        requests = {"do_sync_core": {b"k": 7 * made.scrapes}}
        metrics.observe(Live(requests=requests, interrupts={"CAL": {0: made.scrapes}}))

    made = Node(metrics, Server(metrics, "127.0.0.1:0", refresh))
    await made.server.start()
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes() -> AsyncIterator[tuple[Node, Node]]:
    one, other = await node(), await node()
    yield one, other
    await one.server.close()
    await other.server.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def prometheus(tmp_path_factory: pytest.TempPathFactory, nodes: tuple[Node, Node]) -> AsyncIterator[Prometheus]:
    root = tmp_path_factory.mktemp("prometheus")
    configuration = write_configuration(root, [{"targets": [one.instance for one in nodes]}], nodes="500ms")
    async with prometheus_at(root, configuration) as made:
        yield made


async def rules(prometheus: Prometheus) -> dict[str, dict[str, Any]]:
    groups = (await prometheus.ask("rules"))["groups"]
    return {rule["name"]: rule for group in groups for rule in group["rules"]}


def firing(alert: str, label: str) -> str:
    return f'count by ({label}) (ALERTS{{alertname="{alert}",alertstate="firing"}})'


async def test_prometheus_stores_every_series(prometheus: Prometheus, nodes: tuple[Node, Node]) -> None:
    await prometheus.until('up{job="kickwatch"}', lambda up: list(up.values()) == [1.0, 1.0])
    targets = (await prometheus.ask("targets"))["activeTargets"]
    assert [target["lastError"] for target in targets] == ["", ""]
    text = (await asyncio.to_thread(nodes[0].metrics.text)).decode()
    shown = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    stored = {series["__name__"] for series in await prometheus.ask("series", **{"match[]": '{job="kickwatch"}'})}
    assert len(shown) > 30
    assert shown <= stored


async def test_each_scrape_has_current_figures(prometheus: Prometheus, nodes: tuple[Node, Node]) -> None:
    """Also without trials: these servers have none."""
    query = f'kickwatch_csd_requests_total{{reason="do_sync_core",instance="{nodes[0].instance}"}}'
    (first,) = (await prometheus.until(query, bool)).values()
    (later,) = (await prometheus.until(query, lambda found: bool(found) and max(found.values()) > first + 7)).values()
    assert later % 7 == 0
    assert later <= 7 * nodes[0].scrapes


async def test_an_alert_names_the_guilty_cell_and_resolves(prometheus: Prometheus, nodes: tuple[Node, Node]) -> None:
    broadcasting = nodes[1]
    broadcasting.metrics.trial(trial(kick(92)), TrialOutcome(trial="0badcafe", verdict=Verdict.BROADCASTING), {})
    broadcasting.metrics.condition("broadcasting")
    query = firing("KickwatchBroadcasting", "instance")
    await prometheus.until(query, lambda values: values == {(broadcasting.instance,): 1.0})
    alerts = (await prometheus.ask("alerts"))["alerts"]
    (alert,) = [one for one in alerts if one["labels"]["alertname"] == "KickwatchBroadcasting"]
    assert alert["annotations"]["summary"].startswith(f"{broadcasting.instance}: creating a container")
    blame = "Most of them: kick_all_cpus_sync, asked for by slab, 4 per container."
    assert blame in alert["annotations"]["description"]
    broadcasting.metrics.condition("quiet")
    await prometheus.until(query, lambda values: values == {})


async def test_evidence_is_pooled_and_every_rule_is_healthy(prometheus: Prometheus, nodes: tuple[Node, Node]) -> None:
    for one, e_process in zip(nodes, (0.5e6, 1.5e6), strict=True):
        one.metrics.epoch(time.time())
        one.metrics.evidence({"burst": StreamFigures(alerted=False, evidence=1e6, threshold=5e9, e_process=e_process)})
    await prometheus.until('stream:kickwatch_e_process:mean{stream="burst"}', lambda mean: mean == {("burst",): 1e6})
    await prometheus.until(firing("KickwatchFleetEvidence", "stream"), lambda values: values == {("burst",): 1.0})
    assert len(await prometheus.values("stream:kickwatch_e_process:mean")) == len(words.STREAMS)
    found = await rules(prometheus)
    assert {"KickwatchBroadcasting", "KickwatchContended", "KickwatchBlind", "KickwatchDown"} <= found.keys()
    assert {name: rule.get("lastError", "") for name, rule in found.items() if rule["health"] != "ok"} == {}


async def test_a_stopped_daemon_is_down(prometheus: Prometheus, nodes: tuple[Node, Node]) -> None:
    gone, stays = (one.instance for one in nodes)
    await prometheus.until("up", lambda up: list(up.values()) == [1.0, 1.0])
    await nodes[0].server.close()
    await prometheus.until("up == 0", lambda up: [key[0] for key in up] == [gone])
    assert [key[0] for key in await prometheus.values("up == 1")] == [stays]
