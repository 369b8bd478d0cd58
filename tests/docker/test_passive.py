"""Passive mode: real containers of others are counted and billed, without a verdict; kickwatch starts none."""

import subprocess
import urllib.request
from pathlib import Path

import pytest

from node_daemon import NodeDaemon

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.kernel]

METRICS = "127.0.0.1:19893"
PASSIVE = {
    "workload.enabled": False,
    "service.summary_period_s": 12,
    "guard.poll_s": 0.5,
    "metrics.enabled": True,
    "metrics.listen": METRICS,
}


def test_the_containers_of_others_are_counted_and_billed(own_image: str, tmp_path: Path) -> None:
    with NodeDaemon(tmp_path, PASSIVE) as daemon:
        assert daemon.wait("started")["mode"] == "passive"
        for _ in range(5):
            run = ["docker", "run", "--rm", "--network", "none", own_image, "/workload", "--deadline-ms", "100"]
            subprocess.run(run, capture_output=True, check=False)
        summary = daemon.wait("summary")
        if summary["containers"] < 5:  # the engine is polled every ten seconds
            summary["containers"] += daemon.wait("summary", times=2)["containers"]
        with urllib.request.urlopen(f"http://{METRICS}/metrics", timeout=10) as answer:
            metrics = answer.read().decode()
    assert summary["containers"] == 5
    assert summary["mode"] == "passive"
    assert summary["condition"] == "unknown"
    assert {"rcu_exp_handler", "flush_tlb_func"} <= {row["reason"] for row in summary["bill"]}
    assert 'kickwatch_trials_off{reason="passive"} 1.0' in metrics
    flushes = [
        line for line in metrics.splitlines() if line.startswith('kickwatch_csd_requests_total{reason="flush_tlb')
    ]
    assert float(flushes[0].rpartition(" ")[2]) > 0
