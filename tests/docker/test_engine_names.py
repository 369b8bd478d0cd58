"""An engine that cannot name its runtime for a while. Docker under load reports "runc N/A" in `docker info`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_proxy import Proxy, Request, answer
from needs import ENGINE_SOCKET
from node_daemon import NodeDaemon

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(120)]


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    """A proxy in front of the node's engine. Its path is short, because a socket's path may have at most 108 bytes."""
    with Proxy(Path(f"/run/kickwatch-test-{tmp_path.name[-20:]}.sock"), Path(ENGINE_SOCKET)) as proxy:
        yield proxy


def nameless(request: Request) -> None:
    """The engine's answer without the version of its runtime."""
    info = json.loads(request.pass_on().partition(b"\r\n\r\n")[2])
    info["RuncCommit"] = {"ID": "N/A", "Expected": "N/A"}
    request.send(answer(200, json.dumps(info).encode()))


def test_a_runtime_without_a_name_starts_no_new_stratum(proxy: Proxy, tmp_path: Path) -> None:
    """Between two trials, at the start of a session, and at the start of a daemon."""
    settings = {"engine.socket": str(proxy.path), "guard.poll_s": 0.2}
    with NodeDaemon(tmp_path, settings) as daemon:
        daemon.wait("trial_finished")
        since = daemon.mark()
        with proxy.fault(nameless, "^GET .*/info"):
            daemon.wait("trial_finished", since, times=2)
            daemon.configure(trial__interval_s=0.2)
            daemon.reload()
            unnamed = daemon.wait("engine_unnamed", since)
            daemon.wait("trial_finished", daemon.mark())
        assert "N/A" in unnamed["what"]
        assert len(daemon.events("engine_unnamed")) == 1
        daemon.wait("trial_finished", daemon.mark(), times=2)
        assert daemon.events("evidence_dropped") + daemon.events("engine_found") == []
    with proxy.fault(nameless, "^GET .*/info"), NodeDaemon(tmp_path, settings) as daemon:
        daemon.wait("engine_unnamed")
        daemon.wait("trial_finished")
        assert daemon.events("evidence_dropped") == []
    with NodeDaemon(tmp_path, settings) as daemon:
        daemon.wait("trial_finished")
        assert daemon.events("evidence_dropped") + daemon.events("engine_unnamed") == []


def test_a_name_that_is_missing_for_seconds_is_waited_for(proxy: Proxy, tmp_path: Path) -> None:
    """On a node with no name known from the past."""
    answers = iter([nameless] * 3)

    def at_first(request: Request) -> None:
        next(answers, lambda later: later.send(later.pass_on()))(request)

    with (
        proxy.fault(at_first, "^GET .*/info"),
        NodeDaemon(tmp_path, {"engine.socket": str(proxy.path)}) as daemon,
    ):
        daemon.wait("trial_finished", times=2)
        assert next(answers, None) is None
        for event in ("engine_unnamed", "engine_found", "evidence_dropped"):
            assert daemon.events(event) == []
