"""A status file as a daemon writes it, and looks at it, for tests of `kickwatch watch`."""

from typing import Any

from msgspec.structs import replace

from kickwatch.detect.streams import StreamName
from kickwatch.model import Condition
from kickwatch.outlets.live_status import (
    BillLine,
    BudgetSpent,
    BudgetStatus,
    GuardReading,
    GuardStatus,
    OthersStatus,
    Progress,
    Rates,
    StreamStatus,
    TrialStatus,
    Waiting,
)
from kickwatch.outlets.status import Presence, Sight, Status
from kickwatch.terminal.watch_view import View

NOW = 1_800_000_000.0
STREAMS = {
    "canary": StreamStatus(0.5, 2.0e9, False),
    "attributed": StreamStatus(1.0, 5.0e8, False),
    "burst": StreamStatus(4.0, 5.0e8, False),
    "elsewhere_pairs": StreamStatus(31_622.7766, 1.0e9, False),
}
BILL = (
    BillLine(
        reason="flush_tlb_func",
        origin="mm-user",
        path="other",
        requests_per_container=205.7,
        broadcasts_per_container=0.0,
    ),
    BillLine(
        reason="rcu_exp_handler", origin="rcu", path="other", requests_per_container=10.8, broadcasts_per_container=0.0
    ),
)
GUILTY = BillLine(
    reason="do_sync_core",
    origin="memcg",
    path="create",
    requests_per_container=2.0,
    broadcasts_per_container=2.0,
)
TRIAL = TrialStatus(
    trial_id="0badcafe",
    started_unix_s=NOW - 240.0,
    containers=23,
    failed=0,
    creation_path_broadcasts_per_container=0.0,
    slab_mutex_waits=0,
    slab_mutex_wait_ms=0.0,
    slab_mutex_longest_ms=0.0,
    bill=BILL,
)
PROGRESS = Progress(
    doing="between two trials",
    trials_begun=3,
    waits_for=Waiting.INTERVAL,
    next_trial_in_s=34.0,
    engine="docker 20.10.24 (runc 1.1)",
    kernel="6.18.44",
    cpus_online=72,
    losses=(),
    guard=GuardStatus(
        readings=(
            GuardReading(name="load", value=0.31, limit=4.0, unit="per CPU"),
            GuardReading(name="available memory", value=63.0, limit=5.0, unit="%", floor=True),
            GuardReading(name="io pressure", value=None, limit=50.0, unit="%"),
        ),
        age_s=1.0,
    ),
    budget=BudgetStatus(
        preset="sentinel",
        containers=(
            BudgetSpent(window="hour", used=46, most=60),
            BudgetSpent(window="day", used=46, most=1440),
        ),
        cpu_share=0.0021,
        cpu_share_most=0.01,
    ),
)
STATUS = Status(
    pid=4711,
    version="0.1.0",
    condition=Condition.QUIET,
    condition_since_unix_s=NOW - 7380.0,
    doing="between two trials",
    updated_unix_s=NOW - 2.0,
    trials=41,
    containers=943,
    verdict_age_s=240.0,
    started_unix_s=NOW - 9000.0,
    start_ticks=99,
    control_passed=True,
    progress=PROGRESS,
    streams=STREAMS,
    rates=Rates(
        span_s=5.0,
        requests={"flush_tlb_func": 230.4, "sched_ttwu_pending": 1200.0},
        interrupts={"CAL": 240.0, "TLB": 230.4, "RES": 900.2},
        creation_broadcasts=0,
        waits=0.0,
        wait_ms=0.0,
    ),
    trial=TRIAL,
)
FAULTY = replace(
    STATUS,
    condition=Condition.BROADCASTING,
    alerts={"broadcasting": ("attributed", "signature")},
    streams=STREAMS | {"attributed": StreamStatus(1.0e300, 5.0e8, True)},
    trial=replace(TRIAL, bill=(*BILL, GUILTY), slab_mutex_waits=7, slab_mutex_wait_ms=42.0, slab_mutex_longest_ms=9.0),
)
PASSIVE = replace(
    STATUS,
    condition=Condition.UNKNOWN,
    reasons=("insufficient_evidence",),
    doing="unknown; passive: 9 containers started by others",
    trials=2,
    containers=0,
    verdict_age_s=None,
    progress=replace(
        PROGRESS,
        doing="unknown; passive: 9 containers started by others",
        mode="passive",
        waits_for=None,
        next_trial_in_s=None,
        engine=None,
        guard=GuardStatus(),
        others=OthersStatus(containers=9, containers_at_least=9, by_engine={"docker": 7, "runc": 2}),
    ),
    streams={name: StreamStatus(0.0, 3.8e10, False) for name in StreamName},
    trial=replace(TRIAL, trial_id="", containers=9, failed=None),
)
LACKS = "this process lacks CAP_BPF"
UNCOUNTED = replace(
    PASSIVE,
    reasons=("blind",),
    doing=f"unknown; passive: an unknown number of containers ({LACKS}) started by others",
    control_passed=False,
    progress=replace(
        PASSIVE.progress,
        losses=(f"{LACKS}; lost: containers that others start; fix: run it as root",),
        others=OthersStatus(unknown=f"{LACKS}; fix: run it as root"),
    ),
    trial=TrialStatus(started_unix_s=NOW - 240.0),
    trials=0,
    streams={},
    rates=Rates(span_s=5.0, interrupts={"CAL": 240.0}),
)
BLIND = replace(STATUS, condition=Condition.UNKNOWN, reasons=("blind",), control_passed=False)
YOUNG = replace(
    STATUS,
    condition=Condition.UNKNOWN,
    reasons=("insufficient_evidence",),
    more_containers=19,
    verdict_age_s=None,
    streams={},
    trial=None,
    rates=None,
)
CONTENDED = replace(STATUS, condition=Condition.CONTENDED, alerts={"contended": ("contention",)})
OLD = Status(  # of a version without a live view
    pid=4711,
    version="0.0.9",
    condition=Condition.QUIET,
    condition_since_unix_s=NOW - 7380.0,
    doing="quiet; trial 3: churn window, 23 containers",
    updated_unix_s=NOW - 90.0,
    trials=41,
    containers=943,
)


def running(status: Status = STATUS, **changed: Any) -> View:
    """A look at a daemon that runs."""
    return View(Sight(Presence.RUNNING, replace(status, **changed), status.pid), NOW)


def stopped(status: Status | None = STATUS, seen_s: float | None = NOW - 60.0) -> View:
    """A look after it has stopped."""
    return View(Sight(Presence.STOPPED, status), NOW, seen_s)
