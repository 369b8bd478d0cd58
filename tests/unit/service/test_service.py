"""What of the daemon needs no engine: how long it may be without a step, and how its end by an error is told."""

import asyncio
import os
import signal
import sys
from types import ModuleType, SimpleNamespace

import pytest
import structlog
from msgspec.structs import replace

from kickwatch.commands import run as command
from kickwatch.configuration.types import Config, EngineConfig, GuardConfig, WorkloadConfig
from kickwatch.errors import CgroupError, ConfigError, ObserveError
from kickwatch.experiment.rig import Rig, _Opening
from kickwatch.process.signals import TERMINATION, Shutdown, until_signalled
from kickwatch.service.engine_backoff import EngineBackoff
from kickwatch.service.service import Service, longest_step_s


def test_the_watchdog_outlasts_every_lawful_wait() -> None:
    usual = Config()
    assert longest_step_s(usual) <= 180  # WatchdogSec= of the unit
    slow = (
        replace(usual, guard=GuardConfig(poll_s=600.0)),
        replace(usual, workload=WorkloadConfig(rate_hz=0.002)),
        replace(usual, engine=EngineConfig(timeout_s=300.0)),
    )
    for config, least_s in zip(slow, (600.0, 500.0, 600.0), strict=True):
        assert longest_step_s(config) > least_s


@pytest.mark.parametrize("journal", [True, False])
def test_an_end_by_an_error_is_a_record_of_the_journal_alone(journal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module: ModuleType = sys.modules[command.__name__]
    monkeypatch.setattr(module, "reaches_journal", lambda _: journal)
    with structlog.testing.capture_logs() as logs, pytest.raises(ConfigError), module._failures_logged():
        raise ConfigError("the key x is wrong", "mend it")
    told = [(log["event"], log["log_level"], log["what"], log["remedy"]) for log in logs]
    assert told == ([("kickwatch.failed", "critical", "the key x is wrong", "mend it")] if journal else [])


class Stays:
    """Stands in for a canary whose cgroup cannot be removed."""

    async def __aexit__(self, *_: object) -> None:
        raise CgroupError("/sys/fs/cgroup/kickwatch-canary is in use and stays", "end what is in it")


class Opening(_Opening):
    """A rig with that canary in it, and nothing else."""

    async def _set_up(self) -> Rig:
        self._stack.push_async_exit(Stays().__aexit__)
        return SimpleNamespace()  # type: ignore[return-value]


async def test_a_signal_ends_the_daemon_though_the_clean_up_fails() -> None:
    """The engine, and what a trial is, are left out; the state machine, the take-down and the signals are real."""
    ending, sessions = Shutdown(), []

    class One(Service):
        async def _experiment(self) -> None:
            sessions.append(self)
            async with Opening(self.config, None, lambda: None, self.ending):
                await asyncio.sleep(60)

    service = object.__new__(One)
    service.config, service.trials, service.done, service.ending = Config(), None, 0, ending
    service.switches = SimpleNamespace(reload_asked=False)  # type: ignore[assignment]
    asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGTERM)
    with structlog.testing.capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(until_signalled(service._until_done(), TERMINATION, ending.begin), 10)
    assert len(sessions) == 1
    assert [log["event"] for log in logs] == ["kickwatch.clean_up_failed"]


async def test_a_refused_read_repeats_the_control_and_the_daemon_goes_on() -> None:
    """Outside a trial: the warm-up, passive mode. Any other error proves nothing about the probes."""
    errors = [OSError("disk full"), ObserveError("BPF map cells: lookup failed (EPERM)", "CAP_BPF")]
    due: list[float] = []

    class One(Service):
        async def _experiment(self) -> None:
            if not errors:
                raise ConfigError("the end of the test")
            raise errors.pop(0)

        async def _wait(self, _seconds: float) -> None:
            """Nothing else is due."""

    async def control_if_due(period_s: float) -> None:
        due.append(period_s)

    service = object.__new__(One)
    service.config, service.trials, service.done, service.ending = Config(), None, 0, Shutdown()
    service.switches = SimpleNamespace(reload_asked=False)  # type: ignore[assignment]
    service.notifier = SimpleNamespace(status=lambda _: None)  # type: ignore[assignment]
    service.backoff = EngineBackoff(_retry_s=0.0)
    service.watch = SimpleNamespace(condition="quiet", control_if_due=control_if_due)  # type: ignore[assignment]
    with structlog.testing.capture_logs() as logs, pytest.raises(ConfigError):
        await service._until_done()
    assert due == [0.0]
    assert [log["what"] for log in logs] == ["disk full", "BPF map cells: lookup failed (EPERM)"]


async def test_an_error_on_the_way_out_is_no_trial_that_failed() -> None:
    ending = Shutdown()

    class One(Service):
        async def _experiment(self) -> None:
            self.ending.begin()
            raise OSError("disk full")

    service = object.__new__(One)
    service.config, service.trials, service.done, service.ending = Config(), None, 0, ending
    with pytest.raises(asyncio.CancelledError):
        await service._until_done()
