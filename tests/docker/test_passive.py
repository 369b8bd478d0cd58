"""Passive mode beside real containers of somebody else's: counted, billed, never judged; none of our own."""

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
        told = daemon.wait("summary")
        if told["containers"] < 5:  # the engine is asked every ten seconds
            told["containers"] += daemon.wait("summary", times=2)["containers"]
        with urllib.request.urlopen(f"http://{METRICS}/metrics", timeout=10) as answer:
            metrics = answer.read().decode()
    assert told["containers"] == 5
    assert told["mode"] == "passive"
    assert told["condition"] == "unknown"
    assert {"rcu_exp_handler", "flush_tlb_func"} <= {row["reason"] for row in told["bill"]}
    assert 'kickwatch_trials_off{reason="passive"} 1.0' in metrics
    flushes = [
        line for line in metrics.splitlines() if line.startswith('kickwatch_csd_requests_total{reason="flush_tlb')
    ]
    assert float(flushes[0].rpartition(" ")[2]) > 0
