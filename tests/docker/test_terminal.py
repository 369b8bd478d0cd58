"""`trial` and `run` at a pseudo-terminal: they alert and continue; Ctrl-C and a closed terminal stop them cleanly."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from at_a_terminal import INTERRUPT, KICKWATCH, AtATerminal
from command import kickwatch
from leftovers import leftovers
from needs import FEATURE
from node_daemon import CHURN_FIRST, FAST, STOP_S, NodeDaemon, native_children, toml
from slowness import SLOWNESS

pytestmark = [pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(400)]

LIMIT = 33554432
SHORT = [
    *("--set", "trial.window_s=0.5", "--set", "trial.settle_s=0", "--set", "trial.canary_memcgs=0"),
    *("--set", f"trial.seed={CHURN_FIRST}"),
]
needs_the_fault = pytest.mark.skipif(
    not Path("/sys/fs/cgroup/memory/memory.kmem.tcp.limit_in_bytes").exists(),
    reason=f"{FEATURE} the kmem TCP limit, a real fault on any kernel, exists only on cgroup v1",
)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """None of these commands leaves a container, cgroup, image or native child."""
    before = leftovers()
    yield
    deadline = time.monotonic() + 5 * SLOWNESS
    while (left := (leftovers(), native_children())) != (before, []) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == (before, [])


def daemon(directory: Path, **changed: object) -> list[str]:
    """The arguments of a `run` with the shortest trials, with its files in `directory`."""
    settings = {**FAST, **NodeDaemon.separate_paths(directory), "log.format": "auto"}
    settings |= {key.replace("__", "."): value for key, value in changed.items()}
    config = directory / "kickwatch.toml"
    config.write_text(toml(settings), encoding="utf-8")
    return [*KICKWATCH, "run", "--config", str(config)]


def test_a_healthy_trial_on_a_narrow_terminal() -> None:
    arguments = ["--containers", "23", *SHORT, "--set", "workload.concurrency=8"]
    with AtATerminal([*KICKWATCH, "trial", *arguments], columns=80) as command:
        assert command.ended() == 0, command.text
    assert "verdict: quiet" in command.text
    assert "Traceback" not in command.text


@needs_the_fault
def test_a_faulty_trial_on_a_wide_terminal() -> None:
    # 12: a dying memcg can keep the key on for some of them.
    arguments = ["--containers", "12", *SHORT, "--set", f"workload.kmem_tcp_limit_bytes={LIMIT}"]
    with AtATerminal([*KICKWATCH, "trial", *arguments], columns=200) as command:
        assert command.ended(200) == 3, command.text
    answer = command.text[command.text.index("verdict: broadcasting") :]
    assert re.search(r"[\d.]+ x do_sync_core per container, asked for by mem_cgroup_write", answer)
    assert "static_key_slow_inc" in answer
    assert max(map(len, answer.splitlines())) <= 200
    assert "Traceback" not in command.text


def test_closing_the_terminal_stops_a_trial() -> None:
    arguments = ["--containers", "100", "--set", f"trial.seed={CHURN_FIRST}"]
    with AtATerminal([*KICKWATCH, "trial", *arguments], columns=80) as command:
        command.shows("containers")
        time.sleep(1)
        command.close()
        assert command.ended(STOP_S) == 1


@needs_the_fault
def test_run_alerts_continues_reloads_and_stops_with_its_terminal(tmp_path: Path) -> None:
    with AtATerminal(daemon(tmp_path, workload__kmem_tcp_limit_bytes=LIMIT), columns=80) as command:
        command.shows("kickwatch.broadcast_detected", 60)
        trials = command.text.count("kickwatch.trial_finished")
        command.shows("kickwatch.trial_finished", times=trials + 2)
        with AtATerminal([*KICKWATCH, "status"], columns=80) as status:
            assert status.ended() == 3, status.text
        assert status.text.startswith("broadcasting")
        command.send(signal.SIGHUP)
        command.shows("kickwatch.reloaded")
        command.shows("kickwatch.trial_finished", times=command.text.count("kickwatch.trial_finished") + 1)
        assert "Traceback" not in command.text
        command.close()
        assert command.ended(STOP_S) == 0
    assert kickwatch("status").status == 1


def test_ctrl_c_stops_run_during_a_trial(tmp_path: Path) -> None:
    with AtATerminal(daemon(tmp_path, workload__hold_s=0.5), columns=200) as command:
        command.shows("kickwatch.trial_finished")
        time.sleep(0.3)
        command.press(INTERRUPT)
        assert command.ended(STOP_S) == 0
        assert "kickwatch.stopped" in command.text
        assert "Traceback" not in command.text


@pytest.mark.long
def test_the_log_is_complete_when_the_terminal_closes(tmp_path: Path) -> None:
    """Standard error is a file, so the terminal is only the process's controlling terminal."""
    log = tmp_path / "log"
    with AtATerminal(daemon(tmp_path), errors=log) as command:
        command.until(lambda: "kickwatch.trial_finished" in log.read_text(), "a trial")
        command.close()
        assert command.ended(STOP_S) == 0
    *_, last = log.read_text().splitlines()
    assert '"event": "kickwatch.stopped"' in last


class Child:
    """A `run` started by a shell at the terminal; its log and its pid are in files."""

    def __init__(self, directory: Path) -> None:
        self.log, self._pid = directory / "log", directory / "pid"
        script = f"echo $$ >{self._pid}; exec {shlex.join(daemon(directory))} 2>{self.log}"
        self.words = ["sh", "-c", script]

    @property
    def line(self) -> str:
        return shlex.join(self.words)

    def has_logged(self, event: str, times: int = 1) -> Callable[[], bool]:
        return lambda: self.log.exists() and self.log.read_text().count(f'"kickwatch.{event}"') >= times

    def trials(self) -> int:
        return self.log.read_text().count('"kickwatch.trial_finished"')

    def kill(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(int(self._pid.read_text()), number)

    def runs(self) -> bool:
        """False also for a zombie that is not reaped."""
        try:
            status = Path(f"/proc/{self._pid.read_text().strip()}/stat").read_text()
        except OSError:
            return False
        return status.rpartition(")")[2].split()[0] != "Z"

    def wait(self, true: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s * SLOWNESS
        while not true():
            assert time.monotonic() < deadline, f"waited for {what}: {self.log.read_text()[-2000:]}"
            time.sleep(0.05)


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    one = Child(tmp_path)
    yield one
    if one.runs():
        one.kill(signal.SIGTERM)
        with suppress(AssertionError):
            one.wait(lambda: not one.runs(), "its end", STOP_S)
        one.kill(signal.SIGKILL)


@pytest.mark.long
@pytest.mark.parametrize("end", ["", " &"], ids=["foreground", "background"])
def test_a_shell_job_stops_with_the_terminal(child: Child, end: str) -> None:
    with AtATerminal(["bash", "--norc", "--noprofile", "-i"]) as shell:
        shell.press(f"{child.line}{end}\n")
        shell.until(child.has_logged("trial_finished"), "a trial")
        shell.close()
        child.wait(lambda: not child.runs(), "its end", STOP_S)
    assert child.has_logged("stopped")()


@pytest.mark.long
def test_a_killed_session_leader_stops_run(child: Child) -> None:
    """The terminal stays open but loses its session, because the shell was the session leader."""
    with AtATerminal(["sh", "-c", f"{child.line} & sleep 600"]) as shell:
        shell.until(child.has_logged("trial_finished"), "a trial")
        shell.send(signal.SIGKILL)
        child.wait(lambda: not child.runs(), "its end", STOP_S)
    assert child.has_logged("stopped")()


@pytest.mark.long
@pytest.mark.skipif(shutil.which("tmux") is None, reason=f"{FEATURE} no tmux; other tests close a terminal as well")
def test_killing_a_tmux_session_stops_run(child: Child, tmp_path: Path) -> None:
    tmux = ["tmux", "-S", str(tmp_path / "tmux"), "-f", "/dev/null"]
    subprocess.run([*tmux, "new-session", "-d", "-x", "80", "-y", "24", child.line], check=True)
    try:
        child.wait(child.has_logged("trial_finished"), "a trial")
        subprocess.run([*tmux, "kill-session"], check=True)
        child.wait(lambda: not child.runs(), "its end", STOP_S)
    finally:
        subprocess.run([*tmux, "kill-server"], check=False, capture_output=True)
    assert child.has_logged("stopped")()


@pytest.mark.long
@pytest.mark.parametrize("before", ["nohup", "setsid"])
def test_nohup_and_setsid_outlive_the_terminal(child: Child, before: str) -> None:
    """Then SIGHUP reloads, as it does for a service."""
    with AtATerminal(["bash", "--norc", "--noprofile", "-i"]) as shell:
        shell.press(f"{before} {child.line} >/dev/null &\n")  # otherwise nohup would write a file
        shell.until(child.has_logged("trial_finished"), "a trial")
        shell.close()
        child.wait(child.has_logged("trial_finished", child.trials() + 1), "one more trial")
    reloads = child.log.read_text().count('"kickwatch.reloaded"')
    child.kill(signal.SIGHUP)
    child.wait(child.has_logged("reloaded", reloads + 1), "a reload")
    child.wait(child.has_logged("trial_finished", child.trials() + 1), "one more trial")
    child.kill(signal.SIGTERM)
    child.wait(lambda: not child.runs(), "its end", STOP_S)
    assert child.has_logged("stopped")()
