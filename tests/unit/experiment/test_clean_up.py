"""The clean-up when no trial starts: what the engine does not remove is no success."""

from types import SimpleNamespace
from typing import Any

import pytest

from kickwatch.configuration.types import Config
from kickwatch.errors import EngineError, LeftoversStayError
from kickwatch.experiment import clean_up
from kickwatch.workload.engine import EngineInfo

INFO = EngineInfo(
    name="containerd", version="1.6.20", runtime="runc", cgroup_driver="cgroupfs", root="/", endpoint="/s"
)


class Stubborn:
    """An engine that refuses so many removals."""

    def __init__(self, refusals: int) -> None:
        self.left, self.refusals, self.closed = ["a" * 64], refusals, False

    async def own_containers(self, _: str) -> list[str]:
        return list(self.left)

    async def remove(self, container_id: str) -> None:
        self.refusals -= 1
        if self.refusals >= 0:
            raise EngineError("could not remove the container", "container is in starting state")
        self.left.remove(container_id)

    async def close(self) -> None:
        self.closed = True


async def test_containers_that_the_engine_does_not_remove_yet_are_not_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    engine: Any = Stubborn(refusals=1)

    async def chosen(_: Config, **_on_call_end: object) -> SimpleNamespace:
        return SimpleNamespace(engine=engine, info=INFO)

    async def nothing(*_: object) -> int:
        return 0

    monkeypatch.setattr(clean_up, "choose_engine", chosen)
    monkeypatch.setattr(clean_up, "_sweep_store", nothing)
    monkeypatch.setattr(clean_up, "_reap_cgroups", lambda *_: None)
    monkeypatch.setattr(clean_up, "_stored", lambda _: stored.pop())
    stored = [[], ["b", "c"], list[str]()]
    with pytest.raises(LeftoversStayError, match="1 containers of an earlier kickwatch"):
        await clean_up.sweep(Config(), lambda: None)
    assert engine.closed
    with pytest.raises(LeftoversStayError, match="2 containers of an earlier kickwatch"):
        await clean_up.sweep(Config(), lambda: None)
    assert await clean_up.sweep(Config(), lambda: None) == 0
