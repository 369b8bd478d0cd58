"""doctor starts one real container, with an engine and with a runtime alone, and leaves nothing."""

import re
import signal
import time

import pytest

from command import ended, kickwatch, start
from kickwatch.node.lock import NodeLock
from leftovers import leftovers

pytestmark = [pytest.mark.docker, pytest.mark.kernel]
CALM = ("--set", "guard.enabled=false")


@pytest.mark.parametrize("engine", ["docker", "oci"])
def test_one_container_is_started_and_nothing_is_left(engine: str) -> None:
    before = leftovers()
    result = kickwatch("doctor", "--json", *CALM, "--set", f"engine.kind={engine}").json
    container = result["container"]
    assert (container["started"], container["failure"], container["skipped"]) == (True, "", "")
    assert container["kmem_bytes"] is not None
    assert container["start_ms"] > 0
    assert not result["blind"]
    (found,) = (one for one in result["capabilities"] if one["name"] == "a container")
    assert found["satisfied"]
    assert found["tried"]
    assert leftovers() == before


def test_none_is_started_while_another_kickwatch_holds_the_lock() -> None:
    with NodeLock():
        outcome = kickwatch("doctor", "--json", *CALM)
    assert outcome.status == 0
    assert not outcome.json["container"]["started"]
    assert "another kickwatch" in outcome.json["container"]["skipped"]


# Python 3.11 swallows a Ctrl-C that comes during an import, in a callback of importlib, and says so.
_IMPORTING = re.compile(r"Exception ignored in: .*_get_module_lock.*\nTraceback .*\n(?: .*\n)*KeyboardInterrupt.*\n")


@pytest.mark.parametrize("after_s", [0.6, 0.8, 1.0, 1.2])
def test_an_interrupted_doctor_leaves_nothing(after_s: float) -> None:
    before = leftovers()
    running = start("doctor", *CALM)
    time.sleep(after_s)
    running.send_signal(signal.SIGINT)
    outcome = ended(running)
    assert outcome.status in {0, 1, -signal.SIGINT}, outcome.err
    said = _IMPORTING.sub("", outcome.err)
    assert "Traceback" not in said or outcome.status == -signal.SIGINT
    assert leftovers() == before
