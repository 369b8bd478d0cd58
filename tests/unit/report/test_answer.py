"""The verdict in words: true for what was tested, and nothing seen is left out."""

import pytest
from msgspec.structs import replace

from builders import RCU, TLB, kick, trial, window
from kickwatch.detect.single import one_shot
from kickwatch.detect.verdict import Finding, ReasonedVerdict, VerdictReason
from kickwatch.model import Cell, ContentionRung, IpiRung, Observers, Origin, Path, Trial, Verdict
from kickwatch.outlets.elsewhere import other_broadcasts
from kickwatch.report.answer import RunAnswer, answer
from kickwatch.report.run_words import asker_of
from screens import judged, prose
from watching import lives, paired, serial

CANARIES = {"canary_broadcasts", "canary_interrupts"}
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


def answered(*trials: Trial, judgement: ReasonedVerdict | None = None) -> tuple[ReasonedVerdict, RunAnswer]:
    found = judgement or judged(trials)
    return found, answer(trials, found, one_shot(trials))


def everything(said: RunAnswer) -> str:
    return " | ".join([said.headline, *(f"{label}: {text}" for label, text in said.points)])


def silent(*cells: Cell, **fields: object) -> Trial:
    return serial(0, *cells, number=23, **fields)


def test_quiet_claims_no_more_than_was_tested() -> None:
    judgement, said = answered(silent())
    assert judgement.verdict is Verdict.QUIET
    assert said.headline == "quiet: creating containers does not broadcast IPIs (0 in 23 containers)"
    assert dict(said.points)["excluded"] == (
        "a broadcast by the creation path in every third container or more often (wrong in at most 1 run in 10,000)"
    )
    assert dict(said.points)["not excluded"].startswith("rarer ones; other kernels")


def test_the_creation_path_is_blamed_with_its_function_its_sender_and_its_proof() -> None:
    judgement, said = answered(serial(3, number=12))
    assert judgement.verdict is Verdict.BROADCASTING
    assert said.headline == (
        "broadcasting (creation_path_broadcasts): creating a container makes this kernel interrupt all other CPUs:"
        " 3 x kick_all_cpus_sync per container, asked for by __do_tune_cpucache"
    )
    points = dict(said.points)
    assert points["asked by"] == "__do_tune_cpucache (slab), in a kworker"
    assert "> __do_tune_cpucache > kick_all_cpus_sync > smp_call_function_many_cond" in points["call chain"]
    assert points["CPUs run"].startswith("kick_all_cpus_sync interrupts every CPU")
    assert points["how sure"].startswith("proven: each call stack shows it, 36 times here")
    confirm, report = said.steps
    assert confirm.command.startswith("bpftrace -e '")
    assert 'kaddr("do_nothing")' in confirm.command
    assert report.command == "kickwatch trial --record trial.jsonl; kickwatch report --bug trial.jsonl"


def test_a_recorded_run_has_its_bug_report_at_hand() -> None:
    trials = [serial(3, number=12)]
    said = answer(trials, judged(trials), one_shot(trials), "/tmp/faulty.jsonl")
    assert said.steps[-1].command == "kickwatch report --bug /tmp/faulty.jsonl"


def test_the_holder_of_slab_mutex_is_named_as_such() -> None:
    held = serial(0, kick(36, under=108), number=12, containers=lives(12, 3))
    _, said = answered(held)
    assert dict(said.points)["asked by"] == "__do_tune_cpucache (slab), in a kworker, holding slab_mutex"


def test_six_broadcasts_for_each_container_from_a_worker_are_not_quiet() -> None:
    """SO_TIMESTAMP in the container: netstamp_needed_key is flipped by a worker, three calls on and three off."""
    judgement, said = answered(silent(TIMESTAMP))
    assert (judgement.verdict, judgement.reasons) == (Verdict.UNKNOWN, ("broadcasts_elsewhere",))
    assert said.headline == (
        "unknown (broadcasts_elsewhere): broadcasts come with 23 containers, but not from the creation path; whether"
        " containers cause them is open: 6 x do_sync_core per container, asked for by netstamp_clear"
    )
    assert dict(said.points)["creation path"] == "0 broadcasts in 23 containers"
    assert dict(said.points)["how sure"].startswith("not proven")
    assert said.steps[-1].command.startswith("bpftrace -e")


def test_a_conviction_by_the_pairs_names_the_function_and_claims_nothing_of_the_creation_path() -> None:
    reasons = ("broadcasts_elsewhere",)
    judgement = ReasonedVerdict(verdict=Verdict.BROADCASTING, reasons=reasons, findings=())
    _, said = answered(silent(TIMESTAMP), judgement=judgement)
    assert "containers make this kernel interrupt all other CPUs, but from outside the creation path" in said.headline
    assert "6 x do_sync_core per container, asked for by netstamp_clear" in said.headline
    assert "the pairs prove that the containers are the cause" in dict(said.points)["how sure"]
    assert dict(said.points)["creation path"] == "0 broadcasts in 23 containers"
    assert "creating a container makes" not in said.headline
    both = replace(judgement, reasons=("creation_path_broadcasts", *reasons))
    _, said = answered(silent(TIMESTAMP, kick(23)), judgement=both)
    assert said.headline.index("creating a container makes this") < said.headline.index("6 x do_sync_core")


def test_the_pairs_that_prove_it_are_counted() -> None:
    judgement = ReasonedVerdict(verdict=Verdict.BROADCASTING, reasons=("broadcasts_elsewhere",), findings=())
    _, said = answered(paired(*[6] * 22, 0), judgement=judgement)
    assert "in 22 of 23 pairs the half with a container had more, in 0 fewer" in dict(said.points)["how sure"]


def test_what_the_pairs_acquit_is_listed_as_such() -> None:
    judgement = ReasonedVerdict(verdict=Verdict.QUIET, reasons=(), findings=())
    _, said = answered(silent(TIMESTAMP), judgement=judgement)
    assert "as often without a container by the test of the pairs" in dict(said.points)["also seen"]


def test_a_short_run_says_both_that_it_is_short_and_what_came_with_it() -> None:
    judgement, said = answered(serial(0, replace(TIMESTAMP, broadcasts=60), number=10))
    assert judgement.reasons == ("broadcasts_elsewhere", "insufficient_evidence")
    assert "too few containers to decide (10)" in said.headline
    assert "6 x do_sync_core" in said.headline
    assert said.steps[0].command == "kickwatch trial --until-decided"


def test_what_is_allowed_is_listed() -> None:
    arm = replace(trial().node, arch="aarch64", kernel="6.12.0")
    drained = Cell(
        reason="do_drain", func="do_drain", origin=Origin.SLAB, path=Path.DESTROY, requests=9, calls=46, broadcasts=46
    )
    judgement, said = answered(silent(SECCOMP, drained, node=arm))
    assert judgement.verdict is Verdict.QUIET
    text = everything(said)
    assert "12 kick_all_cpus_sync per container are this kernel's ordinary cost of seccomp filters and other" in text
    assert "2 do_drain per container while containers are removed (slab)" in text


def test_programs_are_no_ordinary_cost_where_they_are_packed() -> None:
    judgement, said = answered(silent(SECCOMP))
    assert (judgement.verdict, judgement.reasons) == (Verdict.UNKNOWN, ("broadcasts_elsewhere",))
    assert "12 x kick_all_cpus_sync per container (bpf)" in said.headline


def test_a_few_from_elsewhere_are_listed_as_such() -> None:
    judgement, said = answered(silent(replace(TIMESTAMP, broadcasts=5)))
    assert judgement.verdict is Verdict.QUIET
    assert "0.217 do_sync_core per container from elsewhere, below the 0.5" in everything(said)


def test_what_is_as_frequent_without_containers_is_not_beside_them() -> None:
    both = silent(TIMESTAMP, quiet=window("quiet", TIMESTAMP))
    assert other_broadcasts([both]) == ()
    assert answered(both)[0].verdict is Verdict.QUIET


def test_strays_of_the_creation_path_are_counted_in_the_words() -> None:
    stray = serial(0, kick(1), number=60, containers=(*lives(59, 0), *lives(1, 1)))
    stray = replace(stray, churn=window("churn", TLB, RCU, replace(kick(1), origin=Origin.MEMCG)))
    judgement, said = answered(stray)
    assert judgement.verdict is Verdict.QUIET
    assert said.headline == "quiet: creating containers seldom broadcasts IPIs (1 in 60 containers)"


def test_the_cell_to_blame_is_not_what_is_ordinary_here() -> None:
    arm = replace(trial().node, arch="aarch64", kernel="6.12.0")
    _, said = answered(silent(SECCOMP, replace(TIMESTAMP, broadcasts=14), node=arm))
    assert "0.609 x do_sync_core per container, asked for by netstamp_clear" in said.headline
    assert 'kaddr("do_sync_core")' in said.steps[-1].command
    assert "kick_all_cpus_sync" not in everything(said)


def test_more_than_any_healthy_node_is_not_called_ordinary() -> None:
    old = replace(trial().node, kernel="4.19.0")
    _, said = answered(silent(replace(SECCOMP, broadcasts=500 * 23), node=old))
    assert "500 kick_all_cpus_sync per container for BPF programs, more than the 42 measured" in everything(said)


@pytest.mark.parametrize("reason", sorted(set(VerdictReason) - {"creation_path_broadcasts", *CANARIES}))
def test_every_reason_for_unknown_says_what_it_means_and_what_to_do(reason: str) -> None:
    judgement = ReasonedVerdict(verdict=Verdict.UNKNOWN, reasons=(reason,), findings=())
    _, said = answered(serial(0, number=5), judgement=judgement)
    assert said.headline.startswith(f"unknown ({reason}): ")
    assert "_" not in said.headline.partition("): ")[2].replace("slab_mutex", "")
    assert said.steps


def test_findings_are_explained() -> None:
    judgement = ReasonedVerdict(verdict=Verdict.QUIET, reasons=(), findings=tuple(Finding))
    _, said = answered(silent(), judgement=judgement)
    shown = [text for label, text in said.points if label == "finding"]
    assert len(shown) == len(Finding) - 1  # what comes from elsewhere has its own lines
    assert "containers make tasks wait for slab_mutex" in shown[0]


def test_nothing_is_zero_that_no_probe_counted() -> None:
    blind = replace(silent(), observers=Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE))
    _, said = answered(blind)
    assert dict(said.points)["creation path"] == "broadcasts not known in 23 containers: no probe attributed them"
    assert "0 broadcasts" not in prose(blind)


def test_only_the_counters_of_the_canary_convict() -> None:
    judgement = ReasonedVerdict(verdict=Verdict.BROADCASTING, reasons=("canary_interrupts",), findings=())
    _, said = answered(silent(), judgement=judgement)
    assert "creating a memory cgroup makes this kernel interrupt all other CPUs" in said.headline
    assert "which function asked is not known" in said.headline
    assert dict(said.points)["how sure"].startswith("by the counters of the canary")


def test_work_whose_function_is_not_on_the_stack_is_named_by_what_it_called() -> None:
    """As recorded on 6.18: netstamp_clear ends in a jump to static_key_disable, and leaves no frame."""
    stack = (
        *("smp_call_function_many_cond", "on_each_cpu_cond_mask", "smp_text_poke_batch_finish"),
        *("arch_jump_label_transform_apply", "static_key_disable_cpuslocked", "static_key_disable"),
        *("process_one_work", "worker_thread", "kthread", "ret_from_fork"),
    )
    judgement = ReasonedVerdict(verdict=Verdict.BROADCASTING, reasons=("broadcasts_elsewhere",), findings=())
    _, said = answered(silent(replace(TIMESTAMP, stack=stack)), judgement=judgement)
    assert "asked for by static_key_disable" in said.headline
    points = dict(said.points)
    asked = "static_key_disable (static-key), in a kworker; the work function is not on the stack"
    assert points["asked by"] == f"{asked}, since this was its last call"
    assert points["evidence"].startswith("for broadcasting by the pairs ")
    work, confirm, _ = said.steps
    assert "tracepoint:workqueue:workqueue_queue_work" in work.command
    assert "csd_queue_cpu" in confirm.command
    assert points["call chain"].startswith(
        "worker_thread > process_one_work > static_key_disable > static_key_disable_c"
    )
    assert asker_of(()) == ""
    assert (
        asker_of(("smp_call_function_many_cond", "process_one_work", "worker_thread")) == "smp_call_function_many_cond"
    )
