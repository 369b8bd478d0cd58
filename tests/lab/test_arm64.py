"""What only arm64 needs: no verdict by counters that include remote wakeups, and the daemon's alarm and its end."""

import fault_module
import pytest
from bench import KICK, Bench
from daemon_unit import records, start

pytestmark = [pytest.mark.lab, pytest.mark.timeout(2400)]

PATCHED, UNKNOWN = 0, 4
LOOPS = "1000"


@pytest.fixture
def arm(bench: Bench) -> Bench:
    """The bench, if its machine is arm64."""
    if not bench.arm64:
        pytest.skip("feature: not arm64")
    return bench


def test_reproduce_finds_a_healthy_kernel_patched(arm: Bench) -> None:
    done = arm.guest.run("kickwatch", "reproduce", "-n", LOOPS, check=False, timeout_s=900)
    arm.keep("reproduce", done.output)
    assert done.status == PATCHED, done.output + done.errors
    assert "; attributed to the creation path)" in done.output
    assert "no row of TLB shootdowns" in done.output


def test_counters_that_include_remote_wakeups_accuse_no_healthy_kernel(arm: Bench) -> None:
    counters = {"KICKWATCH_RUNG_IPIS": "counters"}
    done = arm.guest.run("kickwatch", "reproduce", "-n", LOOPS, check=False, timeout_s=900, **counters)
    arm.keep("reproduce_by_counters", done.output)
    assert done.status == UNKNOWN, done.output + done.errors
    assert "include remote wakeups" in done.output


def test_the_daemon_alarms_at_a_fault_and_ends_the_alarm_when_it_is_gone(arm: Bench) -> None:
    fault_module.load(arm.guest, arm.module)
    fault_module.switch(arm.guest, kick=1)
    done = arm.guest.shell(
        f"""{start(60, "workload.containers_per_trial=12")}
        until_log() {{ for second in $(seq 900); do
            grep -q "$1" /run/watch.log && return; systemctl --quiet is-active watch || return; sleep 1; done; }}
        until_log broadcast_detected
        echo 0 >/sys/module/{fault_module.NAME}/parameters/kick
        until_log broadcast_ended
        systemctl stop watch; cat /run/watch.log""",
        check=False,
        timeout_s=2100,
    )
    fault_module.switch(arm.guest)
    log = records(done.output)
    events = [line["event"].removeprefix("kickwatch.") for line in log]
    alarms = [line for line in log if line["event"].endswith(("_detected", "_ended"))]
    arm.keep("daemon_recovers", {"took_s": done.took_s, "events": events, "alarms": alarms})
    assert [line["event"] for line in alarms] == ["kickwatch.broadcast_detected", "kickwatch.broadcast_ended"], events
    assert (alarms[0]["reason"], alarms[0]["origin"]) == (KICK, "cgroup")
