from pathlib import Path

import pytest

from image_builds import Builds


@pytest.fixture(scope="session")
def builds():
    p = Path("/work/wt/k8s/build/image/kickwatch-0.1.0-amd64.tar")
    return Builds(p, p, "")
