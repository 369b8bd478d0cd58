"""The rungs of the ladders on real kernels: two of each agree over the same events, and the daemon finds its own."""

from typing import Any

import pytest

from lab import rungs_guest as guest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1000)]

WITHIN = 0.02
# Whose calls the test makes itself, with how many at least. What else runs in a guest makes some others.
MADE = {
    "static keys": ("do_sync_core", 200),
    "membarriers": ("ipi_mb", 200),
    "shootdowns": ("flush_tlb_func", 20),
}


def in_guest(series: str, task: str, **options: Any) -> dict[str, Any]:
    if reason := guest.missing():
        pytest.skip(reason)
    if (kernel := guest.image(series)) is None:
        pytest.skip(f"feature: no unpacked kernel {series}")
    told: dict[str, Any] = guest.answer(kernel, task, **options)
    return told


def agree(one: int, other: int) -> bool:
    """Within 2 %, or one apart where both are few: a sample is read while others go on."""
    return abs(one - other) <= max(WITHIN * max(one, other), 1 if max(one, other) < 50 else 0)


@pytest.fixture(scope="module", params=[(2, "1"), (4, "1"), (72, "0.02")], ids=["2cpu", "4cpu", "72cpu"])
def both_rungs(request: pytest.FixtureRequest) -> dict[str, Any]:
    """With 72 CPUs a mask has two words."""
    cpus, share = request.param
    return in_guest("6.12", f"agree {share}", cpus=cpus)


def test_old_verifiers_would_not_tire(both_rungs: dict[str, Any]) -> None:
    """BPF_COMPLEXITY_LIMIT_INSNS was 131072 until "bpf: increase complexity limit and maximum program size" (5.2)."""
    assert all(0 < steps < 131072 for steps in both_rungs["verified"].values())


@pytest.mark.parametrize("step", ["static keys", "membarriers", "memcgs", "shootdowns"])
def test_calls_and_broadcasts_agree_within_2_percent(both_rungs: dict[str, Any], step: str) -> None:
    csd, kprobe = (both_rungs[step][rung]["cells"] for rung in ("csd", "kprobe"))
    for reason in csd.keys() | kprobe.keys():
        for figure in ("calls", "broadcasts"):
            first, second = (cells.get(reason, {}).get(figure, 0) for cells in (csd, kprobe))
            assert agree(first, second), f"{step}: {figure} of {reason}: csd {first}, kprobe {second}"


@pytest.mark.parametrize(("step", "made"), MADE.items())
def test_what_was_made_was_seen_by_both(both_rungs: dict[str, Any], step: str, made: tuple[str, int]) -> None:
    reason, least = made
    for rung in ("csd", "kprobe"):
        assert both_rungs[step][rung]["cells"][reason]["calls"] >= least
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
    assert (seen["kprobe"]["requests"], seen["kprobe"]["calls"]) == (211, 0)


@pytest.mark.parametrize("cpus", [2, 4])
def test_without_the_tracepoint_the_kprobes_pass_the_positive_control(cpus: int) -> None:
    """6.1 has no csd:csd_queue_cpu."""
    told = in_guest("6.1", "control", cpus=cpus)
    assert told["ipis"] == "kprobe"
    assert told["passed"], told["detail"]
    satisfied, detail = told["doctor"]["IPIs by reason"]
    assert satisfied
    assert detail.startswith("kprobes on ")
    assert "smp_call_function_many_cond" in detail
    assert any("csd_queue_cpu" in loss for loss in told["losses"])


def test_before_5_13_and_5_19_kprobes_do_the_whole_work() -> None:
    """5.10: a call with one target calls the single function; no contention tracepoints, an older verifier."""
    told = in_guest("5.10", "control", cpus=2)
    assert (told["ipis"], told["contention"]) == ("kprobe", "kprobe")
    assert told["passed"], told["detail"]
    assert told["slab_mutex"]


def test_with_the_tracepoint_it_is_the_first_choice() -> None:
    told = in_guest("6.12", "control")
    assert (told["ipis"], told["contention"], told["losses"]) == ("csd", "tracepoint", [])
    assert told["passed"], told["detail"]


def test_kprobes_asked_for_are_used_where_the_tracepoints_are() -> None:
    asked = "KICKWATCH_RUNG_IPIS=kprobe KICKWATCH_RUNG_CONTENTION=kprobe"
    told = in_guest("6.12", "control", environment=asked)
    assert (told["ipis"], told["contention"]) == ("kprobe", "kprobe")
    assert told["passed"], told["detail"]
    assert told["slab_mutex"]


@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_both_rungs_time_the_same_waits(series: str) -> None:
    """Waits for slab_mutex among readers of /proc/slabinfo.

    A function is entered before its first tracepoint and left after its last: kprobes time a little more, and in a
    guest, whose CPUs take turns, the rest of a slice now and then.
    """
    told = in_guest(series, "waits")
    tracepoint, kprobe = told["tracepoint"], told["kprobe"]
    assert tracepoint["waits"] >= 5
    assert agree(tracepoint["waits"], kprobe["waits"])
    assert kprobe["by"] == tracepoint["by"]
    assert kprobe["stack"] == tracepoint["stack"]
    assert kprobe["health"] == [0, 0, 0, 0]
    assert 0.9 < kprobe["wait_ms"] / tracepoint["wait_ms"] < 5
