"""Faults of an engine while the daemon runs: it logs them, waits, continues by itself, and leaves nothing.

A private dockerd is really restarted, stopped and deprived of disk space. For wrong answers there is a proxy in front
of it. Each test stops the daemon, which must exit with 0 within 10 s.
"""

import itertools
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine_proxy import Fault, Proxy, Request, byte_by_byte, garbage, late, refused
from kickwatch.node.cgroup_removal import remove_tree
from kickwatch.node.cgroups import Cgroups
from kickwatch.workload.names import read_instance
from node_daemon import FAST, STOP_S, NodeDaemon, Record
from private_engine import PrivateEngine, private_engine

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(120)]

CONTAINERS = FAST["workload.containers_per_trial"]
OURS = ("--filter", "label=kickwatch=1", "--filter", f"label=kickwatch.instance={read_instance()}")
PROGRAM = Path(__file__).parents[2] / "daemon/kickwatch/native/bin/workload"
LOOK_ALIKE_IMAGE = "kickwatch-workload:lookalike"
# Each has a name like ours or one of our labels. Our containers have both labels, with this node's instance.
LOOK_ALIKES = (
    ("kickwatch-0a1b2c3d-0", "kickwatch=1", "kickwatch.instance=another"),
    ("kickwatch-4e5f6a7b-1", f"kickwatch.instance={read_instance()}"),
    ("kickwatch", "kickwatch=1", "kickwatch.container=kickwatch-4e5f6a7b-1"),
)
TIMEOUT_S = 3.0
Start = Callable[..., NodeDaemon]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    with private_engine() as engine:
        tar = tmp_path_factory.mktemp("image") / "image.tar"
        subprocess.run(["tar", "-C", str(PROGRAM.parent), "-cf", str(tar), PROGRAM.name], check=True)
        engine.docker("import", str(tar), LOOK_ALIKE_IMAGE)
        for name, *labels in LOOK_ALIKES:
            words = [word for label in labels for word in ("--label", label)]
            engine.docker("create", "--network", "none", "--name", name, *words, LOOK_ALIKE_IMAGE, "/workload")
        yield engine


@pytest.fixture
def proxy(engine: PrivateEngine) -> Iterator[Proxy]:
    with Proxy(engine.root / "proxy.sock", engine.socket) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def nothing_foreign_is_touched(engine: PrivateEngine) -> Iterator[None]:
    """Nothing changes on the daemon's engine, byte for byte, so nothing of ours is left there either."""
    engine.revive()
    before = engine.inventory()
    yield
    assert engine.inventory() == before


@pytest.fixture
def start(engine: PrivateEngine, tmp_path: Path) -> Start:
    """A daemon on the private engine, or on the given socket. Use as a context manager.

    A call to the engine may take three seconds, so a hanging call ends soon. On a loaded machine a start sometimes
    takes longer and that container fails, so tests wait for a trial with the expected result, not for the next trial.
    """

    def start_one(at: Path | None = None, **settings: Any) -> NodeDaemon:
        dotted = {key.replace("__", "."): value for key, value in settings.items()}
        fixed = {"engine.socket": str(at or engine.socket), "engine.timeout_s": TIMEOUT_S, "trial.jitter": 0.0}
        return NodeDaemon(tmp_path, {**fixed, **dotted})

    return start_one


def is_valid(record: Record) -> bool:
    """No container of the trial failed."""
    return bool(record["failed"] == 0 and record["containers"] == CONTAINERS)


def valid_trial(daemon: NodeDaemon, since: int = 0) -> Record:
    """Wait for the first valid trial after the mark."""

    def found() -> list[Record]:
        return list(filter(is_valid, daemon.events("trial_finished", since)))

    daemon.until(lambda: bool(found()), "a valid trial")
    return found()[0]


def failed_trial(daemon: NodeDaemon, since: int, part: str) -> Record:
    """Wait for the first trial after the mark with a container whose failure contains `part`."""

    def found() -> list[Record]:
        trials = daemon.events("trial_finished", since)
        return [record for record in trials if any(part in failure for failure in record["failures"])]

    daemon.until(lambda: bool(found()), f"a trial with {part!r}")
    return found()[0]


def recovers(daemon: NodeDaemon, since: int) -> Record:
    """Wait until the engine is found and a trial is valid; return the record of the loss, which is logged once."""
    found = daemon.wait("engine_found", since)
    valid_trial(daemon, daemon.records.index(found))
    (lost,) = daemon.events("engine_lost", since)
    return lost


def container_of_a_trial(engine: PrivateEngine, daemon: NodeDaemon) -> str:
    """The id of a running container; that of the warm-up is removed before the first trial."""
    daemon.wait_status("churn window")
    for _ in range(600):
        if running := engine.docker("ps", "-q", *OURS).split():
            return running[0]
        time.sleep(0.02)
    raise AssertionError("no container of ours")


def stopped_in_time(daemon: NodeDaemon) -> None:
    """SIGTERM; the end of the `with` checks that nothing is left."""
    assert daemon.stop() == 0


def test_the_engine_restarts_during_a_trial(engine: PrivateEngine, start: Start) -> None:
    with start(workload__hold_s=0.6) as daemon:
        container_of_a_trial(engine, daemon)
        mark = daemon.mark()
        engine.end(signal.SIGTERM)
        daemon.wait("engine_lost", mark)
        engine.start()
        assert str(engine.socket) in recovers(daemon, mark)["what"]
        # After SIGTERM the engine still answers on open connections for a while, so the trial may complete.
        assert daemon.events("trial_failed", mark) + daemon.events("trial_void", mark)
        stopped_in_time(daemon)


def test_the_engine_restarts_between_trials(engine: PrivateEngine, start: Start) -> None:
    with start(trial__interval_s=5.0, engine__timeout_s=5.0) as daemon:
        valid_trial(daemon)
        mark = daemon.mark()
        engine.end(signal.SIGTERM)
        engine.start()
        assert is_valid(daemon.wait("trial_finished", mark))
        assert not daemon.events("engine_lost") + daemon.events("trial_failed")
        stopped_in_time(daemon)


def test_the_engine_hangs(engine: PrivateEngine, start: Start) -> None:
    with start(workload__hold_s=0.5) as daemon:
        container_of_a_trial(engine, daemon)
        mark = daemon.mark()
        with engine.hanging():
            daemon.wait("engine_lost", mark)
            daemon.wait_status("waiting: ")
            assert daemon.process.poll() is None
        recovers(daemon, mark)
        stopped_in_time(daemon)


def test_a_stop_while_the_engine_hangs(engine: PrivateEngine, start: Start) -> None:
    """The daemon exits in time and logs what it could not remove; the next start removes it."""
    with start(workload__hold_s=1.0, engine__timeout_s=30.0) as daemon:
        container_of_a_trial(engine, daemon)
        with engine.hanging():
            daemon.send(signal.SIGTERM)
            assert daemon.ended(STOP_S) == 0
        assert daemon.events("clean_up_failed")
        with start() as again:
            valid_trial(again)
            stopped_in_time(again)


def test_the_engine_refuses(proxy: Proxy, start: Start) -> None:
    with start(proxy.path) as daemon:
        valid_trial(daemon)
        mark = daemon.mark()
        proxy.refuse()
        daemon.wait("engine_lost", mark)
        proxy.listen()
        # An open connection fails at its next use; a new one is refused.
        assert re.search("Connection refused|Remote end closed connection", recovers(daemon, mark)["what"])
        stopped_in_time(daemon)


def test_the_engine_starts_after_the_daemon(engine: PrivateEngine, start: Start) -> None:
    engine.end(signal.SIGTERM)
    with start() as daemon:
        daemon.wait("engine_lost")
        engine.start()
        assert "No such file" in recovers(daemon, 0)["what"]
        stopped_in_time(daemon)


def test_the_engines_socket_is_deleted_and_made_again(engine: PrivateEngine, start: Start) -> None:
    """Without its socket the engine serves open connections, but no new ones until it is restarted.

    It is stopped between two trials, because a connection that closes during an answer would give another error first.
    """
    with start(trial__interval_s=5.0) as daemon:
        valid_trial(daemon)
        mark = daemon.mark()
        engine.socket.unlink()
        time.sleep(2)
        engine.end(signal.SIGTERM)
        daemon.wait("engine_lost", mark)
        engine.start()
        assert "No such file" in recovers(daemon, mark)["what"]
        stopped_in_time(daemon)


def test_the_engine_answers_garbage(proxy: Proxy, start: Start) -> None:
    odd = itertools.cycle(
        garbage(data)
        for data in (
            b"\x00\xff" * 500,
            b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
            b'HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n{"ApiVersion": "latest"}',
            b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + b"[" * 50_000,
            b"HTTP/1.1 500 no\r\nContent-Length: 4\r\n\r\nnull",
            b"",
        )
    )

    def act(request: Request) -> None:
        next(odd)(request)

    with start(proxy.path) as daemon:
        valid_trial(daemon)
        mark = daemon.mark()
        with proxy.fault(act):
            daemon.wait("engine_lost", mark)
            seen = len(proxy.seen)
            daemon.until(lambda: len(proxy.seen) > seen, "another attempt")
        recovers(daemon, mark)
        stopped_in_time(daemon)


def test_the_engine_answers_slowly(proxy: Proxy, start: Start) -> None:
    """A slow answer is waited for. One that arrives byte by byte has no more time than any other."""
    with start(proxy.path) as daemon:
        with proxy.fault(late(0.2)):
            valid_trial(daemon)
        assert not daemon.events("engine_lost") + daemon.events("trial_failed")
        mark = daemon.mark()
        with proxy.fault(byte_by_byte(0.1)):
            daemon.wait("engine_lost", mark)
        recovers(daemon, mark)
        stopped_in_time(daemon)


def test_a_create_that_times_out_and_succeeds_later(engine: PrivateEngine, proxy: Proxy, start: Start) -> None:
    with start(proxy.path) as daemon:
        daemon.wait_status("churn window")
        mark = daemon.mark()
        with proxy.fault(once(late(TIMEOUT_S + 1.0)), "POST .*/containers/create"):
            trial = failed_trial(daemon, mark, "could not create")
        (name,) = re.findall(r"kickwatch-[0-9a-f]{8}-\d+", trial["failures"][0])
        assert any("/containers/create" in line and name in line for line in proxy.seen)
        assert engine.docker("ps", "-aq", "--filter", f"name={name}") == ""
        valid_trial(daemon, daemon.records.index(trial))
        stopped_in_time(daemon)


def test_a_container_created_late_is_removed_between_trials(engine: PrivateEngine, start: Start) -> None:
    """As after a create call whose container appears long after its deadline."""
    with start() as daemon:
        valid_trial(daemon)
        labels = ["--label", "kickwatch=1", "--label", f"kickwatch.instance={read_instance()}"]
        late_one = engine.docker("create", "--network", "none", *labels, LOOK_ALIKE_IMAGE, "/workload").strip()
        mark = daemon.mark()
        daemon.wait("trial_finished", mark, times=2)
        assert late_one not in engine.docker("ps", "-aq", "--no-trunc")
        stopped_in_time(daemon)


def test_containers_that_do_not_start(engine: PrivateEngine, start: Start) -> None:
    with start(workload__image=LOOK_ALIKE_IMAGE, workload__command=["/no-such-program"]) as daemon:
        trial = failed_trial(daemon, 0, "no such file or directory")
        assert (trial["containers"], trial["failed"]) == (0, CONTAINERS)
        daemon.configure(workload__command=["/workload", "--deadline-ms", "60000"])
        daemon.send(signal.SIGHUP)
        reloaded = daemon.wait("reloaded")
        valid_trial(daemon, daemon.records.index(reloaded))
        stopped_in_time(daemon)


def test_a_container_that_does_not_exit(engine: PrivateEngine, start: Start) -> None:
    """Its program is stopped with SIGSTOP at the barrier, so it does not react to the release."""
    with start(workload__hold_s=3.0) as daemon:
        container, mark = container_of_a_trial(engine, daemon), daemon.mark()
        engine.docker("kill", "--signal", "STOP", container)
        failed_trial(daemon, mark, f"did not exit within {TIMEOUT_S:g} s")
        assert container not in engine.docker("ps", "-aq")
        valid_trial(daemon, mark)
        stopped_in_time(daemon)


def test_containers_that_cannot_be_removed_for_a_while(engine: PrivateEngine, proxy: Proxy, start: Start) -> None:
    with start(proxy.path) as daemon:
        valid_trial(daemon)
        mark = daemon.mark()
        with proxy.fault(refused(500, "driver failed to remove root filesystem"), "^DELETE"):
            trial = failed_trial(daemon, mark, "driver failed to remove root filesystem")
            daemon.wait("clean_up_failed", mark)
            left = set(engine.docker("ps", "-aq", *OURS).split())
        assert trial["failed"] == CONTAINERS
        assert left
        recovered = daemon.mark()
        daemon.wait("trial_finished", recovered, times=2)
        assert not left & set(engine.docker("ps", "-aq", *OURS).split())
        valid_trial(daemon, recovered)
        stopped_in_time(daemon)


def test_the_disk_of_the_engine_is_full(engine: PrivateEngine, start: Start) -> None:
    with start() as daemon:
        valid_trial(daemon)
        mark = daemon.mark()
        with engine.disk_full():
            failed_trial(daemon, mark, "no space left on device")
        valid_trial(daemon, daemon.mark())
        stopped_in_time(daemon)


def test_foreign_containers_with_names_like_ours_keep_running(engine: PrivateEngine, start: Start) -> None:
    """They survive a start, a reload, which reaps, and a stop. Their cgroups also have names like ours."""
    running = [
        engine.docker(
            "run", "-d", "--network", "none", "--name", f"{name}-runs", "--cgroup-parent", f"/kickwatch-{number}",
            *(word for label in labels for word in ("--label", label)),
            LOOK_ALIKE_IMAGE, "/workload", "--deadline-ms", "60000",
        ).strip()
        for number, (name, *labels) in enumerate(LOOK_ALIKES)
    ]  # fmt: skip
    state = "{{.State.Running}} {{.State.Pid}} {{.State.StartedAt}}"
    before = engine.docker("inspect", "-f", state, *running), engine.inventory()
    try:
        with start() as daemon:
            valid_trial(daemon)
            daemon.send(signal.SIGHUP)
            valid_trial(daemon, daemon.records.index(daemon.wait("reloaded")))
            stopped_in_time(daemon)
        assert (engine.docker("inspect", "-f", state, *running), engine.inventory()) == before
        assert before[0].count("true") == len(LOOK_ALIKES)
    finally:
        engine.docker("rm", "-f", *running)
        cgroups = [mount / f"kickwatch-{number}" for mount in Cgroups.read().mounts for number in range(len(running))]
        assert [left for cgroup in cgroups for left in remove_tree(cgroup)] == []


def once(act: Fault) -> Fault:
    """Apply the fault to the first request only."""
    first = iter([act])

    def by_turn(request: Request) -> None:
        next(first, lambda later: later.send(later.pass_on()))(request)

    return by_turn
