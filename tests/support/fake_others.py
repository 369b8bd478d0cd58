"""An observatory for passive mode without a kernel: windows and containers of others, as a test gives them."""

from collections import Counter
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

from kickwatch.model import Cell, Window
from kickwatch.observe.containers import CgroupCounts
from kickwatch.observe.losses import Loss, Lost
from kickwatch.observe.readings import Health
from kickwatch.observe.request_cells import RequestSample


class FakeContainers:
    """The probe of cgroups. `started`, `lost`, `strangers`: what the next `drain` finds in total."""

    def __init__(self) -> None:
        self.started: Counter[str] = Counter()
        self.lost = self.strangers = 0
        self.drains = 0
        self.followed = True
        self.latest = CgroupCounts()
        self.lost_unfollowed = 0
        self.ledger = SimpleNamespace(started=Counter(), pending=0)

    def follow(self) -> None:
        if not self.followed:
            self.drain()
        self.followed = True

    def leave(self) -> None:
        self.followed = False

    def drain(self) -> CgroupCounts:
        self.drains += 1
        self.ledger.started = Counter(self.started)
        made = 10 * self.started.total()
        self.latest = CgroupCounts(made=made, passed=made, lost=self.lost, strangers=self.strangers)
        return self.latest


class FakeMembers:
    """The probe of members: of each window's cells those that `own` names by reason, or all."""

    def __init__(self, observed: "ObservedOthers", own: Collection[str] | None) -> None:
        self._observed, self._own = observed, own

    def cells(self, *_: object, patches_count: bool) -> tuple[Cell, ...]:
        assert not patches_count
        shown = self._observed.shown.cells
        return shown if self._own is None else tuple(cell for cell in shown if cell.reason in self._own)


class ObservedOthers:
    """An observatory with given windows, of which each is shown once and the last one for ever.

    `why`: why the probe of cgroups cannot be armed. `members_lost`: requests of containers' tasks without room, in all.
    `learns`: the address of slab_mutex is found after a window.
    """

    def __init__(
        self,
        *windows: Window,
        requests: bool = True,
        waits: bool = True,
        learns: bool = False,
        own: Collection[str] | None = None,
        why: str = "",
    ) -> None:
        self.windows = list(windows)
        self.shown = windows[0]
        self.requests = object() if requests else None
        self.waits_known = waits
        self.slab_mutex_known = waits
        self.senders_known = True
        self.members_lost = 0
        self.armed_with: tuple[str, ...] = ()
        self.containers: Any = None
        self.members: Any = None
        self.probe = FakeContainers()
        self.housekeeping = 0
        self._own, self._why, self._learns = own, why, learns
        self._at_ns = 0

    async def arm_passive(self, own: Collection[str]) -> None:
        self.armed_with = tuple(own)
        if not self._why:
            self.containers = self.probe
            self.members = FakeMembers(self, self._own) if self.requests is not None else None

    def leave_passive(self) -> None:
        self.containers.leave()

    def lost(self, *_: Lost) -> list[Loss]:
        return [Loss(Lost.CONTAINERS, self._why, "run it as root")] if self._why else []

    async def sample(self) -> Any:
        return SimpleNamespace(at_ns=self._at_ns, members=RequestSample({}, Health(lost=self.members_lost)))

    def window(self, *_: object) -> Window:
        self.shown = self.windows.pop(0)
        return self.shown

    async def between_windows(self) -> None:
        self.housekeeping += 1
        self.waits_known = self.slab_mutex_known = self.waits_known or self._learns
