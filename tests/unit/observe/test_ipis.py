"""When the probe for interrupts to isolated CPUs is armed, and what is reported where it cannot be."""

from collections.abc import Sequence

import pytest

from kickwatch.errors import ObserveError
from kickwatch.observe import ipis
from kickwatch.observe.ipis import Ipis, IsolatedIpis
from kickwatch.observe.losses import Lost


class FakeIpiObserver:
    """A fake of the armed probe; `armed`: each CPU set that it was armed for."""

    def __init__(self, isolated: Sequence[int]) -> None:
        self.isolated = isolated
        self.closed = False

    def follow(self, isolated: Sequence[int]) -> None:
        self.isolated = isolated

    def read(self) -> Ipis:
        return Ipis(len(self.isolated), 7)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def arming(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[int]]:
    """The attempts to arm; the last of them is refused if its CPUs contain 99."""
    attempts: list[Sequence[int]] = []

    def arm(isolated: Sequence[int], _possible: Sequence[int]) -> FakeIpiObserver:
        attempts.append(isolated)
        if 99 in isolated:
            raise ObserveError("cannot attach to tracepoint ipi_send_cpu", "needs 6.4")
        return FakeIpiObserver(isolated)

    monkeypatch.setattr(ipis.IpiObserver, "arm", arm)
    return attempts


def test_nothing_is_armed_where_no_cpu_is_isolated(arming: list[Sequence[int]]) -> None:
    watched = IsolatedIpis()
    watched.follow(())
    assert (arming, watched.read(), watched.losses) == ([], None, [])


def test_it_is_armed_once_and_follows_the_isolated_cpus(arming: list[Sequence[int]]) -> None:
    watched = IsolatedIpis()
    for isolated in ((2,), (2, 3), (2, 3)):
        watched.follow(isolated)
    assert arming == [(2,)]
    assert watched.read() == Ipis(2, 7)


def test_it_is_disarmed_when_none_is_isolated_any_more(arming: list[Sequence[int]]) -> None:
    watched = IsolatedIpis()
    watched.follow((2,))
    armed = watched._armed
    watched.follow(())
    assert isinstance(armed, FakeIpiObserver)
    assert armed.closed
    assert watched.read() is None
    watched.follow((3,))
    assert arming == [(2,), (3,)]


def test_a_refusal_is_a_loss_and_is_not_asked_for_again(arming: list[Sequence[int]]) -> None:
    watched = IsolatedIpis()
    for _ in range(3):
        watched.follow((99,))
    assert arming == [(99,)]
    assert watched.read() is None
    (loss,) = watched.losses
    assert loss.lost is Lost.OTHER_INTERRUPTS
    assert "ipi_send_cpu" in loss.what
    watched.follow((2,))
    assert (arming, watched.losses) == ([(99,), (2,)], [])


def test_without_isolated_cpus_a_refusal_is_no_loss(arming: list[Sequence[int]]) -> None:
    watched = IsolatedIpis()
    watched.follow((99,))
    watched.follow(())
    assert watched.losses == []
    assert len(arming) == 1
