"""Real signals to this very process: what ends the work, what drains, what asks for a reload."""

import asyncio
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kickwatch.process.signals import TERMINATION, DrainedError, Shutdown, Switches, until_signalled


@pytest.fixture(autouse=True)
def hangups_as_by_default() -> Iterator[None]:
    """Tests that are run under nohup ignore SIGHUP, and what they start does as well."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_the_first_signal_ends_the_work_and_further_ones_change_nothing(number: signal.Signals) -> None:
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.05)
            cleaned.append(True)

    asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), number)
    with pytest.raises(asyncio.CancelledError):
        await until_signalled(work())
    assert cleaned == [True]


async def test_what_is_no_ending_signal_does_not_end_the_work() -> None:
    async def work() -> str:
        with Switches("") as switches:
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.05)
            assert switches.reload_asked
        return "done"

    assert await until_signalled(work(), TERMINATION) == "done"


async def test_the_first_signal_is_told_before_the_clean_up() -> None:
    told = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            told.append("clean-up")

    asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
    with pytest.raises(asyncio.CancelledError):
        await until_signalled(work(), TERMINATION, lambda: told.append("stopping"))
    assert told == ["stopping", "clean-up"]


async def test_sigusr1_and_the_file_drain_and_end_the_drain(tmp_path: Path) -> None:
    file = tmp_path / "drain"
    with Switches(str(file)) as switches:
        assert await switches.drained_by() == ""
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.sleep(0.02)
        assert await switches.drained_by() == "signal"
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.sleep(0.02)
        assert await switches.drained_by() == ""
        file.touch()
        assert await switches.drained_by() == "file"
        file.unlink()
        assert await switches.drained_by() == ""


async def test_a_signal_wakes_who_sleeps() -> None:
    loop = asyncio.get_running_loop()
    with Switches("") as switches:
        loop.call_later(0.02, os.kill, os.getpid(), signal.SIGHUP)
        before = loop.time()
        await switches.sleep(30)
        assert loop.time() - before < 5
        await switches.sleep(0.01)


async def test_work_is_cancelled_and_cleaned_up_when_the_node_is_drained(tmp_path: Path) -> None:
    file, cleaned = tmp_path / "drain", []

    async def work() -> str:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.02)
            cleaned.append(True)
        return "done"

    with Switches(str(file)) as switches:
        asyncio.get_running_loop().call_later(0.05, file.touch)
        with pytest.raises(DrainedError):
            await switches.unless_drained(work(), 0.01)
    assert cleaned == [True]


async def test_undrained_work_returns_and_raises_as_it_does() -> None:
    async def work(error: Exception | None) -> str:
        await asyncio.sleep(0.03)
        if error:
            raise error
        return "done"

    with Switches("") as switches:
        assert await switches.unless_drained(work(None), 0.01) == "done"
        with pytest.raises(ValueError, match="no"):
            await switches.unless_drained(work(ValueError("no")), 0.01)


async def test_a_cancellation_from_outside_waits_for_the_clean_up_too() -> None:
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.02)
            cleaned.append(True)

    with Switches("") as switches:
        task = asyncio.ensure_future(switches.unless_drained(work(), 0.01))
        await asyncio.sleep(0.03)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert cleaned == [True]


async def test_what_fails_on_the_way_out_of_a_cancellation_is_not_printed() -> None:
    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            raise ValueError("the engine has just gone")

    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    with Switches("") as switches:
        task = asyncio.ensure_future(switches.unless_drained(work(), 0.01))
        await asyncio.sleep(0.03)
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    del task
    gc.collect()
    assert told == []


@pytest.mark.parametrize("steps", range(5))
async def test_an_end_that_is_asked_for_together_with_a_reload_is_not_lost(steps: int) -> None:
    """asyncio.wait_for of Python 3.11 forgets a cancellation that comes when what it waits for has."""
    with Switches("") as switches:

        async def go_on_after_it() -> None:
            await switches.sleep(5)
            await asyncio.Event().wait()

        going = asyncio.create_task(go_on_after_it())
        await asyncio.sleep(0.01)
        switches._reload()
        for _ in range(steps):
            await asyncio.sleep(0)
        going.cancel()
        done, _ = await asyncio.wait([going], timeout=1)
        going.cancel()
        assert done


def test_an_end_is_told_to_those_who_listen_then() -> None:
    told: list[str] = []
    ending = Shutdown(lambda: told.append("first"))
    with ending.calls(lambda: told.append("gone")):
        pass
    with ending.calls(lambda: told.append("second")):
        ending.begin()
    assert told == ["first", "second"]


async def test_a_drain_file_that_cannot_be_asked_for_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Path) -> bool:
        raise PermissionError

    with Switches(str(tmp_path / "drain")) as switches:
        for by, touch in (("", None), ("file", (tmp_path / "drain").touch)):
            if touch is not None:
                touch()
            assert await switches.drained_by() == by
            with monkeypatch.context() as patch:
                patch.setattr(Path, "exists", refused)
                assert await switches.drained_by() == by


async def test_what_fails_beside_the_work_ends_the_work_first(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    async def broken() -> str:
        raise RuntimeError("asking")

    with Switches("") as switches:
        monkeypatch.setattr(switches, "drained_by", broken)
        with pytest.raises(RuntimeError, match="asking"):
            await switches.unless_drained(work(), 0.01)
    assert ended.is_set()


class Closing:
    """Stands in for the terminal: whether it is closed at each look; the last answer is given from then on."""

    def __init__(self, *closed: bool) -> None:
        self.closed = list(closed)

    def is_closed(self) -> bool:
        return self.closed.pop(0) if len(self.closed) > 1 else self.closed[0]


async def hung_up(terminal: Closing, lasts_s: float) -> tuple[bool, bool]:
    """Whether a SIGHUP ended the work, which lasts that long, and whether a reload was asked for."""
    switches = Switches("", terminal)  # type: ignore[arg-type]

    async def work() -> None:
        with switches:
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(lasts_s)

    try:
        await until_signalled(work(), TERMINATION)
    except asyncio.CancelledError:
        return True, switches.reload_asked
    return False, switches.reload_asked


async def test_a_hangup_of_a_closed_terminal_ends_and_of_an_open_one_asks_for_a_reload() -> None:
    assert await hung_up(Closing(True), 30) == (True, False)
    assert await hung_up(Closing(False), 1) == (False, True)


async def test_a_terminal_that_closes_just_after_the_signal_ends_it_too() -> None:
    assert await hung_up(Closing(False, True), 30) == (True, True)


async def test_under_nohup_a_hangup_ends_nothing() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert await hung_up(Closing(True), 1) == (False, True)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def work() -> str:
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.05)
        return "done"

    assert await until_signalled(work()) == "done"
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
