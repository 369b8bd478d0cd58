"""Each change of the drain is reported once."""

from fake_daemon import FakeSwitches, Recorder
from kickwatch.outlets.events import Drained, Undrained
from kickwatch.outlets.outlet import Outlets
from kickwatch.service.drain import Drain, drained_text


async def test_a_drain_is_reported_once_and_so_is_its_end() -> None:
    recorder, switches = Recorder(), FakeSwitches()
    drain = Drain(switches, Outlets([recorder]).report)
    for by in ("", "", "file", "file", "", "", "signal"):
        switches.drain(by)
        assert await drain.look() == by
    assert recorder.events == [Drained("file"), Undrained("file"), Drained("signal")]


async def test_a_node_that_is_drained_twice_is_drained_once() -> None:
    """By the file, and by SIGUSR1 as well: the end of the one is not the end of the drain."""
    recorder, switches = Recorder(), FakeSwitches()
    drain = Drain(switches, Outlets([recorder]).report)
    for by in ("file", "signal", "file", ""):
        switches.drain(by)
        await drain.look()
    assert recorder.events == [Drained("file"), Undrained("file")]


def test_the_status_line_names_the_cause() -> None:
    assert drained_text("file") == "drained (drain file present): not starting containers"
    assert drained_text("signal") == "drained (SIGUSR1 received): not starting containers"
