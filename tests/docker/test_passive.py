"""Passive mode: real containers of others are counted by the kernel and billed, without a verdict."""

import os
import urllib.request
from pathlib import Path

import pytest

from node_daemon import NodeDaemon
from others import COUNTED_AS, others, turmoil
from wall_clock import WallClock

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.kernel]

EACH = int(os.environ.get("KICKWATCH_PASSIVE_CONTAINERS", "7"))  # per engine; 997 in bench_passive.py
METRICS = "127.0.0.1:19893"
PASSIVE = {
    "workload.enabled": False,
    "service.summary_period_s": 3,
    "guard.poll_s": 0.5,
    "metrics.enabled": True,
    "metrics.listen": METRICS,
}


def test_the_containers_of_every_engine_are_counted_exactly_and_billed(tmp_path: Path) -> None:
    """Beside health checks, `docker exec`, services that come and go, and a clock that is set back and forth."""
    clock = WallClock(tmp_path)
    with others(tmp_path) as engines, turmoil(clock):
        with NodeDaemon(tmp_path, PASSIVE, environment=clock.environment) as daemon:
            started = daemon.wait("started")
            for engine in engines.engines:
                engines.start(engine, EACH)
            expected: dict[str, int] = {}
            for name in COUNTED_AS.values():
                expected[name] = expected.get(name, 0) + EACH
            daemon.wait_status(f"passive: {4 * EACH} containers started by others")
            since = daemon.mark()
            daemon.wait("summary", since, times=2)  # what comes late would be in the second one
            with urllib.request.urlopen(f"http://{METRICS}/metrics", timeout=10) as answer:
                metrics = answer.read().decode()
        summaries = daemon.events("summary")
    counted: dict[str, int] = {}
    for summary in summaries:
        for name, number in summary["containers_by_engine"].items():
            counted[name] = counted.get(name, 0) + number
    assert (started["mode"], started["observers"]["containers"]) == ("passive", "tracepoint")
    assert counted == expected
    assert {(one["mode"], one["condition"], one["containers_unknown"]) for one in summaries} == {
        ("passive", "unknown", "")
    }
    assert "flush_tlb_func" in {row["reason"] for one in summaries for row in one["bill"]}
    assert "rcu_exp_handler" in {row["reason"] for one in summaries for row in one["beside"]}
    assert not [record for record in daemon.records if record["event"].endswith("_detected")]
    assert 'kickwatch_trials_off{reason="passive"} 1.0' in metrics
    assert f'kickwatch_passive_containers_total{{engine="docker"}} {EACH}.0' in metrics
