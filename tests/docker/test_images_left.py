"""The clean-up removes images left by an import without an answer or by a killed kickwatch, and no others."""

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
    """The socket of each engine that stores images."""
    if request.param == "docker":
        yield SOCKET
    else:
        with private_podman() as path:
            yield str(path)


@asynccontextmanager
async def connected(socket: str) -> AsyncIterator[DockerEngine]:
    """Our engine object, with the API version negotiated."""
    engine = DockerEngine(socket, timeout_s=20, workers=1)
    await engine.info()
    yield engine
    await engine.close()


async def prepared(socket: str, program: bytes) -> str:
    """Import our image; return its reference."""
    async with connected(socket) as engine:
        return await engine.prepare_image(program)


async def clean_up(socket: str, reference: str) -> None:
    """What every kickwatch does before it exits."""
    async with connected(socket) as engine:
        await engine.remove_image(reference)


class OtherClient:
    """Another client of the same engine."""

    def __init__(self, socket: str) -> None:
        self.api = docker.APIClient(f"unix://{socket}", version="1.41")

    def ids(self, *, everyones: bool = False) -> set[str]:
        """Ids of our images, or of all images."""
        found = self.api.images(filters=None if everyones else {"label": "kickwatch=1"})
        return {str(image["Id"]) for image in found}

    def imported(self, name: str, label: str) -> str:
        """Import a new image and return its id; an image that had this name loses it."""
        before = self.ids(everyones=True)
        self.api.import_image_from_data(scratch_layer(os.urandom(9)), repository=name, changes=[f"LABEL {label}"])
        (made,) = self.ids(everyones=True) - before
        return made


def test_leftover_images_are_removed_and_others_images_are_not(socket: str) -> None:
    other = OtherClient(socket)
    with closing(other.api):
        reference = asyncio.run(prepared(socket, binary("workload").read_bytes()))
        asyncio.run(clean_up(socket, reference))  # removes leftovers of earlier runs on this node
        before = other.ids(everyones=True)
        asyncio.run(prepared(socket, binary("workload").read_bytes()))
        lost = other.imported(reference, "kickwatch=1")  # the first image loses its name
        older = other.imported(f"{IMAGE_REPOSITORY}:older", "kickwatch=1")
        others = {
            other.imported(f"{FOREIGN}:1", f"kickwatch={number}") for number in (2, 1)
        }  # the first loses its name
        try:
            assert len(other.ids()) == 4
            assert {lost, older} < other.ids()
            asyncio.run(clean_up(socket, reference))
            assert other.ids(everyones=True) == before | others
        finally:
            for image in others:
                other.api.remove_image(image)
        assert other.ids(everyones=True) == before
