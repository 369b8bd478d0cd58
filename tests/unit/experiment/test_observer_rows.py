"""Rows of `doctor` for what the probes do not know: no kernel needed."""

import asyncio
from typing import TYPE_CHECKING, NoReturn, cast

import pytest

from fake_probe import FakeProbe
from kickwatch.errors import ObserveError
from kickwatch.experiment.observer_rows import SLAB_MUTEX, observer_rows
from kickwatch.node.roots import HOST
from kickwatch.observe import observatory as observatory_module
from kickwatch.observe.contention import ContentionObserver
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.losses import Lost
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.symbols import Symbols

if TYPE_CHECKING:
    from kickwatch.experiment.capability import Capability
    from kickwatch.observe.bpf import BpfObject

MANY = "1000 t smp_call_function_many_cond\n2000 t end\n"
LISTED = f"{MANY}9000 d slab_mutex\n"
REALTIME = f"{LISTED}3000 T rt_spin_lock\n"
REFUSAL = ObserveError("the kernel refuses it", "another kernel")


def refuse(*_: object) -> NoReturn:
    raise REFUSAL


def armed(kallsyms: str = LISTED) -> Observatory:
    """Both probes are armed, and know where a task has its name."""
    symbols, probe = Symbols.parse(kallsyms), cast("BpfObject", FakeProbe())
    mutex = symbols.address_of("slab_mutex") or 0
    made = Observatory(HOST, 2, symbols)
    made.requests = CsdObserver(probe, symbols, 2, slab_mutex=mutex)
    made.contention = ContentionObserver(probe, symbols, mutex, 1)
    return made


async def missing(seen: Observatory) -> "dict[str, Capability]":
    return {row.name: row for row in await observer_rows(seen, passive=False) if not row.satisfied}


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
        monkeypatch.setattr(observatory_module, "learn_comm_offset", refuse)
    else:
        monkeypatch.setattr("kickwatch.observe.task_layout._find_comm", lambda: -1)
    await asyncio.to_thread(seen._arm_contention)
    row = (await missing(seen))[SLAB_MUTEX]
    assert (REFUSAL.what if refused else "no copy of a task_struct contains the name") in row.detail
    assert row.remedy
    (loss,) = seen.present_losses
    assert loss.lost is Lost.HOLDERS
