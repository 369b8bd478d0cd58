"""However a trial or a session ends, the budget counts what was started, from then on. Engine and trial are fakes."""

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from msgspec.structs import replace

from kickwatch.configuration.types import BudgetConfig, Config, StateConfig, WorkloadConfig
from kickwatch.errors import ConfigError, EngineAbsentError, EngineError
from kickwatch.history.history import History
from kickwatch.process.signals import DrainedError
from kickwatch.service import service as module
from kickwatch.service.budget import FILE, load_spent
from kickwatch.service.budget_ledger import BudgetLedger
from kickwatch.service.service import Service
from kickwatch.workload.engine import EngineInfo

PLANNED, BEGUN = 10, 3
STARTED_S = 0.3
INFO = EngineInfo(name="docker", version="1", runtime="runc 1", cgroup_driver="cgroupfs", root="/nowhere")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        workload=WorkloadConfig(containers_per_trial=PLANNED),
        budget=BudgetConfig(containers_per_hour=1000),
        state=StateConfig(directory=str(tmp_path)),
    )


class Engine:
    """Answers, or is gone."""

    def __init__(self, gone: bool = False) -> None:
        self.gone = gone

    async def info(self) -> EngineInfo:
        if self.gone:
            raise EngineAbsentError("gone", "start it")
        return INFO

    def shorten_timeouts(self) -> None:
        """Nothing is slow here."""


def rig(engine: Engine) -> Any:
    async def nothing() -> int:
        return 0

    return SimpleNamespace(engine=engine, recover=nothing, tidy=nothing, info=INFO, reaped=0, engine_changed=nothing)


async def nothing(*_: object) -> None:
    """A call that matters not."""


async def service_of(config: Config) -> Service:
    service = object.__new__(Service)
    service.config, service.done, service.trials = config, 0, None
    service.ledger = await BudgetLedger.open(config, History(Path(config.state.directory)))
    service.watch = SimpleNamespace(take=nothing, condition="quiet", evidence=SimpleNamespace())  # type: ignore[assignment]
    service.telemetry = SimpleNamespace(  # type: ignore[assignment]
        failed=lambda: None, trial=lambda *_: None, reaped=lambda _: None, off=lambda _: None
    )
    service.notifier = SimpleNamespace(progress=lambda: None, status=lambda _: None)  # type: ignore[assignment]
    return service


class Run:
    """A trial that ends as it is told to, with some of its containers begun."""

    ends: BaseException | None = None

    def __init__(self, *_: object) -> None:
        self.begun = 0

    async def run(self) -> str:
        self.begun = BEGUN
        await asyncio.sleep(STARTED_S)
        if self.ends is not None:
            raise self.ends
        self.begun = PLANNED
        return "a trial"


async def unless_drained(work: Coroutine[Any, Any, Any], _: float) -> Any:
    return await work


@pytest.mark.parametrize(
    ("ends", "gone", "counted"),
    [
        (None, False, PLANNED),
        (DrainedError(), False, BEGUN),
        (EngineAbsentError("gone", ""), False, BEGUN),
        (EngineError("refused", ""), False, BEGUN),
        (EngineError("refused", ""), True, BEGUN),
        (OSError(24, "Too many open files"), False, BEGUN),
        (ConfigError("wrong", ""), False, BEGUN),
        (asyncio.CancelledError(), False, BEGUN),
        (RuntimeError("a bug"), False, BEGUN),
    ],
)
async def test_every_end_of_a_trial_settles_the_budget(
    config: Config, monkeypatch: pytest.MonkeyPatch, ends: BaseException | None, gone: bool, counted: int
) -> None:
    monkeypatch.setattr(module, "TrialRun", type("Ends", (Run,), {"ends": ends}))
    service = await service_of(config)
    service.switches = SimpleNamespace(unless_drained=unless_drained)  # type: ignore[assignment]
    schedule: Any = SimpleNamespace(drained=nothing, rest=lambda: None)
    begun_at = time.time()
    with structlog.testing.capture_logs(), suppress(BaseException):
        await service._trial(rig(Engine(gone)), schedule)
    ((at_s, containers),) = await asyncio.to_thread(load_spent, Path(config.state.directory) / FILE) or ()
    assert containers == counted
    assert at_s >= begun_at + STARTED_S - 0.05  # it counts from its end


class Opening:
    """A session whose start fails after its warm-up was begun, or before."""

    def __init__(self, begun: int, ends: BaseException) -> None:
        self.begun, self._ends = begun, ends

    async def __aenter__(self) -> None:
        raise self._ends

    async def __aexit__(self, *_: object) -> None:
        """It was never entered."""


@pytest.mark.parametrize("begun", [0, 1])
@pytest.mark.parametrize(
    "ends", [EngineAbsentError("gone", ""), EngineError("refused", ""), OSError(28, "full"), asyncio.CancelledError()]
)
async def test_every_end_of_a_start_settles_the_budget(
    config: Config, monkeypatch: pytest.MonkeyPatch, begun: int, ends: BaseException
) -> None:
    opening = Opening(begun, ends)
    monkeypatch.setattr(module, "Rig", SimpleNamespace(open=lambda *_: opening))
    monkeypatch.setattr(module, "Schedule", lambda *_, **__: SimpleNamespace())
    service = await service_of(replace(config))
    service.switches = SimpleNamespace(drain_reported="")  # type: ignore[assignment]
    service.ending, service.armed, service.engine, service.found = None, None, "", INFO  # type: ignore[assignment]
    service.due_at = 0.0
    monkeypatch.setattr(Service, "_guard_of_now", lambda _: None)

    async def may_begin(*_: object) -> bool:
        return True

    monkeypatch.setattr(Service, "_may_begin", may_begin)
    with pytest.raises(type(ends)):
        await service._experiment()
    spent = await asyncio.to_thread(load_spent, Path(config.state.directory) / FILE) or ()
    assert sum(containers for _, containers in spent) == begun
    assert service.ledger._budget._open is None
