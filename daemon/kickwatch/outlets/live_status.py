"""What the status file has for `kickwatch watch`: how far the daemon is, its evidence, the latest trial, live rates.

Every part may be missing: a daemon of an earlier version does not write it. None is always "not known".
"""

from enum import StrEnum

import msgspec


class Waiting(StrEnum):
    """What the next trial waits for."""

    INTERVAL = "interval"
    BUDGET = "budget"
    GUARD = "guard"
    DRAIN = "drain"
    ENGINE = "engine"


class GuardReading(msgspec.Struct, frozen=True, kw_only=True):
    """One figure that the guard checks. `floor`: the limit is a minimum. `value`: None if it cannot be read."""

    name: str
    value: float | None
    limit: float
    unit: str = ""
    floor: bool = False
    exceeded: bool = False


class GuardStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The latest decision of the guard, `age_s` ago. `what`: why it pauses trials; empty if it does not.

    `readings` is empty if the guard is disabled. `age_s`: None before the first decision.
    """

    paused: bool = False
    what: str = ""
    readings: tuple[GuardReading, ...] = ()
    age_s: float | None = None


class BudgetSpent(msgspec.Struct, frozen=True, kw_only=True):
    """Containers of the last hour or day, and how many are allowed; None is no limit."""

    window: str
    used: int
    most: int | None


class BudgetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon has spent. `cpu_share`: of one CPU, in the last hour or since its start; no limit is None."""

    preset: str
    containers: tuple[BudgetSpent, ...]
    cpu_share: float | None = None
    cpu_share_most: float | None = None


class OthersStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The containers that others started since the probe was armed, at the daemon's start.

    `containers`: None if some may be missing; `containers_at_least`: None if nothing counts them; `unknown`: why.
    """

    containers: int | None = None
    containers_at_least: int | None = None
    by_engine: dict[str, int] = {}
    unknown: str = ""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the daemon is. `doing`: systemd's status line. `trials_begun`: by this daemon.

    `trial_since_s`: how long the trial has been running; None between trials. `waits_for`: None during a trial and
    while the daemon starts. `next_trial_in_s`: at the earliest; None if it depends on something else than time.
    `others`: only in passive mode, after the first look.
    """

    doing: str
    mode: str = "experiment"
    trials_begun: int = 0
    trial_since_s: float | None = None
    waits_for: Waiting | None = None
    next_trial_in_s: float | None = None
    engine: str | None = None
    kernel: str | None = None
    cpus_online: int | None = None
    losses: tuple[str, ...] | None = None
    guard: GuardStatus | None = None
    budget: BudgetStatus | None = None
    others: OthersStatus | None = None


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What the observers counted in the last `span_s`, per second and of all CPUs together.

    `requests`: by reason, None where no probe attributes them. `interrupts`: by kind of /proc/interrupts. `waits`,
    `wait_ms`: for slab_mutex, None where they are not observed. `creation_broadcasts`: in the span, not per second.
    """

    span_s: float
    requests: dict[str, float] | None = None
    interrupts: dict[str, float] = {}
    creation_broadcasts: int | None = None
    waits: float | None = None
    wait_ms: float | None = None


class StreamStatus(msgspec.Struct, frozen=True):
    """The evidence of a stream, and the value at which its alarm is raised."""

    evidence: float
    threshold: float
    alerted: bool


class BillLine(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the bill, per container."""

    reason: str
    origin: str
    path: str
    requests_per_container: float | None = None
    broadcasts_per_container: float | None = None
    isolated_per_container: float | None = None


class TrialStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one trial, or in passive mode of one period; None: not observed. `void`: why it proves nothing."""

    trial_id: str = ""
    started_unix_s: float = 0.0
    containers: int | None = None
    failed: int | None = None
    void: dict[str, int] = {}
    creation_path_broadcasts_per_container: float | None = None
    slab_mutex_waits: int | None = None
    slab_mutex_wait_ms: float | None = None
    slab_mutex_longest_ms: float | None = None
    bill: tuple[BillLine, ...] | None = None
