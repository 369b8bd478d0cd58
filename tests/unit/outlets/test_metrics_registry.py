"""The series: all exist from the start, in a bounded number; counters never fall; no label identifies anything."""

import sys
from collections.abc import Iterator
from math import inf, isnan
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from builders import RCU, containers, kick, pair, trial, wait, window
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.simulate.fleet import SERIES_AT_MOST
from kickwatch.detect.state import StreamFigures, TrialOutcome
from kickwatch.model import (
    Cell,
    Container,
    ContentionRung,
    IpiRung,
    KmemAccounting,
    Observers,
    Origin,
    Path,
    Trial,
    Verdict,
)
from kickwatch.outlets.metrics import label_values as words
from kickwatch.outlets.metrics.bill import MOST_CELLS
from kickwatch.outlets.metrics.live import Live
from kickwatch.outlets.metrics.registry import Metrics
from watching import PACE

COUNTING = ("_total", "_bucket", "_count", "_sum")
IDENTITY = "1de4717y"
DOUBTS = (
    "insufficient_evidence",
    "too_few_containers",
    "containers_failed",
    "stale",
    "broadcasts_elsewhere",
    "blind",
    "counters_include_wakeups",
    "one_cpu",
    "events_lost",
    "kmem_accounting_off",
    "kmem_accounting_unknown",
    "disturbed",
)


def samples(text: bytes) -> Iterator[Sample]:
    for family in text_string_to_metric_families(text.decode()):
        yield from family.samples


def values(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """All samples: (name, label values in the order of the label names) to value."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for sample in samples(metrics.text())
    }


def outcome(verdict: Verdict = Verdict.QUIET) -> TrialOutcome:
    return TrialOutcome(trial="0badcafe", verdict=verdict)


def metrics() -> Metrics:
    return Metrics("1.2.3")


def test_all_series_exist_from_the_start() -> None:
    shown = values(metrics())
    zero = [
        *(("kickwatch_interrupts_total", kind) for kind in ("CAL", "TLB", "RES")),
        *(("kickwatch_csd_requests_total", reason) for reason in ("kick_all_cpus_sync", "rcu_exp_handler", "other")),
        *(("kickwatch_condition", word) for word in ("quiet", "broadcasting", "contended")),
        *(("kickwatch_evidence", stream) for stream in words.STREAMS),
        *(("kickwatch_stream_alerted", stream) for stream in words.STREAMS),
        *(("kickwatch_trials_total", verdict) for verdict in ("quiet", "broadcasting", "unknown")),
        *(("kickwatch_void_trials_total", reason) for reason in ("recycled", "engine_restarted", "other")),
        *(("kickwatch_containers_total", result) for result in ("created", "failed")),
        *(("kickwatch_container_step_seconds_count", step) for step in ("create", "start", "wait", "remove")),
        *(("kickwatch_guard_pauses_total", reason) for reason in words.PAUSE_REASONS),
        *(("kickwatch_guard_paused_seconds_total", reason) for reason in words.PAUSE_REASONS),
        *(("kickwatch_observer_up", observer) for observer in ("csd", "contention", "interrupts")),
        *(("kickwatch_observer_lost_events_total", observer) for observer in ("csd", "contention")),
        *(("kickwatch_trials_off", reason) for reason in ("drained", "passive")),
        *(("kickwatch_unknown", reason) for reason in (*DOUBTS, "other")),
        *(("kickwatch_guard_paused", reason) for reason in words.PAUSE_REASONS),
        *(("kickwatch_trouble", kind) for kind in ("engine", "history", "budget", "textfile")),
        *(("kickwatch_trial_requests_total", cpus, of) for cpus in ("isolated", "other") for of in ("churn", "quiet")),
        *(("kickwatch_trial_window_seconds_total", of) for of in ("churn", "quiet")),
        *(("kickwatch_trial_isolated_ipis_total", of) for of in ("churn", "quiet")),
        *(("kickwatch_trial_pairs_total", outcome) for outcome in ("in_time", "outlasted")),
        ("kickwatch_trials_total", "void"),
        ("kickwatch_regressed_cells",),
        ("kickwatch_e_process_start_timestamp_seconds",),
        ("kickwatch_bill_requests_per_container", "other", "other", "other"),
        ("kickwatch_bill_broadcasts_per_container", "other", "other", "other"),
        ("kickwatch_trials_failed_total",),
        ("kickwatch_containers_reaped_total",),
        ("kickwatch_slab_mutex_wait_seconds_count",),
        ("kickwatch_slab_mutex_wait_seconds_sum",),
        ("kickwatch_slab_mutex_wait_seconds_bucket", "+Inf"),
        ("kickwatch_slab_mutex_known",),
        *(("kickwatch_passive_containers_total", engine) for engine in ("docker", "podman", "runc", "other")),
        ("kickwatch_passive_containers_known",),
        ("kickwatch_bill_known",),
        ("kickwatch_control_passed",),
        ("kickwatch_refreshes_failed_total",),
    ]
    assert {key: shown.get(key) for key in zero} == dict.fromkeys(zero, 0.0)
    assert shown["kickwatch_condition", "unknown"] == 1.0
    assert shown["kickwatch_build_info", "1.2.3"] == 1.0
    assert {shown["kickwatch_e_process", stream] for stream in words.STREAMS} == {1.0}
    assert {shown["kickwatch_evidence_threshold", stream] for stream in words.STREAMS} == {inf}
    assert isnan(shown[("kickwatch_verdict_age_seconds",)])
    assert isnan(shown[("kickwatch_isolated_cpus",)])


def requests_of(made: Metrics) -> dict[tuple[str, ...], float]:
    """Requests in trials by class of CPU and window."""
    shown = values(made)
    return {key[1:]: value for key, value in shown.items() if key[0] == "kickwatch_trial_requests_total"}


def test_requests_in_trials_are_counted_by_class_of_cpu() -> None:
    made = metrics()
    one = trial(
        churn=window("churn", replace(RCU, isolated=40), replace(kick(23), isolated=46)),
        quiet=window("quiet", replace(RCU, requests=90, isolated=1), duration_ns=9_500_000_000),
        isolated_cpus=(2, 3),
    )
    one = replace(one, churn=replace(one.churn, isolated_ipis=7), quiet=replace(one.quiet, isolated_ipis=1))
    made.trial(one, outcome(), {})
    made.trial(one, outcome(), {})
    assert requests_of(made) == {
        ("isolated", "churn"): 2 * 86.0,
        ("other", "churn"): 2 * (160 + 69 - 86.0),
        ("isolated", "quiet"): 2 * 1.0,
        ("other", "quiet"): 2 * 89.0,
    }
    shown = values(made)
    assert [shown["kickwatch_trial_isolated_ipis_total", of] for of in ("churn", "quiet")] == [14.0, 2.0]
    assert shown["kickwatch_trial_window_seconds_total", "churn"] == 20.0
    assert shown["kickwatch_trial_window_seconds_total", "quiet"] == 19.0
    assert shown[("kickwatch_isolated_cpus",)] == 2.0


@pytest.mark.parametrize(("isolated_cpus", "known"), [((), True), ((2, 3), False)])
def test_ipis_to_isolated_cpus_that_nobody_could_count_are_no_zero(isolated_cpus: tuple[int, ...], known: bool) -> None:
    """Before 6.4, or isolated after the start. A later trial does not make the sum known again."""
    made = metrics()
    counted = trial(isolated_cpus=isolated_cpus)
    counted = replace(counted, churn=replace(counted.churn, isolated_ipis=7))
    for one in (trial(isolated_cpus=isolated_cpus), counted):
        made.trial(one, outcome(), {})
        assert isnan(values(made)["kickwatch_trial_isolated_ipis_total", "churn"]) is not known
    assert isnan(values(made)["kickwatch_trial_isolated_ipis_total", "quiet"]) is not known


def test_without_isolated_cpus_all_requests_are_to_other_cpus() -> None:
    made = metrics()
    made.trial(trial(churn=window("churn", RCU), quiet=window("quiet")), outcome(), {})
    assert requests_of(made)["other", "churn"] == 160.0
    assert requests_of(made)["isolated", "churn"] == 0.0
    assert values(made)[("kickwatch_isolated_cpus",)] == 0.0


def test_a_trial_that_cannot_tell_the_classes_apart_adds_nothing() -> None:
    made = metrics()
    uncounted = trial(isolated_cpus=(2, 3), pairs=(pair(),))
    for one in (
        uncounted,
        trial(observers=Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE)),
        trial(void="cpus_changed", pairs=(pair(),)),
    ):
        made.trial(one, outcome(), {})
    assert set(requests_of(made).values()) == {0.0}
    assert values(made)["kickwatch_trial_window_seconds_total", "churn"] == 0.0
    assert values(made)["kickwatch_trial_pairs_total", "in_time"] == 1.0


def test_the_share_of_outlasted_pairs() -> None:
    made = metrics()
    made.trial(trial(pairs=(*(pair() for _ in range(21)), pair(outlasted=True), pair(outlasted=True))), outcome(), {})
    made.trial(trial(), outcome(), {})
    shown = values(made)
    outcomes = ("in_time", "outlasted")
    assert [shown["kickwatch_trial_pairs_total", word] for word in outcomes] == [21.0, 2.0]


def test_the_process_has_its_standard_series() -> None:
    shown = values(metrics())
    assert shown[("process_cpu_seconds_total",)] > 0.0
    assert shown[("process_resident_memory_bytes",)] > 2**20
    assert ("kickwatch_children_cpu_seconds_total",) in shown


def test_a_textfile_has_no_series_that_node_exporter_also_has() -> None:
    made = metrics()
    scraped, filed = ({sample.name for sample in samples(text)} for text in (made.text(), made.textfile()))
    own = {name for name in scraped if name.startswith("process_")}
    assert len(own) >= 4
    assert filed == scraped - own | {f"kickwatch_{name}" for name in own}


def test_counters_have_no_creation_time() -> None:
    assert not [sample.name for sample in samples(metrics().text()) if sample.name.endswith("_created")]


def test_a_trial_is_counted_with_its_containers_and_their_steps() -> None:
    made = metrics()
    lives = (*containers(5), *containers(0, failed=2))
    made.trial(trial(containers=lives), outcome(), {})
    shown = values(made)
    assert shown["kickwatch_trials_total", "quiet"] == 1.0
    assert (shown["kickwatch_containers_total", "created"], shown["kickwatch_containers_total", "failed"]) == (5.0, 2.0)
    assert shown["kickwatch_container_step_seconds_sum", "start"] == pytest.approx(5 * 0.2)
    assert shown["kickwatch_container_step_seconds_bucket", "0.025", "create"] == 5.0
    assert shown["kickwatch_container_step_seconds_bucket", "0.01", "create"] == 0.0


def test_a_void_trial_is_counted_by_reason_and_does_not_change_the_bill() -> None:
    made = metrics()
    made.trial(trial(kick(23)), outcome(), {})
    before = values(made)
    disturbed = trial(kick(92), void="engine_restarted,cpus_changed,the moon")
    made.trial(disturbed, outcome(Verdict.UNKNOWN), {})
    shown = values(made)
    cell = ("kickwatch_bill_broadcasts_per_container", "slab", "create", "kick_all_cpus_sync")
    assert shown[cell] == before[cell] == 1.0
    reasons = ("engine_restarted", "cpus_changed", "other", "recycled")
    assert [shown["kickwatch_void_trials_total", reason] for reason in reasons] == [1.0, 1.0, 1.0, 0.0]
    verdicts = ("quiet", "unknown", "void")
    assert [shown["kickwatch_trials_total", verdict] for verdict in verdicts] == [1.0, 0.0, 1.0]


def test_a_trial_without_kmem_accounting_is_void() -> None:
    made = metrics()
    made.trial(trial(kick(23), kmem_accounting=KmemAccounting.OFF), outcome(Verdict.UNKNOWN), {})
    shown = values(made)
    assert shown["kickwatch_void_trials_total", "kmem_accounting_off"] == 1.0
    assert ("kickwatch_bill_broadcasts_per_container", "slab", "create", "kick_all_cpus_sync") not in shown


def test_a_cell_that_is_no_longer_on_the_bill_vanishes() -> None:
    made = metrics()
    made.trial(trial(kick(23)), outcome(), {})
    made.trial(trial(), outcome(), {})
    assert not [key for key in values(made) if key[-1] == "kick_all_cpus_sync" and key[0].startswith("kickwatch_bill")]


def test_the_evidence_comes_from_the_monitor() -> None:
    monitor, made = Monitor(PACE), metrics()
    one = trial()
    state, result = monitor.step(monitor.start(), one)
    made.trial(one, result, monitor.figures(state))
    shown, figures = values(made), monitor.figures(state)
    assert set(figures) == set(words.STREAMS)
    for stream, figure in figures.items():
        assert shown["kickwatch_evidence", stream] == figure.evidence
        assert shown["kickwatch_evidence_threshold", stream] == figure.threshold < inf
        assert shown["kickwatch_e_process", stream] == figure.e_process
        assert shown["kickwatch_stream_alerted", stream] == figure.alerted


@given(st.one_of(st.sampled_from(words.CONDITIONS), st.text()))
def test_exactly_one_condition_holds(condition: str) -> None:
    made = metrics()
    made.condition(condition)
    shown = values(made)
    holding = [word for word in words.CONDITIONS if shown["kickwatch_condition", word]]
    assert holding == [condition if condition in words.CONDITIONS else "unknown"]


def test_counters_and_gauges_of_single_events() -> None:
    made = metrics()
    made.failed()
    made.reaped(3)
    made.pauses("load")
    made.paused("load", 2.5)
    made.paused("load", -1.0)  # negative after the clock was set: must not raise
    made.pauses("whatever comes next")
    made.control(passed=True)
    made.trials_off("drained")
    made.stale()
    shown = values(made)
    assert shown[("kickwatch_trials_failed_total",)] == 1.0
    assert shown[("kickwatch_containers_reaped_total",)] == 3.0
    assert shown["kickwatch_guard_pauses_total", "load"] == shown["kickwatch_guard_pauses_total", "other"] == 1.0
    assert shown["kickwatch_guard_paused_seconds_total", "load"] == 2.5
    assert shown[("kickwatch_control_passed",)] == shown[("kickwatch_refreshes_failed_total",)] == 1.0
    assert shown["kickwatch_trials_off", "drained"] == 1.0
    made.trials_off("")
    made.control(passed=False)
    assert not values(made)["kickwatch_trials_off", "drained"] + values(made)[("kickwatch_control_passed",)]


def holding(made: Metrics, name: str) -> set[str]:
    return {key[1] for key, value in values(made).items() if key[0] == name and value}


def test_reasons_of_unknown_are_shown_and_cleared() -> None:
    made = metrics()
    assert set(words.UNKNOWN_REASONS) == {*DOUBTS, "other"}
    for reason in DOUBTS:
        made.condition("unknown", (reason,))
        assert holding(made, "kickwatch_unknown") == {reason}
    made.condition("unknown", ("stale", "blind", "a reason of tomorrow"))
    assert holding(made, "kickwatch_unknown") == {"stale", "blind", "other"}
    made.condition("quiet")
    assert holding(made, "kickwatch_unknown") == set()


def test_the_reason_of_a_broadcast_is_not_a_reason_of_unknown() -> None:
    made = metrics()
    made.condition("unknown", ("creation_path_broadcasts",))
    assert holding(made, "kickwatch_unknown") == {"other"}


def test_a_pause_of_the_guard_is_shown_while_it_lasts() -> None:
    made = metrics()
    made.guarded(("load", "disk"))
    assert holding(made, "kickwatch_guard_paused") == {"load", "disk"}
    made.guarded(())
    assert holding(made, "kickwatch_guard_paused") == set()


def test_troubles_are_independent() -> None:
    made = metrics()
    made.trouble("engine", lasts=True)
    made.trouble("history", lasts=True)
    made.trouble("the moon", lasts=True)
    assert holding(made, "kickwatch_trouble") == {"engine", "history"}
    made.trouble("engine", lasts=False)
    assert holding(made, "kickwatch_trouble") == {"history"}


def test_the_verdict_age_is_nan_without_a_verdict() -> None:
    made = metrics()
    made.verdict_age(90_000.5)
    made.regressed(3)
    made.epoch(1_795_651_200.9)
    shown = values(made)
    assert shown[("kickwatch_verdict_age_seconds",)] == 90_000.5
    assert shown[("kickwatch_regressed_cells",)] == 3.0
    assert shown[("kickwatch_e_process_start_timestamp_seconds",)] == 1_795_651_200.0
    made.verdict_age(None)
    assert isnan(values(made)[("kickwatch_verdict_age_seconds",)])


def test_waits_are_a_histogram_in_seconds() -> None:
    made = metrics()
    waits = {5: {0: 1}, 10: {0: 2}, 20: {0: 4}, 39: {0: 1}}  # 32 ns, 1 us, 1 ms, 550 s
    made.observe(Live(waits=waits, wait_ns={"k": 3_000_000_000}, up={"contention": True}, waits_known=True))
    shown = values(made)
    bucket = "kickwatch_slab_mutex_wait_seconds_bucket"
    bounds = ("1.024e-06", "2.048e-06", "0.001048576", "0.002097152", "17.179869184")
    assert [shown[bucket, bound] for bound in bounds] == [1.0, 3.0, 3.0, 7.0, 7.0]
    assert shown[bucket, "+Inf"] == shown[("kickwatch_slab_mutex_wait_seconds_count",)] == 8.0
    assert shown[("kickwatch_slab_mutex_wait_seconds_sum",)] == 3.0
    assert shown[("kickwatch_slab_mutex_known",)] == shown["kickwatch_observer_up", "contention"] == 1.0
    assert shown["kickwatch_observer_up", "csd"] == 0.0


def test_waits_before_the_mutex_was_known_are_in_neither_count_nor_sum() -> None:
    made = metrics()
    made.observe(Live(waits={20: {0: 0}}, wait_ns={"k": 500}))
    made.observe(Live(waits={20: {0: 1}}, wait_ns={"k": 1_500_500}))
    shown = values(made)
    assert shown[("kickwatch_slab_mutex_wait_seconds_count",)] == 1.0
    assert shown[("kickwatch_slab_mutex_wait_seconds_sum",)] == pytest.approx(0.0015)


def test_interrupts_count_from_the_first_reading_and_requests_from_arming() -> None:
    made = metrics()
    made.observe(Live(interrupts={"CAL": {0: 10**9}}, requests={"do_sync_core": {b"k": 66}}))
    made.observe(Live(interrupts={"CAL": {0: 10**9 + 5, 1: 7}}, requests={"do_sync_core": {b"k": 70}}))
    shown = values(made)
    assert shown["kickwatch_interrupts_total", "CAL"] == 12.0
    assert shown["kickwatch_csd_requests_total", "do_sync_core"] == 70.0


def test_a_kind_of_interrupt_that_the_architecture_does_not_count_has_no_series() -> None:
    """arm64 has no row of TLB shootdowns: 0 would say that there were none."""
    made = metrics()
    assert ("kickwatch_interrupts_total", "TLB") in values(made)  # not read yet
    for _ in range(2):
        made.observe(Live(interrupts={"CAL": {0: 5}, "RES": {0: 5}}))
        assert {key[1] for key in values(made) if key[0] == "kickwatch_interrupts_total"} == {"CAL", "RES"}


LIVES = st.builds(
    Live,
    interrupts=st.dictionaries(
        st.sampled_from(words.KINDS), st.dictionaries(st.integers(0, 3), st.integers(0, 2**32 - 1)), min_size=1
    ),
    requests=st.dictionaries(
        st.sampled_from(words.REQUEST_REASONS), st.dictionaries(st.binary(max_size=1), st.integers(0, 2**40))
    ),
    waits=st.dictionaries(st.integers(0, 39), st.dictionaries(st.just(0), st.integers(0, 2**20))),
    wait_ns=st.dictionaries(st.binary(max_size=1), st.integers(0, 2**40)),
    lost=st.dictionaries(st.sampled_from(words.PROBES), st.dictionaries(st.just(0), st.integers(0, 2**20))),
    up=st.dictionaries(st.sampled_from(words.OBSERVERS), st.booleans()),
)


@given(st.lists(LIVES, min_size=1, max_size=6))
@settings(max_examples=40)
def test_no_counter_ever_falls(lives: list[Live]) -> None:
    """Even if maps are emptied, CPUs go offline or counters wrap between two scrapes."""
    made = metrics()
    before: dict[tuple[str, ...], float] = {}
    for live in lives:
        made.observe(live)
        shown = values(made)
        rising = {key: value for key, value in shown.items() if key[0].endswith(COUNTING)}
        assert all(value >= before.get(key, 0.0) for key, value in rising.items())
        before = rising


def identity(text: str) -> str:
    return f"{IDENTITY}{text}"


IDENTITIES = st.text(max_size=8).map(identity)
NAMED_CELLS = st.builds(
    Cell,
    reason=IDENTITIES,
    func=IDENTITIES,
    origin=st.sampled_from(Origin),
    path=st.sampled_from(Path),
    requests=st.integers(0, 10**6),
    broadcasts=st.integers(0, 10**6),
    stack=st.tuples(IDENTITIES, IDENTITIES),
)
NAMED_TRIALS = st.builds(
    lambda cells, word, failure: trial(
        trial_id=word,
        node=replace(trial().node, kernel=word, engine=word, boot_id=word),
        churn=window("churn", *cells, waits=(wait(holder=word),), disturbances=(word,)),
        containers=(*containers(3), Container(index=9, failure=failure)),
        void=word,
        notes=(word,),
    ),
    st.lists(NAMED_CELLS, max_size=40),
    IDENTITIES,
    IDENTITIES,
)


@given(st.lists(NAMED_TRIALS, max_size=4), IDENTITIES)
@settings(max_examples=40)
def test_names_in_records_are_never_shown(trials: list[Trial], word: str) -> None:
    """No container, trial, kernel function or stack, and a bounded number of series."""
    made = metrics()
    for one in trials:
        made.trial(one, TrialOutcome(trial=one.trial_id, verdict=Verdict.QUIET, reasons=(word,)), {word: figures()})
        made.trial(replace(one, void=""), outcome(), {})
    made.pauses(word)
    made.paused(word, 1.0)
    made.condition("unknown", (word,))
    made.guarded((word,))
    made.trouble(word, lasts=True)
    made.condition(word)
    made.trials_off(word)
    shown = list(samples(made.text()))
    assert IDENTITY not in made.text().decode()
    assert len(shown) <= SERIES_AT_MOST
    assert len([sample for sample in shown if sample.name == "kickwatch_bill_requests_per_container"]) <= MOST_CELLS + 1


def figures() -> StreamFigures:
    return StreamFigures(alerted=True, evidence=1.0, threshold=1.0, e_process=1.0)


def test_whether_a_bill_of_zeros_is_known() -> None:
    made = metrics()
    made.trial(trial(kick(23)), outcome(), {})
    assert values(made)["kickwatch_bill_broadcasts_per_container", "slab", "create", "kick_all_cpus_sync"] == 1.0
    assert values(made)[("kickwatch_bill_known",)] == 1.0
    made.trial(trial(observers=Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE)), outcome(), {})
    assert values(made)["kickwatch_bill_broadcasts_per_container", "other", "other", "other"] == 0.0
    assert values(made)[("kickwatch_bill_known",)] == 0.0


def test_the_help_of_a_figure_that_can_be_unknown_names_the_series_that_tells() -> None:
    text = metrics().text().decode()
    help_of = {name: line for line in text.splitlines() if line.startswith("# HELP ") for name in line.split()[2:3]}
    for name, other in {
        "kickwatch_csd_requests_total": "kickwatch_observer_up",
        "kickwatch_observer_lost_events_total": "kickwatch_observer_up",
        "kickwatch_slab_mutex_wait_seconds": "kickwatch_slab_mutex_known",
        "kickwatch_bill_requests_per_container": "kickwatch_bill_known",
        "kickwatch_bill_broadcasts_per_container": "kickwatch_bill_known",
    }.items():
        assert "Unknown while" in help_of[name], name
        assert other in help_of[name], name


def test_after_a_refused_reading_waits_are_unknown() -> None:
    made = metrics()
    made.observe(Live(up={"csd": True}, waits_known=True))
    assert values(made)[("kickwatch_slab_mutex_known",)] == 1.0
    made.stale(refused=True)
    assert values(made)[("kickwatch_slab_mutex_known",)] == 0.0


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads take turns every few instructions: what is not guarded is found in a fraction of a second."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_it_may_be_read_in_a_thread_while_it_is_written() -> None:
    """Each reading adds as many seconds as waits, so every text has as many of the one as of the other."""
    made, failures = metrics(), list[object]()
    name = "kickwatch_slab_mutex_wait_seconds"

    def read() -> None:
        try:
            for _ in range(20):
                shown = values(made)
                if shown[f"{name}_sum",] != shown[f"{name}_count",]:
                    failures.append((shown[f"{name}_sum",], shown[f"{name}_count",]))
        except (RuntimeError, ValueError) as error:  # a dictionary that changed while it was read
            failures.append(error)

    reader = Thread(target=read)
    reader.start()
    number = 0
    while reader.is_alive():
        number += 1
        halves = dict.fromkeys(range(500), number)  # sources that take their time, so that half of it can be seen
        made.observe(Live(waits={20: halves, 21: halves}, wait_ns={0: 1000 * number * 10**9}))
        made.trial(trial(kick(number % 7)), outcome(), {})
    reader.join()
    assert not failures
    assert number > 10


def test_containers_of_others_are_by_engine_and_known_while_none_was_missed() -> None:
    made = metrics()
    made.observe(Live(others={"docker": {"docker": 5}, "other": {"strange": 2}}, others_known=True))
    made.observe(Live(others={"docker": {"docker": 9}, "other": {"strange": 2}}, others_known=True))
    shown = values(made)
    assert [shown["kickwatch_passive_containers_total", engine] for engine in ("docker", "other")] == [9, 2]
    assert shown["kickwatch_passive_containers_known",] == 1.0
    made.stale(refused=True)
    assert values(made)["kickwatch_passive_containers_known",] == 0.0
