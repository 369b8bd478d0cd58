"""The words of kickwatch as types: what is measured, what is recorded, what is decided.

Every record is immutable and serialises with msgspec. A verdict can be recomputed from records alone.
"""

from enum import StrEnum

import msgspec

SCHEMA_VERSION = 1


class Origin(StrEnum):
    """The part of the kernel that asked for a request, read from the call stack."""

    SLAB = "slab"
    MEMCG = "memcg"
    CGROUP = "cgroup"
    NAMESPACE = "namespace"
    PERCPU = "percpu"
    FREEZER = "freezer"
    BPF = "bpf"
    MODULE = "module"
    VMALLOC = "vmalloc"
    STATIC_KEY = "static-key"
    TRACING = "tracing"
    MM_USER = "mm-user"
    RCU = "rcu"
    SCHED = "sched"
    NET = "net"
    IRQ = "irq"
    PERF = "perf"
    MEMBARRIER = "membarrier"
    UNKNOWN = "unknown"


class Path(StrEnum):
    """Which end of a container's life the stack belongs to."""

    CREATE = "create"
    DESTROY = "destroy"
    OTHER = "other"


CREATION_ORIGINS = frozenset({Origin.SLAB, Origin.MEMCG, Origin.CGROUP, Origin.NAMESPACE, Origin.PERCPU})


def on_creation_path(origin: Origin, path: Path) -> bool:
    """True for path `create` with an origin of the creation path, whichever task sent it."""
    return path is Path.CREATE and origin in CREATION_ORIGINS


class Verdict(StrEnum):
    """The result of an experiment."""

    QUIET = "quiet"
    BROADCASTING = "broadcasting"
    UNKNOWN = "unknown"


class Condition(StrEnum):
    """What the daemon believes about the node. `unknown` comes with reasons."""

    QUIET = "quiet"
    BROADCASTING = "broadcasting"
    CONTENDED = "contended"  # no broadcast: as quiet, with waits for slab_mutex
    UNKNOWN = "unknown"


class AlarmKind(StrEnum):
    """The kinds of alarm: what a stream found."""

    BROADCASTING = "broadcasting"
    CONTENDED = "contended"
    DESTROYING = "destroying"
    EXCESSIVE = "excessive"
    ELSEWHERE = "elsewhere"
    ISOLATION = "isolation"
    REGRESSED = "regressed"


class IpiRung(StrEnum):
    """Ways to observe IPIs, best first."""

    CSD = "csd"
    KPROBE = "kprobe"
    COUNTERS = "counters"  # /proc/interrupts alone: no requests, no stacks


class ContentionRung(StrEnum):
    """Ways to observe waits for slab_mutex, best first."""

    TRACEPOINT = "tracepoint"
    KPROBE = "kprobe"
    NONE = "none"


class WindowKind(StrEnum):
    """What happens during a window. A record stores `churn` and `quiet` windows; of the others only the figures."""

    CHURN = "churn"
    QUIET = "quiet"
    CANARY = "canary"
    CONTROL = "control"
    PASSIVE = "passive"


class Disturbance(StrEnum):
    """An event during a window after which its figures prove nothing."""

    SUSPENDED = "suspended"
    ENGINE_RESTARTED = "engine_restarted"
    TRACING_TOGGLED = "tracing_toggled"  # another process's tracer was switched, which broadcasts
    RECYCLED = "recycled"  # the probe emptied its maps
    CPUS_CHANGED = "cpus_changed"
    ROWS_CHANGED = "rows_changed"  # of /proc/interrupts
    COUNTER_FELL = "counter_fell"
    OTHER = "other"  # a word in a record of another release

    @classmethod
    def _missing_(cls, value: object) -> "Disturbance | None":
        return cls.OTHER if isinstance(value, str) else None


class KmemAccounting(StrEnum):
    """Whether the kernel charged kernel memory to our containers, as read from their memcgs."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The base class of all records."""


class Cell(Record, frozen=True, kw_only=True):
    """What one (func, stack) sent during a window: the rise of cumulative counters between the window's edges."""

    reason: str
    func: str
    origin: Origin
    path: Path
    requests: int
    calls: int = 0
    broadcasts: int = 0
    singles: int | None = None  # requests that were part of no multi-CPU call; None in records of older releases
    patches: int | None = None  # broadcasts that patched kernel text, by their stacks; None in older records
    isolated: int | None = None  # requests to isolated CPUs; None where none is isolated, and in older records
    isolated_cpus: tuple[int, ...] = ()  # isolated CPUs that any cell of this func reached in the window
    under_slab_mutex: int = 0
    stack: tuple[str, ...] = ()

    @property
    def single_requests(self) -> int:
        """Requests outside multi-CPU calls. In an older record: all requests of a cell without calls, else 0."""
        if self.singles is not None:
            return self.singles
        return 0 if self.calls else self.requests

    @property
    def on_creation_path(self) -> bool:
        """As `on_creation_path(origin, path)`."""
        return on_creation_path(self.origin, self.path)

    @property
    def identity(self) -> tuple[str, str, Origin, Path]:
        """Two cells with equal identity are one cell."""
        return (self.reason, self.func, self.origin, self.path)


class MutexWait(Record, frozen=True, kw_only=True):
    """Waits for `slab_mutex` by one waiter stack and one holder during a window."""

    waiter: str
    holder: str
    waits: int
    wait_ns: int
    max_wait_ns: int
    origin: Origin = Origin.UNKNOWN
    path: Path = Path.OTHER
    stack: tuple[str, ...] = ()


class Interrupts(Record, frozen=True, kw_only=True):
    """Rise of the IPI rows of /proc/interrupts, summed over CPUs; None where the architecture has no such row."""

    cal: int | None = None
    tlb: int | None = None
    res: int | None = None


class Window(Record, frozen=True, kw_only=True):
    """One span of monotonic time."""

    kind: WindowKind
    duration_ns: int
    interrupts: Interrupts
    cells: tuple[Cell, ...] = ()
    waits: tuple[MutexWait, ...] = ()
    wait_histogram_ns: tuple[int, ...] = ()  # bucket i: waits in [2**i, 2**(i+1)) ns
    lost_events: int = 0
    lost_requests: int | None = None  # of them, those that may be broadcasts; None: not told apart, or an older record
    lost_waits: int | None = None  # of them
    stackless_events: int = 0
    disturbances: tuple[Disturbance, ...] = ()
    per_cpu: tuple[int, ...] | None = None  # requests by target: item i is CPU i's; None where not counted
    isolated_ipis: int | None = None  # IPIs sent to isolated CPUs, of every kind; None where not counted


class HalfFigures(Record, frozen=True, kw_only=True):
    """What one half of a pair had of the figures that are compared with the other half. None: not known."""

    elsewhere: int | None = None  # broadcasts from outside the creation path
    other_waits: int | None = None  # waits for slab_mutex on other paths
    isolated: int | None = None  # requests to isolated CPUs


class Pair(Record, frozen=True, kw_only=True):
    """Two halves of equal length, one with the lives of `containers`, one without. A coin decided which came first.

    `half_ns` was fixed before the coin was tossed, and both figures were read at the halves' planned ends. `outlasted`:
    a container lived longer than its half, so its end lies in the other half, or after the pair.
    """

    churn_first: bool
    half_ns: int
    churn: HalfFigures
    quiet: HalfFigures
    containers: int = 1
    outlasted: bool = False


class Container(Record, frozen=True, kw_only=True):
    """One container's life. Durations in milliseconds; `failure` is empty for a container that counts.

    `sandbox_ms`: its pod's, before `create_ms`; None for engines without pods, and in older records.
    """

    index: int
    sandbox_ms: float | None = None
    create_ms: float = 0.0
    start_ms: float = 0.0
    wait_ms: float = 0.0
    remove_ms: float = 0.0
    kmem_bytes: int | None = None
    creation_path_broadcasts: int | None = None  # serial churn only: rise of the counter over this life
    failure: str = ""
    ended_unread: bool = False  # a user's program that ended before its memcg could be read: `kmem_bytes` is not known


class CanaryBatch(Record, frozen=True, kw_only=True):
    """One batch of bare memory cgroups.

    `lost_events`: requests that the IPI probe could not count, except an interrupt's while the probe ran on that CPU,
    which are never a broadcast's. `stackless_events`: counted, but without a stack.
    """

    memcgs: int
    duration_ns: int
    interrupts: Interrupts
    cells: tuple[Cell, ...] = ()
    lost_events: int = 0
    stackless_events: int = 0


class Observers(Record, frozen=True, kw_only=True):
    """The armed rung of each ladder."""

    ipis: IpiRung
    contention: ContentionRung


class Node(Record, frozen=True, kw_only=True):
    """Where the trial ran; the stratum is made of these fields."""

    kernel: str
    arch: str
    cpus_online: int
    cgroup: str
    engine: str
    runtime: str
    network: str
    boot_id: str = ""
    rcu_expedited: bool = False
    idle_cpus_halt: bool | None = None  # of x86; None: not read, as with a probe, and in older records


class Count(Record, frozen=True, kw_only=True):
    """Events of the positive control: how many were made (a range if the kernel may skip some), how many counted."""

    expected_low: int
    expected_high: int
    seen: int

    @property
    def right(self) -> bool:
        """True if all were counted and there was at least one."""
        return 0 < self.expected_low <= self.seen <= self.expected_high


class Control(Record, frozen=True, kw_only=True):
    """The latest positive control. `calls`: multi-CPU calls, `requests`: theirs, `singles`: single-CPU requests."""

    passed: bool
    detail: str
    cpus: tuple[int, ...] = ()
    calls: Count | None = None
    requests: Count | None = None
    singles: Count | None = None


class Look(Record, frozen=True, kw_only=True):
    """What passive mode saw in some seconds in which others started containers. All are lower bounds.

    `cgroups`: made in all, containers or not, in all hierarchies. `own`: broadcasts of the creation path that tasks of
    containers sent, `others`: those of other tasks. Of them kick all CPUs for slab caches: `own_kicks`, `other_kicks`.
    `uncounted`: at most so many more containers were started, or cgroups made inside containers; `lost`: events, tasks
    and their requests without room in the probe's maps, and all containers where no probe tells their tasks apart.
    """

    containers: int
    cgroups: int
    own: int = 0
    others: int = 0
    own_kicks: int = 0
    other_kicks: int = 0
    uncounted: int = 0
    lost: int = 0


class Trial(Record, frozen=True, kw_only=True):
    """One experiment: everything a verdict is computed from."""

    schema: int = SCHEMA_VERSION
    trial_id: str
    seed: int
    order: tuple[WindowKind, ...]
    started_unix_s: float
    node: Node
    observers: Observers
    churn: Window
    quiet: Window
    containers: tuple[Container, ...]
    canary: CanaryBatch | None
    kmem_accounting: KmemAccounting
    concurrency: int
    unsettled: bool = False
    slab_mutex_known: bool = True  # whether the armed probes know the address of slab_mutex
    senders_known: bool = True  # whether the armed probe can tell that a sender holds slab_mutex
    control: Control | None = None
    pairs: tuple[Pair, ...] = ()  # empty where the two windows were not divided into halves, and in older records
    isolated_cpus: tuple[int, ...] = ()
    looks: tuple[Look, ...] = ()  # of passive mode, which starts no containers; empty in an experiment's record
    void: str = ""  # the disturbances as records store them: joined by commas; empty for a valid trial
    notes: tuple[str, ...] = ()

    @property
    def disturbances(self) -> tuple[Disturbance, ...]:
        """Why the trial proves nothing; empty for a valid one."""
        return tuple(Disturbance(word) for word in self.void.split(",") if word)
