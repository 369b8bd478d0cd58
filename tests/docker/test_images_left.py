"""Images that an import without an answer or a killed kickwatch left: the next clean-up removes them, and no others."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing

import pytest

import docker
from kickwatch.native import binary
from kickwatch.workload.docker_engine import DockerEngine
from kickwatch.workload.docker_images import scratch_layer
from kickwatch.workload.image import IMAGE_REPOSITORY
from private_podman import private_podman

pytestmark = [pytest.mark.long, pytest.mark.docker]

SOCKET = os.environ.get("ENGINE_SOCKET", "/var/run/docker.sock")
FOREIGN = "localhost/kw-foreign"


@pytest.fixture(params=["docker", "podman"])
def socket(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of each engine that has images of its own."""
    if request.param == "docker":
        yield SOCKET
    else:
        with private_podman() as path:
            yield str(path)


@asynccontextmanager
async def introduced(socket: str) -> AsyncIterator[DockerEngine]:
    """Ours, with which a version is agreed."""
    engine = DockerEngine(socket, timeout_s=20, workers=1)
    await engine.info()
    yield engine
    await engine.close()


async def made(socket: str, program: bytes) -> str:
    """The reference of our image, which is on the engine now."""
    async with introduced(socket) as engine:
        return await engine.prepare_image(program)


async def cleaned_up(socket: str, reference: str) -> None:
    """What every end of a kickwatch does."""
    async with introduced(socket) as engine:
        await engine.remove_image(reference)


class Beside:
    """Somebody who talks to the same engine."""

    def __init__(self, socket: str) -> None:
        self.api = docker.APIClient(f"unix://{socket}", version="1.41")

    def ids(self, *, every: bool = False) -> set[str]:
        """Ids of the images: ours, or every one's."""
        found = self.api.images(filters=None if every else {"label": "kickwatch=1"})
        return {str(image["Id"]) for image in found}

    def imported(self, name: str, label: str) -> str:
        """The id of a new image; the one that had this name before has none now."""
        before = self.ids(every=True)
        self.api.import_image_from_data(scratch_layer(os.urandom(9)), repository=name, changes=[f"LABEL {label}"])
        (made,) = self.ids(every=True) - before
        return made


def test_what_was_left_is_removed_and_others_images_are_not(socket: str) -> None:
    beside = Beside(socket)
    with closing(beside.api):
        reference = asyncio.run(made(socket, binary("workload").read_bytes()))
        asyncio.run(cleaned_up(socket, reference))  # of what this node's earlier runs left
        before = beside.ids(every=True)
        asyncio.run(made(socket, binary("workload").read_bytes()))
        lost = beside.imported(reference, "kickwatch=1")  # and the first has lost its name
        older = beside.imported(f"{IMAGE_REPOSITORY}:older", "kickwatch=1")
        others = {beside.imported(f"{FOREIGN}:1", f"kickwatch={number}") for number in (2, 1)}  # one without a name
        try:
            assert len(beside.ids()) == 4
            assert {lost, older} < beside.ids()
            asyncio.run(cleaned_up(socket, reference))
            assert beside.ids(every=True) == before | others
        finally:
            for image in others:
                beside.api.remove_image(image)
        assert beside.ids(every=True) == before
