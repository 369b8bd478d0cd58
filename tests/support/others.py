"""Other people's containers: each of Docker, containerd, podman and runc starts some, beside what is no container.

Beside them: a container with health checks that runs all the time, `docker exec`, services and sessions that come and
go, and a wall clock that is set back and forth.
"""

import itertools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from private_containerd import private_containerd
from private_podman import private_podman
from wall_clock import WallClock

PROGRAM = Path(__file__).parents[2] / "daemon/kickwatch/native/bin/workload"
IMAGE = "others-test:1"
ENDED = 3  # the status of the program at its deadline
_AT_ONCE = 4
_BRIEFLY = ("/workload", "--deadline-ms", "1")
_CGROUPS = Path("/sys/fs/cgroup")
_STEPS_S = itertools.cycle((-86_400, 7_200, -3_600, 0))
_NUMBERS = itertools.count()


def ran(*command: str | Path) -> None:
    """Run a container to its end. Raises RuntimeError with what the engine printed if it did not run."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != ENDED:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr[-500:]}")


class Others:
    """The engines. `start` starts containers of one of them; each runs its program to the end and is removed."""

    def __init__(self, directory: Path, containerd: Path, podman: Path) -> None:
        """`containerd`: its socket; `podman`: the root of a private one."""
        self._bundle = directory / "bundle"
        self._containerd, self._podman = containerd, podman
        self._numbers = itertools.count()
        self.rootfs = self._bundle / "rootfs"
        self._write_bundle()

    def _write_bundle(self) -> None:
        self.rootfs.mkdir(parents=True)
        shutil.copy(PROGRAM, self.rootfs / "workload")
        subprocess.run(["runc", "spec"], cwd=self._bundle, check=True)
        config = json.loads((self._bundle / "config.json").read_text("utf-8"))
        config["process"] |= {"args": list(_BRIEFLY), "terminal": False}
        config["process"].pop("rlimits", None)
        (self._bundle / "config.json").write_text(json.dumps(config), encoding="utf-8")

    @property
    def engines(self) -> dict[str, Callable[[], None]]:
        """What starts one container, by the engine's name in the count."""
        return {"docker": self._docker, "ctr": self._ctr, "podman": self._in_podman, "runc": self._runc}

    def start(self, engine: str, containers: int) -> None:
        """Several at a time. Raises the first error."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for done in [pool.submit(self.engines[engine]) for _ in range(containers)]:
                done.result()

    def _name(self) -> str:
        return f"other-{next(self._numbers)}"

    def _docker(self) -> None:
        ran("docker", "run", "--rm", "--network", "none", IMAGE, *_BRIEFLY)

    def _ctr(self) -> None:
        command = ("ctr", "-a", self._containerd, "run", "--rm", "--null-io", "--rootfs", self.rootfs)
        ran(*command, self._name(), *_BRIEFLY)

    def _in_podman(self) -> None:
        stores = ("--root", self._podman / "root", "--runroot", self._podman / "runroot", "--storage-driver", "vfs")
        run = ("run", "--rm", "--network", "none", "--rootfs", self.rootfs, *_BRIEFLY)
        ran("env", f"CONTAINERS_CONF={self._podman}/containers.conf", "podman", *stores, *run)

    def _runc(self) -> None:
        ran("runc", "run", "--bundle", self._bundle, self._name())


# By engine, under which names the count has them: `ctr` gives its containers names that only the runtime shows.
COUNTED_AS = {"docker": "docker", "ctr": "runc", "podman": "podman", "runc": "runc"}


@contextmanager
def others(directory: Path) -> Iterator[Others]:
    """The engines, each with a store of its own; Docker's has to be there. All is removed at the end."""
    with ExitStack() as stack:
        containerd = stack.enter_context(private_containerd()).socket
        podman = stack.enter_context(private_podman()).parent
        tar = directory / "image.tar"
        subprocess.run(["tar", "-C", str(PROGRAM.parent), "-cf", str(tar), PROGRAM.name], check=True)
        subprocess.run(["docker", "import", str(tar), IMAGE], check=True, capture_output=True)
        stack.callback(subprocess.run, ["docker", "image", "rm", "-f", IMAGE], capture_output=True, check=False)
        yield Others(directory, containerd, podman)


@contextmanager
def turmoil(clock: WallClock | None = None) -> Iterator[None]:
    """Meanwhile health checks, `docker exec`, services and sessions come and go, and the clock is set."""
    run = ("run", "-d", "--rm", "--network", "none", "--health-interval", "1s", "--health-cmd", "/workload")
    started = subprocess.run(
        ["docker", *run, IMAGE, "/workload", "--deadline-ms", "3600000"], check=True, capture_output=True, text=True
    )
    container, end = started.stdout.strip(), threading.Event()
    acts: list[Callable[[], None]] = [lambda: _exec_in(container), _service]
    acts += [lambda: clock.set(next(_STEPS_S))] if clock else []
    threads = [threading.Thread(target=_repeat, args=(act, end)) for act in acts]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join()
        subprocess.run(["docker", "rm", "-f", container], capture_output=True, check=False)


def _repeat(act: Callable[[], None], end: threading.Event) -> None:
    while not end.wait(0.2):
        act()


def _exec_in(container: str) -> None:
    subprocess.run(["docker", "exec", container, *_BRIEFLY], capture_output=True, check=False)


def _service() -> None:
    """What systemd makes for a service, a session and a scope of systemd-run, in each hierarchy of this node."""
    number = next(_NUMBERS)
    make_and_remove(f"others-{number:08x}.service", f"session-{number}.scope", f"run-r{number:032x}.scope")


def make_and_remove(*names: str) -> None:
    """A cgroup of each name in every hierarchy, below one that is removed, too; all are there before the first goes."""
    parents = [root / f"others-{os.getpid()}.slice" for root in hierarchies()]
    made = [*parents, *(parent / name for parent in parents for name in names)]
    for path in made:
        path.mkdir()
    for path in reversed(made):
        path.rmdir()


def hierarchies() -> Sequence[Path]:
    """The roots of the cgroup hierarchies."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [root for root in sorted(_CGROUPS.iterdir()) if not root.is_symlink() and (root / "cgroup.procs").exists()]
