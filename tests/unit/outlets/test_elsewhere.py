"""Broadcasts from elsewhere in alerts: the cell with the largest excess over quiet is named, not the largest cell."""

from msgspec.structs import replace

from builders import kick, trial, window
from kickwatch.detect.verdict import ReasonedVerdict
from kickwatch.journal.journal import Event
from kickwatch.model import Cell, ContentionRung, IpiRung, Observers, Origin, Path, Verdict
from kickwatch.outlets.elsewhere import elsewhere_fields, other_broadcasts
from kickwatch.outlets.one_run import alerts_of

WORKER = Cell(
    reason="do_sync_core",
    func="do_sync_core",
    origin=Origin.STATIC_KEY,
    path=Path.OTHER,
    requests=69,
    calls=23,
    broadcasts=23,
    stack=("on_each_cpu_cond_mask", "netstamp_clear", "worker_thread", "kthread"),
)
NOISE = Cell(
    reason="do_flush_tlb_all",
    func="do_flush_tlb_all",
    origin=Origin.VMALLOC,
    path=Path.OTHER,
    requests=600,
    calls=200,
    broadcasts=200,
)


def test_the_largest_excess_is_named_not_the_largest_cell() -> None:
    one = trial(WORKER, NOISE, quiet=window("quiet", replace(NOISE, broadcasts=190)))
    fields = elsewhere_fields([one])
    assert (fields["func"], fields["origin"], fields["path"]) == ("do_sync_core", "static-key", "other")
    assert (fields["broadcasts_per_container"], fields["containers"]) == (1.0, 23)
    assert fields["stack"] == list(WORKER.stack)
    assert fields["headline"] == (
        "1 x do_sync_core (static-key, other) per container, from outside the creation path, sent by a kworker"
    )
    assert 'kaddr("do_sync_core")' in fields["confirm"]
    assert fields["meaning"].startswith("do_sync_core makes every CPU")


def test_broadcasts_of_other_classes_are_not_blamed() -> None:
    """The creation path, removals and BPF programs have streams and alerts of their own."""
    removal = replace(WORKER, origin=Origin.SLAB, path=Path.DESTROY, broadcasts=400)
    program = replace(WORKER, origin=Origin.BPF, broadcasts=500)
    fields = elsewhere_fields([trial(WORKER, kick(300), removal, program)])
    assert fields["func"] == "do_sync_core"
    assert fields["origin"] == "static-key"


def test_a_sender_that_is_no_kernel_thread_need_not_be_the_creator() -> None:
    alone = replace(WORKER, stack=("on_each_cpu_cond_mask", "sock_set_timestamp"))
    assert elsewhere_fields([trial(alone)])["headline"].endswith("sent by a task or an interrupt")


def test_without_cells_the_alert_names_no_function() -> None:
    blind = trial(churn=window("churn"), observers=Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE))
    fields = elsewhere_fields([blind])
    assert "func" not in fields
    assert "broadcasts_per_container" not in fields
    assert fields["headline"] == "broadcasts come with containers from outside the creation path"


def test_windows_of_different_length_are_compared_by_their_rates() -> None:
    steady = replace(WORKER, broadcasts=20)
    quiet = window("quiet", replace(WORKER, broadcasts=10), duration_ns=5_000_000_000)
    assert other_broadcasts([trial(steady, quiet=quiet)]) == ()
    (found,) = other_broadcasts([trial(WORKER, quiet=quiet)])
    assert found.broadcasts_per_container == 0.13  # 23 - 2 x 10 over 23 containers


def test_a_run_convicted_by_its_pairs_alerts_of_elsewhere_alone() -> None:
    by_pairs = ReasonedVerdict(verdict=Verdict.BROADCASTING, reasons=("broadcasts_elsewhere",), findings=())
    (alert,) = alerts_of([trial(WORKER)], by_pairs)
    assert (alert.event, alert.level) == (Event.ELSEWHERE_DETECTED, "warning")
    assert alert.fields["verdict"] == "broadcasting"
    both = ReasonedVerdict(
        verdict=Verdict.BROADCASTING, reasons=("creation_path_broadcasts", "broadcasts_elsewhere"), findings=()
    )
    alerts = alerts_of([trial(WORKER, kick(23))], both)
    assert [alert.event for alert in alerts] == [Event.BROADCAST_DETECTED, Event.ELSEWHERE_DETECTED]
