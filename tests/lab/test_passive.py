"""Passive mode in a guest: containers that runc and crun start by hand are counted, and their fault is an alert."""

import json
from collections.abc import Iterator
from typing import Any

import fault_module
import pytest
from bench import KICK, Bench
from daemon_unit import records

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

LOG = "/run/others.log"
HEALTHY_EACH, FAULTY = 25, 400
_DRIVEN = ("runc", "crun", "runc --systemd-cgroup", "crun --systemd-cgroup")
_KEYS = ("workload.enabled=false", "guard.poll_s=1", "service.summary_period_s=5", "metrics.enabled=false")
_WORKLOAD = "/opt/kickwatch/lib/python3*/site-packages/kickwatch/native/bin/workload"
_BUNDLE = f"""rm -rf /run/others; mkdir -p /run/others/rootfs; cd /run/others; cp {_WORKLOAD} rootfs/workload; runc spec
    sed -i 's/"terminal": true/"terminal": false/; s|"sh"|"/workload", "--deadline-ms", "1"|' config.json"""
_ENDED = 3  # the workload's status at its deadline
_RUN = "run --bundle /run/others"


def _daemon() -> str:
    sets = " ".join(f"--set {key}" for key in ("log.format=json", *_KEYS))
    unit = f"--unit=others --property=StandardError=file:{LOG}"
    return f"""rm -f {LOG}; touch {LOG}
        systemd-run --quiet --collect {unit} /usr/local/bin/kickwatch run {sets}
        until grep -q kickwatch.started {LOG}; do sleep 0.2; done; sleep 2"""


@pytest.fixture
def faulty(bench: Bench) -> Iterator[Bench]:
    """The bench with the fault module loaded and all faults off, before and after the test."""
    bench.once("the count and the streams are the same with more CPUs")
    if bench.guest.shell(f"test -d /sys/module/{fault_module.NAME}", check=False).status:
        fault_module.load(bench.guest, bench.module)
    fault_module.switch(bench.guest)
    yield bench
    fault_module.switch(bench.guest)


def test_a_fault_is_found_in_containers_that_others_start_and_none_in_healthy_ones(faulty: Bench) -> None:
    """Healthy ones of two runtimes, with both cgroup drivers, beside services that come and go."""
    kick = f"/sys/module/{fault_module.NAME}/parameters/kick"
    driven = "\n".join(
        f"for n in $(seq {HEALTHY_EACH}); do {command} {_RUN} by{at}-$n; [ $? = {_ENDED} ] || echo FAILED; done"
        for at, command in enumerate(_DRIVEN)
    )
    done = faulty.guest.shell(
        f"""{_BUNDLE}
        {_daemon()}
        while [ -e /run/others ]; do systemd-run --quiet --wait --collect true; done & services=$!
        {driven}
        sleep 8; cp {LOG} {LOG}.healthy
        echo 1 >{kick}
        for n in $(seq {FAULTY}); do
            grep -q broadcast_detected {LOG} && break; crun {_RUN} faulty-$n; [ $? = {_ENDED} ] || echo FAILED
        done
        echo 0 >{kick}; rm -rf /run/others; wait $services
        systemctl stop others; cat {LOG}.healthy; echo ----; cat {LOG}""",
        check=False,
        timeout_s=800,
    )
    assert "FAILED" not in done.output, done.errors[-2000:]
    healthy, _, every = done.output.partition("----")
    summaries = [line for line in records(healthy) if line["event"] == "kickwatch.summary"]
    log = records(every)
    alerts = [line for line in log if line["event"].endswith("_detected")]
    faulty.keep("passive", {"took_s": round(done.took_s), "healthy": summaries, "alerts": alerts, "log": log[:3]})
    assert _by_engine(summaries) == {"runc": 2 * HEALTHY_EACH, "crun": 2 * HEALTHY_EACH}, json.dumps(summaries)
    assert {summary["containers_unknown"] for summary in summaries} == {""}
    assert "_detected" not in healthy
    (alert,) = alerts
    assert alert["event"] == "kickwatch.broadcast_detected"
    assert (alert["reason"], alert["origin"], alert["path"]) == (KICK, "cgroup", "create")
    assert {"kickfault_css_online", "cgroup_mkdir"} <= set(alert["stack"])
    assert alert["stream"] == "attributed"
    assert alert["observations"] <= 14


def _by_engine(summaries: list[dict[str, Any]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for summary in summaries:
        for engine, count in summary["containers_by_engine"].items():
            total[engine] = total.get(engine, 0) + count
    return total
