"""The Debian packages of this version and of a later one, built once for all tests of a session."""

import sys
from pathlib import Path

import pytest

for room in (Path(__file__).parent, Path(__file__).parents[1] / "systemd"):
    sys.path.insert(0, str(room))  # for the modules there, which pytest does not find

import packages


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[packages.Built, packages.Built]:
    """This version, and a later one in which both files of the configuration differ."""
    this, later = packages.build_all(tmp_path_factory.mktemp("versions"))
    return this, later
