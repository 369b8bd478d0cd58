"""2,000 synthetic targets in a real Prometheus: a bad release is a page in the predicted time, a healthy one is none.

A round is one trial on every node, one scrape of every node, and one evaluation of the rules. Prints what it costs.
"""

# ruff: noqa: S311, T201 - random numbers of a simulation; a measurement

import asyncio
import time
from pathlib import Path
from random import Random

import pytest

from kickwatch.detect.simulate.fleet import Rollout, delay
from monitoring import Prometheus, prometheus_at, write_configuration
from synthetic_fleet import SyntheticFleet, SyntheticNode

pytestmark = [pytest.mark.long, pytest.mark.prometheus, pytest.mark.timeout(240)]

OLD, NEW = "6.1.0-41-amd64", "6.12.9-amd64"
NODES, CANARIES, CONTAINERS = 2000, 100, 6
ROLLOUT = Rollout(CANARIES, CONTAINERS, 3600.0, 0.5)
HEALTHY = 0.02  # broadcasts per container, by chance: the allowance is 0.05
INTERVAL = "4s"


def come_and_go(nodes: list[SyntheticNode], random: Random) -> None:
    """Every round one healthy node of twenty is another one under its address, and one of fifty is away."""
    for node in nodes:
        node.up = node.release != OLD or random.random() > 0.02
        if node.release == OLD and random.random() < 0.05:
            node.begin_again(int(time.time()))


async def round_of_trials(fleet: SyntheticFleet, prometheus: Prometheus, random: Random) -> set[tuple[str, ...]]:
    """One more trial on every node; the alerts (name, release) once Prometheus has evaluated all of them."""
    for node in fleet.nodes:
        node.trial(CONTAINERS, random)
    before = [node.scrapes for node in fleet.nodes]
    end = time.monotonic() + 60
    while any(node.scrapes == known for node, known in zip(fleet.nodes, before, strict=True)):
        assert time.monotonic() < end, "not all nodes were scraped"
        await asyncio.sleep(0.1)
    (now,) = (await prometheus.values("vector(time())")).values()
    evaluated = "min(timestamp(release:kickwatch_known:ratio))"
    await prometheus.until(evaluated, lambda found: bool(found) and min(found.values()) > now + 0.5)
    query = 'count by (alertname, release) (ALERTS{alertstate="firing"})'
    return set(await prometheus.values(query))


async def report_cost(prometheus: Prometheus) -> None:
    groups = (await prometheus.ask("rules"))["groups"]
    seconds = {group["name"]: group["evaluationTime"] for group in groups}
    series = (await prometheus.ask("status/tsdb"))["headStats"]["numSeries"]
    status = (await asyncio.to_thread(Path(f"/proc/{prometheus.pid}/status").read_text)).splitlines()
    (memory,) = [int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS")]
    before = time.monotonic()
    await prometheus.values("topk(20, kickwatch_e_process)")
    asked = time.monotonic() - before
    print(f"\n{NODES} nodes, {series} series: {memory:.0f} MiB resident, {1024 * memory / series:.2f} KiB a series;")
    print("seconds of an evaluation: " + ", ".join(f"{name} {took:.2f}" for name, took in seconds.items()), end="")
    print(f"; topk over kickwatch_e_process {asked:.2f} s")


async def test_a_bad_release_is_a_page_in_the_predicted_time_and_a_healthy_one_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random, now = Random(20), int(time.time())
    predicted = int((await asyncio.to_thread(delay, ROLLOUT, 40, 5)).page_p95) + 1
    nodes = [SyntheticNode(OLD, HEALTHY, now - number % 50) for number in range(NODES - CANARIES)]
    nodes += [SyntheticNode(NEW, ROLLOUT.broadcasts_per_container, now) for _ in range(CANARIES)]
    fleet = await asyncio.to_thread(SyntheticFleet, nodes)
    async with fleet.served():
        configuration = await asyncio.to_thread(write_configuration, tmp_path, fleet.targets(), INTERVAL, nodes="20s")
        async with prometheus_at(tmp_path, configuration) as prometheus:
            await prometheus.until("count(up)", lambda found: list(found.values()) == [float(NODES)])
            paged_in = None
            for number in range(1, predicted + 1):
                alerts = await round_of_trials(fleet, prometheus, random)
                bad = {alert for alert in alerts if alert[0] != "KickwatchFleetEvidence"}
                assert bad <= {("KickwatchBadRelease", NEW)}, "a healthy release must not be a page"
                if bad and paged_in is None:
                    paged_in = number
                come_and_go(fleet.nodes, random)
            seen = await prometheus.values("release:kickwatch_e_process:seen")
            means = await prometheus.values("release:kickwatch_e_process:mean")
            with capsys.disabled():
                await report_cost(prometheus)
                print(f"page after {paged_in} trials, predicted: {predicted} at most; draws: {seen}; means: {means}")
    assert paged_in is not None
    assert seen[(NEW,)] == CANARIES
    assert seen[(OLD,)] > NODES - CANARIES + 50, "those that are gone count as well"
    assert means[(OLD,)] < 10.0


async def test_the_template_is_the_exposition_of_a_real_node() -> None:
    fleet = await asyncio.to_thread(SyntheticFleet, [SyntheticNode(OLD, 0.0, 7)])
    text = fleet.nodes[0].text(fleet.pieces)
    assert text.count("\n") == "".join(fleet.pieces).count("\n") > 80
    assert f'kickwatch_kernel_info{{release="{OLD}"}} 1.0' in text
    assert "\nkickwatch_e_process_start_timestamp_seconds 7\n" in text
