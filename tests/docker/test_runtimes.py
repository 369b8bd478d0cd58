"""engine.runtime: Docker's runtimes and a CRI's handlers; and gVisor, where our program is no process of the node."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import kickwatch
from leftovers import leftovers
from private_containerd import private_containerd
from private_engine import PrivateEngine, private_engine

pytestmark = [pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(120)]
# This machine may have no /dev/kvm, and a network namespace without a network has nothing that gVisor could take over.
_RUNSC = '#!/bin/sh\nexec runsc --platform=ptrace --network=none "$@"\n'

_ALL_STARTS = ("--since=0", "--until=0s", "--filter=event=start")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    """A dockerd whose default runtime is gVisor, and which has a second runc."""
    if shutil.which("runsc") is None:
        pytest.fail("no runsc here: deploy/setup test-packages")
    runsc = tmp_path_factory.mktemp("runtime") / "runsc"
    runsc.write_text(_RUNSC)
    runsc.chmod(0o755)
    options = ("--add-runtime", f"gvisor={runsc}", "--add-runtime", "second=/usr/sbin/runc", "--default-runtime=gvisor")
    with private_engine(options=options) as engine:
        yield engine


def on(socket: Path, *sets: str) -> list[str]:
    settings = (f"engine.socket={socket}", "trial.window_s=0.5", "trial.settle_s=0", "guard.enabled=false", *sets)
    return [argument for setting in settings for argument in ("--set", setting)]


def test_gvisor_as_the_default_runtime_is_named_after_the_first_container(engine: PrivateEngine) -> None:
    before = leftovers()
    outcome = kickwatch("trial", "--containers", "23", *on(engine.socket))
    assert outcome.status == 1
    assert "with the runtime gvisor" in outcome.complaint
    assert "runs the program of container" in outcome.complaint
    assert "it is no process of this node" in outcome.complaint
    assert "engine.runtime" in outcome.complaint
    assert "second" in outcome.complaint
    assert "memory" not in outcome.complaint
    assert len(engine.docker("events", *_ALL_STARTS).splitlines()) == 1
    assert engine.docker("ps", "-aq") == ""
    assert leftovers() == before


@pytest.mark.long
def test_doctor_names_a_runtime_without_host_processes(engine: PrivateEngine) -> None:
    outcome = kickwatch("doctor", "--json", *on(engine.socket))
    (container,) = (one for one in outcome.json["capabilities"] if one["name"] == "a container")
    assert not container["satisfied"]
    assert "with the runtime gvisor" in container["detail"]
    assert "engine.runtime" in container["remedy"]


def test_the_runtime_that_engine_runtime_names_runs_the_containers(engine: PrivateEngine) -> None:
    result = kickwatch("trial", "--containers", "2", "--json", *on(engine.socket, "engine.runtime=second")).json
    assert (result["containers"], result["failures"]) == (2, [])


@pytest.mark.long
def test_a_wrong_name_gives_one_line_with_the_runtimes_that_docker_has(engine: PrivateEngine) -> None:
    outcome = kickwatch("trial", *on(engine.socket, "engine.runtime=kata"))
    assert outcome.status == 1
    assert outcome.complaint.count("\n") <= 1
    assert "has no runtime kata (engine.runtime): set engine.runtime to one that it has: gvisor, " in outcome.complaint
    shown = kickwatch("doctor", "--no-container", "--json", *on(engine.socket, "engine.runtime=second")).json
    (found,) = (one for one in shown["capabilities"] if one["name"] == "container engine")
    assert "runtime second (of gvisor, " in found["detail"]


@pytest.mark.long
def test_a_cri_takes_its_runtime_handler_from_engine_runtime() -> None:
    with private_containerd() as engine:
        named = "engine.kind=cri"
        result = kickwatch(
            "trial", "--containers", "2", "--json", *on(engine.socket, named, "engine.runtime=other")
        ).json
        assert (result["containers"], result["failures"]) == (2, [])
        wrong = kickwatch("trial", *on(engine.socket, named, "engine.runtime=kata"))
        assert wrong.status == 1
        assert (
            "has no runtime kata (engine.runtime): set engine.runtime to one that it has: other, runc"
            in wrong.complaint
        )
