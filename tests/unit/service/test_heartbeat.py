"""The watchdog outlasts every wait that is normal; progress and status go to systemd."""

from msgspec.structs import replace

from fake_daemon import Statuses
from kickwatch.configuration.types import Config, EngineConfig, GuardConfig, WorkloadConfig
from kickwatch.process.sd_notify import Notifier
from kickwatch.service.heartbeat import Heartbeat, longest_step_s

SLOW_GUARD = replace(Config(), guard=GuardConfig(poll_s=600.0))


def test_the_watchdog_outlasts_every_normal_wait() -> None:
    usual = Config()
    assert longest_step_s(usual) <= 180  # WatchdogSec= of the unit
    slow = (
        SLOW_GUARD,
        replace(usual, workload=WorkloadConfig(rate_hz=0.002)),
        replace(usual, engine=EngineConfig(timeout_s=300.0)),
    )
    for config, least_s in zip(slow, (600.0, 500.0, 600.0), strict=True):
        assert longest_step_s(config) > least_s


def test_a_slow_configuration_asks_for_a_longer_watchdog_and_none_for_a_shorter() -> None:
    notifier = Notifier(watchdog_s=180.0)
    heartbeat = Heartbeat(notifier)
    heartbeat.configure(Config())
    assert notifier.watchdog_s == 180.0
    heartbeat.configure(SLOW_GUARD)
    heartbeat.configure(Config())
    assert notifier.watchdog_s == longest_step_s(SLOW_GUARD)


def test_progress_and_status_reach_systemd() -> None:
    notifier = Statuses()
    heartbeat = Heartbeat(notifier)
    heartbeat.status("between two trials")
    heartbeat.progress()
    heartbeat.reloading()
    heartbeat.ready()
    assert (notifier.statuses, heartbeat.doing) == (["between two trials"], "between two trials")
    assert notifier.sent == ["progress", "reloading", "ready"]
