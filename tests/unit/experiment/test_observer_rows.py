"""Each loss of the observatory is in a row of `doctor` that is missing, with its remedy: no kernel needed."""

import ast
import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

import pytest

import kickwatch
from fake_probe import FakeProbe
from kickwatch.errors import ObserveError
from kickwatch.experiment.observer_rows import ISOLATED, ROWS, SLAB_MUTEX, observer_rows
from kickwatch.node.causes import CAUSES
from kickwatch.node.roots import HOST
from kickwatch.observe import arming
from kickwatch.observe import observatory as observatory_module
from kickwatch.observe.containers import ContainerObserver
from kickwatch.observe.contention import ContentionObserver
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.ipis import IpiObserver
from kickwatch.observe.losses import Loss, Lost
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.symbols import Symbols

if TYPE_CHECKING:
    from kickwatch.experiment.capability import Capability
    from kickwatch.observe.bpf import BpfObject

MANY = "1000 t smp_call_function_many_cond\n2000 t end\n"
LISTED = f"{MANY}9000 d slab_mutex\n"
REALTIME = f"{LISTED}3000 T rt_spin_lock\n"
HIDDEN = "0 t smp_call_function_many_cond\n0 t end\n"
PASSIVE = {Lost.CONTAINERS, Lost.MEMBERS}
REFUSAL = ObserveError("the kernel refuses it", "another kernel")


def refuse(*_: object) -> NoReturn:
    raise REFUSAL


def armed(kallsyms: str = LISTED, isolated: Sequence[int] = (), *, lost: Sequence[Lost] = ()) -> Observatory:
    """Both probes are armed, and know where a task has its name."""
    symbols, probe = Symbols.parse(kallsyms), cast("BpfObject", FakeProbe())
    mutex = symbols.address_of("slab_mutex") or 0
    made = Observatory(HOST, 2, symbols, isolated_cpus=tuple(isolated))
    made.requests = CsdObserver(probe, symbols, 2, slab_mutex=mutex, isolated=isolated)
    made.contention = ContentionObserver(probe, symbols, mutex, 1)
    made._lost += [Loss.by(one, REFUSAL) for one in lost]
    if isolated:
        made._ipis._armed = cast("IpiObserver", object())
    return made


def without(kallsyms: str, *lost: Lost) -> Observatory:
    """Without the probes whose refusal is `lost`."""
    made = armed(kallsyms, lost=lost)
    made.requests = None if Lost.REQUESTS in lost else made.requests
    made.contention = None if Lost.WAITS in lost else made.contention
    return made


def blind() -> Observatory:
    made = Observatory(HOST, 2, Symbols.parse(HIDDEN))
    made._lost.append(Loss.by(Lost.NAMES, REFUSAL))
    return made


def unplaced() -> Observatory:
    made = armed()
    assert made.requests is not None
    made.requests._unplaced = 7
    return made


def before_6_4() -> Observatory:
    made = armed(isolated=[1])
    made._ipis._armed = None
    made._ipis.follow([1])
    return made


# On each node, one thing is lost.
NODES: dict[Lost, Callable[[], Observatory]] = {
    Lost.NAMES: blind,
    Lost.REQUESTS: lambda: without(LISTED, Lost.REQUESTS),
    Lost.BETTER_REQUESTS: lambda: armed(lost=[Lost.BETTER_REQUESTS]),
    Lost.WAITS: lambda: without(LISTED, Lost.WAITS),
    Lost.BETTER_WAITS: lambda: armed(lost=[Lost.BETTER_WAITS]),
    Lost.UNDER_MUTEX: lambda: without(REALTIME, Lost.WAITS),
    Lost.HOLDERS: lambda: without(REALTIME, Lost.REQUESTS),
    Lost.SLAB_MUTEX: lambda: armed(MANY),
    Lost.OTHER_INTERRUPTS: before_6_4,
    Lost.FAR_REQUESTS: lambda: armed(isolated=[3, 1024]),
    Lost.TARGETS: unplaced,
    Lost.CONTAINERS: armed,
    Lost.MEMBERS: armed,
}


@pytest.fixture(autouse=True)
def refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is armed in these tests is refused."""
    monkeypatch.setattr(IpiObserver, "arm", refuse)
    monkeypatch.setattr(observatory_module, "arm_members", refuse)


async def missing(seen: Observatory, *, passive: bool = False) -> "dict[str, Capability]":
    return {row.name: row for row in await observer_rows(seen, passive=passive) if not row.satisfied}


@pytest.mark.parametrize("lost", Lost, ids=lambda lost: lost.name)
async def test_each_loss_is_in_a_row_that_is_missing_with_its_remedy(
    lost: Lost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Debian 12 with isolated CPUs the daemon logged a loss, and for doctor nothing was missing."""
    found = (lambda _own: object()) if lost is Lost.MEMBERS else refuse
    monkeypatch.setattr(ContainerObserver, "arm", found)
    seen = await asyncio.to_thread(NODES[lost])
    rows = await missing(seen, passive=lost in PASSIVE)
    assert lost in {loss.lost for loss in seen.present_losses}
    assert ROWS[lost] in rows
    for loss in seen.present_losses:
        assert any(loss.what in row.detail for row in rows.values()), loss
        assert loss.remedy, loss
    assert all(row.remedy for row in rows.values())


@pytest.mark.parametrize("isolated", [(), (1,)])
async def test_where_nothing_is_lost_nothing_is_missing(isolated: tuple[int, ...]) -> None:
    rows = await observer_rows(armed(isolated=isolated), passive=False)
    assert all(row.satisfied for row in rows)
    assert (ISOLATED in {row.name for row in rows}) == bool(isolated)
    assert armed(isolated=isolated).present_losses == []


async def test_without_kernel_symbols_interrupts_to_isolated_cpus_are_not_counted_either() -> None:
    seen = blind()
    seen.isolated_cpus = (1,)
    row = (await missing(seen))[ISOLATED]
    assert row.remedy == "as for kernel symbols"


def test_no_cause_and_no_refusal_is_without_a_remedy() -> None:
    assert all(cause.remedy for cause in CAUSES.values())
    package = Path(kickwatch.__file__).parent
    for path in package.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "ObserveError":
                assert len(call.args) == 2, f"{path}:{call.lineno}"


async def test_on_preempt_rt_unknown_holders_are_missing_until_the_owner_is_learnt() -> None:
    """Doctor was satisfied, with "names of its holders known"."""
    seen = armed(REALTIME)
    row = (await missing(seen))[SLAB_MUTEX]
    assert "PREEMPT_RT" in row.detail
    assert "learns it at the first wait" in row.remedy
    assert seen.requests is not None
    assert seen.contention is not None
    seen.requests.owner_offset = seen.contention.owner_offset = 24
    assert not await missing(seen)


@pytest.mark.parametrize("refused", [True, False])
async def test_where_the_place_of_a_tasks_name_is_not_found_unknown_holders_are_missing(
    monkeypatch: pytest.MonkeyPatch, *, refused: bool
) -> None:
    """Doctor was satisfied with "unknown", and the daemon logged nothing."""
    seen = armed()
    armed_probe = seen.contention
    monkeypatch.setattr(ContentionObserver, "arm", lambda *_: armed_probe)
    if refused:
        monkeypatch.setattr(arming, "learn_comm_offset", refuse)
    else:
        monkeypatch.setattr("kickwatch.observe.task_layout._find_comm", lambda: -1)
    seen.contention, seen._lost = await asyncio.to_thread(arming.arm_contention, seen.symbols)
    row = (await missing(seen))[SLAB_MUTEX]
    assert (REFUSAL.what if refused else "no copy of a task_struct contains the name") in row.detail
    assert row.remedy
    (loss,) = seen.present_losses
    assert loss.lost is Lost.HOLDERS
