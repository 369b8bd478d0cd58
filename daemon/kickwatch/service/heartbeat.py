"""The heartbeat: each step of the daemon feeds systemd's watchdog, and the status line says what it does.

`progress` is called when a container's step ends or reaches its deadline, when the guard decides, at a retry. No timer
calls it. So systemd restarts a daemon that is stuck, but not one that waits for an engine, a budget or a drain.
"""

from kickwatch.configuration.types import Config
from kickwatch.process.sd_notify import Notifier

_MARGIN_S = 60.0


class Heartbeat:
    """Progress and status, for systemd and `kickwatch status`."""

    def __init__(self, notifier: Notifier) -> None:
        """`notifier` sends them; without systemd it sends nothing."""
        self._notifier = notifier

    @property
    def doing(self) -> str:
        """The newest status line."""
        return self._notifier.doing

    def configure(self, config: Config) -> None:
        """Ask systemd for a longer watchdog if a step may take longer under this configuration."""
        self._notifier.need_watchdog(longest_step_s(config))

    def progress(self) -> None:
        """One step is done. What takes long, such as an engine's calls, takes this as its `heartbeat`."""
        self._notifier.progress()

    def status(self, text: str) -> None:
        """What the daemon does now."""
        self._notifier.status(text)

    def reloading(self) -> None:
        """A configuration is being read; `ready` ends the reload."""
        self._notifier.reloading()

    def ready(self) -> None:
        """Start-up is done, or a reload is."""
        self._notifier.ready()


def longest_step_s(config: Config) -> float:
    """Longest time between two calls of `progress` that is still normal, with a margin.

    A call to the engine, its settling included, and the time a container is held; or the time between two looks of the
    guard. At a slow rate there is also nothing to do between two containers.
    """
    apart_s = 1.0 / config.workload.rate_hz if config.workload.rate_hz else 0.0
    step_s = 2 * config.engine.timeout_s + config.workload.hold_s
    return max(step_s, config.guard.poll_s) + apart_s + _MARGIN_S
