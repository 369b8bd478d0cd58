"""The guard: pauses with their causes, no flapping inside the band, one end for each pause."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kickwatch.configuration.types import GuardConfig, Preset
from kickwatch.node.pressure import Cause, Pressure
from kickwatch.service.guard import MADE_BY_CHURN, Decision, Guard, readings, thresholds

CALM = Pressure(
    cpu_some_pct=1.0,
    memory_some_pct=0.0,
    io_some_pct=2.0,
    load_per_cpu=0.5,
    available_memory_pct=80.0,
    engine_disk_free_pct=60.0,
    containers=20,
    dying_memcgs=10,
)
BEYOND = {
    Cause.CPU_PRESSURE: replace(CALM, cpu_some_pct=50.1),
    Cause.MEMORY_PRESSURE: replace(CALM, memory_some_pct=10.1),
    Cause.IO_PRESSURE: replace(CALM, io_some_pct=63.0),
    Cause.LOAD: replace(CALM, load_per_cpu=4.1),
    Cause.MEMORY: replace(CALM, available_memory_pct=4.9),
    Cause.DISK: replace(CALM, engine_disk_free_pct=4.9),
    Cause.CONTAINERS: replace(CALM, containers=1001),
    Cause.DYING_MEMCGS: replace(CALM, dying_memcgs=20_001),
}
AT_THE_LIMIT = Pressure(
    cpu_some_pct=50.0,
    memory_some_pct=10.0,
    io_some_pct=50.0,
    load_per_cpu=4.0,
    available_memory_pct=5.0,
    engine_disk_free_pct=5.0,
    containers=1000,
    dying_memcgs=20_000,
)
DEFAULT = GuardConfig()


def guard(config: GuardConfig = DEFAULT, preset: Preset = Preset.SENTINEL) -> Guard:
    return Guard(config, preset)


def looks(one: Guard, *steps: tuple[float, Pressure]) -> list[Decision]:
    return [one.look(pressure, now_s) for now_s, pressure in steps]


@pytest.mark.parametrize("cause", Cause)
def test_each_cause_pauses_and_is_named(cause: Cause) -> None:
    decision = guard().look(BEYOND[cause], 7.0)
    assert (decision.paused, decision.began, decision.ended) == (True, True, False)
    assert decision.causes == (cause,)
    assert decision.paused_s == 0.0
    assert "limit" in decision.what


def test_calm_and_the_limits_themselves_are_allowed() -> None:
    assert looks(guard(), (0.0, CALM), (1.0, AT_THE_LIMIT)) == [Decision(paused=False)] * 2


def test_the_sentences() -> None:
    one = guard()
    both = replace(BEYOND[Cause.IO_PRESSURE], engine_disk_free_pct=4.0)
    assert one.look(both, 0.0).what == "io pressure 63.0 % (limit 50 %), free disk of the engine 4.0 % (limit 5 %)"
    near = replace(CALM, io_some_pct=45.0, load_per_cpu=3.5)
    assert (
        one.look(near, 1.0).what == "io pressure 45.0 % (resumes at 40 %), load 3.50 per CPU (resumes at 3.2 per CPU)"
    )
    assert one.look(CALM, 2.0).what == "calm for 0 s, resumes after 30 s"
    assert one.look(replace(CALM, io_some_pct=None), 12.0).what == (
        "calm for 10 s, resumes after 30 s, io pressure cannot be read"
    )
    ended = one.look(CALM, 95.0)
    assert ended.what == "calm again after a pause of 95 s for io pressure, free disk of the engine"
    assert (ended.paused, ended.ended, ended.paused_s) == (False, True, 95.0)
    assert one.look(CALM, 96.0).what == ""


def test_counts_have_no_decimals() -> None:
    assert guard().look(BEYOND[Cause.DYING_MEMCGS], 0.0).what == "dying memory cgroups 20001 (limit 20000)"


def test_causes_accumulate_during_a_pause_and_end_with_it() -> None:
    one = guard()
    steps = looks(
        one, (0, BEYOND[Cause.LOAD]), (10, BEYOND[Cause.DISK]), (20, BEYOND[Cause.LOAD]), (21, CALM), (51, CALM)
    )
    assert [step.causes for step in steps[1:4]] == [(Cause.LOAD, Cause.DISK)] * 3
    assert steps[4].ended
    assert steps[4].causes == (Cause.LOAD, Cause.DISK)
    assert one.look(CALM, 52).causes == ()
    assert one.look(BEYOND[Cause.CONTAINERS], 53).causes == (Cause.CONTAINERS,)


def test_a_pause_ends_only_after_a_calm_time_without_interruption() -> None:
    band = replace(CALM, io_some_pct=45.0)
    steps = [(0.0, BEYOND[Cause.IO_PRESSURE]), (1.0, CALM), (30.9, CALM), (30.95, band), (31.1, CALM), (61.0, CALM)]
    one = guard()
    assert all(step.paused for step in looks(one, *steps))
    assert one.look(CALM, 61.1).ended


def test_a_pause_ends_only_if_every_reading_is_clear_and_not_just_its_cause() -> None:
    one = guard(GuardConfig(resume_after_s=0.0))
    one.look(BEYOND[Cause.IO_PRESSURE], 0.0)
    assert one.look(replace(CALM, available_memory_pct=5.5), 1.0).paused  # 6 is well above 5
    assert one.look(replace(CALM, available_memory_pct=6.0), 2.0).ended


def test_without_a_band_and_a_calm_time_a_pause_ends_at_the_next_look() -> None:
    one = guard(GuardConfig(resume_share=0.0, resume_after_s=0.0))
    began, ended = looks(one, (0.0, BEYOND[Cause.DISK]), (5.0, AT_THE_LIMIT))
    assert began.began
    assert ended.ended
    assert not ended.paused


def test_a_minimum_resumes_above_it_and_at_most_at_100() -> None:
    floors = GuardConfig(available_memory_pct=90.0, engine_disk_free_pct=100.0, resume_share=1.0)
    levels = {one.cause: one.resume for one in thresholds(floors, Preset.SENTINEL)}
    assert levels[Cause.MEMORY] == levels[Cause.DISK] == 100.0
    assert levels[Cause.IO_PRESSURE] == 0.0
    usual = {one.cause: one.resume for one in thresholds(DEFAULT, Preset.SENTINEL)}
    assert usual[Cause.MEMORY] == pytest.approx(6.0)
    assert usual[Cause.CONTAINERS] == pytest.approx(800)


@pytest.mark.parametrize("cause", Cause)
def test_stress_ignores_what_its_churn_causes(cause: Cause) -> None:
    assert guard(preset=Preset.STRESS).look(BEYOND[cause], 0.0).paused is (cause not in MADE_BY_CHURN)


def test_a_disabled_guard_never_pauses_and_a_threshold_of_0_is_ignored() -> None:
    worst = Pressure(cpu_some_pct=100.0, available_memory_pct=0.0, containers=10**6)
    assert not guard(GuardConfig(enabled=False)).look(worst, 0.0).paused
    assert guard(GuardConfig(cpu_pressure_pct=0.0)).look(worst, 0.0).causes == (Cause.MEMORY, Cause.CONTAINERS)


def test_missing_readings_change_nothing() -> None:
    one = guard(GuardConfig(resume_after_s=10.0))
    assert one.look(Pressure(), 0.0) == Decision(paused=False)
    one.look(BEYOND[Cause.IO_PRESSURE], 1.0)
    assert all(step.paused for step in looks(one, *((float(now), Pressure()) for now in range(2, 500))))
    one.look(CALM, 500.0)
    assert one.look(Pressure(), 511.0).paused  # calm for long enough, but unknown now
    assert one.look(CALM, 512.0).ended


def test_a_reading_that_this_node_never_has_keeps_no_pause() -> None:
    one = guard(GuardConfig(resume_after_s=10.0))
    without_psi = replace(CALM, cpu_some_pct=None, memory_some_pct=None, io_some_pct=None)
    one.look(replace(without_psi, load_per_cpu=9.0), 0.0)
    assert one.look(without_psi, 1.0).paused
    assert one.look(without_psi, 11.0).ended


def test_a_reading_from_before_the_pause_does_not_keep_it() -> None:
    one = guard(GuardConfig(resume_after_s=0.0))
    one.look(replace(CALM, io_some_pct=45.0), 0.0)  # inside the band, then never read again
    unread = replace(CALM, io_some_pct=None)
    one.look(replace(unread, load_per_cpu=9.0), 1.0)
    assert one.look(unread, 2.0).ended


percents = st.none() | st.floats(0, 100)
pressures = st.builds(
    Pressure,
    cpu_some_pct=percents,
    memory_some_pct=percents,
    io_some_pct=percents,
    load_per_cpu=st.none() | st.floats(0, 100),
    available_memory_pct=percents,
    engine_disk_free_pct=percents,
    containers=st.none() | st.integers(0, 3000),
    dying_memcgs=st.none() | st.integers(0, 60_000),
)
mixed = st.lists(st.tuples(st.floats(0, 60), st.one_of(pressures, st.just(CALM), st.just(Pressure()))), max_size=60)
configs = st.builds(GuardConfig, resume_share=st.floats(0, 1), resume_after_s=st.floats(0, 120))


@given(mixed, configs, st.sampled_from(Preset))
def test_every_pause_begins_once_ends_once_and_has_a_cause(
    steps: list[tuple[float, Pressure]], config: GuardConfig, preset: Preset
) -> None:
    one, now_s, before = guard(config, preset), 0.0, Decision(paused=False)
    began_s = calm_from_s = 0.0
    for gap_s, pressure in steps:
        now_s += gap_s
        decision = one.look(pressure, now_s)
        assert decision.began is (decision.paused and not before.paused)
        assert decision.ended is (before.paused and not decision.paused)
        began_s = now_s if decision.began else began_s
        exceeded = {
            each.cause
            for each in one.thresholds
            if (value := readings(pressure)[each.cause]) is not None and each.exceeded(value)
        }
        assert bool(decision.causes) is bool(decision.what) is (decision.paused or decision.ended)
        assert decision.paused or not exceeded
        assert decision.began is bool(exceeded and not before.paused)
        assert exceeded <= set(decision.causes)
        if before.paused:
            assert decision.causes[: len(before.causes)] == before.causes
        if decision.paused or decision.ended:
            assert decision.paused_s == now_s - began_s
        if exceeded:
            calm_from_s = now_s
        if decision.ended:
            assert now_s - calm_from_s >= config.resume_after_s
        before = decision


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=100), st.floats(0.01, 0.9), st.sampled_from(Cause))
def test_inside_the_band_nothing_changes(places: list[float], share: float, cause: Cause) -> None:
    """A reading between its resume level and its limit neither ends a pause nor begins one."""
    config = GuardConfig(resume_share=share, resume_after_s=0.0)
    (edge,) = [one for one in thresholds(config, Preset.SENTINEL) if one.cause is cause]
    inside = [edge.resume + place * (edge.limit - edge.resume) for place in places]
    field = next(name for name in Pressure.__struct_fields__ if getattr(BEYOND[cause], name) != getattr(CALM, name))
    calm, paused = guard(config), guard(config)
    assert paused.look(BEYOND[cause], 0.0).began
    for second, value in enumerate(inside, 1):
        if edge.clear(value) or edge.exceeded(value):  # the edges of the band, as the rounding has them
            continue
        banded = replace(CALM, **{field: value})
        assert calm.look(banded, second) == Decision(paused=False)
        held = paused.look(banded, second)
        assert (held.paused, held.began, held.causes) == (True, False, (cause,))
        assert "resumes at" in held.what


def test_each_look_has_the_part_of_the_pause_since_the_look_before() -> None:
    one = guard(replace(DEFAULT, resume_after_s=0.0))
    assert not one.paused
    steps = looks(one, (10.0, BEYOND[Cause.LOAD]), (15.0, BEYOND[Cause.LOAD]), (22.0, CALM))
    assert [decision.lasted_s for decision in steps] == [0.0, 5.0, 7.0]
    assert steps[-1].ended
    assert steps[-1].paused_s == 12.0
    assert not one.paused
