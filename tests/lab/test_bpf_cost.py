"""The cost of containers' BPF programs: the daemon is quiet on a healthy kernel and alarms if the cost doubles.

On x86 before "bpf: Introduce bpf_prog_pack allocator" (5.18) each program broadcasts when it is loaded and when it is
freed. A container of runc on cgroup v2 loads four programs. Needs KICKWATCH_LAB_LONG=1: about 100 trials.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from daemon_unit import LOG, UNIT, records, start

pytestmark = [pytest.mark.lab, pytest.mark.timeout(3600)]

HEALTHY = 50  # trials
AT_MOST = 80  # further trials until the alarm
RUNTIME = "/opt/lab/costly/runc"
PROGRAMS = {"v1": 1, "v2": 4}  # loaded by runc for a container; on cgroup v2 devices need BPF programs
PACKED_SINCE = (5, 18)
UNHEALTHY = ("_detected", "_failed", "_changed", "_blind", "_dropped")


@pytest.fixture
def costly(bench: Bench) -> Bench:
    """The bench with the costly runtime installed and switched off."""
    if bench.arm64:
        pytest.skip("feature: a hundred trials on arm64 take hours without KVM")
    release = bench.guest.machine.boot.kernel.name
    if tuple(map(int, release.partition("-")[0].split("."))) >= PACKED_SINCE:  # 6.1-rt, too
        pytest.skip(f"feature: on {release} BPF programs do not broadcast")
    if "KICKWATCH_LAB_LONG" not in os.environ or bench.guest.machine.cpus != 4:
        pytest.skip("feature: takes a quarter of an hour with 4 CPUs, enabled by KICKWATCH_LAB_LONG=1")
    bench.guest.write(RUNTIME, Path(__file__).with_name("costly_runtime.py").read_bytes())
    bench.guest.shell(f"chmod 755 {RUNTIME}; rm -f /run/costly")
    return bench


def test_fifty_healthy_trials_are_quiet_and_a_doubled_cost_alarms(costly: Bench) -> None:
    finished = f"grep -c trial_finished {LOG}"
    healthy = _until(f"[ $({finished}) -ge {HEALTHY} ]")
    alarmed = _until(f"grep -q _detected {LOG} || [ $({finished}) -ge {HEALTHY + AT_MOST} ]")
    done = costly.guest.shell(
        f"""{start(1000, f"engine.runtime={RUNTIME}")}
        {healthy}; cp {LOG} /run/healthy.log; echo {PROGRAMS[costly.wanted]} >/run/costly
        {alarmed}; systemctl stop {UNIT}; rm /run/costly; cat {LOG}""",
        check=False,
        timeout_s=3000,
    )
    before = records(costly.guest.read("/run/healthy.log").decode())
    after = records(done.output)[len(before) :]
    trials = [len(_trials(log)) for log in (before, after)]
    alarms = [line for line in after if line["event"].endswith("_detected")]
    costly.keep("bpf_cost", {"healthy": trials[0], "doubled": trials[1], "alarms": alarms, "took_s": done.took_s})
    assert trials[0] >= HEALTHY
    assert [line["event"] for line in before if line["event"].endswith(UNHEALTHY)] == []
    assert [alarm["event"] for alarm in alarms] == ["kickwatch.excess_detected"], done.output[-3000:]
    assert alarms[0]["stream"] == "bpf"
    assert "kickwatch.evidence_changed" not in {line["event"] for line in after}  # the stratum is the same


def _until(condition: str) -> str:
    """A shell loop that ends when `condition` holds or the daemon has exited."""
    return f"until {condition}; do systemctl --quiet is-active {UNIT} || break; sleep 1; done"


def _trials(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in log if line["event"] == "kickwatch.trial_finished"]
