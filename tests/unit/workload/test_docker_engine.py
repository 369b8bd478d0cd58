"""DockerEngine against a fake server on a Unix socket, with slow, malformed and refusing answers.

The server keeps containers in a dictionary and answers in the format of the Engine API (20.10, unless a test changes
it). Real engines are tested in tests/docker.
"""

import asyncio
import io
import json
import re
import socket
import stat
import tarfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import requests.exceptions
from hypothesis import given
from hypothesis import strategies as st

from kickwatch.errors import EngineAbsentError, EngineAnswerLostError, EngineError
from kickwatch.workload import docker_calls, docker_engine
from kickwatch.workload.docker_calls import root_cause
from kickwatch.workload.docker_engine import DockerEngine
from kickwatch.workload.docker_images import scratch_layer
from kickwatch.workload.docker_info import common_api_version
from kickwatch.workload.engine import ContainerSpec, one_line
from kickwatch.workload.image import image_reference

SPEC = ContainerSpec(
    name="kickwatch-t-0", instance="i", trial="t", image="own:1", command=("--deadline-ms", "9"), network="none",
    cgroup_parent="/kickwatch", pids_limit=64,
)  # fmt: skip
ID = "0123456789abcdef" * 4
INFO = {
    "ServerVersion": "20.10.24", "DefaultRuntime": "runc", "RuncCommit": {"ID": "1.1.5"}, "CgroupDriver": "cgroupfs",
    "DockerRootDir": "/var/lib/docker",
}  # fmt: skip
Answer = tuple[int, Any]
PATIENT_S, IMPATIENT_S = 10, 0.1


@dataclass
class Request:
    """One request: its path without the version prefix, that version, and its body."""

    method: str
    path: str
    version: str
    query: dict[str, list[str]]
    body: Any


@dataclass
class FakeDocker:
    """The server's state. `replaced`: answers that a test sets, by the beginning of `METHOD path`."""

    containers: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: set[str] = field(default_factory=set)
    listed: list[dict[str, Any]] = field(default_factory=list)  # images; filters are ignored
    requests: list[Request] = field(default_factory=list)
    replaced: dict[str, Callable[[Request], Answer | bytes | Iterator[bytes] | None]] = field(default_factory=dict)
    versions: tuple[str, str] = ("1.12", "1.41")
    ended: threading.Event = field(default_factory=threading.Event)
    connections: int = 0
    ignores_filters: bool = False

    def answer(self, request: Request) -> Answer | bytes | Iterator[bytes]:
        """The answer that a test has set, if any, else the engine's."""
        self.requests.append(request)
        line = f"{request.method} {request.path}"
        for prefix, give in self.replaced.items():
            if line.startswith(prefix) and (replaced := give(request)) is not None:
                return replaced
        return self._normal_answer(request, line)

    def _normal_answer(self, request: Request, line: str) -> Answer:
        known = {
            "GET /version": self._version,
            "GET /info": lambda _: (200, INFO),
            "POST /containers/create": self.make,
            "GET /containers/json": self._list,
            "POST /images/create": self._import,
            "GET /images/json": lambda _: (200, self.listed),
        }
        if line in known:
            return known[line](request)
        if match := re.fullmatch(r"(GET|DELETE) /images/(.+?)(/json)?", line):
            return self._image(match[1], match[2])
        return self._container(request, *line.removeprefix(f"{request.method} /containers/").split("/")[:2])

    def _version(self, _: Request) -> Answer:
        oldest, newest = self.versions
        return 200, {"Version": "20.10.24", "ApiVersion": newest, "MinAPIVersion": oldest}

    def _list(self, request: Request) -> Answer:
        wanted = json.loads(request.query["filters"][0])["label"]
        return 200, [
            {"Id": key, "Labels": dict(label.split("=", 1) for label in made["labels"] if "=" in label)}
            for key, made in self.containers.items()
            if self.ignores_filters or set(wanted) <= made["labels"]
        ]

    def _import(self, request: Request) -> Answer:
        self.images.add(request.query["repo"][0])
        return 200, {"status": "sha256:00"}

    def _image(self, method: str, name: str) -> Answer:
        if name not in self.images:
            return 404, {"message": f"No such image: {name}"}
        if method == "DELETE":
            self.images.discard(name)
        return 200, {"Id": "sha256:00"}

    def make(self, request: Request) -> Answer:
        """Make a container, as `POST /containers/create` does."""
        labels = {f"{key}={value}" for key, value in request.body["Labels"].items()}
        self.containers[ID] = {"labels": labels | set(request.body["Labels"]), "body": request.body, "running": False}
        return 201, {"Id": ID, "Warnings": []}

    def _container(self, request: Request, container_id: str, action: str = "") -> Answer:
        made = self.containers.get(container_id)
        if made is None:
            return 404, {"message": f"No such container: {container_id}"}
        if request.method == "DELETE":
            del self.containers[container_id]
            self.ended.set()
            return 204, None
        if action == "start":
            made["running"] = True
            return 204, None
        if action == "wait":
            self.ended.wait(5)
            return 200, {"StatusCode": made.get("status", 0)}
        state = {"Running": made["running"], "Pid": 4711 if made["running"] else 0, "ExitCode": made.get("status", 0)}
        return 200, {"Id": container_id, "State": state}

    def paths(self, method: str = "") -> list[str]:
        """The paths of the requests, in order."""
        return [request.path for request in self.requests if not method or request.method == method]


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    docker: FakeDocker

    def handle_error(self, request: object, client_address: object) -> None:
        """In some tests the client leaves before its answer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        self.server.docker.connections += 1
        super().setup()

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        version, path = re.fullmatch(r"(?:/v([\d.]+))?(/.*)", unquote(parts.path)).groups()
        content = self._content()
        is_json = self.headers.get("Content-Type") == "application/json"
        body = json.loads(content) if content and is_json else content
        given = self.server.docker.answer(Request(self.command, path, version or "", parse_qs(parts.query), body))
        if isinstance(given, bytes):
            given = iter([given])
        if isinstance(given, Iterator):
            for part in given:
                self.wfile.write(part)
            self.close_connection = True
            return
        status, answer = given
        text = answer if isinstance(answer, bytes) else json.dumps(answer).encode() if answer is not None else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _content(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815 -- the names that BaseHTTPRequestHandler calls


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def docker(path: Path) -> Iterator[FakeDocker]:
    with _Server(str(path), _Handler) as server:
        server.docker = FakeDocker()
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.docker
        server.docker.ended.set()
        server.shutdown()
        thread.join()


@pytest.fixture
async def engine(docker: FakeDocker, path: Path) -> AsyncIterator[DockerEngine]:
    """Its calls may take 10 s on the socket, 11 s in total."""
    opened = DockerEngine(str(path), timeout_s=PATIENT_S, workers=3, lost_create_search_s=2.0)
    yield opened
    docker.ended.set()
    await opened.close()


@pytest.fixture
async def impatient(docker: FakeDocker, path: Path) -> AsyncIterator[DockerEngine]:
    """For answers that come too late. Its calls may take 1 s on the socket, 1.1 s in total."""
    opened = DockerEngine(str(path), timeout_s=IMPATIENT_S, workers=3, lost_create_search_s=2.0)
    yield opened
    docker.ended.set()
    await opened.close()


async def test_podman_is_distinguished_from_docker(docker: FakeDocker, engine: DockerEngine) -> None:
    parts = [
        {"Name": "Podman Engine", "Version": "4.3.1", "Details": {}},
        {"Name": "OCI Runtime (crun)", "Version": "crun version 1.8.1\ncommit: f8a096be", "Details": {}},
    ]
    docker.replaced["GET /version"] = lambda _: (
        200,
        {"ApiVersion": "1.41", "MinAPIVersion": "1.24", "Components": parts},
    )
    info = await engine.info()
    assert (info.name, info.runtime) == ("podman", "crun 1.8.1")


async def test_info_describes_the_engine(engine: DockerEngine) -> None:
    info = await engine.info()
    assert str(info) == "docker 20.10.24"
    assert info.runtime == "runc 1.1.5"
    assert info.cgroup_driver == "cgroupfs"


SECCOMP = "name=seccomp,profile=default"


@pytest.mark.parametrize(
    ("options", "rootless"),
    [
        ({}, False),
        ({"SecurityOptions": None}, False),
        ({"SecurityOptions": ["name=apparmor", SECCOMP]}, False),
        ({"SecurityOptions": [SECCOMP, "name=userns"]}, False),
        ({"SecurityOptions": [SECCOMP, "name=rootless", "name=cgroupns"]}, True),
    ],
)
async def test_an_engine_says_if_it_is_rootless(
    docker: FakeDocker, engine: DockerEngine, options: dict[str, list[str] | None], *, rootless: bool
) -> None:
    docker.replaced["GET /info"] = lambda _: (200, INFO | options)
    assert (await engine.info()).rootless is rootless


@pytest.mark.parametrize(
    "content", ['{"proxies": {"default": "http://proxy"}}', '{"auths": {"r": {"auth": "eA=="}}}', "{"]
)
async def test_the_files_of_dockers_own_client_are_not_read(
    docker: FakeDocker, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """No registry is needed. An auth without a colon ended in "not enough values to unpack", and `auto` took runc."""
    (tmp_path / "config.json").write_text(content)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    opened = DockerEngine(str(path), timeout_s=PATIENT_S, workers=1)
    try:
        assert str(await opened.info()) == "docker 20.10.24"
    finally:
        docker.ended.set()
        await opened.close()


@pytest.mark.parametrize(
    ("versions", "spoken"),
    [
        (("1.12", "1.41"), "1.41"),  # 20.10
        (("1.24", "1.51"), "1.41"),  # 28
        (("1.44", "1.52"), "1.44"),  # 29
    ],
)
async def test_the_api_version_is_negotiated(
    docker: FakeDocker, engine: DockerEngine, versions: tuple[str, str], spoken: str
) -> None:
    docker.versions = versions
    await engine.info()
    await asyncio.gather(*(engine.own_containers("i") for _ in range(3)))  # in several threads
    assert (docker.requests[0].version, docker.requests[0].path) == ("", "/version")
    assert {request.version for request in docker.requests[1:]} == {spoken}


async def test_an_engine_too_old_is_refused_with_both_versions(
    docker: FakeDocker, engine: DockerEngine, path: Path
) -> None:
    docker.versions = ("1.12", "1.40")
    with pytest.raises(EngineError) as caught:
        await engine.info()
    assert not isinstance(caught.value, EngineAbsentError)
    assert f"{path} supports API 1.12 to 1.40, kickwatch 1.41 or later" in str(caught.value)


async def test_after_an_engine_update_the_version_is_negotiated_again(docker: FakeDocker, engine: DockerEngine) -> None:
    await engine.info()
    docker.versions = ("1.44", "1.52")
    await engine.info()
    await engine.own_containers("i")
    assert docker.requests[-1].version == "1.44"


@given(st.tuples(*[st.integers(0, 99)] * 2), st.tuples(*[st.integers(0, 99)] * 2))
def test_the_negotiated_version_is_one_that_both_support(oldest: tuple[int, int], newest: tuple[int, int]) -> None:
    major = 1
    agreed = common_api_version(f"{major}.{oldest[1]}", f"{major}.{newest[1]}")
    if agreed is None:
        assert newest[1] < max(41, oldest[1])
    else:
        minor = int(agreed.partition(".")[2])
        assert max(41, oldest[1]) == minor <= newest[1]


@pytest.mark.parametrize(
    "odd",
    [
        (200, []), (200, {}), (200, b"<html>"), (200, "x"), (500, {}), (500, []), b"SSH-2.0-OpenSSH\r\n", b"",
        (200, {"ApiVersion": "latest"}), (200, {"ApiVersion": "1." + "9" * 5000}), (200, {"ApiVersion": None}),
        (200, {"ApiVersion": "1.41", "MinAPIVersion": ""}), (200, b"[" * 100_000),
    ],
)  # fmt: skip
async def test_a_server_that_is_no_engine_is_refused(
    docker: FakeDocker, engine: DockerEngine, path: Path, odd: Any
) -> None:
    docker.replaced["GET /version"] = lambda _: odd
    with pytest.raises(EngineAbsentError) as caught:
        await engine.info()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def be_patient(engine: DockerEngine) -> None:
    """From now on, also for the clients that there are."""
    engine._calls._timeout_s = PATIENT_S
    for client in engine._calls._clients:
        client.timeout = PATIENT_S


def _endless_answer(pause_s: float, part: bytes) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n"
    while True:
        yield part
        time.sleep(pause_s)


@pytest.mark.parametrize(("pause_s", "part"), [(0.05, b" "), (0.0, bytes(1 << 16))])
async def test_an_endless_answer_times_out_and_frees_its_thread(
    docker: FakeDocker, path: Path, pause_s: float, part: bytes
) -> None:
    """Each read succeeds in time, but all reads of an answer share one timeout. The interpreter joins the thread."""
    engine = DockerEngine(str(path), timeout_s=IMPATIENT_S, workers=1)
    docker.replaced["GET /version"] = lambda _: _endless_answer(pause_s, part)
    try:
        with pytest.raises(EngineAbsentError, match=str(path)):
            await engine.info()
        docker.replaced.clear()
        be_patient(engine)
        assert await engine.own_containers("i") == []  # in the same and only thread
    finally:
        await engine.close()


async def test_the_timeout_restarts_for_each_answer_on_a_connection(docker: FakeDocker, path: Path) -> None:
    engine = DockerEngine(str(path), timeout_s=6, workers=1)

    def slow(request: Request) -> Answer:
        time.sleep(2.1)
        return 200, []

    docker.replaced["GET /containers/json"] = slow
    for _ in range(3):  # each may take six seconds
        assert await engine.own_containers("i") == []
    await engine.close()


@pytest.mark.parametrize(("dead", "reason"), [(False, "No such file"), (True, "Connection refused")])
async def test_a_missing_or_dead_socket_is_no_engine(path: Path, dead: bool, reason: str) -> None:
    if dead:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    engine = DockerEngine(str(path), timeout_s=10, workers=1)
    with pytest.raises(EngineAbsentError, match=f"{path}.*{reason}"):
        await engine.info()
    await engine.close()


async def test_the_create_request_follows_the_spec(docker: FakeDocker, engine: DockerEngine) -> None:
    assert await engine.create(SPEC) == ID
    body = docker.containers[ID]["body"]
    assert (body["Image"], body["Cmd"]) == ("own:1", ["--deadline-ms", "9"])
    assert body["Labels"] == SPEC.labels()
    host = body["HostConfig"]
    assert (host["NetworkMode"], host["CgroupParent"], host["PidsLimit"]) == ("none", "/kickwatch", 64)
    assert host["LogConfig"]["Type"] == "none"
    assert docker.requests[-1].query["name"] == ["kickwatch-t-0"]


RUNTIMES = {"runc": {"path": "runc"}, "io.containerd.runc.v2": {"path": "runc"}, "crun": {"path": "/usr/bin/crun"}}


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ("", "runc 1.1.5"),
        ("runc", "runc 1.1.5"),
        ("io.containerd.runc.v2", "io.containerd.runc.v2"),
        ("crun", "crun"),
        ("io.containerd.kata.v2", "io.containerd.kata.v2"),  # a shim, of which Docker lists none since 23
    ],
)
async def test_the_configured_runtime_is_asked_for(docker: FakeDocker, path: Path, wanted: str, shown: str) -> None:
    docker.replaced["GET /info"] = lambda _: (200, INFO | {"Runtimes": RUNTIMES})
    engine = DockerEngine(str(path), timeout_s=10, workers=1, runtime=wanted)
    info = await engine.info()
    assert (info.runtime, info.runtimes) == (shown, ("crun", "io.containerd.runc.v2", "runc"))
    assert info.unnamed_fields == ()
    await engine.create(SPEC)
    assert docker.containers[ID]["body"]["HostConfig"].get("Runtime", "") == wanted
    await engine.close()


async def test_a_wrong_name_of_a_runtime_gives_those_that_exist(docker: FakeDocker, path: Path) -> None:
    docker.replaced["GET /info"] = lambda _: (200, INFO | {"Runtimes": RUNTIMES})
    engine = DockerEngine(str(path), timeout_s=10, workers=1, runtime="kata")
    with pytest.raises(EngineAbsentError) as caught:
        await engine.info()
    assert str(caught.value) == (
        "docker 20.10.24 has no runtime kata (engine.runtime): set engine.runtime to one that it has:"
        " crun, io.containerd.runc.v2, runc"
    )
    await engine.close()


async def test_a_users_container_has_no_pids_limit(docker: FakeDocker, engine: DockerEngine) -> None:
    await engine.create(ContainerSpec(**{key: getattr(SPEC, key) for key in SPEC.__struct_fields__[:-1]}))
    assert "PidsLimit" not in docker.containers[ID]["body"]["HostConfig"]


async def test_the_life_of_a_container(docker: FakeDocker, engine: DockerEngine) -> None:
    container = await engine.create(SPEC)
    await engine.start(container)
    assert await engine.pid(container) == 4711
    docker.containers[ID]["status"] = 3
    docker.ended.set()
    assert await engine.wait(container, 5) == 3
    assert await engine.own_containers("i") == [ID]
    assert await engine.own_containers("another") == []
    await engine.remove(container)
    assert docker.containers == {}
    await engine.remove(container)  # already removed


async def test_containers_share_one_connection(docker: FakeDocker, path: Path) -> None:
    engine = DockerEngine(str(path), timeout_s=10, workers=1)
    docker.ended.set()
    for _ in range(3):
        container = await engine.create(SPEC)
        await engine.start(container)
        assert await engine.wait(container, 5) == 0
        await engine.remove(container)
    assert docker.connections == 1
    await engine.close()


async def test_a_container_created_after_the_deadline_is_removed_by_label(
    docker: FakeDocker, impatient: DockerEngine
) -> None:
    def slow(request: Request) -> Answer:
        time.sleep(1.5)
        return docker.make(request)

    docker.replaced["POST /containers/create"] = slow
    with pytest.raises(EngineAnswerLostError, match="could not create the container kickwatch-t-0"):
        await impatient.create(SPEC)
    assert ID in "".join(docker.paths("DELETE"))
    assert docker.containers == {}


async def test_a_create_without_an_answer_is_searched_for_repeatedly(docker: FakeDocker, path: Path) -> None:
    engine = DockerEngine(str(path), timeout_s=PATIENT_S, workers=1, lost_create_search_s=2.0)
    docker.replaced["POST /containers/create"] = lambda _: b""
    with pytest.raises(EngineAnswerLostError):
        await engine.create(SPEC)
    assert docker.paths().count("/containers/json") >= 2
    await engine.close()


@pytest.mark.parametrize("odd", [(201, {}), (201, []), (201, b"<html>"), (500, {}), (500, []), b"", b"HTTP/9 what\r\n"])
async def test_a_container_of_a_malformed_answer_is_removed(docker: FakeDocker, engine: DockerEngine, odd: Any) -> None:
    def malformed(request: Request) -> Any:
        docker.make(request)
        return odd

    docker.replaced["POST /containers/create"] = malformed
    with pytest.raises(EngineAnswerLostError, match="could not create the container kickwatch-t-0"):
        await engine.create(SPEC)
    assert docker.containers == {}


async def test_a_refused_create_raises_the_engines_message(docker: FakeDocker, engine: DockerEngine) -> None:
    docker.replaced["POST /containers/create"] = lambda _: (409, {"message": "Conflict.\n The name is in use"})
    with pytest.raises(EngineError) as caught:
        await engine.create(SPEC)
    assert not isinstance(caught.value, EngineAnswerLostError)
    assert str(caught.value) == "could not create the container kickwatch-t-0: Conflict. The name is in use"
    assert "/containers/json" not in docker.paths()


@pytest.mark.parametrize("cancellations", [1, 3])
async def test_a_cancelled_create_leaves_no_container(
    docker: FakeDocker, engine: DockerEngine, cancellations: int
) -> None:
    sent = threading.Event()

    def slow(request: Request) -> Answer:
        sent.set()
        time.sleep(0.3)
        return docker.make(request)

    docker.replaced["POST /containers/create"] = slow
    creating = asyncio.create_task(engine.create(SPEC))
    assert await asyncio.to_thread(sent.wait, 5)
    for _ in range(cancellations):
        creating.cancel()
        await asyncio.sleep(0.02)
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert docker.containers == {}
    assert docker.paths("DELETE") == [f"/containers/{ID}"]


async def test_a_create_aborted_by_its_task_group_leaves_no_container(docker: FakeDocker, engine: DockerEngine) -> None:
    sent = threading.Event()

    def slow(request: Request) -> Answer:
        sent.set()
        time.sleep(0.2)
        return docker.make(request)

    async def fail() -> None:
        assert await asyncio.to_thread(sent.wait, 5)
        raise EngineError("another worker's")

    async def both() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(engine.create(SPEC))
            tasks.create_task(fail())

    docker.replaced["POST /containers/create"] = slow
    with pytest.raises(ExceptionGroup):
        await both()
    assert docker.containers == {}


@pytest.mark.parametrize("steps", range(4))
async def test_a_cancellation_that_arrives_with_an_answer_is_not_lost(path: Path, steps: int) -> None:
    """asyncio.wait_for of Python 3.11 returns the answer and loses the cancellation: SIGTERM would have no effect."""
    engine = DockerEngine(str(path), timeout_s=5, workers=1)
    job: futures.Future[int] = futures.Future()

    async def go_on_after_it() -> None:
        await engine._calls.result_of("ask", job)
        await asyncio.Event().wait()

    going = asyncio.create_task(go_on_after_it())
    await asyncio.sleep(0.01)
    job.set_result(1)
    for _ in range(steps):
        await asyncio.sleep(0)
    going.cancel()
    done, _ = await asyncio.wait([going], timeout=1)
    going.cancel()
    assert done
    await engine.close()


async def test_a_create_cancelled_in_the_queue_is_never_sent(docker: FakeDocker, path: Path) -> None:
    engine = DockerEngine(str(path), timeout_s=3, workers=1)
    docker.containers[ID] = {"labels": set(), "running": True}
    waiting = asyncio.create_task(engine.wait(ID, 5))
    await asyncio.sleep(0.1)
    creating = asyncio.create_task(engine.create(SPEC))
    await asyncio.sleep(0.05)
    creating.cancel()
    since = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert time.monotonic() - since < 1  # without waiting for the thread
    docker.ended.set()
    assert await waiting == 0
    await engine.own_containers("i")  # runs in the only thread, after all older calls
    assert "/containers/create" not in docker.paths()
    await engine.close()


async def test_a_cancelled_and_refused_create_is_not_searched_for(docker: FakeDocker, engine: DockerEngine) -> None:
    sent = threading.Event()

    def refuse(_: Request) -> Answer:
        sent.set()
        time.sleep(0.2)
        return 500, {"message": "no space left on device"}

    docker.replaced["POST /containers/create"] = refuse
    creating = asyncio.create_task(engine.create(SPEC))
    assert await asyncio.to_thread(sent.wait, 5)
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert docker.paths() == ["/containers/create"]


async def test_failures_name_the_container(docker: FakeDocker, engine: DockerEngine) -> None:
    container = await engine.create(SPEC)
    docker.replaced[f"POST /containers/{ID}/start"] = lambda _: (500, {"message": "no runc"})
    with pytest.raises(EngineError, match=f"could not start the container kickwatch-t-0 \\({ID[:12]}\\): no runc"):
        await engine.start(container)
    docker.replaced[f"DELETE /containers/{ID}"] = lambda _: (500, {"message": "driver failed"})
    with pytest.raises(EngineError, match="could not remove the container kickwatch-t-0"):
        await engine.remove(container)
    docker.replaced.clear()
    await engine.remove(container)
    with pytest.raises(EngineError, match=f"could not inspect the container {ID[:12]}"):
        await engine.pid(container)  # removed, so its name is unknown


async def test_a_removal_in_progress_is_waited_for(docker: FakeDocker, engine: DockerEngine) -> None:
    container = await engine.create(SPEC)
    docker.replaced["DELETE"] = lambda _: (409, {"message": f"removal of container {ID} is already in progress"})

    def removed(request: Request) -> Answer:
        assert request.query["condition"] == ["removed"]
        docker.containers.clear()
        return 200, {"StatusCode": 0}

    docker.replaced[f"POST /containers/{ID}/wait"] = removed
    await engine.remove(container)
    assert docker.paths()[-1] == f"/containers/{ID}/wait"


async def test_a_removal_in_progress_that_fails_is_no_removal(docker: FakeDocker, engine: DockerEngine) -> None:
    """As dockerd answers whoever waits when it could not remove the container."""
    await engine.create(SPEC)
    docker.replaced["DELETE"] = lambda _: (409, {"message": "already in progress"})
    failed = {"StatusCode": 0, "Error": {"Message": "driver failed to remove root filesystem"}}
    docker.replaced[f"POST /containers/{ID}/wait"] = lambda _: (200, failed)
    with pytest.raises(EngineError) as refusal:
        await engine.remove(ID)
    assert "driver failed to remove root filesystem" in f"{refusal.value.what} {refusal.value.remedy}"


async def test_another_instances_containers_stay_where_the_engine_ignores_filters(
    docker: FakeDocker, engine: DockerEngine
) -> None:
    await engine.create(SPEC)
    docker.ignores_filters = True
    assert await engine.own_containers(SPEC.instance) == [ID]
    assert await engine.own_containers("another") == []


async def test_a_removal_that_completed_before_the_wait_is_no_error(docker: FakeDocker, engine: DockerEngine) -> None:
    docker.replaced["DELETE"] = lambda _: (409, {"message": "already in progress"})
    await engine.remove(ID)  # waiting for it returns 404


async def test_waiting_for_a_running_container_returns_none(docker: FakeDocker, engine: DockerEngine) -> None:
    container = await engine.create(SPEC)
    await engine.start(container)
    since = time.monotonic()
    assert await engine.wait(container, 0.2) is None
    assert 0.2 <= time.monotonic() - since < PATIENT_S


async def test_an_exit_that_was_not_reported_is_read_from_the_state(docker: FakeDocker, engine: DockerEngine) -> None:
    container = await engine.create(SPEC)
    docker.containers[ID]["status"] = 5  # it does not run, but the wait does not return
    assert await engine.wait(container, 0.2) == 5


async def test_an_engine_that_hangs_during_a_wait_is_an_error(docker: FakeDocker, impatient: DockerEngine) -> None:
    def hang(_: Request) -> Answer:
        time.sleep(4)
        return 200, {}

    docker.replaced[f"POST /containers/{ID}/wait"] = docker.replaced[f"GET /containers/{ID}/json"] = hang
    with pytest.raises(EngineAnswerLostError, match="could not inspect"):
        await impatient.wait(ID, 0.2)


async def test_an_engine_that_dies_during_a_wait_is_an_error(docker: FakeDocker, engine: DockerEngine) -> None:
    docker.replaced[f"POST /containers/{ID}/wait"] = lambda _: b""
    with pytest.raises(EngineAnswerLostError, match="could not wait"):
        await engine.wait(ID, 5)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 -- there is no event to wait for
            await asyncio.sleep(0.01)


async def threads_end_within(seconds: float) -> bool:
    """True once all worker threads of engines have ended."""
    for _ in range(int(seconds / 0.01)):
        if not any(thread.name.startswith("engine") for thread in threading.enumerate()):
            return True
        await asyncio.sleep(0.01)
    return False


async def test_during_shutdown_no_call_follows_a_lost_answer(
    docker: FakeDocker, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine hangs and its timeouts are long: a second call would exceed the service's time to stop."""
    monkeypatch.setattr(docker_calls, "SHUTDOWN_CALL_TIMEOUT_S", 1.0)
    engine = DockerEngine(str(path), timeout_s=30, workers=2)
    release = threading.Event()

    def hang(_: Request) -> None:
        release.wait(20)

    docker.replaced = {"GET /containers": hang, "POST /containers/create": hang}
    since = time.monotonic()
    creating, asking = asyncio.create_task(engine.create(SPEC)), asyncio.create_task(engine.pid(ID))
    await until(lambda: len(docker.requests) == 2)
    engine.shorten_timeouts()
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    with pytest.raises(EngineAnswerLostError):
        await asking
    for _ in range(3):
        with pytest.raises(
            EngineAnswerLostError, match=f"could not remove .*{ID[:12]}: the engine has stopped answering"
        ):
            await engine.remove(ID)
    await engine.close()
    assert time.monotonic() - since < 15  # each of the five calls could take 30 s
    release.set()
    assert await threads_end_within(20)


async def test_during_shutdown_a_blocked_import_is_cut_off(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hanging engine reads nothing, and the image does not fit into the socket's buffer."""
    monkeypatch.setattr(docker_calls, "SHUTDOWN_CALL_TIMEOUT_S", 1.0)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        engine = DockerEngine(str(path), timeout_s=30, workers=1)
        since = time.monotonic()
        monkeypatch.setattr(docker_engine, "has_image", lambda *_: False)
        making = asyncio.create_task(engine.prepare_image(bytes(1 << 22)))
        await asyncio.sleep(0.3)
        engine.shorten_timeouts()
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        await engine.close()
        assert await threads_end_within(15)
        assert time.monotonic() - since < 15


async def test_during_shutdown_an_engine_that_answers_is_waited_for(docker: FakeDocker, path: Path) -> None:
    engine = DockerEngine(str(path), timeout_s=30, workers=1)
    container = await engine.create(SPEC)
    engine.shorten_timeouts()
    await engine.remove(container)
    assert docker.containers == {}
    await engine.close()


async def test_close_cuts_off_calls_in_progress(docker: FakeDocker, path: Path) -> None:
    engine = DockerEngine(str(path), timeout_s=30, workers=1)
    docker.containers[ID] = {"labels": set(), "running": True}
    waiting = asyncio.create_task(engine.wait(ID, 60))
    await until(lambda: bool(docker.requests))
    since = time.monotonic()
    await engine.close()
    with pytest.raises(EngineAnswerLostError):
        await waiting
    assert time.monotonic() - since < 15


async def test_close_cuts_off_a_call_whose_connection_is_just_made(
    docker: FakeDocker, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    making, closed = threading.Event(), threading.Event()

    class Slow(docker_calls.DockerClient):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            making.set()
            closed.wait(20)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(docker_calls, "DockerClient", Slow)
    engine = DockerEngine(str(path), timeout_s=30, workers=1)
    docker.containers[ID] = {"labels": set(), "running": True}
    waiting = asyncio.create_task(engine.wait(ID, 60))
    await asyncio.to_thread(making.wait, 20)
    await engine.close()
    closed.set()
    with pytest.raises(EngineAnswerLostError):
        await waiting
    assert docker.requests == []


@pytest.mark.parametrize("reference", ["alpine:3", "sha256:" + "ab" * 32, "docker.io/library/alpine@sha256:00"])
async def test_users_images_are_found_by_name_id_and_digest(
    docker: FakeDocker, engine: DockerEngine, reference: str
) -> None:
    with pytest.raises(EngineError, match=f"{reference} is not on this node: docker pull {reference}"):
        await engine.require_image(reference)
    docker.images.add(reference)
    await engine.require_image(reference)
    assert docker.paths() == [f"/images/{reference}/json"] * 2


async def test_our_image_is_made_once_and_removed(docker: FakeDocker, engine: DockerEngine) -> None:
    reference = await engine.prepare_image(b"program")
    assert reference == image_reference(b"program")
    assert docker.images == {reference}
    assert await engine.prepare_image(b"program") == reference
    assert docker.paths().count("/images/create") == 1
    await engine.remove_image(reference)
    await engine.remove_image(reference)  # already removed
    assert docker.images == set()


async def test_leftover_images_are_removed_and_no_others(docker: FakeDocker, engine: DockerEngine) -> None:
    ours, others = {"kickwatch": "1"}, ({"kickwatch": "2"}, {"maintainer": "1"}, {}, None)
    docker.listed = [
        {"Id": "unnamed", "Labels": ours, "RepoTags": []},
        {"Id": "unnamed-before-1.43", "Labels": ours, "RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"]},
        {"Id": "unnamed-by-podman", "Labels": ours, "RepoTags": None},
        {"Id": "of-another-program", "Labels": ours, "RepoTags": [image_reference(b"another")]},
        {"Id": "renamed", "Labels": ours, "RepoTags": [image_reference(b"another"), "registry.example/base:1"]},
        {"Id": "pulled-by-digest", "Labels": ours, "RepoTags": [], "RepoDigests": ["registry.example/base@sha256:ab"]},
        *({"Id": f"other{n}", "Labels": labels, "RepoTags": []} for n, labels in enumerate(others)),
    ]
    docker.images = {str(image["Id"]) for image in docker.listed}
    kept = {"renamed", "pulled-by-digest", "other0", "other1", "other2", "other3"}
    await engine.remove_image(image_reference(b"program"))
    assert docker.images == kept
    (request,) = [request for request in docker.requests if request.path == "/images/json"]
    assert json.loads(request.query["filters"][0]) == {"label": ["kickwatch=1"]}


@pytest.mark.parametrize("answer", [(500, {"message": "no"}), (200, {"odd": 1})])
async def test_our_image_is_removed_even_if_leftovers_cannot_be_listed(
    docker: FakeDocker, engine: DockerEngine, answer: Answer
) -> None:
    reference = await engine.prepare_image(b"program")
    docker.replaced["GET /images/json"] = lambda _: answer
    with pytest.raises(EngineError, match="leftovers of our images"):
        await engine.remove_image(reference)
    assert docker.images == set()


async def test_an_engine_without_images_may_answer_null(docker: FakeDocker, engine: DockerEngine) -> None:
    docker.replaced["GET /images/json"] = lambda _: (200, b"null")
    await engine.remove_image(image_reference(b"program"))


async def test_a_failed_image_removal_does_not_stop_the_others(docker: FakeDocker, engine: DockerEngine) -> None:
    docker.listed = [{"Id": name, "Labels": {"kickwatch": "1"}, "RepoTags": []} for name in ("stuck", "other")]
    docker.images = {"stuck", "other"}
    docker.replaced["DELETE /images/stuck"] = lambda _: (500, {"message": "device busy"})
    with pytest.raises(EngineError, match="remove the image stuck: device busy"):
        await engine.remove_image(image_reference(b"program"))
    assert docker.images == {"stuck"}


async def test_a_failed_import_raises_the_engines_message(docker: FakeDocker, engine: DockerEngine) -> None:
    docker.replaced["POST /images/create"] = lambda _: (200, {"error": "write: no space left on device"})
    with pytest.raises(EngineError, match=f"make the image {image_reference(b'program')}.*no space left on device"):
        await engine.prepare_image(b"program")


async def test_an_import_without_an_answer_frees_its_thread(docker: FakeDocker, path: Path) -> None:
    """The SDK sets no timeout there: the thread would keep the process from exiting."""
    engine = DockerEngine(str(path), timeout_s=IMPATIENT_S, workers=1)
    docker.replaced["POST /images/create"] = lambda _: (docker.ended.wait(30), (200, {}))[1]
    with pytest.raises(EngineAnswerLostError):
        await engine.prepare_image(b"program")
    be_patient(engine)
    await engine.own_containers("i")  # in the same and only thread
    await engine.close()


async def test_a_cancelled_import_completes_before_the_cancellation(docker: FakeDocker, engine: DockerEngine) -> None:
    sent = threading.Event()

    def slow(_: Request) -> None:
        sent.set()
        time.sleep(0.3)

    docker.replaced["POST /images/create"] = slow
    preparing = asyncio.create_task(engine.prepare_image(b"program"))
    assert await asyncio.to_thread(sent.wait, 5)
    preparing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await preparing
    assert docker.images == {image_reference(b"program")}  # so removing it now finds it


def test_the_layer_is_one_executable_and_reproducible() -> None:
    layer = scratch_layer(b"\x7fELF program")
    assert layer == scratch_layer(b"\x7fELF program")
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        (entry,) = tar.getmembers()
        assert entry.name == "workload"
        assert entry.isreg()
        assert stat.S_IMODE(entry.mode) == 0o755
        assert (entry.mtime, entry.uid, entry.gid) == (0, 0, 0)
        assert tar.extractfile(entry).read() == b"\x7fELF program"


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_images_of_different_programs_differ(one: bytes, other: bytes) -> None:
    assert (image_reference(one) == image_reference(other)) == (one == other)


@given(st.text())
def test_one_line_has_no_line_break(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1
    assert one_line(text[:500]).split() == text[:500].split()


def test_one_line_limits_its_length() -> None:
    assert one_line("x" * 65536) == "x" * 500 + "..."


def test_the_root_cause_is_the_operating_systems_message() -> None:
    refused = ConnectionRefusedError(111, "Connection refused")
    nested = requests.exceptions.ConnectionError(Exception("Connection aborted.", refused))
    assert root_cause(nested) == "Connection refused"
    outer = EngineError("could not")
    outer.__cause__ = nested
    assert root_cause(outer) == "Connection refused"
    assert root_cause(ValueError("two\nlines")) == "two lines"


def test_root_cause_ends_on_a_cycle() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert root_cause(one) in {"one", "other"}
