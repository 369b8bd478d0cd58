"""Every outlet gets each event, even if another one fails. A reload is taken by all outlets or by none."""

from typing import Any

import pytest

from kickwatch.configuration.types import Config
from kickwatch.errors import ConfigError
from kickwatch.outlets.events import Drained, GuardCalm, OutletEvent
from kickwatch.outlets.outlet import Outlets


class Fifth:
    """An outlet as anyone may add one: a single class."""

    def __init__(self, name: str, calls: list[Any], *, fails: Exception | None = None) -> None:
        self._name, self._calls, self._fails = name, calls, fails

    def _call(self, what: str, more: object) -> None:
        self._calls.append((self._name, what, more))
        if self._fails is not None and what in {"take", "reload"}:
            raise self._fails

    async def start(self, config: Config) -> None:
        self._call("start", config)

    async def reload(self, config: Config) -> None:
        self._call("reload", config)

    async def take(self, event: OutletEvent) -> None:
        self._call("take", event)

    async def close(self) -> None:
        self._call("close", None)


async def test_each_outlet_gets_each_event_in_order() -> None:
    calls: list[Any] = []
    outlets = Outlets([Fifth("a", calls), Fifth("b", calls)])
    for event in (Drained("file"), GuardCalm()):
        await outlets.report(event)
    await outlets.close()
    assert [(name, what) for name, what, _ in calls] == [
        *[("a", "take"), ("b", "take")] * 2,
        ("b", "close"),
        ("a", "close"),
    ]
    assert [more for _, what, more in calls if what == "take"] == [Drained("file")] * 2 + [GuardCalm()] * 2


async def test_an_outlet_that_fails_keeps_no_event_from_the_others() -> None:
    calls: list[Any] = []
    bugs = ValueError("a bug"), KeyError("another")
    outlets = Outlets([Fifth("a", calls, fails=bugs[0]), Fifth("b", calls), Fifth("c", calls, fails=bugs[1])])
    with pytest.raises(ValueError, match="a bug") as raised:
        await outlets.report(GuardCalm())
    assert [name for name, *_ in calls] == ["a", "b", "c"]
    assert "KeyError" in "".join(raised.value.__notes__)


async def test_a_reload_that_one_refuses_is_taken_back_by_all_before_it() -> None:
    calls: list[Any] = []
    old, new = Config(), Config()
    refusal = ConfigError("metrics.listen: in use")
    outlets = Outlets([Fifth("a", calls), Fifth("b", calls, fails=refusal), Fifth("c", calls)])
    with pytest.raises(ConfigError) as raised:
        await outlets.reload(new, old)
    assert raised.value is refusal
    assert [(name, what) for name, what, _ in calls] == [
        ("a", "reload"),
        ("b", "reload"),
        ("a", "start"),
        ("b", "start"),
    ]
    assert [config is new for _, _, config in calls] == [True, True, False, False]
