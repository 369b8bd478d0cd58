"""Records of passive mode: which streams observe what, what they prove, and what is billed to a container."""

import msgspec
from msgspec.structs import replace

from builders import TLB, kick, trial, window
from kickwatch.configuration.types import Config, WorkloadConfig
from kickwatch.detect.figures import merge_cells, merge_windows
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.observations import observations_of
from kickwatch.detect.passive import counting_cells, creation_path, divided
from kickwatch.detect.state import ChangeKind, State, TrialOutcome
from kickwatch.detect.streams import StreamName
from kickwatch.model import Cell, Control, Look, Origin, Path, Trial, Verdict
from kickwatch.outlets.broadcast import blame
from kickwatch.service.pace import pace_of

PACE = pace_of(Config(workload=WorkloadConfig(enabled=False)))
HEALTHY, FAULTY = Look(containers=4, cgroups=40), Look(containers=4, cgroups=40, own=4)


def record(*looks: Look) -> Trial:
    """A record of passive mode."""
    one = trial(count=0)
    return replace(one, containers=(), looks=looks, canary=None, churn=window("passive", TLB, kick(4)))


def judged(*records: Trial) -> tuple[State, list[TrialOutcome]]:
    monitor, state, outcomes = Monitor(PACE), State(), []
    for number, one in enumerate(records):
        state, outcome = monitor.step(state, replace(one, trial_id=f"{number:08x}"))
        outcomes.append(outcome)
    return state, outcomes


def alarms(outcomes: list[TrialOutcome]) -> list[tuple[int, str]]:
    raised = ((at, change) for at, outcome in enumerate(outcomes) for change in outcome.changes)
    return [(at, change.stream) for at, change in raised if change.kind is ChangeKind.RAISED]


def test_only_streams_without_a_comparison_observe() -> None:
    seen = observations_of(record(FAULTY, HEALTHY))
    assert seen.amounts == {StreamName.ATTRIBUTED: (1.0, 0.0), StreamName.SIGNATURE: (0.0,)}
    assert (seen.windows, seen.differences, seen.churned) == ({}, {}, None)


def test_a_look_without_containers_observes_nothing() -> None:
    assert observations_of(record(Look(containers=0, cgroups=9, own=3))).amounts == {}


def test_what_other_tasks_broadcast_is_shared_by_all_cgroups_that_were_made() -> None:
    """Among 400 new cgroups of services one broadcast is no container's; a broadcast for each of them is a fault."""
    one, each = Look(containers=1, cgroups=400, others=1), Look(containers=1, cgroups=400, others=400)
    assert observations_of(record(one)).amounts[StreamName.ATTRIBUTED] == (0.0025,)
    assert observations_of(record(each)).amounts[StreamName.ATTRIBUTED] == (1.0,)
    assert observations_of(record(Look(containers=2, cgroups=0, others=1))).amounts[StreamName.ATTRIBUTED] == (0.5,)


def test_the_fault_is_found_within_the_observations_that_the_threshold_needs() -> None:
    """One broadcast for each container, by its own tasks: nine looks."""
    state, outcomes = judged(*[record(FAULTY)] * 14)
    assert alarms(outcomes) == [(8, "attributed")]
    assert state.verdict is Verdict.BROADCASTING
    assert "9 of the last 9 looks at containers of others" in outcomes[8].changes[0].text


def test_the_signature_of_2017_is_found_in_fewer() -> None:
    kicked = Look(containers=3, cgroups=30, own=15, own_kicks=15)
    _, outcomes = judged(*[record(kicked)] * 6)
    assert alarms(outcomes)[0][0] == 3


def test_a_thousand_healthy_containers_raise_no_alarm_and_establish_no_quiet() -> None:
    state, outcomes = judged(*[record(HEALTHY)] * 250)
    assert alarms(outcomes) == []
    assert (state.verdict, state.reasons) == (Verdict.UNKNOWN, ("insufficient_evidence",))
    assert state.quiet.established is False


def test_an_alarm_ends_when_the_same_measure_shows_nothing_for_long() -> None:
    state, outcomes = judged(*[record(FAULTY)] * 12, *[record(HEALTHY, HEALTHY)] * 60)
    kinds = [change.kind for outcome in outcomes for change in outcome.changes]
    assert kinds == [ChangeKind.RAISED, ChangeKind.ENDED]
    assert state.verdict is Verdict.UNKNOWN


def test_containers_that_were_not_counted_do_not_make_broadcasts_more_frequent() -> None:
    """A healthy kernel within its allowance: 0.04 each. The map had room for one container in ten."""
    crowded = Look(containers=100, cgroups=1000, own=40, own_kicks=0, uncounted=900, lost=900)
    seen = observations_of(record(crowded)).amounts
    assert seen[StreamName.ATTRIBUTED] == (0.04,)
    assert alarms(judged(*[record(crowded)] * 300)[1]) == []
    assert alarms(judged(*[record(replace(crowded, uncounted=0))] * 300)[1])  # what it was taken for
    kicked = replace(crowded, own_kicks=40)
    assert observations_of(record(kicked)).amounts[StreamName.SIGNATURE] == (0.04,)


def test_cgroups_that_a_container_makes_inside_itself_are_not_taken_for_one_container() -> None:
    """A system in LXC that makes 600 services a minute, and a broadcast for one in 50 of them; one container starts."""
    look = Look(containers=1, cgroups=602, own=12, uncounted=600)
    assert observations_of(record(look)).amounts[StreamName.ATTRIBUTED] == (12 / 601,)


def test_looks_at_full_maps_end_no_alarm_and_say_so() -> None:
    """Broadcasts of tasks that could not be noted are shared by all cgroups: their small share is no recovery."""
    full = Look(containers=4, cgroups=400, others=4, lost=7)
    state, outcomes = judged(*[record(FAULTY)] * 12, *[record(full, full)] * 60)
    kinds = [change.kind for outcome in outcomes for change in outcome.changes]
    assert kinds == [ChangeKind.RAISED]
    assert state.verdict is Verdict.BROADCASTING
    assert judged(record(full))[1][-1].reasons == ("events_lost",)


def test_a_blind_probe_proves_nothing() -> None:
    blind = replace(record(FAULTY), control=Control(passed=False, detail="0 of 23"))
    _, outcomes = judged(*[blind] * 30)
    assert alarms(outcomes) == []
    assert outcomes[-1].reasons == ("blind",)


def test_a_probe_that_saw_containers_and_no_request_at_all_ends_no_alarm() -> None:
    """Something switched the kprobes off; the next control is up to an hour away."""
    silent = replace(record(HEALTHY, HEALTHY), churn=window("passive"))
    state, outcomes = judged(*[record(FAULTY)] * 12, *[silent] * 60)
    assert [change.kind for outcome in outcomes for change in outcome.changes] == [ChangeKind.RAISED]
    assert state.verdict is Verdict.BROADCASTING
    assert judged(silent)[1][-1].reasons == ("blind",)


def test_a_record_is_read_back_as_it_was() -> None:
    one = record(FAULTY, HEALTHY)
    assert msgspec.json.decode(msgspec.json.encode(one), type=Trial) == one
    old = msgspec.json.decode(msgspec.json.encode(trial()))
    del old["looks"]
    assert msgspec.convert(old, Trial).looks == ()


def test_the_bill_has_the_members_cells_and_the_creation_path_and_the_rest_is_beside() -> None:
    part = replace(TLB, requests=30, calls=10)
    interrupt = Cell(reason="wakeup", func="wakeup", origin=Origin.IRQ, path=Path.OTHER, requests=5)
    billed, beside = divided((TLB, kick(4), interrupt), (part, interrupt))
    assert [(one.reason, one.requests) for one in billed] == [(part.reason, 30), (kick(4).reason, kick(4).requests)]
    assert [(one.reason, one.requests, one.calls) for one in beside] == [
        (TLB.reason, 1170, 1190),
        (interrupt.reason, 5, 0),
    ]


def test_a_part_that_was_read_later_than_the_whole_is_never_more() -> None:
    billed, beside = divided((TLB,), (replace(TLB, requests=1201),))
    assert ([one.requests for one in billed], beside) == ([1201], ())


def test_kicks_are_those_of_slab_creation() -> None:
    slab, memcg = kick(4), replace(kick(3), origin=Origin.MEMCG)
    assert creation_path((TLB, slab, memcg)) == (7, 4)


def test_a_static_key_that_switches_with_the_first_and_last_cgroup_is_no_fault() -> None:
    """cpusets_enabled_key on a healthy 6.12. On arm64 the same broadcasts kick all CPUs, as the fault does."""
    flip = Cell(
        reason="do_sync_core", func="do_sync_core", origin=Origin.CGROUP, path=Path.CREATE, requests=36, broadcasts=12,
        patches=12,
    )  # fmt: skip
    both = replace(kick(5), patches=3)
    assert creation_path((flip, both)) == (2, 2)
    assert creation_path((replace(flip, patches=None),)) == (0, 0)
    one = replace(record(FAULTY), churn=window("passive", flip, both))
    assert [cell.broadcasts for cell in counting_cells(one)] == [0, 2]
    assert counting_cells(replace(one, looks=())) == (flip, both)


def test_an_alert_does_not_show_the_stack_of_a_static_key_that_does_not_count() -> None:
    """On arm64 both are kick_all_cpus_sync: the stack of the first record was cpuset_css_online's."""
    fault = replace(kick(5), patches=0, stack=("kick_all_cpus_sync", "kickfault_css_online"))
    flip = replace(kick(6), patches=6, stack=("kick_all_cpus_sync", "static_key_slow_inc", "cpuset_css_online"))
    before, after = (replace(record(FAULTY), churn=window("passive", cell)) for cell in (flip, fault))
    one_record = replace(before, churn=merge_windows([before.churn, after.churn, before.churn]))
    for records in ([before, after], [one_record]):
        found = blame(records)
        assert found is not None
        assert (found.cell.broadcasts, found.cell.stack) == (5, fault.stack)


def test_merged_cells_that_all_patched_text_keep_the_stack_of_the_first() -> None:
    """As static keys on x86."""
    first, second = (replace(kick(3), patches=3, stack=(name,)) for name in ("first", "second"))
    assert merge_cells([first, second])[0].stack == ("first",)


def test_the_pace_of_passive_mode_does_not_depend_on_the_budget() -> None:
    assert (PACE.containers, PACE.period_s) == (2, 10.0)
