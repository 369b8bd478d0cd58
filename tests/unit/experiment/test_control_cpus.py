"""The CPUs of the positive control: configured ones reach it, and `doctor` names the key where they are missing."""

import pytest
from msgspec.structs import replace

from kickwatch.configuration.types import Config, ControlConfig, NodeConfig
from kickwatch.experiment import armed_observers
from kickwatch.experiment.armed_observers import ArmedObservers
from kickwatch.experiment.capabilities import enough_cpus
from kickwatch.experiment.capability import blind
from kickwatch.model import Control
from kickwatch.observe import control

CONFIG = replace(Config(), control=ControlConfig(cpus="3-4"), node=NodeConfig(isolated_cpus="7"))


class Unarmed:
    """Stands in for the observatory: only what the configuration reaches."""

    def __init__(self, listed: tuple[int, ...] = ()) -> None:
        self.listed = listed

    @classmethod
    async def open(cls, *, listed: tuple[int, ...] = ()) -> "Unarmed":
        return cls(listed)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The CPUs that each control was asked to use."""
    found: list[tuple[int, ...]] = []

    async def controlled(_: object, chosen: tuple[int, ...]) -> Control:
        found.append(chosen)
        return Control(passed=True, detail="")

    monkeypatch.setattr(armed_observers, "Observatory", Unarmed)
    monkeypatch.setattr(armed_observers, "positive_control", controlled)
    return found


async def test_every_control_uses_the_configured_cpus_also_after_a_reload(asked: list[tuple[int, ...]]) -> None:
    armed = await ArmedObservers.open(CONFIG)
    await armed.prove()
    armed.follow(Config())
    await armed.prove()
    armed.follow(replace(CONFIG, control=ControlConfig(cpus="5,2")))
    await armed.prove()
    assert asked == [(3, 4), (3, 4), (), (5, 2)]


async def test_without_a_configuration_none_is_chosen(asked: list[tuple[int, ...]]) -> None:
    await ArmedObservers.open()
    assert asked == [()]


def test_doctor_names_the_remedy_for_a_node_with_one_cpu_that_is_not_isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "online", lambda _: [0, 1, 3])
    found = enough_cpus((0,), (), (1, 3))
    assert not found.satisfied
    assert found.detail == "fewer than two CPUs that are neither isolated nor nohz_full"
    assert "set control.cpus" in found.remedy
    assert blind([found])
    offline = enough_cpus((3,), (3, 9))
    assert (offline.satisfied, offline.detail) == (False, "fewer than two CPUs of control.cpus are online")


def test_doctor_says_which_cpus_the_control_uses() -> None:
    assert enough_cpus((0, 1), ()).detail == "0, 1 (that are not isolated)"
    chosen = enough_cpus((3, 4), (3, 4))
    assert (chosen.satisfied, chosen.detail, chosen.remedy) == (True, "3, 4 (of control.cpus)", "")
