"""An engine that refuses every create: the condition is unknown, one warning quotes the engine, and both clear."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from engine_proxy import Proxy, refused
from kickwatch.outlets.status import STATUS_PATH
from needs import ENGINE_SOCKET
from node_daemon import FAST, NodeDaemon, Record

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(120)]

CONTAINERS = FAST["workload.containers_per_trial"]
CREATE = "^POST .*/containers/create"
REASON = "containers_failed"
WORDS = "the volume driver of this node is out of order"


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    """A proxy in front of the node's engine. Its path is short, because a socket's path may have at most 108 bytes."""
    with Proxy(Path(f"/run/kickwatch-test-{tmp_path.name[-20:]}.sock"), Path(ENGINE_SOCKET)) as proxy:
        yield proxy


def status(daemon: NodeDaemon) -> dict[str, Any]:
    """The file that `kickwatch status` reads; empty while it is another daemon's."""
    with suppress(OSError, ValueError):
        content = json.loads(STATUS_PATH.read_text(encoding="utf-8"))
        return dict(content) if content["pid"] == daemon.pid else {}
    return {}


def wait_condition(daemon: NodeDaemon, *, failed: bool) -> dict[str, Any]:
    """Wait until `containers_failed` is among the reasons of the status, or no longer is; return the status."""
    daemon.until(
        lambda: bool(found := status(daemon)) and (REASON in found.get("reasons", ())) == failed,
        f"a status with{'' if failed else 'out'} {REASON}",
    )
    return status(daemon)


@pytest.mark.parametrize("code", [500, 409])
def test_refused_creates_make_the_condition_unknown(proxy: Proxy, tmp_path: Path, code: int) -> None:
    settings = {"engine.socket": str(proxy.path), "trial.interval_s": 0.3, "trial.jitter": 0.0, "guard.poll_s": 0.2}
    with NodeDaemon(tmp_path, settings) as daemon:
        assert daemon.wait("trial_finished")["failed"] == 0
        mark = daemon.mark()
        with proxy.fault(refused(code, WORDS), CREATE):
            assert_failed(daemon, mark)
            condition = wait_condition(daemon, failed=True)["condition"]
            assert condition == "unknown"
            daemon.wait("trial_finished", daemon.mark(), times=2)
        daemon.wait("containers_run", daemon.mark())
        wait_condition(daemon, failed=False)
        daemon.wait("trial_finished", daemon.mark())
        assert len(daemon.events("containers_failed")) == 1
        assert len(daemon.events("containers_run")) == 1
        (warning,) = daemon.events("containers_failed")
        assert warning["level"] == "warning"
        assert WORDS in warning["what"]
        assert warning["remedy"]
        assert warning["failed"] >= CONTAINERS
        assert warning["containers"] >= 0
        assert [record for record in daemon.events("trial_failed") if WORDS not in record["what"]] == []


def assert_failed(daemon: NodeDaemon, mark: int) -> None:
    """The condition changes with the second consecutive trial in which every create is refused, not with the first.

    The trial that runs when the engine starts to refuse may have had a container.
    """

    def refused_trials() -> list[Record]:
        trials = daemon.events("trial_finished", mark)
        return [record for record in trials if record["failed"] == CONTAINERS]

    daemon.until(lambda: len(refused_trials()) >= 2, "two trials without a container")
    second = refused_trials()[1]
    assert any(WORDS in failure for failure in second["failures"])
    assert second["verdict"] == "unknown"
    assert REASON in second["reasons"]
    (warning,) = daemon.events("containers_failed", mark)
    assert daemon.records.index(warning) >= daemon.records.index(refused_trials()[0])
