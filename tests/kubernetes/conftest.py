"""The image for the tests here. Its own tests and those of the pods run in two processes, so each builds it."""

from pathlib import Path

import pytest

from image_builds import build_images, build_wheel


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of one build."""
    made = tmp_path_factory.mktemp("image")
    build_images(build_wheel(made), made / "image.tar")
    return made / "image.tar"
