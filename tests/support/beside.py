"""The laboratory's guest that runs beside all other tests, where one does (tests/another_kernel)."""

import subprocess

import pytest

GUEST: "pytest.StashKey[subprocess.Popen[bytes]]" = pytest.StashKey()  # a process group of its own
