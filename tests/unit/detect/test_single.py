"""`kickwatch trial`: the verdict of one run, its evidence, and how many more containers it needs."""

import pytest
from msgspec.structs import replace

from builders import containers, kick, trial, window
from kickwatch.detect.single import one_shot
from kickwatch.model import (
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
from watching import flips as flips_elsewhere
from watching import lives, paired, serial

FLIP = Cell(
    reason="do_sync_core", func="do_sync_core", origin=Origin.MEMCG, path=Path.CREATE, requests=9, calls=3, broadcasts=3
)


def flips(number: int, each: int = 3) -> Trial:
    """`number` containers with `each` broadcasts by static keys: no signature."""
    return serial(0, replace(FLIP, broadcasts=number * each), containers=lives(number, each))


def test_23_containers_without_a_broadcast_are_quiet() -> None:
    single = one_shot([serial(number=23)])
    assert (single.verdict, single.reasons, single.more_containers) == (Verdict.QUIET, (), 0)
    assert single.error_rate == 1e-4


def test_8_containers_with_3_each_are_broadcasting_with_a_canary_and_without() -> None:
    batch = CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts())
    for one in (flips(8), replace(flips(8), canary=batch)):
        single = one_shot([one])
        assert (single.verdict, single.reasons) == (Verdict.BROADCASTING, ("creation_path_broadcasts",))


def test_too_few_containers_say_how_many_more_are_needed() -> None:
    single = one_shot([serial(number=20)])
    assert (single.verdict, single.reasons, single.more_containers) == (Verdict.UNKNOWN, ("insufficient_evidence",), 3)
    assert single.text.endswith("about 3 more containers decide")
    assert one_shot([serial(number=20), serial(number=3)]).verdict is Verdict.QUIET


def test_the_fault_of_2017_decides_at_once_even_if_all_of_it_comes_late() -> None:
    for batch in (None, CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts())):
        late = serial(32, number=23, containers=lives(23, 0), canary=batch)
        assert one_shot([late]).verdict is Verdict.BROADCASTING


@pytest.mark.parametrize("number", [23, 100])
def test_late_broadcasts_of_unknown_cells_are_never_quiet(number: int) -> None:
    late = flips(number, 1)
    assert one_shot([replace(late, containers=lives(number, 0))]).verdict is Verdict.UNKNOWN


def test_one_late_broadcast_among_many_containers_may_be_quiet() -> None:
    late = serial(0, replace(FLIP, broadcasts=1), containers=lives(60, 0))
    assert one_shot([late]).verdict is Verdict.QUIET


def test_several_at_once_are_quiet_when_none_of_them_broadcast() -> None:
    assert one_shot([serial(containers=lives(23, None), concurrency=8)]).verdict is Verdict.QUIET


def test_several_at_once_take_trials_to_be_broadcasting() -> None:
    burst = replace(flips(23), containers=lives(23, None), concurrency=8)
    one = one_shot([burst])
    assert (one.verdict, one.more_containers) == (Verdict.UNKNOWN, 46)
    assert one_shot([burst] * 3).verdict is Verdict.BROADCASTING


def test_the_canary_decides_where_there_is_no_probe() -> None:
    batch = CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts(cal=1600, tlb=100, res=0))
    blind = serial(
        observers=Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE), canary=batch, churn=window("churn")
    )
    single = one_shot([blind])
    assert (single.verdict, single.reasons, single.more_containers) == (Verdict.UNKNOWN, ("blind",), None)
    single = one_shot([blind] * 5)
    assert (single.verdict, single.reasons) == (Verdict.BROADCASTING, ("canary_interrupts",))


def test_counters_that_include_remote_wakeups_convict_no_kernel() -> None:
    """A healthy arm64 6.12: 0.77 function call interrupts for each bare memory cgroup and other CPU."""
    batch = CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts(cal=231, tlb=None, res=3))
    counters = Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE)
    healthy = serial(observers=counters, canary=batch, churn=window("churn"))
    arm64 = replace(healthy, node=replace(healthy.node, arch="aarch64"))
    halting = replace(healthy, node=replace(healthy.node, idle_cpus_halt=True))
    for included in (arm64, halting):
        single = one_shot([included] * 60)
        assert (single.verdict, single.reasons) == (Verdict.UNKNOWN, ("blind", "counters_include_wakeups"))
    assert one_shot([healthy] * 60).verdict is Verdict.BROADCASTING  # on x86 that polls it would be broadcasts


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"void": "cpus_changed"}, "disturbed"),
        ({"kmem_accounting": KmemAccounting.OFF}, "kmem_accounting_off"),
        ({"control": Control(passed=False, detail="0 of 23")}, "blind"),
    ],
)
def test_trials_that_prove_nothing_are_unknown_whatever_was_seen(fields: dict[str, object], reason: str) -> None:
    for one in (flips(23), serial(number=23)):
        single = one_shot([replace(one, **fields)])
        assert single.verdict is Verdict.UNKNOWN
        assert reason in single.reasons
        assert single.more_containers is None


def test_doubt_keeps_the_broadcasts_that_were_seen_and_prevents_quiet() -> None:
    doubt = {"kmem_accounting": KmemAccounting.UNKNOWN}
    assert one_shot([replace(flips(23), **doubt)]).verdict is Verdict.BROADCASTING
    assert one_shot([replace(serial(number=23), **doubt)]).reasons == ("kmem_accounting_unknown",)


# --- pairs of halves


def test_a_broadcast_that_comes_with_each_container_is_proven_in_one_trial() -> None:
    """From elsewhere, at one each: no stack attributes it, and 23 quiet lives do not acquit it."""
    for batch in (None, CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts())):
        single = one_shot([paired(*[1] * 23, canary=batch)])
        assert (single.verdict, single.reasons) == (Verdict.BROADCASTING, ("broadcasts_elsewhere",))
        assert single.more_containers == 0
        assert single.evidence_needed == "1.0e4"


def test_undecided_pairs_say_how_many_more_containers_decide() -> None:
    often = paired(*[1, 0] * 11, 1)
    single = one_shot([often])
    assert (single.verdict, single.reasons) == (Verdict.UNKNOWN, ("broadcasts_elsewhere",))
    assert single.more_containers == 15
    assert single.text.endswith("about 15 more containers decide")
    assert one_shot([often, paired(*[1, 0] * 8)]).reasons == ("broadcasts_elsewhere",)
    assert one_shot([often, paired(*[1, 0] * 8)]).verdict is Verdict.BROADCASTING


def test_pairs_acquit_once_the_difference_is_small() -> None:
    often = paired(*[1, 0] * 11, 1)
    assert one_shot([often, paired(*[0] * 23)]).verdict is Verdict.QUIET


def test_one_busy_half_is_no_broadcast_with_each_container() -> None:
    """The rule for whole windows leaves the verdict open."""
    busy = paired(30, *[0] * 22)
    assert one_shot([busy]).verdict is Verdict.QUIET
    assert one_shot([replace(busy, pairs=())]).reasons == ("broadcasts_elsewhere",)


def test_what_comes_after_the_last_half_is_compared_by_its_rate() -> None:
    """Work that containers leave for later, while the kernel's work runs out: no pair can see it."""
    late = paired(*[0] * 23)
    late = replace(late, churn=replace(late.churn, cells=(*late.churn.cells, flips_elsewhere(23))))
    assert one_shot([late]).reasons == ("broadcasts_elsewhere",)
    longer = replace(late, churn=replace(late.churn, duration_ns=2 * late.quiet.duration_ns))
    known = replace(longer, quiet=replace(late.quiet, cells=(*late.quiet.cells, flips_elsewhere(20))))
    assert one_shot([known]).verdict is Verdict.QUIET


def test_pairs_that_were_outlasted_convict_nobody() -> None:
    one = paired(*[1] * 23)
    outlasted = replace(one, pairs=tuple(replace(pair, outlasted=True) for pair in one.pairs))
    single = one_shot([outlasted] * 5)
    assert (single.verdict, single.more_containers) == (Verdict.UNKNOWN, None)


def test_the_creation_path_and_the_pairs_are_both_reasons() -> None:
    one = paired(*[1] * 23)
    cells = (*one.churn.cells, replace(FLIP, broadcasts=69))
    both = replace(one, churn=replace(one.churn, cells=cells), containers=lives(23, 3))
    assert one_shot([both]).reasons == ("creation_path_broadcasts",)  # which decides long before
    late = replace(both, containers=lives(23, 0))
    assert one_shot([late]).reasons == ("creation_path_broadcasts", "broadcasts_elsewhere")


def test_pairs_of_a_void_or_blind_trial_prove_nothing() -> None:
    one = paired(*[1] * 23)
    assert one_shot([replace(one, void="suspended")]).reasons == ("disturbed",)
    assert one_shot([replace(one, control=Control(passed=False, detail="counted 0"))]).reasons == ("blind",)


def test_a_whole_trial_among_paired_ones_keeps_its_rule() -> None:
    whole = serial(0, flips_elsewhere(40), number=23)
    assert one_shot([paired(*[0] * 23), whole]).reasons == ("broadcasts_elsewhere",)
    assert one_shot([paired(*[0] * 60), whole]).verdict is Verdict.QUIET


def test_failed_containers_do_not_count() -> None:
    failed = trial(containers=(*lives(20, 0), *containers(0, failed=3)))
    single = one_shot([failed])
    assert single.verdict is Verdict.UNKNOWN
    assert "failed_containers" in single.findings


def test_no_container_at_all_needs_23() -> None:
    assert one_shot([serial(containers=())]).more_containers == 23


def test_the_figures_are_in_the_text() -> None:
    single = one_shot([serial(0, kick(500), containers=lives(10, 50))])
    assert single.evidence_needed == "1.0e4"
    assert "evidence for broadcasting" in single.text
