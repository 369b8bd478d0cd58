"""`deploy/setup engine` on a node without Docker: what is there is named, and nothing is installed beside it."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[3] / "deploy" / "setup"
WITHOUT_DOCKERD = """
for directory in /usr/local/sbin /usr/sbin; do mount -t tmpfs tmpfs $directory; done
exec "$@"
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide this machine's dockerd")


def setup(tmp_path: Path, packages: str = "", **environment: str) -> str:
    """Its messages, where there is no dockerd, apt-get fails, and these packages are installed."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (
        ("dpkg-query", f"printf '{packages}'"),
        ("apt-get", "echo apt-get was called; exit 1"),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    where = {} if "DOCKER_HOST" in environment else {"ENGINE_SOCKET": str(tmp_path / "none.sock")}
    given = {"PATH": f"{programs}:/usr/bin:/bin", "ENGINE_SOCKET": "", **where, **environment}
    command = ["unshare", "--mount", "sh", "-ec", WITHOUT_DOCKERD, "sh", str(SETUP), "engine"]
    done = subprocess.run(command, env=os.environ | given, capture_output=True, text=True, check=False)
    return done.stderr + done.stdout


def test_a_cri_that_no_package_brought_is_named_with_the_command_that_uses_it(tmp_path: Path) -> None:
    path = tmp_path / "crio.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        said = setup(tmp_path, CRI_SOCKETS=f"{tmp_path}/containerd.sock {path}")
    assert f"there is a CRI at {path}" in said
    assert f"RUN_ARGS='--set engine.kind=cri --set engine.socket={path}'" in said


@pytest.mark.parametrize(("package", "remedy"), [("cri-o", "systemctl start crio"), ("podman", "podman.socket")])
def test_an_engine_that_is_installed_and_not_started_is_named(tmp_path: Path, package: str, remedy: str) -> None:
    said = setup(tmp_path, f"installed {package}\\n", CRI_SOCKETS=str(tmp_path / "no.sock"))
    assert package in said
    assert remedy in said
    assert "apt-get was called" not in said


def test_nothing_is_installed_beside_an_engine_that_docker_host_names(tmp_path: Path) -> None:
    """Rootless Docker that is stopped: kickwatch would not use the docker.io that was installed."""
    said = setup(tmp_path, CRI_SOCKETS=str(tmp_path / "no.sock"), DOCKER_HOST=f"unix://{tmp_path}/rootless.sock")
    assert f"none answers at {tmp_path}/rootless.sock, which DOCKER_HOST names" in said
    assert "apt-get was called" not in said
