"""deploy/with-engine against a dockerd of straw: who starts the engine, who stops it, what becomes of the command."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

WITH_ENGINE = Path(__file__).parents[3] / "deploy" / "with-engine"
DOCKERD = """#!{python}
import http.server, os, signal, socketserver, sys
path = sys.argv[1].removeprefix("--host=unix://")
{prelude}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def address_string(self):
        return "client"
signal.signal(signal.SIGTERM, lambda *_: (os.unlink(path), os._exit(0)))
socketserver.ThreadingUnixStreamServer(path, Handler).serve_forever()
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="an engine is started as root only")


def wait_for(condition: Callable[[], bool], what: str, deadline_s: float = 20.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"{what} did not come within {deadline_s} s"
        time.sleep(0.02)


class World:
    """A socket, a state directory and a dockerd of one test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = root / "engine.sock"
        self.state = root / "state"
        self.log = self.state / "dockerd.log"
        self.env = os.environ | {
            "PATH": f"{root / 'bin'}:{os.environ['PATH']}",
            "ENGINE_SOCKET": str(self.socket),
            "ENGINE_STATE_DIR": str(self.state),
        }
        self.env.pop("DOCKER_HOST", None)
        self.processes: list[subprocess.Popen[str]] = []
        self.write_dockerd("")
        self.write_program("systemctl", "#!/bin/sh\nexit 1\n")  # as if systemd knew no docker.service

    def names(self, **variables: str) -> None:
        """The engine is named by these variables alone."""
        del self.env["ENGINE_SOCKET"]
        self.env |= variables

    def write_dockerd(self, prelude: str) -> None:
        self.write_program("dockerd", DOCKERD.format(python=sys.executable, prelude=prelude))

    def write_program(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def start(self, *command: str | Path) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        # A shell cannot trap what was ignored when it started, as SIGHUP is under nohup and SIGINT in the background.
        command = ("env", "--default-signal=HUP,INT,TERM", *command)
        process = subprocess.Popen(command, env=self.env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self.processes.append(process)
        return process

    def with_engine(self, script: str) -> subprocess.Popen[str]:
        return self.start(WITH_ENGINE, "sh", "-c", script)

    def dockerd_pid(self) -> int:
        return int((self.state / "dockerd.pid").read_text())

    def close(self) -> None:
        if (self.state / "dockerd.pid").exists():
            os.kill(self.dockerd_pid(), signal.SIGKILL)
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_an_engine_is_started_for_the_command_and_stopped_after_it(world: World) -> None:
    process = world.with_engine(f"test -S {world.socket} && cat && exit 7")
    out, err = process.communicate("through the pipe")
    assert process.returncode == 7
    assert out == "through the pipe"
    assert err.splitlines() == [
        f"engine: starting dockerd; its log is {world.log}",
        "engine: stopping dockerd",
    ]
    assert not world.socket.exists()
    assert not (world.state / "dockerd.pid").exists()
    assert world.log.exists()


def test_an_engine_that_answers_is_used_and_left(world: World) -> None:
    engine = world.start("dockerd", f"--host=unix://{world.socket}")
    wait_for(world.socket.exists, "the engine")
    process = world.with_engine("exit 0")
    assert process.communicate() == ("", "")
    assert process.returncode == 0
    assert engine.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_command_and_the_engine_outlives_it(world: World, number: signal.Signals) -> None:
    tidy = f"echo tidying; sleep 0.3; test -S {world.socket} && echo engine still there; exit 9"
    process = world.with_engine(f"trap '{tidy}' {number.name[3:]}; echo ready; while :; do sleep 0.05; done")
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate()
    assert out == "tidying\nengine still there\n"
    assert process.returncode == 9
    assert err.endswith("engine: stopping dockerd\n")
    assert not world.socket.exists()


def test_the_engine_stops_although_nobody_reads_what_it_says(world: World) -> None:
    """As after `make run 2>&1 | head -n 1`: a line that nobody reads must not leave dockerd running."""
    process = world.with_engine("cat")
    assert process.stderr
    assert process.stderr.readline().startswith("engine: starting dockerd")
    process.stderr.close()
    process.communicate("")
    assert process.returncode == 0
    assert not world.socket.exists()


def test_a_signal_during_the_start_leaves_nothing(world: World) -> None:
    world.write_dockerd("import time; time.sleep(60)")
    process = world.with_engine("echo never")
    pid_file = world.state / "dockerd.pid"
    wait_for(lambda: pid_file.exists() and bool(pid_file.read_text().strip()), "dockerd")
    pid = world.dockerd_pid()
    process.terminate()
    assert process.communicate()[0] == ""
    assert process.returncode == 143
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the end of dockerd")


def test_a_command_that_a_signal_ended(world: World) -> None:
    process = world.with_engine("kill -KILL $$")
    process.communicate()
    assert process.returncode == 128 + signal.SIGKILL
    assert not world.socket.exists()


def test_a_dockerd_that_cannot_start_says_why(world: World) -> None:
    world.write_dockerd("sys.exit('failed to mount overlay: no such device')")
    process = world.with_engine("echo never")
    out, err = process.communicate()
    assert process.returncode == 1
    assert out == ""
    assert "failed to mount overlay: no such device" in err
    assert f"engine: dockerd exited at once: see above, and {world.log}" in err


def test_the_last_user_stops_the_engine(world: World) -> None:
    first = world.with_engine("echo up; read line")
    assert first.stdout
    assert first.stdout.readline() == "up\n"
    second = world.with_engine("echo up; read line")
    assert second.stdout
    assert second.stdout.readline() == "up\n"
    first.communicate("\n")
    assert first.returncode == 0
    assert world.socket.exists()
    assert second.communicate("\n")[1] == "engine: stopping dockerd\n"
    assert not world.socket.exists()


def test_two_at_once_start_one_engine(world: World) -> None:
    both = [world.with_engine("echo up; read line") for _ in range(2)]
    assert [process.stdout and process.stdout.readline() for process in both] == ["up\n"] * 2
    told = "".join(process.communicate("\n")[1] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert told.count("engine: starting dockerd") == 1
    assert told.count("engine: stopping dockerd") == 1
    assert not world.socket.exists()


def test_one_inside_another(world: World) -> None:
    process = world.with_engine(f"{WITH_ENGINE} true && test -S {world.socket} && echo still there")
    assert process.communicate()[0] == "still there\n"
    assert process.returncode == 0
    assert not world.socket.exists()


def test_an_engine_left_behind_by_a_kill_is_stopped_by_the_next_user(world: World) -> None:
    killed = world.with_engine("echo up; read line")
    assert killed.stdout
    assert killed.stdout.readline() == "up\n"
    pid = world.dockerd_pid()
    killed.kill()
    killed.communicate()
    assert Path(f"/proc/{pid}").exists()
    process = world.with_engine("true")
    assert process.communicate()[1] == "engine: stopping dockerd\n"
    assert not world.socket.exists()


def test_probe_says_why_not(world: World) -> None:
    process = world.start(WITH_ENGINE, "--probe")
    assert process.communicate()[1] == f"engine: {world.socket}: No such file or directory\n"
    assert process.returncode == 1
    assert not world.state.exists()


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"DOCKER_HOST": "unix://{}"}, "{}"),
        ({"ENGINE_SOCKET": "unix://{}", "DOCKER_HOST": "unix:///elsewhere.sock"}, "{}"),
        ({"DOCKER_HOST": "tcp://10.0.0.1:2375"}, "/var/run/docker.sock"),
    ],
)
def test_the_engine_is_the_one_that_kickwatch_uses(world: World, variables: dict[str, str], found: str) -> None:
    """With DOCKER_HOST alone dockerd was started at /var/run/docker.sock, and the trial used the other engine."""
    world.names(**{name: text.format(world.socket) for name, text in variables.items()})
    where = world.start(WITH_ENGINE, "--socket").communicate()[0].strip()
    assert where == found.format(world.socket)
    if where == str(world.socket):
        world.start("dockerd", f"--host=unix://{world.socket}")
        wait_for(world.socket.exists, "the engine")
        assert world.with_engine("echo $ENGINE_SOCKET").communicate() == (f"{world.socket}\n", "")


def test_no_dockerd_is_started_where_docker_host_names_an_engine(world: World) -> None:
    world.names(DOCKER_HOST=f"unix://{world.socket}")
    process = world.with_engine("echo never")
    assert process.communicate() == (
        "",
        f"engine: {world.socket}: No such file or directory (DOCKER_HOST): start that engine, or unset DOCKER_HOST\n",
    )
    assert process.returncode == 1
    assert not world.state.exists()


def without_dockerd(world: World, *command: str | Path) -> subprocess.Popen[str]:
    """Run it where no dockerd can be started, by hand or through systemd, and no package can be installed."""
    (world.root / "bin" / "dockerd").unlink()
    for name in ("apt-get", "runc"):
        program = world.root / "bin" / name
        program.write_text("#!/bin/sh\nexit 100\n")
        program.chmod(0o755)
    hidden = [path for path in ("/usr/local/sbin", "/usr/sbin", "/run/systemd") if Path(path).is_dir()]
    script = " && ".join([*(f"mount -t tmpfs none {path}" for path in hidden), 'exec "$@"'])
    return world.start("unshare", "--mount", "sh", "-c", script, "sh", *command)


def test_a_runtime_will_do_where_it_is_said_to(world: World) -> None:
    process = without_dockerd(world, WITH_ENGINE, "--or-runtime", "sh", "-c", "exit 7")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (7, ""), err
    assert err == f"engine: none, and no dockerd to start: using {world.root}/bin/runc without an engine\n"
    assert not world.state.exists()


def test_a_runtime_will_not_do_elsewhere(world: World) -> None:
    process = without_dockerd(world, WITH_ENGINE, "sh", "-c", "exit 7")
    assert process.communicate(timeout=60)[1].splitlines()[-1].startswith("engine: ")
    assert process.returncode == 1


def test_a_command_is_needed(world: World) -> None:
    process = world.start(WITH_ENGINE)
    process.communicate()
    assert process.returncode == 2
