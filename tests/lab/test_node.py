"""A running daemon that loses capabilities or CPUs, on Debian's kernels."""

import json
import re
from typing import Any

import pytest
from bench import ENGINE, Bench

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

# The capabilities kept after the probes are armed, with their numbers in linux/capability.h.
_KEPT = {"DAC_OVERRIDE": 1, "DAC_READ_SEARCH": 2, "KILL": 5, "SYSLOG": 34}
_CAP_BPF = 39
# "bpf: refine kernel.unprivileged_bpf_disabled behaviour": since then no capability is needed to read maps.
_READ_WITHOUT_SINCE = (5, 19)
_FIGURE = re.compile(r"^(kickwatch_\w+(?:\{[^}]*\})?) ([-+.\deInf]+)$", re.MULTILINE)


def _started(unit: str, *keys: str) -> str:
    """A script that starts the daemon in a separate unit, as a service would run; its log is /run/UNIT.log."""
    sets = " ".join(f"--set {key}" for key in ("log.format=json", "guard.enabled=false", *keys))
    return f"""rm -f /run/{unit}.log; touch /run/{unit}.log
        systemd-run --quiet --collect --unit={unit} --property=StandardError=file:/run/{unit}.log \\
        /usr/local/bin/kickwatch run {sets}"""


def _records(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def _release(bench: Bench) -> tuple[int, int]:
    major, minor = bench.guest.machine.boot.kernel.release.split(".")[:2]
    return int(major), int(minor)


def test_the_daemon_reads_its_maps_after_dropping_capabilities(bench: Bench) -> None:
    """With unprivileged BPF off; in passive mode, since a daemon that drives a runtime keeps all capabilities."""
    metrics = "/run/passive.prom"
    keys = ("workload.enabled=false", "engine.kind=docker", "trial.control_period_s=2", "service.summary_period_s=5")
    done = bench.guest.shell(
        f"""setting=/proc/sys/kernel/unprivileged_bpf_disabled
        echo 2 >$setting || echo 1 >$setting
        cat $setting; rm -f {metrics}
        {_started("passive", *keys, f"metrics.textfile={metrics}", "metrics.listen=127.0.0.1:0")}
        summaries() {{ grep -c kickwatch.summary /run/passive.log; }}
        for second in $(seq 240); do [ -s {metrics} ] && [ $(summaries) -ge 4 ] && break; sleep 1; done
        grep CapPrm /proc/$(systemctl show --property=MainPID --value passive)/status
        cp {metrics} {metrics}.copy; systemctl stop passive; cat /run/passive.log {metrics}.copy
        [ ! -e {metrics} ] || echo "the textfile is still there" """,
        check=False,
        timeout_s=400,
    )
    off, rest = done.output.split("\n", 1)
    assert "still there" not in rest
    assert off in {"1", "2"}
    held = int(rest[rest.index("CapPrm:") :].split()[1], 16)
    log = _records(rest)
    bench.keep("given_up", {"unprivileged_bpf_disabled": off, "held": held, "log": log})
    assert [line for line in log if line["level"] == "error"] == []
    kept = set(_KEPT.values()) | (set() if _release(bench) >= _READ_WITHOUT_SINCE else {_CAP_BPF})
    assert held == sum(1 << bit for bit in kept)
    # A bill with requests was read without the capability, and the controls counted exactly.
    newest = [line for line in log if line["event"] == "kickwatch.summary"][-1]
    assert sum(cell["requests"] for cell in newest["beside"]) > 0
    figures = dict(_FIGURE.findall(rest))
    assert float(figures["kickwatch_control_passed"]) == 1.0
    assert float(figures["kickwatch_refreshes_failed_total"]) == 0.0
    assert float(figures['kickwatch_observer_up{observer="csd"}']) == 1.0


def test_a_cpu_that_is_offline_for_a_moment_voids_the_trial(bench: Bench) -> None:
    """It is online again before the window ends, so the CPUs are the same before and after."""
    bench.one_is_enough("a CPU goes alike on every kernel")
    keys = (
        *("workload.containers_per_trial=2", "trial.window_s=20", "trial.settle_s=3", "trial.interval_s=0"),
        *("trial.canary_memcgs=0", "budget.preset=stress", "metrics.enabled=false"),
    )
    engine = " ".join(ENGINE).replace("--set ", "").split()
    done = bench.guest.shell(
        f"""{_started("flap", *engine, *keys)}
        active() {{ systemctl --quiet is-active flap; }}
        until grep -q trial_finished /run/flap.log || ! active; do sleep 0.2; done
        sleep 8; cpu=/sys/devices/system/cpu/cpu3/online
        echo 0 >$cpu; cat $cpu; echo 1 >$cpu; cat $cpu
        while active && [ $(grep -c 'trial_finished\\|trial_void' /run/flap.log) -lt 3 ]; do sleep 0.5; done
        systemctl stop flap; cat /run/flap.log""",
        check=False,
        timeout_s=600,
    )
    assert done.output.startswith("0\n1\n"), done.output[:200]
    log = _records(done.output)
    trials = [line for line in log if line["event"] in {"kickwatch.trial_finished", "kickwatch.trial_void"}]
    bench.keep("flap", trials)
    outcomes = [(line["event"].removeprefix("kickwatch."), line.get("reason")) for line in trials[:3]]
    assert outcomes == [("trial_finished", None), ("trial_void", "cpus_changed"), ("trial_finished", None)]


def test_cpus_of_an_isolated_partition_are_found_and_forgotten(bench: Bench) -> None:
    bench.once("partitions are the same with more CPUs")
    if bench.wanted == "v1":
        pytest.skip("feature: cgroup v1 has no partitions")
    root, found = "/sys/fs/cgroup", "from kickwatch.node.isolation import isolated_cpus; print(*isolated_cpus())"
    ask = f"/opt/kickwatch/bin/python -c '{found}'"
    done = bench.guest.shell(
        f"""before=$(cat {root}/cgroup.subtree_control); echo +cpuset >{root}/cgroup.subtree_control
        mkdir {root}/shielded; echo 2-3 >{root}/shielded/cpuset.cpus
        {ask}
        echo isolated >{root}/shielded/cpuset.cpus.partition; cat {root}/shielded/cpuset.cpus.partition
        {ask}
        echo member >{root}/shielded/cpuset.cpus.partition; {ask}
        rmdir {root}/shielded
        case $before in *cpuset*) ;; *) echo -cpuset >{root}/cgroup.subtree_control;; esac""",
        check=False,
    )
    before, kind, isolated, after, *_ = done.output.splitlines()
    if kind != "isolated":
        pytest.skip(f"feature: no isolated partitions (6.1): {done.errors.strip()}")
    assert (before, isolated, after) == ("", "2 3", "")


def test_doctor_with_cpus_offline_uses_those_that_are_online(bench: Bench) -> None:
    """CPU 1 offline; then all but CPU 0, where the control is impossible and says why."""
    bench.one_is_enough("doctor reads the same masks on every kernel")
    doctor = f"kickwatch doctor --control --json --set guard.enabled=false {' '.join(ENGINE)}"
    done = bench.guest.shell(
        f"""cpus=/sys/devices/system/cpu
        echo 0 >$cpus/cpu1/online; {doctor} >/run/one.json; echo one $?
        for cpu in $cpus/cpu[2-9] $cpus/cpu1[0-9]; do [ ! -e $cpu/online ] || echo 0 >$cpu/online; done
        cat $cpus/online; {doctor} >/run/all.json; echo all $?
        for cpu in $cpus/cpu[1-9] $cpus/cpu1[0-9]; do [ ! -e $cpu/online ] || echo 1 >$cpu/online; done
        cat /run/one.json; echo ----; cat /run/all.json""",
        timeout_s=600,
    )
    lines, rest = done.output.split("{", 1)
    results = [json.loads(part)["capabilities"] for part in f"{{{rest}".split("----")]
    one, alone = ({item["name"]: item for item in found} for found in results)
    bench.keep("doctor_offline", {"one": one, "alone": alone})
    assert lines.split("\n")[:3] == ["one 0", "0", "all 4"]
    assert one["CPUs for the positive control"]["detail"].startswith("0, 2, 3")
    assert one["positive control"]["satisfied"], one["positive control"]["detail"]
    assert one["a container"]["satisfied"], one["a container"]["detail"]
    assert alone["CPUs for the positive control"]["detail"] == "one CPU is online: there is no other to interrupt"
    assert "Traceback" not in done.output
    assert "usage" not in done.output
