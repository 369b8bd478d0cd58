"""Builders of records: a healthy trial, and the cells of a fault."""

from typing import Any

from msgspec.structs import replace

from kickwatch.model import (
    CanaryBatch,
    Cell,
    Container,
    ContentionRung,
    HalfFigures,
    Interrupts,
    IpiRung,
    KmemAccounting,
    MutexWait,
    Node,
    Observers,
    Origin,
    Pair,
    Path,
    Trial,
    Window,
    WindowKind,
)

TLB = Cell(
    reason="flush_tlb_func", func="flush_tlb_func", origin=Origin.MM_USER, path=Path.OTHER, requests=1200, calls=1200
)
RCU = Cell(
    reason="rcu_exp_handler",
    func="rcu_exp_handler",
    origin=Origin.RCU,
    path=Path.OTHER,
    requests=160,
    stack=("__smp_call_single_queue", "smp_call_function_single", "wait_rcu_exp_gp", "kthread_worker_fn", "kthread"),
)


def kick(broadcasts: int, *, under: int = 0) -> Cell:
    """The fault of 2017: slab creation kicks all CPUs, from a kworker."""
    return Cell(
        reason="kick_all_cpus_sync",
        func="do_nothing",
        origin=Origin.SLAB,
        path=Path.CREATE,
        requests=broadcasts * 3,
        calls=broadcasts,
        broadcasts=broadcasts,
        under_slab_mutex=under,
        stack=("smp_call_function_many_cond", "kick_all_cpus_sync", "__do_tune_cpucache", "worker_thread", "kthread"),
    )


def wait(waits: int = 7, *, holder: str = "kworker/0:1", path: Path = Path.OTHER) -> MutexWait:
    """Tasks that waited for slab_mutex, 6 ms each."""
    return MutexWait(
        waiter="slab_start", holder=holder, waits=waits, wait_ns=waits * 6_000_000, max_wait_ns=9_000_000, path=path
    )


def window(kind: WindowKind | str, *cells: Cell, waits: tuple[MutexWait, ...] = (), **fields: Any) -> Window:
    """A window of ten seconds."""
    given = {"duration_ns": 10_000_000_000, "interrupts": Interrupts(cal=3000, tlb=1000, res=2000)} | fields
    return Window(kind=WindowKind(kind), cells=cells, waits=waits, **given)


def containers(count: int, failed: int = 0) -> tuple[Container, ...]:
    """`count` containers without a failure, then `failed` with one."""
    good = [
        Container(index=i, create_ms=12, start_ms=200, wait_ms=5, remove_ms=10, kmem_bytes=500_000)
        for i in range(count)
    ]
    bad = [Container(index=count + i, failure=f"container kickwatch-x-{i} did not start") for i in range(failed)]
    return (*good, *bad)


def trial(*cells: Cell, count: int = 23, **fields: Any) -> Trial:
    """A healthy trial of `count` containers on four CPUs; `cells` are added to those of its churn window."""
    healthy = Trial(
        trial_id="0badcafe",
        seed=7,
        order=("churn", "quiet"),
        started_unix_s=1.0,
        node=Node(
            kernel="6.18.0",
            arch="x86_64",
            cpus_online=4,
            cgroup="v1",
            engine="docker 20.10.24",
            runtime="runc",
            network="none",
        ),
        observers=Observers(ipis=IpiRung.CSD, contention=ContentionRung.TRACEPOINT),
        churn=window("churn", TLB, RCU, *cells),
        quiet=window("quiet", replace(TLB, requests=100, calls=100), interrupts=Interrupts(cal=100, tlb=50, res=80)),
        containers=containers(count),
        canary=CanaryBatch(memcgs=100, duration_ns=39_000_000, interrupts=Interrupts(cal=2, tlb=2, res=9)),
        kmem_accounting=KmemAccounting.ON,
        concurrency=1,
    )
    return replace(healthy, **fields)


def pair(*, churn: int = 0, quiet: int = 0, half_ms: int = 350, **fields: Any) -> Pair:
    """A pair whose halves had so many broadcasts from elsewhere, and as many requests to isolated CPUs."""
    halves = {
        "churn": HalfFigures(elsewhere=churn, other_waits=0, isolated=churn),
        "quiet": HalfFigures(elsewhere=quiet, other_waits=0, isolated=quiet),
    }
    return Pair(**({"churn_first": True, "half_ns": half_ms * 1_000_000} | halves | fields))


def with_isolated(one: Trial, *, isolated: tuple[int, ...] = (2, 3)) -> Trial:
    """The same trial on a node with isolated CPUs: requests spread evenly over CPUs, which a kick of all CPUs does."""
    cpus = one.node.cpus_online
    share = len(isolated) / cpus

    def counted(of: Window) -> Window:
        cells = tuple(replace(cell, isolated=round(cell.requests * share)) for cell in of.cells)
        total = sum(cell.requests for cell in of.cells)
        spread = tuple(total * (cpu + 1) // cpus - total * cpu // cpus for cpu in range(cpus))
        return replace(of, cells=cells, per_cpu=spread)

    return replace(one, churn=counted(one.churn), quiet=counted(one.quiet), isolated_cpus=isolated)
