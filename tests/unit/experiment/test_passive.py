"""The bill in passive mode: a figure that was not observed is unknown, not zero; what the count knows, and why not."""

import asyncio
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from builders import TLB, kick, trial, wait, window
from fake_others import ObservedOthers
from kickwatch.configuration.types import Config, ServiceConfig
from kickwatch.experiment import passive as module
from kickwatch.experiment.passive import Passive
from kickwatch.model import Control, Look, Trial
from kickwatch.workload.names import OWN_CGROUPS

WAITS = ("slab_mutex_waits", "slab_mutex_wait_ms", "slab_mutex_longest_ms")
KICKED = "kick_all_cpus_sync"


def watching(observed: ObservedOthers, *, control: bool = True, steps: list[str] | None = None) -> Passive:
    armed: Any = SimpleNamespace(observatory=observed, control=Control(passed=control, detail="made up"))
    config = replace(Config(), service=ServiceConfig(summary_period_s=1.0))
    return Passive(config, armed, (steps if steps is not None else []).append)


def summary_of(passive: Passive) -> dict[str, Any]:
    """The summary, which is due."""
    fields = passive.summary_if_due(1.0)
    assert fields is not None
    return fields


async def summary(
    observed: ObservedOthers, *, control: bool = True, lost: int = 0, strangers: int = 0
) -> dict[str, Any]:
    """The summary after all its windows, in which two containers were started."""
    passive = watching(observed, control=control)
    try:
        while observed.windows:
            await passive.look()
            observed.probe.started["docker"] = 2
            observed.probe.lost, observed.probe.strangers = lost, strangers
    finally:
        await passive.aclose()
    return summary_of(passive)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look is late enough to cut."""
    monkeypatch.setattr(module, "LEAST_LOOK_S", 0.0)


async def test_the_bill_has_what_the_probes_saw() -> None:
    fields = await summary(ObservedOthers(window("passive", TLB, kick(4), waits=(wait(3),))))
    assert fields["creation_path_broadcasts_per_container"] == 2.0
    assert {row["reason"] for row in fields["bill"]} == {"flush_tlb_func", KICKED}
    assert [fields[key] for key in WAITS] == [3, 18.0, 9.0]
    without = await summary(ObservedOthers(window("passive", TLB)))
    assert [without[key] for key in WAITS] == [0, 0.0, 0.0]
    assert without["creation_path_broadcasts_per_container"] == 0.0


async def test_the_bill_is_of_the_containers_and_says_that_it_is_a_lower_bound() -> None:
    """The creation path of any task is theirs; other tasks' TLB shootdowns went on beside them."""
    fields = await summary(ObservedOthers(window("passive", TLB, kick(4)), own=()))
    assert [row["reason"] for row in fields["bill"]] == [KICKED]
    assert [row["reason"] for row in fields["beside"]] == ["flush_tlb_func"]
    assert fields["bill_is"].startswith("a lower bound")


async def test_the_count_is_by_engine_and_needs_none() -> None:
    observed = ObservedOthers(window("passive", TLB))
    fields = await summary(observed)
    assert observed.armed_with == OWN_CGROUPS
    assert (fields["containers"], fields["containers_at_least"], fields["containers_unknown"]) == (2, 2, "")
    assert (fields["engine"], fields["containers_by_engine"]) == ("docker", {"docker": 2})
    assert (fields["cgroups_made"], fields["cgroup_events_lost"]) == (20, 0)


async def test_events_without_room_make_the_count_a_lower_bound() -> None:
    fields = await summary(ObservedOthers(window("passive", TLB)), lost=7)
    assert (fields["containers"], fields["containers_at_least"]) == (None, 2)
    assert fields["containers_unknown"].startswith("7 cgroup events found the probe's map full")
    assert fields["cgroup_events_lost"] == 7
    assert {row["requests_per_container"] for row in fields["bill"]} == {None}


async def test_tasks_without_room_are_reported() -> None:
    assert (await summary(ObservedOthers(window("passive", TLB)), strangers=7))["container_tasks_lost"] == 7
    assert (await summary(ObservedOthers(window("passive", TLB), why="no")))["container_tasks_lost"] is None


def test_a_look_says_what_may_not_have_been_counted() -> None:
    counted = module.Counted(Counter(docker=2), made=20, lost=3, armed=True, strangers=5, inside=50, pending=4)
    look = module.look_of(counted, (), ())
    assert (look.containers, look.uncounted, look.lost) == (2, 57, 8)


async def test_without_the_probe_the_count_is_unknown_with_its_cause_and_never_zero() -> None:
    steps: list[str] = []
    observed = ObservedOthers(window("passive", TLB), why="this process lacks CAP_BPF")
    passive = watching(observed, steps=steps)
    await passive.look()
    await passive.look()
    await passive.aclose()
    fields = summary_of(passive)
    what, why = "this process lacks CAP_BPF", "this process lacks CAP_BPF; fix: run it as root"
    assert set(steps) == {f"passive: an unknown number of containers ({what}) started by others"}
    assert passive.counted()[1] == why
    assert fields["containers_unknown"] == why
    assert [fields[key] for key in ("containers", "containers_at_least", "cgroups_made", "bill")] == [None] * 4
    assert [row["reason"] for row in fields["beside"]] == ["flush_tlb_func"]
    assert passive.record_if_due() is None


async def test_the_wall_clock_has_no_part_in_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is set back by a day between two looks, as an NTP step or a person would."""
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s - 86_400 * len(observed.windows))
    observed = ObservedOthers(window("passive", TLB), window("passive", TLB))
    assert (await summary(observed))["containers"] == 2


async def test_what_starts_between_the_arming_and_the_first_look_counts() -> None:
    observed = ObservedOthers(window("passive", TLB))
    observed.probe.started["docker"] = 2
    passive = watching(observed)
    await passive.look()
    await passive.look()
    await passive.aclose()
    fields = summary_of(passive)
    assert (fields["containers"], fields["cgroups_made"]) == (2, 20)


async def test_a_session_after_an_error_counts_on_where_the_last_one_ended() -> None:
    """The kernel refused a reading: meanwhile the daemon was passive as well, so what started counts."""
    observed = ObservedOthers(window("passive", TLB), window("passive", TLB))
    first = watching(observed)
    await first.look()
    observed.probe.started["docker"] = 3
    await first.look()
    await first.aclose()
    observed.probe.started["docker"] = 5
    second = watching(observed)
    await second.look()
    await second.look()
    await second.aclose()
    fields = summary_of(second)
    assert (fields["containers"], fields["cgroups_made"]) == (2, 20)


async def test_what_came_before_passive_mode_is_in_no_summary() -> None:
    """The probe stays armed while the daemon makes trials: a reload back to passive mode finds its totals."""
    observed = ObservedOthers(window("passive", TLB))
    observed.containers = observed.probe
    observed.probe.leave()
    observed.probe.started["docker"], observed.probe.lost = 500, 300
    passive = watching(observed)
    await passive.look()
    assert observed.probe.followed
    observed.probe.started["docker"] = 502
    await passive.look()
    await passive.aclose()
    fields = summary_of(passive)
    assert (fields["containers"], fields["cgroups_made"], fields["cgroup_events_lost"]) == (2, 20, 0)


async def test_events_are_taken_once_a_second_however_seldom_it_is_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DRAIN_EVERY_S", 0.01)
    observed = ObservedOthers(window("passive", TLB))
    passive = watching(observed)
    await passive.look()
    async with asyncio.timeout(20):
        while observed.probe.drains <= 5:  # noqa: ASYNC110 -- there is no event to wait for
            await asyncio.sleep(0.01)
    await passive.aclose()


@pytest.mark.parametrize(("requests", "control"), [(False, True), (True, False)])
async def test_without_a_working_probe_there_is_no_bill(requests: bool, control: bool) -> None:
    fields = await summary(ObservedOthers(window("passive", TLB), requests=requests), control=control)
    assert (fields["bill"], fields["beside"]) == (None, None)
    assert fields["creation_path_broadcasts_per_container"] is None
    assert fields["containers"] == 2  # from the other probe
    assert fields["slab_mutex_waits"] == 0  # from a third one


async def test_waits_that_were_not_observed_all_the_time_are_unknown() -> None:
    one = window("passive", TLB)
    for observed in (ObservedOthers(one, waits=False), ObservedOthers(one, one, waits=False, learns=True)):
        fields = await summary(observed)
        assert [fields[key] for key in WAITS] == [None] * 3
        assert fields["bill"]


@pytest.mark.parametrize(("lost", "unknown"), [(0, False), (1, True)])
async def test_zeros_that_may_be_losses_are_unknown(lost: int, unknown: bool) -> None:
    """Of two containers, one lost request may be a broadcast in every second one."""
    fields = await summary(ObservedOthers(window("passive", TLB, lost_requests=lost, lost_waits=lost)))
    figures = [fields[key] for key in (*WAITS, "creation_path_broadcasts_per_container")]
    assert [figure is None for figure in figures] == [unknown] * 4


async def test_broadcasts_that_were_not_observed_all_the_time_are_unknown() -> None:
    """The control failed during the first window, and passed before the last."""
    observed = ObservedOthers(window("passive", TLB), window("passive", TLB))
    passive = watching(observed, control=False)
    await passive.look()
    observed.probe.started["docker"] = 2
    await passive.look()
    passive._armed.control = Control(passed=True, detail="made up")
    await passive.look()
    await passive.aclose()
    fields = summary_of(passive)
    assert [fields[key] for key in ("bill", "beside", "creation_path_broadcasts_per_container")] == [None] * 3


async def test_a_record_takes_nothing_for_known_that_was_learnt_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, bool]] = []

    def record(*_: object, **known: bool) -> Trial:
        made.append(known)
        return trial()

    monkeypatch.setattr(module, "passive_record", record)
    observed = ObservedOthers(window("passive", kick(4)), waits=False, learns=True)
    passive = watching(observed)
    await passive.look()
    observed.probe.started["docker"] = 2
    passive._kept_house_s -= passive._cut_every_s
    await passive.look()
    await passive.aclose()
    assert observed.waits_known
    passive._recorded_s -= module.RECORD_S
    assert passive.record_if_due() is not None
    assert made == [{"slab_mutex_known": False, "senders_known": True}]


@pytest.mark.parametrize(("members", "lost"), [(True, 3), (False, 2)])
async def test_requests_of_containers_that_were_not_told_apart_are_lost(members: bool, lost: int) -> None:
    """A full map, or no probe: `own` is no zero then, and ends no alarm."""
    observed = ObservedOthers(window("passive", TLB))
    passive = watching(observed)
    await passive.look()
    observed.probe.started["docker"], observed.members_lost = 2, 3
    observed.members = observed.members if members else None
    await passive.look()
    await passive.aclose()
    assert passive._record is not None
    assert [look.lost for look in passive._record.looks] == [lost]


async def test_a_broadcast_is_recorded_soon_and_healthy_containers_once_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[Look, ...]] = []

    def record(_armed: object, _window: object, looks: tuple[Look, ...], **_: bool) -> Trial:
        made.append(looks)
        return trial()

    monkeypatch.setattr(module, "passive_record", record)
    for cells, due_s in (((TLB,), module.RECORD_S), ((TLB, kick(4)), module.ALARMING_RECORD_S)):
        observed = ObservedOthers(window("passive", *cells), window("passive", *cells))
        passive = watching(observed)
        await passive.look()
        observed.probe.started["docker"] = 2
        await passive.look()
        await passive.aclose()
        assert passive.record_if_due() is None
        passive._recorded_s -= due_s - 1
        assert passive.record_if_due() is None
        passive._recorded_s -= 1
        assert passive.record_if_due() is not None
        assert passive.record_if_due() is None
    assert made == [
        (Look(containers=2, cgroups=20),),
        (Look(containers=2, cgroups=20, own=4, own_kicks=4),),
    ]
