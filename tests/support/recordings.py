"""Recordings of traced runs as small as a test needs them."""

from collections.abc import Sequence
from typing import Any

from kickwatch.model import Cell, Container, Control, Interrupts, Node, Origin, Path, Window, WindowKind
from kickwatch.observe.trace_events import BANK, BEGINS, MULTI, Kind, Losses, TraceEvent
from kickwatch.trace.recording import Edge, Recording, Step

SYNC, RCU, WAKEUP, SHOOTDOWN = 0x100, 0x200, 0x300, 0x400
FUNCTIONS = {SYNC: "do_sync_core", RCU: "rcu_exp_handler", WAKEUP: "sched_ttwu_pending", SHOOTDOWN: "flush_tlb_func"}
STACKS = {
    1: ("smp_call_function_many_cond", "text_poke_bp_batch", "static_key_slow_inc", "mem_cgroup_write", "vfs_write"),
    2: ("sync_rcu_exp_select_node_cpus", "process_one_work", "worker_thread"),
    3: ("__mutex_lock", "kmem_cache_create", "memcg_create_kmem_cache"),
}
FIRST, LAST = Edge(1_000, 1_100, 0), Edge(900_000, 900_100, 1)
CONTAINER_ID = "c0ffee" * 10


def event(kind: Kind, at_ns: int, **fields: Any) -> TraceEvent:
    known: dict[str, Any] = {"func": 0, "csd": 0, "cpu": 0, "target": 0, "stack": -1, "flags": 0, "tid": 7, "pid": 7}
    return TraceEvent(at_ns, kind=kind, **(known | {"comm": "runc"} | fields))


def sent(at_ns: int, func: int, target: int, *, flags: int = 0, csd: int | None = None, **fields: Any) -> TraceEvent:
    """A request in bank 1, which is in use between FIRST and LAST."""
    address = 0x1000 + target if csd is None else csd
    return event(Kind.REQUEST, at_ns, func=func, csd=address, target=target, flags=flags | BANK, **fields)


def ran(request: TraceEvent, began_ns: int, ended_ns: int) -> list[TraceEvent]:
    """The function of a request at its target."""
    there = {"func": request.func, "csd": request.csd, "cpu": request.target, "comm": "swapper/1"}
    return [event(Kind.ENTRY, began_ns, **there), event(Kind.EXIT, ended_ns, **there)]


def call(at_ns: int, func: int, targets: Sequence[int], *, cpu: int = 0, stack: int = 1) -> list[TraceEvent]:
    """A multi-CPU call with its functions at the targets."""
    flags = [MULTI | BEGINS, *[MULTI] * (len(targets) - 1)]
    requests = [
        sent(at_ns + number, func, target, flags=flags[number], cpu=cpu, stack=stack, csd=0x2000 + 64 * cpu + target)
        for number, target in enumerate(targets)
    ]
    return [*requests, *(each for request in requests for each in ran(request, at_ns + 500, at_ns + 900))]


def window(calls: int, requests: int, lost: int = 0) -> Window:
    cell = Cell(reason="r", func="f", origin=Origin.MEMCG, path=Path.CREATE, requests=requests, calls=calls)
    return Window(kind=WindowKind.CHURN, duration_ns=899_000, interrupts=Interrupts(), cells=(cell,), lost_events=lost)


def recording(events: Sequence[TraceEvent], calls: int = 0, requests: int = 0, **fields: Any) -> Recording:
    node = Node(
        kernel="6.18", arch="x86_64", cpus_online=4, cgroup="v1", engine="docker 1", runtime="runc", network="none"
    )
    known: dict[str, Any] = {
        "events": events,
        "steps": [Step(0, "create", 2_000, 3_000), Step(0, "remove", 4_000, 5_000)],
        "first": FIRST,
        "last": LAST,
        "window": window(calls, requests),
        "losses": Losses(),
        "node": node,
        "containers": [Container(index=0)],
        "control": Control(passed=True, detail="ok"),
        "cpus": [0, 1, 2, 3],
        "stack": lambda stack: STACKS.get(stack, ()),
        "function": lambda address: FUNCTIONS.get(address, hex(address)),
        "cgroup_parent": "/kickwatch",
        "ids": {0: CONTAINER_ID},
    }
    return Recording(**(known | fields))
