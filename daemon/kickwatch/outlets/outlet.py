"""The one seam for everything that shows what the daemon does: log, metrics, status file, summary."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from kickwatch.configuration.types import Config
from kickwatch.errors import ConfigError
from kickwatch.outlets.events import OutletEvent

Report = Callable[[OutletEvent], Awaitable[None]]


class Outlet(Protocol):
    """Takes events and shows them."""

    async def start(self, config: Config) -> None:
        """Begin with this configuration, or return to it after a refused reload.

        What may pass by itself, such as an address in use, is logged and tried again. Raises ConfigError otherwise.
        """

    async def reload(self, config: Config) -> None:
        """Take a new configuration. Raises ConfigError to refuse it."""

    async def take(self, event: OutletEvent) -> None:
        """Show one event. Expected errors, such as a full disk, are handled here; anything that is raised is a bug."""

    async def close(self) -> None:
        """Release everything."""


class PlainOutlet:
    """The base of an outlet that needs only some of these: the others do nothing."""

    async def start(self, config: Config) -> None:
        """Nothing is configured."""

    async def reload(self, config: Config) -> None:
        """Nothing is configured."""

    async def close(self) -> None:
        """Nothing is held."""


class Outlets:
    """Hands each event to every outlet, in a fixed order."""

    def __init__(self, outlets: Sequence[Outlet]) -> None:
        """`outlets` are started and given events in this order, and closed in the reverse one."""
        self._outlets = tuple(outlets)

    async def start(self, config: Config) -> None:
        """Start each outlet. Raises ConfigError."""
        for outlet in self._outlets:
            await outlet.start(config)

    async def reload(self, config: Config, current: Config) -> None:
        """Give `config` to every outlet. If one refuses it, all return to `current`, and ConfigError is raised."""
        changed: list[Outlet] = []
        try:
            for outlet in self._outlets:
                changed.append(outlet)
                await outlet.reload(config)
        except ConfigError:
            for outlet in changed:
                await outlet.start(current)
            raise

    async def report(self, event: OutletEvent) -> None:
        """Hand `event` to every outlet. An error is raised after all of them have the event."""
        errors: list[Exception] = []
        for outlet in self._outlets:
            try:
                await outlet.take(event)
            except Exception as error:  # noqa: BLE001 -- raised below: a bug of one outlet must not hide the event
                errors.append(error)
        if errors:
            for other in errors[1:]:
                errors[0].add_note(f"another outlet failed as well: {other!r}")
            raise errors[0]

    async def close(self) -> None:
        """Close every outlet."""
        for outlet in reversed(self._outlets):
            await outlet.close()
