"""The image that the docker tests need, and objects of other users that they must not touch."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kickwatch.node.cgroup_removal import remove_tree
from kickwatch.workload.names import read_instance
from leftovers import leftovers

PROGRAM = Path(__file__).parents[2] / "daemon/kickwatch/native/bin/workload"


@pytest.fixture(scope="session")
def own_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scratch image with the workload program as /workload; its name is not kickwatch's."""
    tar = tmp_path_factory.mktemp("image") / "image.tar"
    subprocess.run(["tar", "-C", str(PROGRAM.parent), "-cf", str(tar), PROGRAM.name], check=True)
    subprocess.run(["docker", "import", str(tar), "foreign-test:1"], check=True, capture_output=True)
    yield "foreign-test:1"
    subprocess.run(["docker", "image", "rm", "-f", "foreign-test:1"], check=True, capture_output=True)


@pytest.fixture(scope="session", autouse=True)
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A container, network, volume and image of another user with names and labels like ours, during all docker tests.

    After the tests they and everything else that the engine lists must be unchanged, byte for byte.
    """
    tar = tmp_path_factory.mktemp("others") / "image.tar"
    subprocess.run(["tar", "-C", str(PROGRAM.parent), "-cf", str(tar), PROGRAM.name], check=True)
    labels = ("--label", "kickwatch=1", "--label", "kickwatch.instance=another")
    _remove_others()
    _remove_ours()
    _docker("import", str(tar), "kickwatch-others:1")
    _docker("network", "create", *labels, "kickwatch-others")
    _docker("volume", "create", *labels, "kickwatch-others")
    run = ("run", "-d", "--name", "kickwatch-others", "--network", "kickwatch-others", "--init=false", *labels)
    _docker(*run, "-v", "kickwatch-others:/v", "kickwatch-others:1", "/workload", "--deadline-ms", "7200000")
    try:
        before = _listed()
        yield
        assert _listed() == before
    finally:
        _remove_others()


def _remove_others() -> None:
    for command in (("rm", "-f", "-v"), ("volume", "rm")):
        subprocess.run(["docker", *command, "kickwatch-others"], capture_output=True, check=False)
    # By id: Docker allows several networks of one name, and refuses to remove one by that name.
    networks = _docker("network", "ls", "-q", "--filter", "name=^kickwatch-others$").split()
    if networks:
        subprocess.run(["docker", "network", "rm", *networks], capture_output=True, check=False)
    subprocess.run(["docker", "rmi", "-f", "kickwatch-others:1", "foreign-test:1"], capture_output=True, check=False)


def _remove_ours() -> None:
    """Remove what a killed test session left; the first trial would remove it, or fail because of it."""
    filters = (f"label=kickwatch.instance={read_instance()}", "name=^kickwatch-lookalike$")
    left = {container_id for which in filters for container_id in _docker("ps", "-aq", "--filter", which).split()}
    images = set(_docker("images", "-q", "--filter", "label=kickwatch").split())  # of any value
    for command, found in ((("rm", "-f", "-v"), left), (("rmi", "-f"), images)):
        if found:
            _docker(*command, *found)
    for cgroup in reversed(leftovers()["cgroups"]):
        remove_tree(Path(cgroup))


def _listed() -> list[str]:
    """Everything that the engine lists, without durations, and the cgroups that could be ours.

    The order in which Docker lists the labels, mounts and networks of a container changes from call to call.
    """
    container = "{{.ID}} {{.Image}} {{.Command}} {{.CreatedAt}} {{.Names}} {{.Labels}} {{.Mounts}} {{.Networks}}"
    ps = ("ps", "-a", "--no-trunc", "--format")
    return [
        re.sub(r"[^ \n]+,[^ \n]+", lambda many: ",".join(sorted(many[0].split(","))), _docker(*ps, container)),
        _docker("ps", "--no-trunc", "-q"),
        _docker("images", "-a", "--no-trunc", "--format", "{{.ID}} {{.Repository}} {{.Tag}} {{.CreatedAt}}"),
        _docker("network", "ls", "--no-trunc"),
        _docker("volume", "ls"),
        *leftovers()["cgroups"],
    ]


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout
