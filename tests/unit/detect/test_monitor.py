"""The monitor: one alarm and one recovery, with their sentences; and trials from which it learns nothing."""

# ruff: noqa: S311 - random numbers of a study, no secrets

from random import Random

import pytest
from msgspec.structs import replace

from builders import TLB, kick, wait, window
from kickwatch.configuration.types import BudgetConfig, Config, Preset, TrialConfig, WorkloadConfig
from kickwatch.detect.detectors import RELATIVE, averaged
from kickwatch.detect.edetector import EDetector
from kickwatch.detect.monitor import EPOCH_S, Monitor
from kickwatch.detect.rates import NODE_YEARS, Pace
from kickwatch.detect.single import one_shot
from kickwatch.detect.state import ChangeKind
from kickwatch.detect.streams import CREATION_PATH, STREAMS, Allowance, StreamName
from kickwatch.detect.wager import Null, Wager
from kickwatch.model import (
    AlarmKind,
    CanaryBatch,
    Cell,
    ContentionRung,
    Control,
    Interrupts,
    IpiRung,
    KmemAccounting,
    Observers,
    Origin,
    Path,
    Trial,
    Verdict,
)
from kickwatch.service.pace import pace_of
from watching import PACE, changes, serial, watched

COINS = {name.value for name, stream in STREAMS.items() if stream.coin}
MEMCG = Cell(
    reason="do_sync_core",
    func="do_sync_core",
    origin=Origin.MEMCG,
    path=Path.CREATE,
    requests=90,
    calls=30,
    broadcasts=30,
)


AVERAGES = list(dict.fromkeys(row.allowance for row in STREAMS.values() if row.allowance and not row.per_container))


def plain_fault(**fields: object) -> Trial:
    """Three static-key flips for each container: the kmem TCP limit. No signature, no canary."""
    return serial(0, MEMCG, **({"containers": serial(3).containers} | fields))


def test_a_healthy_node_is_quiet_once_that_is_established() -> None:
    _, outcomes = watched(Monitor(PACE), [serial(number=4) for _ in range(30)])
    assert [outcome.verdict for outcome in outcomes[:6]] == [*[Verdict.UNKNOWN] * 5, Verdict.QUIET]
    assert outcomes[0].reasons == ("insufficient_evidence",)
    assert [outcome.more_containers for outcome in outcomes[:6]] == [19, 15, 11, 7, 3, None]
    assert {outcome.verdict for outcome in outcomes[5:]} == {Verdict.QUIET}
    assert not changes(outcomes)


def test_a_kernel_that_broadcasts_from_its_first_trial_on_raises_an_alarm() -> None:
    _, outcomes = watched(Monitor(PACE), [plain_fault()])
    (change,) = outcomes[0].changes
    assert outcomes[0].verdict is Verdict.BROADCASTING
    assert outcomes[0].reasons == ("creation_path_broadcasts",)
    assert (change.kind, change.alarm, change.stream) == (ChangeKind.RAISED, AlarmKind.BROADCASTING, "attributed")
    assert change.observations <= 8  # containers
    assert change.text.startswith(
        f"{change.hits} of the last {change.observations} containers made the creation path broadcast"
        f" (allowed: 1 in 20); evidence {change.evidence} against a threshold of 5.4e10;"
        f" first seen at trial {outcomes[0].trial}"
    )


def test_a_fault_that_is_removed_is_one_alarm_and_one_recovery_within_60_containers() -> None:
    trials = [*(serial() for _ in range(50)), *(plain_fault() for _ in range(30)), *(serial() for _ in range(300))]
    _, outcomes = watched(Monitor(PACE), trials)
    changed = changes(outcomes)
    assert [(change.kind, change.alarm) for change in changed] == [
        (ChangeKind.RAISED, AlarmKind.BROADCASTING),
        (ChangeKind.ENDED, AlarmKind.BROADCASTING),
    ]
    assert [index for index, outcome in enumerate(outcomes) if outcome.changes] == [50, 83]
    assert "the last 37 containers were within bounds" in changed[1].text


def test_the_fault_of_2017_is_one_alarm_which_streams_join() -> None:
    batch = CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts(), cells=(kick(500),))
    _, outcomes = watched(Monitor(PACE), [serial(32, canary=batch) for _ in range(10)])
    changed = changes(outcomes)
    assert [(change.kind, change.stream) for change in changed] == [
        (ChangeKind.RAISED, "attributed"),
        (ChangeKind.JOINED, "signature"),
        (ChangeKind.JOINED, "canary"),
    ]
    assert outcomes[-1].reasons == ("creation_path_broadcasts", "canary_broadcasts")
    assert "kicked all CPUs to create slab caches, 32 times per container (allowed: 1 in 1000)" in changed[1].text


def test_broadcasts_that_come_after_the_containers_are_found_as_a_burst() -> None:
    """As on kernels before 5.9: a kworker makes the caches after the last container is gone."""
    late = serial(32, containers=serial(0).containers)
    _, outcomes = watched(Monitor(PACE), [replace(late, trial_id=f"{n:08x}") for n in range(8)])
    changed = [(change.kind, change.stream) for change in changes(outcomes)]
    assert changed == [(ChangeKind.RAISED, "signature"), (ChangeKind.JOINED, "burst")]
    assert outcomes[2].verdict is Verdict.BROADCASTING


def test_the_last_stream_that_leaves_ends_the_alarm() -> None:
    batch = CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts(), cells=(kick(500),))
    sick = [serial(32, canary=batch) for _ in range(10)]
    sound = [serial(canary=replace(batch, cells=())) for _ in range(200)]
    _, outcomes = watched(Monitor(PACE), [*sick, *sound])
    changed = changes(outcomes, ChangeKind.LEFT, ChangeKind.ENDED)
    assert [change.kind for change in changed] == [ChangeKind.LEFT, ChangeKind.LEFT, ChangeKind.ENDED]
    assert outcomes[-1].verdict is Verdict.QUIET


def test_a_void_trial_only_changes_a_counter() -> None:
    monitor = Monitor(PACE)
    before, _ = watched(monitor, [serial() for _ in range(3)])
    for sick in (plain_fault(void="engine_restarted"), plain_fault(kmem_accounting=KmemAccounting.OFF)):
        after, outcome = monitor.step(before, sick)
        assert after == replace(before, voids=before.voids + 1, quiet=replace(before.quiet, void=1))
        assert outcome.verdict is Verdict.UNKNOWN
        assert not outcome.changes


def test_a_void_trial_of_another_boot_drops_no_evidence() -> None:
    monitor = Monitor(PACE)
    before, _ = watched(monitor, [serial()])
    odd = plain_fault(void="cpus_changed")
    after, _ = monitor.step(before, replace(odd, node=replace(odd.node, boot_id="other", cpus_online=2)))
    assert after == replace(before, voids=1, quiet=replace(before.quiet, void=1))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"control": Control(passed=False, detail="0 of 23")}, "blind"),
        ({"churn": window("churn")}, "blind"),
        ({"cpus_online": 1}, "one_cpu"),
    ],
)
def test_nothing_is_learnt_from_a_probe_that_cannot_be_used(fields: dict[str, object], reason: str) -> None:
    monitor = Monitor(PACE)
    before, _ = watched(monitor, [serial() for _ in range(3)])
    sick = plain_fault()
    if "cpus_online" in fields:
        before, _ = watched(monitor, [replace(serial(), node=replace(sick.node, **fields))], before)
        sick = replace(sick, node=replace(sick.node, **fields))
    else:
        sick = replace(sick, **fields)
    after, outcome = monitor.step(before, sick)
    assert (outcome.verdict, outcome.reasons) == (Verdict.UNKNOWN, (reason,))
    assert after.tracks == before.tracks
    assert after.comparison == before.comparison


@pytest.mark.parametrize("kmem", [KmemAccounting.ON, KmemAccounting.UNKNOWN])
@pytest.mark.parametrize("lost", [0, 10_000])
def test_doubtful_zeros_end_nothing_and_broadcasts_count_all_the_same(kmem: KmemAccounting, lost: int) -> None:
    monitor = Monitor(PACE)

    def doubtful(one: Trial) -> Trial:
        return replace(one, kmem_accounting=kmem, churn=replace(one.churn, lost_events=lost))

    state, outcomes = watched(monitor, [doubtful(plain_fault()) for _ in range(2)])
    assert outcomes[0].verdict is Verdict.BROADCASTING
    state, outcomes = watched(monitor, [doubtful(serial()) for _ in range(100)], state)
    trusted = kmem is KmemAccounting.ON and not lost
    assert bool(changes(outcomes, ChangeKind.ENDED)) is trusted
    assert outcomes[-1].verdict is (Verdict.QUIET if trusted else Verdict.BROADCASTING)


def test_doubt_without_a_fault_is_unknown() -> None:
    _, outcomes = watched(Monitor(PACE), [serial(kmem_accounting=KmemAccounting.UNKNOWN) for _ in range(5)])
    assert outcomes[-1].reasons == ("kmem_accounting_unknown",)


def test_without_a_probe_the_canary_raises_the_alarm_and_ends_it() -> None:
    def counted(cal: int) -> Trial:
        batch = CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts(cal=cal, tlb=100, res=0))
        control = Control(passed=False, detail="no probe is armed")
        blind = Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE)
        return serial(observers=blind, canary=batch, control=control, churn=window("churn"))

    monitor = Monitor(PACE)
    state, outcomes = watched(monitor, [counted(1600) for _ in range(8)])
    assert outcomes[0].reasons == ("blind",)
    assert outcomes[-1].reasons == ("canary_interrupts",)
    (change,) = changes(outcomes)
    assert "canary batches raised CAL - TLB, by 5 per memory cgroup and other CPU (allowed: 1 in 20)" in change.text
    _, outcomes = watched(monitor, [counted(102) for _ in range(60)], state)
    assert changes(outcomes)[0].kind is ChangeKind.ENDED
    assert outcomes[-1].verdict is Verdict.UNKNOWN  # still blind


@pytest.mark.parametrize(("each", "convicted"), [(5.0, 5), (1.0, 8), (0.5, 10), (0.49, None)])
def test_without_a_probe_it_takes_as_many_trials_as_the_page_says(each: float, convicted: int | None) -> None:
    """docs/howto/without-bpf.md; it promised a conviction by one trial."""
    cal = round(100 * each * (serial().node.cpus_online - 1))
    batch = CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts(cal=cal, tlb=0, res=0))
    blind = Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE)
    one = serial(observers=blind, canary=batch, churn=window("churn"))
    assert (one_shot([one]).verdict, one_shot([one]).reasons) == (Verdict.UNKNOWN, ("blind",))
    _, outcomes = watched(Monitor(pace_of(Config())), [one for _ in range(40)])
    trials = [number for number, outcome in enumerate(outcomes, 1) if outcome.verdict is Verdict.BROADCASTING]
    assert (trials[0] if trials else None) == convicted


@pytest.mark.parametrize(
    ("where", "cal"),
    [
        ({"arch": "aarch64"}, 231),  # 6.12: it was convicted at trial 19
        ({"idle_cpus_halt": True}, 5200),  # 7.2 with contention in a guest without MWAIT: at trial 5
    ],
)
def test_without_a_probe_the_daemon_never_convicts_a_kernel_whose_counters_include_remote_wakeups(
    where: dict[str, object], cal: int
) -> None:
    """Healthy kernels."""
    batch = CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts(cal=cal, tlb=None, res=0))
    blind = Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE)
    healthy = serial(observers=blind, canary=batch, churn=window("churn"))
    included = replace(healthy, node=replace(healthy.node, **where))
    _, outcomes = watched(Monitor(PACE), [included for _ in range(200)])
    assert not changes(outcomes)
    assert {(outcome.verdict, *outcome.reasons) for outcome in outcomes} == {
        (Verdict.UNKNOWN, "blind", "counters_include_wakeups")
    }


@pytest.mark.parametrize("trials", [3, 12])
def test_what_wakeups_had_raised_before_they_were_known_is_given_up(trials: int) -> None:
    """Records of older releases do not say whether idle CPUs halt; no later trial could end their alarm."""
    batch = CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts(cal=5200, tlb=None, res=0))
    blind = Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE)
    older = serial(observers=blind, canary=batch, churn=window("churn"))
    state, outcomes = watched(Monitor(PACE), [older] * trials)
    raised = outcomes[-1].verdict is Verdict.BROADCASTING
    assert raised is (trials == 12)
    assert state.published[StreamName.CANARY]
    known = replace(older, node=replace(older.node, idle_cpus_halt=True))
    state, outcomes = watched(Monitor(PACE), [known] * 2, state)
    assert [(change.kind, change.alarm) for change in changes(outcomes)] == [
        (ChangeKind.DROPPED, AlarmKind.BROADCASTING)
    ] * raised
    assert {(one.verdict, *one.reasons) for one in outcomes} == {(Verdict.UNKNOWN, "blind", "counters_include_wakeups")}
    assert (state.calm, state.alerted, StreamName.CANARY in state.published) == (True, {}, False)


def test_another_boot_or_stratum_drops_the_evidence_and_gives_the_reason() -> None:
    monitor = Monitor(PACE)
    state, _ = watched(monitor, [plain_fault()])
    node = serial().node
    for elsewhere, why in (
        (replace(node, boot_id="b"), "the machine was booted"),
        (replace(node, kernel="6.19.0"), "kernel 6.19.0 (before: 6.18.0)"),
        (replace(node, network="bridge"), "network bridge (before: none)"),
    ):
        after, outcome = monitor.step(state, serial(node=elsewhere))
        assert outcome.restart_reason == why
        (change,) = outcome.changes
        assert (change.kind, change.alarm, change.stream) == (
            ChangeKind.DROPPED,
            AlarmKind.BROADCASTING,
            "attributed",
        )
        assert (outcome.verdict, outcome.reasons) == (Verdict.UNKNOWN, ("insufficient_evidence",))
        assert outcome.more_containers == 13
        assert after.containers == 10
        assert not after.alerted


def test_evidence_below_the_threshold_is_dropped_with_the_boot() -> None:
    monitor = Monitor(PACE)
    one = plain_fault(containers=plain_fault().containers[:4])
    state, outcomes = watched(monitor, [one, replace(one, node=replace(one.node, boot_id="b"))])
    assert not changes(outcomes)
    state, outcomes = watched(monitor, [replace(one, node=replace(one.node, boot_id="b"))], state)
    assert changes(outcomes)


def test_waits_on_the_create_path_are_contention() -> None:
    waiting = window("churn", TLB, waits=(wait(20, path=Path.CREATE),))
    _, outcomes = watched(Monitor(PACE), [serial(churn=waiting) for _ in range(12)])
    (change,) = changes(outcomes)
    assert change.alarm is AlarmKind.CONTENDED
    assert (
        "made tasks wait for slab_mutex on the creation path, 2 waits per container (allowed: 1 in 20)" in change.text
    )
    assert "the longest 9 ms" in change.text
    assert outcomes[-1].findings == ("contended",)
    assert outcomes[-1].verdict is Verdict.QUIET


def test_other_waits_are_contention_when_they_come_with_churn_only() -> None:
    """Ties end it, since a repaired kernel has no waits in either window."""
    waiting = window("churn", TLB, waits=(wait(3),))
    trials = [serial(churn=waiting) for _ in range(40)] + [serial() for _ in range(100)]
    _, outcomes = watched(Monitor(PACE), trials)
    changed = changes(outcomes)
    assert [(change.kind, change.stream) for change in changed] == [
        (ChangeKind.RAISED, "contention_excess"),
        (ChangeKind.ENDED, "contention_excess"),
    ]
    assert "trials with unequal windows had more waits for slab_mutex with containers than without" in changed[0].text
    assert 29 <= changed[0].observations <= 40


def test_the_coin_proves_broadcasts_elsewhere_that_come_with_churn() -> None:
    strange = Cell(reason="x", func="x", origin=Origin.UNKNOWN, path=Path.OTHER, requests=30, calls=10, broadcasts=10)
    _, outcomes = watched(Monitor(PACE), [serial(0, strange) for _ in range(50)])
    (change,) = changes(outcomes)
    assert change.alarm is AlarmKind.ELSEWHERE
    assert (outcomes[-1].verdict, outcomes[-1].reasons) == (Verdict.UNKNOWN, ("broadcasts_elsewhere",))
    both = window("quiet", strange)
    assert not changes(watched(Monitor(PACE), [serial(0, strange, quiet=both) for _ in range(500)])[1])


def test_findings_name_the_oddities_of_a_trial() -> None:
    odd = serial(unsettled=True)
    odd = replace(odd, containers=(*odd.containers, replace(odd.containers[0], failure="did not start")))
    assert Monitor(PACE).step(Monitor(PACE).start(), odd)[1].findings == ("unsettled", "failed_containers")


def test_all_streams_together_raise_one_false_alarm_in_1000_node_years() -> None:
    shares = Monitor(Pace(23, 70.0)).shares
    assert {share.name for share in shares} == {*(name.value for name in StreamName), RELATIVE}
    coins = {share.name: share.false_alarms_per_year for share in shares if share.name in COINS}
    others = sum(share.false_alarms_per_year for share in shares if share.name not in COINS)
    for paired in (True, False):  # no trial is observed by both kinds of coins
        either = sum(rate for name, rate in coins.items() if STREAMS[StreamName(name)].paired is paired)
        assert others + either == pytest.approx(1 / NODE_YEARS)


def test_the_pace_follows_from_the_configuration() -> None:
    workload, trials = WorkloadConfig(containers_per_trial=7), TrialConfig(interval_s=30.0, window_s=4.0)
    unbudgeted = Config(workload=workload, trial=trials, budget=BudgetConfig(preset=Preset.STRESS))
    assert pace_of(unbudgeted) == Pace(7, 38.0)


@pytest.mark.parametrize(
    ("budget", "interval_s", "period_s"),
    [
        (BudgetConfig(), 60.0, 7 * 60.0),  # 60 an hour
        (BudgetConfig(), 600.0, 608.0),  # the pause is longer than the budget asks for
        (BudgetConfig(containers_per_hour=70), 0.0, 7 * 60.0),  # 1440 a day is less than that
        (BudgetConfig(preset=Preset.STRESS, containers_per_day=100), 60.0, 7 * 864.0),
    ],
)
def test_the_pace_is_no_faster_than_the_budget(budget: BudgetConfig, interval_s: float, period_s: float) -> None:
    workload, trials = WorkloadConfig(containers_per_trial=7), TrialConfig(interval_s=interval_s, window_s=4.0)
    assert pace_of(Config(workload=workload, trial=trials, budget=budget)) == Pace(7, period_s)


def test_e_processes_continue_after_a_boot_and_begin_with_an_epoch() -> None:
    monitor = Monitor(PACE)
    sick = plain_fault(started_unix_s=EPOCH_S + 1.0)
    state, _ = watched(monitor, [sick, sick])
    before = monitor.figures(state)["attributed"].e_process
    assert before > 100.0
    booted = replace(sick, node=replace(sick.node, boot_id="b"))
    state, _ = watched(monitor, [booted], state)
    assert monitor.figures(state)["attributed"].e_process >= before  # both may be at the cap
    assert state.published[StreamName.ATTRIBUTED].steps == 3
    state, _ = watched(monitor, [replace(serial(), started_unix_s=2.0 * EPOCH_S + 1.0)], state)
    assert monitor.figures(state)["attributed"].e_process < 1.0
    assert state.epoch == 2


def test_figures_show_every_stream() -> None:
    monitor = Monitor(PACE)
    assert monitor.figures(monitor.start()) == {}
    state, _ = watched(monitor, [plain_fault()])
    figures = monitor.figures(state)
    assert set(figures) == {name.value for name in StreamName}
    assert figures["attributed"].alerted
    assert figures["attributed"].evidence >= figures["attributed"].threshold
    assert not figures["burst"].alerted
    assert figures["elsewhere"].e_process == 1.0


def test_stepping_is_pure() -> None:
    monitor = Monitor(PACE)
    state, _ = watched(monitor, [serial() for _ in range(5)])
    sick = plain_fault()
    assert monitor.step(state, sick) == monitor.step(state, sick)
    assert monitor.step(state, sick) == Monitor(PACE).step(state, sick)


@pytest.mark.parametrize("allowance", AVERAGES)
@pytest.mark.parametrize("times", [0.9, 1.1, 1.5, 2.0, 3.0, 4.0, 6.0, 20.0])
def test_a_constant_average_never_flaps(allowance: Allowance, times: float) -> None:
    test = averaged(EDetector(Wager(Null(allowance.mean, allowance.clip)), 5e9))
    state, turns = test.start(), 0
    for _ in range(10_000):
        before, state = state, test.step(state, min(times * allowance.mean, allowance.clip))
        turns += before.alerted is not state.alerted
    assert turns == (times > 1.0)


@pytest.mark.parametrize("heap", [1.0, 4.0])
@pytest.mark.parametrize("share", [0.03, 0.1, 0.3])
def test_rare_large_observations_do_not_flap_either(heap: float, share: float) -> None:
    test = averaged(EDetector(Wager(Null(CREATION_PATH.mean, CREATION_PATH.clip)), 5e9))
    random, state, turns = Random(1), test.start(), 0
    for _ in range(20_000):
        before, state = state, test.step(state, heap if random.random() < share else 0.0)
        turns += before.alerted is not state.alerted
    assert turns == (heap * share > CREATION_PATH.mean)


@pytest.mark.parametrize("allowance", AVERAGES)
def test_zeros_end_the_alarm_of_an_average(allowance: Allowance) -> None:
    test = averaged(EDetector(Wager(Null(allowance.mean, allowance.clip)), 5e9))
    state = test.start()
    while not state.alerted:
        state = test.step(state, 2.0 * allowance.mean)
    steps = 0
    while state.alerted:
        state, steps = test.step(state, 0.0), steps + 1
    assert steps <= 60


def test_the_alarm_of_a_doubled_bpf_cost_leaves_out_the_healthy_trials_before_it() -> None:
    def costing(each: int) -> Trial:
        jit = Cell(
            reason="do_flush_tlb_all",
            func="do_flush_tlb_all",
            origin=Origin.BPF,
            path=Path.OTHER,
            requests=30 * each,
            calls=10 * each,
            broadcasts=10 * each,
            patches=0,
        )
        return serial(0, jit, node=replace(serial().node, kernel="5.10.0", cgroup="v2"))

    monitor = Monitor(PACE)
    state, outcomes = watched(monitor, [costing(16) for _ in range(51)])
    assert not changes(outcomes)
    _, outcomes = watched(monitor, [costing(32) for _ in range(80)], state)
    (change,) = changes(outcomes)
    assert (change.alarm, change.stream) == (AlarmKind.EXCESSIVE, "bpf")
    assert change.observations == change.hits <= 70
    assert "1.56 times the allowance here" in change.text
