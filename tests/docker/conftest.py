"""Images the docker tests need: made from the project's own program, gone afterwards."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "daemon/kickwatch/native/bin/workload"


@pytest.fixture(scope="session")
def own_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scratch image with the workload program under /workload, under a name that is not kickwatch's."""
    tar = tmp_path_factory.mktemp("image") / "image.tar"
    subprocess.run(["tar", "-C", str(PROGRAM.parent), "-cf", str(tar), PROGRAM.name], check=True)
    subprocess.run(["docker", "import", str(tar), "foreign-test:1"], check=True, capture_output=True)
    yield "foreign-test:1"
    subprocess.run(["docker", "image", "rm", "-f", "foreign-test:1"], check=True, capture_output=True)
