"""The words of kickwatch as types: what is measured, what is recorded, what is decided.

Every record is immutable and serialises with msgspec; a verdict can be computed again from records alone.
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
    """What an experiment says."""

    QUIET = "quiet"
    BROADCASTING = "broadcasting"
    UNKNOWN = "unknown"


class Condition(StrEnum):
    """What the daemon believes. It changes seldom; `unknown` has reasons."""

    QUIET = "quiet"
    BROADCASTING = "broadcasting"
    CONTENDED = "contended"  # no broadcast: as quiet, with waits for slab_mutex
    UNKNOWN = "unknown"


class AlarmKind(StrEnum):
    """What an alarm of a stream says of the node."""

    BROADCASTING = "broadcasting"
    CONTENDED = "contended"
    DESTROYING = "destroying"
    EXCESSIVE = "excessive"
    ELSEWHERE = "elsewhere"
    REGRESSED = "regressed"


class KmemAccounting(StrEnum):
    """Whether the kernel charged kernel memory to our containers, as read from their memcgs."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all records."""


class Cell(Record, frozen=True, kw_only=True):
    """What one (func, stack) sent during a window; cumulative counters subtracted at the window's edges."""

    reason: str
    func: str
    origin: Origin
    path: Path
    requests: int
    calls: int = 0
    broadcasts: int = 0
    singles: int | None = None  # requests that were part of no multi-CPU call; None in records of older releases
    patches: int | None = None  # broadcasts that patched kernel text, by their stacks; None in older records
    under_slab_mutex: int = 0
    stack: tuple[str, ...] = ()

    @property
    def single_requests(self) -> int:
        """Requests that were part of no multi-CPU call; of an older record, all of a cell that has no calls."""
        if self.singles is not None:
            return self.singles
        return 0 if self.calls else self.requests

    @property
    def on_creation_path(self) -> bool:
        """See the function of that name."""
        return on_creation_path(self.origin, self.path)

    @property
    def identity(self) -> tuple[str, str, Origin, Path]:
        """What makes two cells the same one."""
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
    """One span of monotonic time: `churn` or `quiet`."""

    kind: str
    duration_ns: int
    interrupts: Interrupts
    cells: tuple[Cell, ...] = ()
    waits: tuple[MutexWait, ...] = ()
    wait_histogram_ns: tuple[int, ...] = ()  # bucket i: waits in [2**i, 2**(i+1)) ns
    lost_events: int = 0
    stackless_events: int = 0
    disturbances: tuple[str, ...] = ()  # what makes the window's figures no proof, e.g. `cpus_changed`


class Container(Record, frozen=True, kw_only=True):
    """One container's life. Durations in milliseconds; `failure` is empty for a container that counts."""

    index: int
    create_ms: float = 0.0
    start_ms: float = 0.0
    wait_ms: float = 0.0
    remove_ms: float = 0.0
    kmem_bytes: int | None = None
    creation_path_broadcasts: int | None = None  # serial churn only: rise of the counter over this life
    failure: str = ""


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
    """The rung of each ladder that observes: `csd`, `kprobe`, `counters`; `tracepoint`, `kprobe`, `none`."""

    ipis: str
    contention: str


class Node(Record, frozen=True, kw_only=True):
    """Where the trial ran: what a stratum is made of."""

    kernel: str
    arch: str
    cpus_online: int
    cgroup: str
    engine: str
    runtime: str
    network: str
    boot_id: str = ""
    rcu_expedited: bool = False


class Count(Record, frozen=True, kw_only=True):
    """Known events of the positive control: done (a range where the kernel may have skipped some), and seen."""

    expected_low: int
    expected_high: int
    seen: int

    @property
    def right(self) -> bool:
        """Seen exactly, and not nothing."""
        return 0 < self.expected_low <= self.seen <= self.expected_high


class Control(Record, frozen=True, kw_only=True):
    """The latest positive control. `calls`: multi-CPU calls, `requests`: theirs, `singles`: single-CPU requests."""

    passed: bool
    detail: str
    cpus: tuple[int, ...] = ()
    calls: Count | None = None
    requests: Count | None = None
    singles: Count | None = None


class Trial(Record, frozen=True, kw_only=True):
    """One experiment whole: everything a verdict is computed from."""

    schema: int = SCHEMA_VERSION
    trial_id: str
    seed: int
    order: tuple[str, ...]
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
    slab_mutex_known: bool = True  # to the probes that are armed
    control: Control | None = None
    void: str = ""  # why the trial proves nothing at all; empty for a valid one
    notes: tuple[str, ...] = ()
