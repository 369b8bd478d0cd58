"""The Debian packages of this version and of a later one, built once for all tests of a session."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the modules there, which pytest does not find
sys.path.insert(0, str(Path(__file__).parents[1] / "systemd"))

import packages


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[packages.Built, packages.Built]:
    """This version, and a later one in which both files of the configuration differ."""
    this, later = packages.build_all(tmp_path_factory.mktemp("versions"))
    return this, later
