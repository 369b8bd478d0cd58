"""Passive mode: real containers of others are counted by the kernel and billed, without a verdict."""

import os
import signal
import urllib.request
from pathlib import Path

import pytest

import bpf_programs
from command import kickwatch
from namespaces import without_capabilities
from node_daemon import NodeDaemon
from others import COUNTED_AS, Others, others, turmoil
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


def test_a_killed_passive_daemon_leaves_nothing_and_the_next_one_counts(tmp_path: Path) -> None:
    engines = Others(tmp_path, tmp_path, tmp_path)  # of which only runc is used
    for number in (signal.SIGKILL, signal.SIGTERM):
        daemon = NodeDaemon(tmp_path, PASSIVE)
        daemon.wait_status("passive: 0 containers started by others")
        assert "containers_mkdi" in bpf_programs.ours().values()
        engines.start("runc", 3)
        daemon.wait_status("passive: 3 containers started by others")
        assert daemon.stop(number) == (-number if number is signal.SIGKILL else 0)
        assert daemon.left() == {}


def test_what_a_passive_daemon_may_not_count_is_no_zero_anywhere(tmp_path: Path) -> None:
    """Without the capability for BPF: the cause is named once in the log, and nowhere is a number of containers."""
    engines = Others(tmp_path, tmp_path, tmp_path)
    prefix = without_capabilities("bpf", "perfmon", "sys_admin")
    with NodeDaemon(tmp_path, PASSIVE, prefix=prefix) as daemon:
        status = daemon.wait_status("an unknown number of containers (this process lacks CAP_BPF CAP_PERFMON)")
        engines.start("runc", 2)
        summary = daemon.wait("summary")
        shown = kickwatch("status")
        with urllib.request.urlopen(f"http://{METRICS}/metrics", timeout=10) as answer:
            metrics = answer.read().decode()
        (lost,) = daemon.events("capability_lost")
    assert lost["what"].count("this process lacks CAP_BPF CAP_PERFMON") == 1
    assert "containers that others start, what the containers of others ask for" in lost["what"]
    assert "fix:" not in status
    counts = ("containers", "containers_at_least", "cgroups_made", "cgroup_events_lost", "bill", "beside")
    figures = ("creation_path_broadcasts_per_container", "slab_mutex_waits", "slab_mutex_wait_ms")
    assert {summary[name] for name in (*counts, *figures)} == {None}
    assert summary["containers_unknown"].startswith("this process lacks CAP_BPF CAP_PERFMON; fix: ")
    assert "containers of others: not known: this process lacks CAP_BPF CAP_PERFMON; fix: " in shown.out
    assert "kickwatch_passive_containers_known 0.0" in metrics
