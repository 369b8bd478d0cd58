"""The attribution tables against recordings of real kernels, whose figures are known."""

import json
from collections import Counter
from functools import cache
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import pytest

from kickwatch.attribution.attribute import Attribution, attribute
from kickwatch.attribution.reasons import BUSY_FUNCS, mask_follows_task
from kickwatch.attribution.stacks import is_slab_mutex_stack, top_of_stack
from kickwatch.model import CREATION_ORIGINS, Origin, Path
from recorded_stacks import attribute_stack, is_multi_cpu

CAPTURES = FilePath(__file__).parents[2] / "fixtures" / "captures"
CONTAINERS = 20
MEMCGS = 100


class Seen(NamedTuple):
    """One row of a recording, attributed."""

    attribution: Attribution
    count: int
    multi_cpu: bool
    stack: list[str]

    @property
    def creation_path(self) -> bool:
        return self.attribution.path is Path.CREATE and self.attribution.origin in CREATION_ORIGINS


@cache
def windows(file: str) -> list[dict[str, Any]]:
    """All windows of a recording, in order."""
    found: list[dict[str, Any]] = json.loads((CAPTURES / f"{file}.json").read_text())["windows"]
    return found


def calls(file: str, start: str) -> list[Seen]:
    """The multi-CPU calls of one window of 4.19: each goes to all other CPUs, so each is a broadcast."""
    (recorded,) = [window for window in windows(file) if window["window"].startswith(start)]
    rows = recorded.get("calls") or recorded.get("multi_cpu_calls") or []
    return [Seen(attribute_stack(row["stack"]), row.get("calls", row.get("count")), True, row["stack"]) for row in rows]


def requests(index: int) -> list[Seen]:
    """The requests of one window of 6.18 as the probe counts them: busy functions without a stack."""
    return [
        Seen(
            attribute(row["func"], () if row["func"] in BUSY_FUNCS else row["stack"]),
            row["requests"],
            is_multi_cpu(row["stack"]),
            row["stack"],
        )
        for row in windows("6.18-slub-docker")[index]["requests"]
    ]


def total(rows: list[Seen], **wanted: object) -> int:
    """Sum of the rows with these values in their attribution."""
    return sum(
        row.count for row in rows if all(getattr(row.attribution, name) == value for name, value in wanted.items())
    )


def creation_broadcasts(rows: list[Seen]) -> Counter[Attribution]:
    """Broadcasts of the creation path, by attribution."""
    found: Counter[Attribution] = Counter()
    for row in rows:
        if row.multi_cpu and row.creation_path and not mask_follows_task(row.attribution.reason):
            found[row.attribution] += row.count
    return found


QUIET, NETWORK_NONE, NETWORK_BRIDGE, KMEM_TCP, SLABINFO = range(5)
each_window = pytest.mark.parametrize("index", range(5))


def test_the_patched_loop_makes_no_calls() -> None:
    assert calls("4.19-slab-patched", "loop") == []


def test_the_patched_removal_makes_503_calls_of_slab_on_destroy() -> None:
    rows = calls("4.19-slab-patched", "rmdir")
    assert [(row.attribution, row.count) for row in rows] == [(Attribution("do_drain", Origin.SLAB, Path.DESTROY), 503)]
    assert top_of_stack(rows[0].stack) == "__kmem_cache_shrink"
    assert not creation_broadcasts(rows)


def test_the_unpatched_loop_is_the_fault_of_2017() -> None:
    found = creation_broadcasts(calls("4.19-slab-unpatched", "loop"))
    assert found == {Attribution("kick_all_cpus_sync", Origin.SLAB, Path.CREATE): 502}
    assert found.total() / MEMCGS == pytest.approx(5, abs=0.1)


def test_the_unpatched_removal_is_destroy_alone() -> None:
    rows = calls("4.19-slab-unpatched", "rmdir")
    assert total(rows, origin=Origin.SLAB, path=Path.DESTROY) == 506 + 475
    assert not creation_broadcasts(rows)


@pytest.mark.parametrize("file", ["4.19-slab-patched", "4.19-slab-unpatched"])
def test_the_first_memcg_of_a_boot_flips_a_key_of_memcg(file: str) -> None:
    rows = calls(file, "warm")
    assert total(rows, reason="do_sync_core", origin=Origin.MEMCG, path=Path.CREATE) == 66
    assert calls(file, "idle") == []


def test_docker_on_the_patched_kernel_has_no_creation_broadcasts() -> None:
    rows = calls("4.19-slab-docker-patched", "churn")
    assert not creation_broadcasts(rows)
    assert round(total(rows, origin=Origin.SLAB, path=Path.DESTROY) / CONTAINERS) == 58


def test_docker_on_the_unpatched_kernel_broadcasts_32_times_per_container() -> None:
    found = creation_broadcasts(calls("4.19-slab-docker-unpatched", "churn"))
    assert found == {Attribution("kick_all_cpus_sync", Origin.SLAB, Path.CREATE): 32 * CONTAINERS}


@pytest.mark.parametrize("file", ["4.19-slab-docker-patched", "4.19-slab-docker-unpatched"])
def test_the_jit_of_seccomp_filters_is_bpf_and_so_is_its_purge(file: str) -> None:
    rows = calls(file, "churn")
    assert total(rows, origin=Origin.BPF) / CONTAINERS == pytest.approx(4, abs=0.2)
    purges = [
        row.count for row in rows if "__purge_vmap_area_lazy" in row.stack and row.attribution.origin is Origin.BPF
    ]
    assert purges == [2 * CONTAINERS]
    assert total(rows, origin=Origin.VMALLOC) == total(rows, origin=Origin.UNKNOWN) == 0


@pytest.mark.parametrize("file", ["4.19-slab-docker-patched", "4.19-slab-docker-unpatched"])
def test_all_single_requests_of_docker_are_named(file: str) -> None:
    named = Counter[tuple[str, Origin]]()
    for row in windows(file)[0]["single_cpu_requests"]:
        attribution = attribute_stack(row["stack"])
        named[attribution.reason, attribution.origin] += row["count"]
    assert set(named) == {
        ("flush_tlb_func", Origin.MM_USER),
        ("rcu_exp_handler", Origin.RCU),
        ("rcu_barrier_handler", Origin.RCU),
        ("remote_function", Origin.PERF),
    }
    assert named["remote_function", Origin.PERF] == CONTAINERS


def test_the_kmem_tcp_limit_costs_three_calls_per_container() -> None:
    rows = requests(KMEM_TCP)
    created = Attribution("do_sync_core", Origin.MEMCG, Path.CREATE)
    assert creation_broadcasts(rows) == {created: 3 * CONTAINERS}
    assert {top_of_stack(row.stack) for row in rows if row.attribution == created} == {"mem_cgroup_write"}


def test_the_kmem_tcp_key_flips_back_on_destroy() -> None:
    removed = [row for row in requests(KMEM_TCP) if row.attribution.path is Path.DESTROY]
    assert {(row.attribution.reason, row.attribution.origin) for row in removed} == {("do_sync_core", Origin.MEMCG)}
    assert {top_of_stack(row.stack) for row in removed} == {"mem_cgroup_css_free"}
    assert sum(row.count for row in removed) == 3 * (CONTAINERS - 1)  # the last memcg was not free yet


@pytest.mark.parametrize("index", [QUIET, NETWORK_NONE, NETWORK_BRIDGE, SLABINFO])
def test_a_healthy_6_18_has_no_creation_broadcasts(index: int) -> None:
    rows = requests(index)
    assert rows
    assert not creation_broadcasts(rows)


@each_window
def test_the_recorder_sends_63_requests_of_tracing(index: int) -> None:
    assert total(requests(index), reason="do_sync_core", origin=Origin.TRACING, path=Path.OTHER) == 63


@each_window
def test_rcu_is_other_and_makes_no_multi_cpu_call(index: int) -> None:
    rcu = [row for row in requests(index) if row.attribution.reason in {"rcu_exp_handler", "rcu_barrier_handler"}]
    assert {(row.attribution.origin, row.attribution.path) for row in rcu} <= {(Origin.RCU, Path.OTHER)}
    assert not any(row.multi_cpu for row in rcu)


def test_all_expedited_rcu_of_the_bridge_network_is_counted() -> None:
    assert total(requests(NETWORK_BRIDGE), reason="rcu_exp_handler", origin=Origin.RCU, path=Path.OTHER) == 526
    assert total(requests(NETWORK_BRIDGE), reason="rcu_barrier_handler", origin=Origin.RCU, path=Path.OTHER) == 72


@each_window
def test_unknown_origins_are_rare_and_no_call_has_one(index: int) -> None:
    rows = requests(index)
    unknown = [row for row in rows if row.attribution.origin is Origin.UNKNOWN]
    assert sum(row.count for row in unknown) < 0.05 * sum(row.count for row in rows)
    assert not any(row.multi_cpu for row in unknown)


def test_an_interrupt_in_a_spin_wait_is_not_a_multi_cpu_call() -> None:
    """Five remote wakeups have smp_call_function_many_cond in their stacks, beyond the interrupt that sent them."""
    broken_into = [
        row
        for index in range(5)
        for row in requests(index)
        if not row.multi_cpu and any(frame.startswith("smp_call_function_many_cond") for frame in row.stack)
    ]
    assert sum(row.count for row in broken_into) == 5
    assert {row.attribution.reason for row in broken_into} == {"sched_ttwu_pending"}


def test_waits_for_slab_mutex_are_recognised_by_stack() -> None:
    waits = windows("6.18-slub-docker")[SLABINFO]["mutex_waits"]
    found = [row for row in waits if is_slab_mutex_stack(row["stack"])]
    assert sum(row["waits"] for row in found) == 2927
    assert len({row["lock"] for row in found}) == 1
    named = {attribute("", row["stack"]) for row in found}
    assert {(attribution.origin, attribution.path) for attribution in named} == {(Origin.SLAB, Path.OTHER)}
    assert {top_of_stack(row["stack"]) for row in found} == {"slab_start"}


def test_no_other_mutex_is_taken_for_slab_mutex() -> None:
    others = [row for recorded in windows("6.18-slub-docker")[:SLABINFO] for row in recorded["mutex_waits"]]
    assert len(others) > 90
    assert not any(is_slab_mutex_stack(row["stack"]) for row in others)
