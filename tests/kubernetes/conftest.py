"""The image, built once for all tests here."""

import pytest

from image_builds import Builds, build_twice


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Builds:
    """Twice at once, so that the two can be compared."""
    return build_twice(tmp_path_factory.mktemp("image"))
