"""Passive mode in a guest: containers that runc and crun start by hand are counted, and their fault is an alert."""

import re
from collections.abc import Iterator

import fault_module
import pytest
from bench import KICK, Bench
from daemon_unit import records

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

LOG = "/run/others.log"
HEALTHY_EACH, FAULTY_S = 5, 300
_DRIVEN = ("runc", "crun", "runc --systemd-cgroup", "crun --systemd-cgroup")
_KEYS = ("workload.enabled=false", "guard.poll_s=1", "metrics.enabled=true", "metrics.listen=127.0.0.1:19893")
_SCRAPE = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:19893/metrics').read().decode())"
_COUNTED = re.compile(r'kickwatch_passive_containers_total\{engine="(\w+)"\} ([1-9]\d*)\.0')
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
    fault_module.load(bench.guest, bench.module)
    yield bench
    fault_module.switch(bench.guest)


def test_a_fault_is_found_in_containers_that_others_start_and_none_in_healthy_ones(faulty: Bench) -> None:
    """Healthy ones of two runtimes, with both cgroup drivers, beside services that come and go."""
    kick = f"/sys/module/{fault_module.NAME}/parameters/kick"
    driven = "\n".join(
        f"for n in $(seq {HEALTHY_EACH}); do {command} {_RUN} by{at}-$n; [ $? = {_ENDED} ] || echo FAILED; done"
        for at, command in enumerate(_DRIVEN)
    )
    guest = faulty.guest
    try:
        healthy = guest.shell(
            f"""{_BUNDLE}
            {_daemon()}
            while [ -e /run/others ]; do systemd-run --quiet --collect sleep 0.5; sleep 2; done >/dev/null 2>&1 &
            {driven}
            sleep 8; cat {LOG}; /opt/kickwatch/bin/python -c "{_SCRAPE}" """,
            timeout_s=600,
        ).output
        made = guest.shell(
            f"""cd /run; echo 1 >{kick}; end=$(($(date +%s) + {FAULTY_S})); made=0
            while [ $(date +%s) -lt $end ] && ! grep -q broadcast_detected {LOG}; do
                made=$((made + 1)); crun {_RUN} faulty-$made; [ $? = {_ENDED} ] || echo FAILED
            done
            echo $made""",
            timeout_s=2 * FAULTY_S,
        ).output
    finally:
        guest.shell(f"echo 0 >{kick}; rm -rf /run/others; systemctl stop others", check=False)
    log = records(guest.out("cat", LOG))
    counted = {engine: int(number) for engine, number in _COUNTED.findall(healthy)}
    alerts = [line for line in log if line["event"].endswith("_detected")]
    faulty.keep("passive", {"healthy": counted, "faulty": made.split(), "alerts": alerts, "log": log[:3]})
    assert "FAILED" not in healthy + made
    assert counted == {"runc": 2 * HEALTHY_EACH, "crun": 2 * HEALTHY_EACH}
    assert "kickwatch_passive_containers_known 1.0" in healthy
    assert "_detected" not in healthy
    (alert,) = alerts
    assert alert["event"] == "kickwatch.broadcast_detected"
    assert (alert["reason"], alert["origin"], alert["path"]) == (KICK, "cgroup", "create")
    assert {"kickfault_css_online", "cgroup_mkdir"} <= set(alert["stack"])
    assert alert["stream"] == "attributed"
    assert alert["observations"] <= 14
