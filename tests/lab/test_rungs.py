"""The rungs of the ladders on real kernels: two of each agree over the same events, and the daemon finds its own."""

from dataclasses import replace
from typing import Any

import pytest
from bench import Bench
from guest import booted

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]

WITHIN = 0.02
# Whose calls the test makes itself, with how many at least. What else runs in a guest makes some others.
MADE = {"static keys": "do_sync_core", "membarriers": "ipi_mb", "shootdowns": "flush_tlb_func"}
MANY_CPUS = 32  # take long in a guest, whose CPUs share a thread


def agree(one: int, other: int) -> bool:
    """Within 2 %, or one apart where both are few: a sample is read while others go on."""
    return abs(one - other) <= max(WITHIN * max(one, other), 1 if max(one, other) < 50 else 0)


@pytest.fixture
def both_rungs(bench: Bench) -> dict[str, Any]:
    """What each of the two counted over the same events; asked of a machine once."""
    if bench.ipi_rung != "csd":
        pytest.skip("feature: no csd:csd_queue_cpu (6.5) to compare with")
    if "agree" not in bench.asked:
        bench.asked["agree"] = bench.inside("agree", "0.02" if bench.guest.machine.cpus > MANY_CPUS else "1")
    return bench.asked["agree"]


def test_old_verifiers_would_not_tire(both_rungs: dict[str, Any]) -> None:
    """BPF_COMPLEXITY_LIMIT_INSNS was 131072 until "bpf: increase complexity limit and maximum program size" (5.2)."""
    assert all(0 < steps < 131072 for steps in both_rungs["verified"].values())


@pytest.mark.parametrize("step", ["static keys", "membarriers", "memcgs", "shootdowns"])
def test_calls_and_broadcasts_agree_within_2_percent(both_rungs: dict[str, Any], step: str) -> None:
    csd, kprobe = (both_rungs[step][rung]["cells"] for rung in ("csd", "kprobe"))
    for reason in csd.keys() | kprobe.keys():
        for figure in ("calls", "broadcasts"):
            first, second = (cells.get(reason, {}).get(figure, 0) for cells in (csd, kprobe))
            told = f"{step}: {figure} of {reason}: csd {first}, kprobe {second}"
            # The tracepoint sees requests, not calls: two shootdowns in a row, the second of a higher CPU, are one to
            # it. No other multi-CPU call goes to single CPUs again and again, and a shootdown is never a broadcast.
            merged = (reason, figure) == ("flush_tlb_func", "calls") and first <= second
            assert agree(first, second) or merged, told


@pytest.mark.parametrize(("step", "reason"), MADE.items())
def test_what_was_made_was_seen_by_both(both_rungs: dict[str, Any], step: str, reason: str) -> None:
    for rung in ("csd", "kprobe"):
        assert both_rungs[step][rung]["cells"][reason]["calls"] >= both_rungs["made"][step]
        assert both_rungs[step][rung]["health"] == [0, 0, 0, 0]


def test_origin_and_path_are_the_same(both_rungs: dict[str, Any]) -> None:
    """Kprobe stacks begin elsewhere than a tracepoint's; what they tell is the same."""
    for step in ("static keys", "memcgs"):
        csd, kprobe = (
            both_rungs[step][rung]["cells"].get("do_sync_core", {}).get("by", {}) for rung in ("csd", "kprobe")
        )
        assert csd == kprobe


def test_single_requests_are_counted_by_both(both_rungs: dict[str, Any]) -> None:
    seen = {rung: both_rungs["membarriers"][rung]["cells"].get("ipi_rseq") for rung in ("csd", "kprobe")}
    assert seen["csd"] == seen["kprobe"]
    assert seen["kprobe"] is not None
    assert (seen["kprobe"]["requests"], seen["kprobe"]["calls"]) == (both_rungs["made"]["singles"], 0)


@pytest.mark.parametrize("rung", ["best", "kprobe"])
def test_a_broadcast_is_one_with_a_cpu_offline_too(bench: Bench, rung: str) -> None:
    """do_sync_core goes to every other CPU that is online; counted by a probe that was told how many there are."""
    environment = {} if rung == "best" else {"KICKWATCH_RUNG_IPIS": rung}
    cpus = bench.guest.machine.cpus
    share = "0.02" if cpus > MANY_CPUS else "0.2"
    found = bench.inside("scale", share, **environment)["cpus"]
    assert sorted(map(int, found)) == ([cpus - 1, cpus] if cpus > 2 else [cpus])
    for online, told in found.items():
        assert told["broadcasts"] == told["calls"] > 0
        assert told["requests"] == told["calls"] * (int(online) - 1)


def test_isolated_cpus_are_hit_by_broadcasts_and_spared_by_the_control(bench: Bench) -> None:
    """isolcpus= takes CPUs from the scheduler, not from on_each_cpu(): a broadcast is what it always is."""
    machine = bench.guest.machine
    if machine.cpus != 4 or bench.ipi_rung != "csd":
        pytest.skip("feature: one more boot, for 4 CPUs of the newer kernels alone")
    with booted(replace(machine, words=("isolcpus=2-3",))) as guest:
        isolated = Bench(guest, bench.wanted, bench.module)
        told = isolated.inside("control")
        assert told["passed"], told["detail"]
        assert told["cpus"] == [0, 1]
        found = isolated.inside("scale", "0.2")["cpus"]["4"]
        assert found["requests"] == 3 * found["calls"] == 3 * found["broadcasts"] > 0


def test_the_daemon_takes_the_best_rung_and_proves_it(bench: Bench) -> None:
    told = bench.inside("control")
    assert (told["ipis"], told["contention"]) == (bench.ipi_rung, bench.contention_rung)
    assert told["passed"], told["detail"]
    assert told["slab_mutex"]
    if bench.ipi_rung == "kprobe":
        assert any("csd_queue_cpu" in loss for loss in told["losses"])
    if bench.contention_rung == "kprobe":
        assert any("contention_" in loss for loss in told["losses"])
    assert len(told["losses"]) == (bench.ipi_rung, bench.contention_rung).count("kprobe")


def test_kprobes_asked_for_do_the_whole_work(bench: Bench) -> None:
    """As on kernels before 5.19, which have neither tracepoint."""
    bench.once("the control takes as many CPUs as it needs")
    told = bench.inside("control", KICKWATCH_RUNG_IPIS="kprobe", KICKWATCH_RUNG_CONTENTION="kprobe")
    assert (told["ipis"], told["contention"]) == ("kprobe", "kprobe")
    assert told["passed"], told["detail"]
    assert told["slab_mutex"]


def test_both_rungs_time_the_same_waits(bench: Bench) -> None:
    """Waits for slab_mutex among readers of /proc/slabinfo.

    A function is entered before its first tracepoint and left after its last: kprobes time a little more, and in a
    guest, whose CPUs take turns, the rest of a slice now and then.
    """
    bench.once("readers of slabinfo take minutes where CPUs share a thread")
    if bench.contention_rung != "tracepoint":
        pytest.skip("feature: no lock:contention_begin (5.19) to compare with")
    told = bench.inside("waits")
    tracepoint, kprobe = told["tracepoint"], told["kprobe"]
    assert tracepoint["waits"] >= 5
    assert agree(tracepoint["waits"], kprobe["waits"])
    assert kprobe["by"] == tracepoint["by"]
    assert kprobe["stack"] == tracepoint["stack"]
    assert kprobe["health"] == [0, 0, 0, 0]
    assert 0.9 < kprobe["wait_ms"] / tracepoint["wait_ms"] < 5
