"""Three nodes, a real Prometheus and a real Alertmanager, with the rules and routes of deploy/: who is paged, and when.

What the nodes observe are recordings of real trials, healthy and faulty. Only intervals, targets and receivers are
changed.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from dashboard_files import DASHBOARDS, queries_of
from evidence_node import FAULT_OF_2017, FLIPS_A_KEY, HEALTHY, EvidenceNode
from monitoring import DEPLOY, Prometheus, Receiver, alertmanager_at, prometheus_at, receiver, write_configuration

pytestmark = [
    pytest.mark.long,
    pytest.mark.prometheus,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]

ROUTES = DEPLOY / "alertmanager" / "alertmanager.yml"
OLD, BAD, WORSE = "6.1.0-41-amd64", "6.12.9-amd64", "6.13.2-amd64"
PAGE = "KickwatchBadRelease"
# As in production, the rules on nodes run far more often than those on the fleet. Otherwise, when an alarm ends, the
# fleet's alert often clears first, and holds back that of the node no longer: a page too many.
FLEET_RULES, NODE_RULES = "2s", "100ms"
WAITS = {  # one after another
    "group_wait: 10s": "group_wait: 1s",
    "group_wait: 7m": "group_wait: 10s",
    "group_interval: 10m": "group_interval: 1s",
}
LONGER_THAN_ANY_WAIT_S = 12


@dataclass
class Fleet:
    """Everything that runs."""

    nodes: list[EvidenceNode]
    prometheus: Prometheus
    inbox: Receiver


def routes(directory: Path, inbox: str) -> Path:
    """The routes with other waits and receivers. The order of the waits stays."""
    text = ROUTES.read_text().replace("127.0.0.1:9095", inbox)
    for was, becomes in WAITS.items():
        assert was in text
        text = text.replace(was, becomes)
    path = directory / "alertmanager.yml"
    path.write_text(text)
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    root = tmp_path_factory.mktemp("page")
    nodes = [await EvidenceNode.open(root / f"node{number}") for number in range(3)]
    for node in nodes:
        await node.trial(OLD, HEALTHY)
    async with receiver() as inbox, alertmanager_at(root, routes(root, inbox.address)) as alertmanager:
        targets = [{"targets": [node.instance for node in nodes]}]
        configuration = write_configuration(root, targets, FLEET_RULES, alertmanager, nodes=NODE_RULES)
        async with prometheus_at(root, configuration) as prometheus:
            await prometheus.until("release:kickwatch_nodes:count", lambda found: found == {(OLD,): 3.0})
            yield Fleet(nodes, prometheus, inbox)
    for node in nodes:
        await node.close()


async def test_one_faulty_node_of_three_is_one_page_which_resolves(fleet: Fleet) -> None:
    """Its own alert, the release's and the fleet's fire: one page reaches the pager, and no ticket is sent."""
    faulty = fleet.nodes[1]
    await faulty.trial(OLD, FLIPS_A_KEY)
    query = 'count by (alertname) (ALERTS{alertstate="firing"})'
    firing = await fleet.prometheus.until(query, lambda found: len(found) >= 3)
    assert set(firing) == {("KickwatchBadRelease",), ("KickwatchBroadcasting",), ("KickwatchFleetEvidence",)}
    assert await fleet.inbox.until("pager", 1) == [("firing", PAGE, OLD)]
    (sent,) = fleet.inbox.sent["pager"][0]["alerts"]
    assert (
        f"1 of 3 nodes have proof by themselves. Most evidence: {faulty.instance}" in sent["annotations"]["description"]
    )
    assert sent["annotations"]["runbook_url"] == "operations.html#kickwatchbadrelease"
    await asyncio.sleep(LONGER_THAN_ANY_WAIT_S)
    assert await fleet.inbox.until("pager", 1) == [("firing", PAGE, OLD)]
    while faulty.belief().alerted:
        await faulty.trial(OLD, HEALTHY)
    assert await fleet.inbox.until("pager", 2) == [("firing", PAGE, OLD), ("resolved", PAGE, OLD)]
    await fleet.prometheus.until(query, lambda found: found == {})
    assert fleet.inbox.notifications("tickets") == []


async def test_two_bad_releases_are_two_pages_and_none_for_the_old_one(fleet: Fleet) -> None:
    """The roll-out reaches two nodes, with a release each; they go back, and both pages resolve."""
    fleet.inbox.sent.clear()
    first, second, _ = fleet.nodes
    await first.trial(BAD, FLIPS_A_KEY)
    await second.trial(WORSE, FAULT_OF_2017)
    pages = await fleet.inbox.until("pager", 2)
    assert sorted(pages) == [("firing", PAGE, BAD), ("firing", PAGE, WORSE)]
    await asyncio.sleep(LONGER_THAN_ANY_WAIT_S)
    await fleet.inbox.until("pager", 2)
    for node in (first, second):
        await node.trial(OLD, HEALTHY)
    pages = await fleet.inbox.until("pager", 4)
    assert sorted(pages[2:]) == [("resolved", PAGE, BAD), ("resolved", PAGE, WORSE)]
    means = await fleet.prometheus.values("release:kickwatch_e_process:mean")
    assert means[(OLD,)] < 1e13, "what the two did under other kernels is no evidence about this one"
    assert fleet.inbox.notifications("tickets") == []


@pytest.mark.parametrize("name", DASHBOARDS)
async def test_every_query_of_every_panel_returns_data(fleet: Fleet, name: str) -> None:
    """Over the time of the tests above: a table of alerts has rows for as long as there are alerts."""
    queries = await asyncio.to_thread(queries_of, name)
    assert len(queries) >= 5
    empty = []
    for title, query in queries:
        now = time.time()
        times = {"start": str(now - 60), "end": str(now), "step": "1"}
        found = await fleet.prometheus.ask("query_range", query=query, **times)
        if not found["result"]:
            empty.append((title, query))
    assert empty == []
