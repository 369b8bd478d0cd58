"""The record of passive mode: what it says of the node and of the observers."""

from types import SimpleNamespace
from typing import Any

import pytest

from builders import TLB, kick, window
from kickwatch.experiment import passive_record as module
from kickwatch.experiment.passive_record import OTHERS, passive_record
from kickwatch.model import (
    Cell,
    ContentionRung,
    Control,
    Disturbance,
    IpiRung,
    KmemAccounting,
    Look,
    Observers,
    Origin,
    Path,
    WindowKind,
)

LOOKS = (Look(containers=2, cgroups=20),)
ARMED: Any = SimpleNamespace(
    observatory=SimpleNamespace(cpus_online=4),
    rungs=Observers(ipis=IpiRung.CSD, contention=ContentionRung.NONE),
    control=Control(passed=True, detail="23 of 23"),
    isolated_cpus=(),
    losses=["no contention"],
)


@pytest.fixture(autouse=True)
def _node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Cgroups", SimpleNamespace(read=lambda: SimpleNamespace(version="v2")))


def test_it_has_no_containers_of_ours_and_no_quiet_window() -> None:
    record = passive_record(ARMED, window("passive", TLB, kick(2)), LOOKS, slab_mutex_known=True, senders_known=False)
    assert (record.order, record.looks, record.containers) == ((WindowKind.PASSIVE,), LOOKS, ())
    assert (record.churn.cells, record.quiet.cells, record.quiet.duration_ns) == ((TLB, kick(2)), (), 0)
    assert (record.node.engine, record.node.cgroup, record.node.cpus_online) == (OTHERS, "v2", 4)
    assert record.kmem_accounting is KmemAccounting.UNKNOWN
    assert (record.control, record.observers, record.notes) == (ARMED.control, ARMED.rungs, ("no contention",))
    assert record.void == ""
    assert (record.slab_mutex_known, record.senders_known) == (True, False)


def test_a_window_that_was_disturbed_proves_nothing() -> None:
    toggled = Cell(
        reason="do_sync_core", func="do_sync_core", origin=Origin.TRACING, path=Path.OTHER, requests=3, broadcasts=1
    )
    seen = window("passive", toggled, disturbances=(Disturbance.CPUS_CHANGED,))
    made = passive_record(ARMED, seen, LOOKS, slab_mutex_known=True, senders_known=True)
    assert made.void == "cpus_changed,tracing_toggled"
