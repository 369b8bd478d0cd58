"""kickwatch on Debian's kernels: what it can observe, what a healthy container costs, and real faults."""

import json
import re
from collections.abc import Iterator
from typing import Any

import fault_module
import pytest
from bench import ENGINE, KICK, Bench
from daemon_unit import records, start

pytestmark = [pytest.mark.lab, pytest.mark.timeout(2400)]

QUIET, BROADCASTING, UNKNOWN = 0, 3, 4
LONG = "takes ten minutes"
_COUNTED = re.compile(r"counted [1-9]\d* of (\d+ to )?[1-9]\d* multi-CPU calls, [1-9]\d* of (\d+ to )?[1-9]\d* single")
# Half the time of pairs. What names a fault on the creation path, or waits, are stacks and not the pairs.
WHOLE = ("--set", "trial.design=whole")


@pytest.fixture
def faulty(bench: Bench) -> Iterator[Bench]:
    """The bench with the fault module loaded and all faults off, before and after the test."""
    fault_module.load(bench.guest, bench.module)
    yield bench
    fault_module.switch(bench.guest)


def test_the_guest_has_the_requested_kernel_and_cgroups(bench: Bench) -> None:
    assert bench.guest.out("uname", "-r") == bench.guest.machine.boot.kernel.release
    assert int(bench.guest.out("nproc")) == bench.guest.machine.cpus
    controllers = bench.guest.out("cat", "/proc/self/cgroup")
    assert (":memory:" in controllers) is (bench.wanted == "v1")


def test_doctor_reports_what_this_kernel_supports(bench: Bench) -> None:
    done = bench.guest.run("kickwatch", "doctor", "--control", "--json", check=False, timeout_s=900)
    result = json.loads(done.output)
    bench.keep("doctor", result)
    capabilities = {one["name"]: one for one in result["capabilities"]}
    assert capabilities["memory cgroups"]["detail"].startswith(f"cgroup {bench.wanted}")
    assert capabilities["container engine"]["satisfied"]
    assert capabilities["lock contention"]["satisfied"]
    assert done.status == 0, done.output
    if bench.ipi_rung == "kprobe":
        assert capabilities["IPIs by reason"]["detail"].startswith("kprobes on ")
    if bench.contention_rung == "kprobe":
        assert capabilities["lock contention"]["detail"].startswith("kprobes on ")
    # A guest that gets little time makes fewer calls, or some that it is not sure of: "23 of 22 to 23".
    assert capabilities["positive control"]["satisfied"]
    assert _COUNTED.match(capabilities["positive control"]["detail"]), capabilities["positive control"]
    assert capabilities["slab_mutex"]["satisfied"]
    probed = (bench.ipi_rung, bench.contention_rung) != ("csd", "tracepoint")
    assert ("tracepoints" in capabilities) == probed


def test_healthy_containers_are_quiet(bench: Bench) -> None:
    enabled_before = _subtree_control(bench)
    result = bench.trial("healthy", containers=bench.containers)
    assert _subtree_control(bench) <= enabled_before | {"memory"}
    assert result["containers"] == bench.containers
    assert result["kmem_accounting"] == "on"
    assert result["failures"] == []
    assert (result["observers"]["ipis"], result["observers"]["contention"]) == (bench.ipi_rung, bench.contention_rung)
    assert result["status"] == QUIET, (result["verdict"], result["reasons"])
    assert result["per_container"]["creation_path_broadcasts"] == 0
    assert result["canary"]["creation_path_broadcasts_per_memcg"] == 0
    assert result["overhead"]["lost_events"] <= sum(cell["requests"] for cell in result["bill"]) // 100


def test_healthy_containers_of_runc_are_quiet(bench: Bench) -> None:
    """runc loads more BPF programs than crun; before 5.18 each broadcasts, which is normal for those kernels."""
    bench.once("a runtime loads the same programs with more CPUs")
    result = bench.trial("healthy_runc", *WHOLE, "--set", "engine.runtime=runc", containers=bench.containers)
    assert result["engine"].startswith("oci runc ")
    assert (result["containers"], result["failures"]) == (bench.containers, [])
    assert result["status"] == QUIET, (result["verdict"], result["reasons"])


def test_readers_of_slabinfo_wait_and_are_named(bench: Bench) -> None:
    bench.once("contention needs two CPUs")
    # Each read holds the mutex for its whole walk, which is short on 5.10, so there are ten in a row. The pause gives
    # others time on the one thread that runs all CPUs.
    reader = f"while :; do cat {' '.join(['/proc/slabinfo'] * 10)} >/dev/null; sleep 0.2; done"
    bench.guest.shell(f"for n in 1 2 3; do systemd-run --quiet --unit=reader$n sh -c '{reader}'; done")
    try:
        result = bench.trial("slabinfo", *WHOLE, "--set", "trial.canary_memcgs=0", containers=4)
    finally:
        bench.guest.shell("systemctl stop 'reader*'")
    assert sum(wait["waits"] for wait in result["waits"]) > 0
    assert "slab_start" in {wait["waiter"] for wait in result["waits"]}
    assert "cat" in {wait["holder"] for wait in result["waits"]}


def test_a_broadcast_by_the_creating_task_is_named(faulty: Bench) -> None:
    result, counted = _with_fault(faulty, "kick", *WHOLE, kick=1)
    assert counted["kicked"] == counted["memcgs"] >= 112
    assert result["status"] == BROADCASTING, (result["verdict"], result["reasons"])
    (cell,) = _kicks(result)
    assert (cell["origin"], cell["path"]) == ("cgroup", "create")
    assert cell["broadcasts"] == cell["calls"] >= 12
    assert cell["requests"] == cell["calls"] * (faulty.guest.machine.cpus - 1)
    assert "kickfault_css_online" in cell["stack"]
    assert "cgroup_mkdir" in cell["stack"]
    (alert,) = [line for line in result["log"] if line["event"] == "kickwatch.broadcast_detected"]
    assert (alert["reason"], alert["origin"]) == ("kick_all_cpus_sync", "cgroup")


def test_a_broadcast_by_a_worker_has_no_origin_and_is_convicted_by_the_pairs(faulty: Bench) -> None:
    """No stack names the creation path. 20 pairs are enough unless lives outlast their halves, as in a slow guest."""
    result, counted = _with_fault(faulty, "worker", "--until-decided", containers=23, worker=1)
    containers = result["evidence"]["containers"]
    assert counted["kicked_by_worker"] == counted["memcgs"] >= 100 + containers
    assert (result["status"], result["reasons"]) == (BROADCASTING, ["broadcasts_elsewhere"]), result["pairs"]
    assert result["per_container"]["creation_path_broadcasts"] == 0
    (alert,) = [line for line in result["log"] if line["event"].endswith("_detected")]
    assert (alert["event"], alert["reason"]) == ("kickwatch.elsewhere_detected", "kick_all_cpus_sync")
    kicks = [one for one in result["evidence"]["beside"] if one["reason"] == KICK]
    (named,) = [one for one in kicks if one["heard_as"] != "bpf"]  # as it is on arm64
    assert named["heard_as"] == "elsewhere"
    assert 0.5 < named["broadcasts_per_container"] < 1.1  # one that is late lies in a half without a container
    (cell,) = _kicks(result)
    assert (cell["origin"], cell["path"]) == ("unknown", "other")
    # A life outlasts its half, and a worker is a little later.
    assert cell["broadcasts"] == cell["calls"] >= 0.5 * result["containers"]
    assert "kickfault_work" in cell["stack"]
    assert "broadcasts_elsewhere" in result["findings"]


def test_a_static_key_flipped_by_the_creating_task_is_named(faulty: Bench) -> None:
    faulty.needs_keys()
    result, counted = _with_fault(faulty, "key", *WHOLE, key=1)
    assert counted["keys_flipped"] == counted["memcgs"] >= 112
    assert result["status"] == BROADCASTING, (result["verdict"], result["reasons"])
    kind = (faulty.patching, "cgroup", "create")
    (cell,) = [cell for cell in result["bill"] if (cell["reason"], cell["origin"], cell["path"]) == kind]
    assert cell["broadcasts"] >= 2 * 12


def test_counters_alone_show_a_fault_but_do_not_convict(faulty: Bench) -> None:
    """Without a probe one trial does not convict, but the canary shows every interrupt."""
    faulty.once("counters are the same with more CPUs")
    result, _ = _with_fault(faulty, "kick_by_counters", *WHOLE, kick=1, KICKWATCH_RUNG_IPIS="counters")
    reasons = ["blind", "counters_include_wakeups"] if faulty.counts_wakeups else ["blind"]
    assert (result["status"], result["reasons"]) == (UNKNOWN, reasons)
    assert result["canary"]["cal_minus_tlb_per_memcg"] >= 0.9 * (faulty.guest.machine.cpus - 1)


def test_caches_for_each_memory_cgroup_contend_for_slab_mutex(faulty: Bench) -> None:
    result, counted = _with_fault(faulty, "caches", "--strict", *WHOLE, caches=4)
    assert counted["caches_made"] == 4 * counted["memcgs"]
    assert result["per_container"]["slab_mutex_waits"] > 0.5
    assert "slab_mutex_contention" in result["findings"]
    assert {wait["origin"] for wait in result["waits"]} == {"slab"}
    assert result["kmem_accounting"] == "on"  # although memory.stat of most of these containers is still 0 since 6.16


def test_the_kmem_tcp_limit_flips_a_key_on_v1(bench: Bench) -> None:
    if bench.wanted != "v1":
        pytest.skip("feature: memory.kmem.tcp.limit_in_bytes exists only on cgroup v1")
    result = bench.trial("kmem_tcp", *WHOLE, "--set", "workload.kmem_tcp_limit_bytes=33554432")
    assert result["status"] == BROADCASTING


def test_a_worker_is_convicted_within_40_containers_each_time(faulty: Bench) -> None:
    faulty.on_request(LONG)
    runs = [_with_fault(faulty, f"worker_{run}", "--until-decided", containers=23, worker=1)[0] for run in range(10)]
    containers = [run["evidence"]["containers"] for run in runs]
    faulty.keep("worker_runs", [(run["status"], count) for run, count in zip(runs, containers, strict=True)])
    assert {(run["status"], *run["reasons"]) for run in runs} == {(BROADCASTING, "broadcasts_elsewhere")}
    assert max(containers) <= 40, containers


@pytest.mark.timeout(3300)
def test_200_healthy_containers_are_quiet(bench: Bench) -> None:
    bench.on_request(LONG)
    result = bench.trial("healthy_200", containers=200)
    assert (result["status"], result["findings"]) == (QUIET, []), (result["verdict"], result["reasons"])
    assert not [line for line in result["log"] if line["event"].endswith(("_detected", "_broken"))]


def test_the_daemon_convicts_a_worker_without_stacks(faulty: Bench) -> None:
    """No stack explains it, so halves with a container must win the coin toss about 36 times: in two paired trials.

    At the default pace, on which the threshold rests. The hour then has no third trial.
    """
    faulty.on_request(LONG)
    fault_module.switch(faulty.guest, worker=1)
    # Stop at the first alarm.
    done = faulty.guest.shell(
        f"""{start(60, "workload.containers_per_trial=23", "budget.containers_per_hour=60")}
        for second in $(seq 400); do
            grep -q elsewhere_detected /run/watch.log && break; systemctl --quiet is-active watch || break; sleep 1
        done; systemctl stop watch; cat /run/watch.log""",
        check=False,
        timeout_s=1500,
    )
    fault_module.switch(faulty.guest)
    log = records(done.output)
    events = [line["event"] for line in log]
    alarms = [line for line in log if line["event"].endswith("_detected")]
    finished = [line for line in log if line["event"] == "kickwatch.trial_finished"]
    trials = len(finished)
    faulty.keep(
        "daemon",
        {
            "trials": trials,
            "took_s": done.took_s,
            "alarms": alarms,
            "void": events.count("kickwatch.trial_void"),
            "reasons": [line["reasons"] for line in finished],
        },
    )
    assert [alarm["event"] for alarm in alarms] == ["kickwatch.elsewhere_detected"], done.output[-3000:]
    assert {line["verdict"] for line in finished} == {"unknown"}
    # From the start, except that khugepaged broadcasts just after boot.
    named = [line["reasons"] == ["broadcasts_elsewhere"] for line in finished]
    assert any(named[:3])
    assert all(named[named.index(True) :])
    assert trials == 2


def test_cpu_hotplug_voids_a_trial_and_the_daemon_continues(bench: Bench) -> None:
    bench.one_is_enough("a CPU goes alike on every kernel")
    done = bench.guest.shell(
        f"""{start(1000)}
        active() {{ systemctl --quiet is-active watch; }}
        until grep -q trial_finished /run/watch.log || ! active; do sleep 0.5; done
        cpu=/sys/devices/system/cpu/cpu3/online
        while active && ! grep -q trial_void /run/watch.log; do
            echo 0 >$cpu; sleep 2; echo 1 >$cpu; sleep 1
        done
        while active && ! sed '1,/trial_void/d' /run/watch.log | grep -q trial_finished; do sleep 0.5; done
        systemctl stop watch; cat /run/watch.log""",
        check=False,
        timeout_s=600,
    )
    log = records(done.output)
    events = [line["event"].removeprefix("kickwatch.") for line in log]
    bench.keep("hotplug", {"events": events, "void": [line for line in log if line["event"] == "kickwatch.trial_void"]})
    assert events[-1] == "stopped"
    assert "trial_finished" in events[events.index("trial_void") :]
    assert not {"trial_failed", "broadcast_detected", "observer_blind"} & set(events)


def test_controllers_enabled_by_a_killed_run_are_disabled_by_the_next(bench: Bench) -> None:
    """Controllers that another cgroup uses by then stay enabled."""
    bench.once("one kill is enough")
    if bench.wanted == "v1":
        pytest.skip("feature: cgroup v1 has no cgroup.subtree_control")
    enabled_before = _subtree_control(bench)
    used = "/sys/fs/cgroup/others/cpuset.cpus"
    short = ("--set", "trial.window_s=0.5")
    trial = " ".join(("kickwatch", "trial", *ENGINE, *short, "--containers", "60"))
    bench.guest.shell(
        f"""mkdir /sys/fs/cgroup/others; systemd-run --quiet --collect --unit=victim /usr/local/bin/{trial}
        # A controller is listed a moment before its files exist.
        until echo 0 >{used}; do sleep 0.1; done 2>/dev/null
        systemctl kill --signal=KILL victim; while systemctl --quiet is-active victim; do sleep 0.1; done"""
    )
    on = _subtree_control(bench) - enabled_before - {"memory"}
    assert on > {"cpuset"}
    assert bench.guest.out("cat", used) == "0"  # it really uses the controller: a lost write would look like a fault
    bench.trial("after_a_kill", *short, containers=1)
    left = _subtree_control(bench) - enabled_before - {"memory"}
    setting = bench.guest.shell(f"cat {used}", check=False).output.strip()
    bench.guest.shell("rmdir /sys/fs/cgroup/others; echo -cpuset >/sys/fs/cgroup/cgroup.subtree_control")
    assert (left, setting) == ({"cpuset"}, "0")


def _kicks(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells of kick_all_cpus_sync, without those of arm64's BPF programs."""
    return [cell for cell in result["bill"] if cell["reason"] == KICK and cell["origin"] != "bpf"]


def _subtree_control(bench: Bench) -> set[str]:
    """The controllers that cgroup v2's root enables for its children; none on v1. crun enables all."""
    return set(bench.guest.shell("cat /sys/fs/cgroup/cgroup.subtree_control", check=False).output.split())


def _with_fault(
    bench: Bench, name: str, *arguments: str, containers: int = 12, **settings: Any
) -> tuple[dict[str, Any], dict[str, int]]:
    """A trial with a fault: kickwatch's result, and the module's counters, with warm-up and canary included.

    `settings`: faults in lower case, environment variables in upper case.
    """
    environment = {key: value for key, value in settings.items() if key.isupper()}
    fault_module.switch(bench.guest, **{key: value for key, value in settings.items() if not key.isupper()})
    before = fault_module.counts(bench.guest)
    result = bench.trial(name, *arguments, containers=containers, **environment)
    fault_module.switch(bench.guest)
    counted = {count: value - before[count] for count, value in fault_module.counts(bench.guest).items()}
    bench.keep(f"{name}_did", counted)
    return result, counted
