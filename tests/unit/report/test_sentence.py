"""The verdict in words: true for what was tested, and nothing seen is left out."""

from msgspec.structs import replace

from builders import RCU, TLB, kick, trial, window
from kickwatch.detect.single import one_shot
from kickwatch.detect.verdict import ReasonedVerdict
from kickwatch.model import Cell, Origin, Path, Trial, Verdict
from kickwatch.outlets.elsewhere import other_broadcasts
from kickwatch.report.sentence import sentence
from kickwatch.report.tables import trial_text
from watching import lives, serial

TIMESTAMP = Cell(
    reason="do_sync_core",
    func="do_sync_core",
    origin=Origin.STATIC_KEY,
    path=Path.OTHER,
    requests=138,
    calls=138,
    broadcasts=138,
    singles=0,
    stack=("on_each_cpu_cond_mask", "netstamp_clear", "worker_thread"),
)
SECCOMP = Cell(
    reason="kick_all_cpus_sync",
    func="do_nothing",
    origin=Origin.BPF,
    path=Path.CREATE,
    requests=3 * 276,
    calls=276,
    broadcasts=276,
    singles=0,
)


def judged(*trials: Trial) -> tuple[ReasonedVerdict, str]:
    single = one_shot(trials)
    judgement = ReasonedVerdict(verdict=single.verdict, reasons=single.reasons, findings=single.findings)
    return judgement, sentence(trials, judgement)


def silent(*cells: Cell, **fields: object) -> Trial:
    return serial(0, *cells, number=23, **fields)


def test_quiet_claims_no_more_than_was_tested() -> None:
    judgement, text = judged(silent())
    assert judgement.verdict is Verdict.QUIET
    assert text == (
        "the creation path made no broadcast for 23 containers, which excludes a broadcast in every third container or"
        " more often"
    )


def test_six_broadcasts_for_each_container_from_a_worker_are_not_quiet() -> None:
    """SO_TIMESTAMP in the container: netstamp_needed_key is flipped by a worker, three calls on and three off."""
    one = silent(TIMESTAMP)
    judgement, text = judged(one)
    assert (judgement.verdict, judgement.reasons) == (Verdict.UNKNOWN, ("broadcasts_elsewhere",))
    assert "6 do_sync_core (static-key, other) per container" in text
    assert "`kickwatch trial --until-decided`, or `kickwatch run`; to see who asks: bpftrace -e" in text
    shown = trial_text(one, judgement)
    assert "verdict: unknown (broadcasts_elsewhere): with 23 containers the kernel broadcast 6 do_sync" in shown


def test_a_conviction_by_the_pairs_names_the_function_and_claims_nothing_of_the_creation_path() -> None:
    reasons = ("broadcasts_elsewhere",)
    judgement = ReasonedVerdict(verdict=Verdict.BROADCASTING, reasons=reasons, findings=())
    text = sentence([silent(TIMESTAMP)], judgement)
    assert text.startswith("with 23 containers the kernel broadcast 6 do_sync_core (static-key, other) per container")
    assert "the pairs prove that the containers are the cause" in text
    assert "next: see who asks: bpftrace -e" in text
    assert "creating containers makes" not in text
    both = replace(judgement, reasons=("creation_path_broadcasts", *reasons))
    text = sentence([silent(TIMESTAMP, kick(23))], both)
    assert text.startswith("creating containers makes this kernel interrupt every other CPU; with 23 containers")
    assert "6 do_sync_core" in text


def test_what_the_pairs_acquit_is_listed_as_such() -> None:
    judgement = ReasonedVerdict(verdict=Verdict.QUIET, reasons=(), findings=())
    text = sentence([silent(TIMESTAMP)], judgement)
    assert "6 do_sync_core per container from elsewhere, as often without a container by the test of the pairs" in text


def test_a_short_run_says_both_that_it_is_short_and_what_came_with_it() -> None:
    judgement, text = judged(serial(0, replace(TIMESTAMP, broadcasts=60), number=10))
    assert judgement.reasons == ("broadcasts_elsewhere", "insufficient_evidence")
    assert "6 do_sync_core" in text


def test_what_is_allowed_is_listed() -> None:
    arm = replace(trial().node, arch="aarch64", kernel="6.12.0")
    drained = Cell(
        reason="do_drain", func="do_drain", origin=Origin.SLAB, path=Path.DESTROY, requests=9, calls=46, broadcasts=46
    )
    judgement, text = judged(silent(SECCOMP, drained, node=arm))
    assert judgement.verdict is Verdict.QUIET
    assert "12 kick_all_cpus_sync per container are this kernel's ordinary cost of seccomp filters and other" in text
    assert "2 do_drain per container while containers are removed (slab)" in text


def test_programs_are_no_ordinary_cost_where_they_are_packed() -> None:
    judgement, text = judged(silent(SECCOMP))
    assert (judgement.verdict, judgement.reasons) == (Verdict.UNKNOWN, ("broadcasts_elsewhere",))
    assert "12 kick_all_cpus_sync (bpf, create) per container" in text


def test_a_few_from_elsewhere_are_listed_as_such() -> None:
    judgement, text = judged(silent(replace(TIMESTAMP, broadcasts=5)))
    assert judgement.verdict is Verdict.QUIET
    assert "0.217 do_sync_core per container from elsewhere, below the 0.5" in text


def test_what_is_as_frequent_without_containers_is_not_beside_them() -> None:
    both = silent(TIMESTAMP, quiet=window("quiet", TIMESTAMP))
    assert other_broadcasts([both]) == ()
    assert judged(both)[0].verdict is Verdict.QUIET


def test_strays_of_the_creation_path_are_counted_in_the_words() -> None:
    stray = serial(0, kick(1), number=60, containers=(*lives(59, 0), *lives(1, 1)))
    stray = replace(stray, churn=window("churn", TLB, RCU, replace(kick(1), origin=Origin.MEMCG)))
    judgement, text = judged(stray)
    assert judgement.verdict is Verdict.QUIET
    assert text.startswith("the creation path made 1 broadcast for 60 containers")


def test_the_cell_to_blame_is_not_what_is_ordinary_here() -> None:
    arm = replace(trial().node, arch="aarch64", kernel="6.12.0")
    _, text = judged(silent(SECCOMP, replace(TIMESTAMP, broadcasts=14), node=arm))
    assert "broadcast 0.609 do_sync_core (static-key, other) per container" in text
    assert 'kaddr("do_sync_core")' in text
    assert "kick_all_cpus_sync" not in text


def test_more_than_any_healthy_node_is_not_called_ordinary() -> None:
    old = replace(trial().node, kernel="4.19.0")
    _, text = judged(silent(replace(SECCOMP, broadcasts=500 * 23), node=old))
    assert "500 kick_all_cpus_sync per container for BPF programs, more than the 42 measured on healthy nodes" in text
