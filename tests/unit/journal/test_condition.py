"""The records of one run's verdict, and what they say."""

from msgspec.structs import replace

from builders import TLB, kick, trial, wait, window
from kickwatch.detect.verdict import judge
from kickwatch.model import CanaryBatch, ContentionRung, Interrupts, IpiRung, KmemAccounting, Observers, Trial
from kickwatch.outlets.broadcast import bpftrace_line, broadcast_fields, contention_fields, headline
from kickwatch.outlets.one_run import alerts_of

SICK = trial(kick(32 * 23, under=32 * 23 * 3))
CONTENDED = trial(churn=window("churn", TLB, waits=(wait(70),)))
UNSEEN = trial(kmem_accounting=KmemAccounting.UNKNOWN)


def _events(one: Trial) -> list[str]:
    return [alert.event.value for alert in alerts_of([one], judge([one]))]


def test_a_verdict_is_said_once_and_quiet_says_nothing() -> None:
    assert _events(trial()) == []
    assert _events(SICK) == ["kickwatch.broadcast_detected"]
    assert _events(CONTENDED) == ["kickwatch.contention_detected"]
    assert _events(UNSEEN) == []


def test_the_alert_names_the_cell_to_blame() -> None:
    (alert,) = alerts_of([SICK], judge([SICK]))
    assert alert.level == "error"
    assert alert.fields["verdict"] == "broadcasting"
    assert alert.fields["reason"] == "kick_all_cpus_sync"
    assert alert.fields["origin"] == "slab"
    assert alert.fields["path"] == "create"
    assert alert.fields["broadcasts_per_container"] == 32
    assert alert.fields["requests_per_container"] == 96
    assert alert.fields["share_under_slab_mutex"] == 1
    assert alert.fields["containers"] == 23
    assert alert.fields["trials"] == ["0badcafe"]
    assert '"do_nothing"' in alert.fields["confirm"]


def test_the_headline_is_one_sentence() -> None:
    sick = trial(churn=window("churn", kick(32 * 23, under=32 * 23 * 3), waits=(wait(7),)))
    assert headline([sick]) == (
        "32 x kick_all_cpus_sync per container, sent by a kworker holding slab_mutex, "
        "with 7 waits for slab_mutex, 42 ms in total"
    )


def test_a_canary_alone_is_counted_by_memory_cgroup() -> None:
    canary = CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts(), cells=(kick(500),))
    alone = trial(canary=canary)
    assert headline([alone]) == "5 x kick_all_cpus_sync per memory cgroup, sent by a kworker"
    fields = broadcast_fields([alone])
    assert fields["broadcasts_per_memory_cgroup"] == 5
    assert fields["broadcasts_per_container"] == 0


def test_without_a_probe_the_alert_still_says_how_to_look() -> None:
    fields = broadcast_fields([trial()])
    assert "the reason is unknown" in fields["headline"]
    assert "csd_queue_cpu {" in fields["confirm"]


def test_an_alert_explains_the_function_that_the_cpus_run() -> None:
    assert broadcast_fields([SICK])["meaning"].startswith("kick_all_cpus_sync interrupts every CPU so that ")
    assert broadcast_fields([trial()])["meaning"] == "no probe tells which function the CPUs run."
    unheard_of = trial(replace(kick(9), reason="ack_kick", func="ack_kick"))
    assert "not in kickwatch's table" in broadcast_fields([unheard_of])["meaning"]


def test_the_command_to_confirm_with_is_one_line() -> None:
    assert bpftrace_line(kick(1)).count("\n") == 0


def test_where_kprobes_saw_it_kprobes_confirm_it() -> None:
    """The innermost frame is the function they were on, whatever the compiler named it."""
    clone = replace(kick(1), stack=("smp_call_function_many_cond.constprop.0", *kick(1).stack[1:]))
    line = bpftrace_line(clone, "kprobe")
    assert 'kprobe:smp_call_function_many_cond.constprop.0 /arg1 == kaddr("do_nothing")/' in line
    seen = trial(kick(9), observers=Observers(ipis=IpiRung.KPROBE, contention=ContentionRung.NONE))
    assert "kprobe:smp_call_function_many_cond " in broadcast_fields([seen])["confirm"]


def test_an_alert_of_counters_alone_claims_no_zeros() -> None:
    """The canary's counters convict; who broadcast how often, and who waited, nobody saw."""
    blind = trial(churn=window("churn"), observers=Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE))
    fields = broadcast_fields([blind])
    unknown = {key: value for key, value in fields.items() if value is None}
    assert set(unknown) == {
        "broadcasts_per_container",
        "slab_mutex_waits",
        "slab_mutex_wait_ms",
        "slab_mutex_holders",
    }
    assert (fields["containers"], fields["trials"]) == (23, ["0badcafe"])


def test_each_of_the_two_probes_knows_the_mutex_for_itself() -> None:
    without_waits = replace(SICK, observers=Observers(ipis=IpiRung.CSD, contention=ContentionRung.NONE))
    fields = broadcast_fields([without_waits])
    assert (fields["slab_mutex_waits"], fields["slab_mutex_holders"]) == (None, None)
    assert fields["share_under_slab_mutex"] == 1
    unknown = broadcast_fields([replace(SICK, slab_mutex_known=False)])
    assert (unknown["slab_mutex_waits"], unknown["share_under_slab_mutex"]) == (None, None)
    known = broadcast_fields([SICK])
    assert (known["slab_mutex_waits"], known["slab_mutex_wait_ms"], known["slab_mutex_holders"]) == (0, 0.0, [])


def test_an_alert_counts_the_waits_of_the_trials_that_looked() -> None:
    """The mutex was learnt in the second one."""
    before, after = replace(CONTENDED, slab_mutex_known=False), replace(CONTENDED, slab_mutex_known=True)
    assert contention_fields([before, after])["slab_mutex_waits"] == 70
    assert contention_fields([before])["slab_mutex_waits"] is None
    shorter = trial(churn=window("churn", TLB, waits=(replace(wait(70), max_wait_ns=0),)))
    assert contention_fields([shorter])["slab_mutex_longest_ms"] is None
