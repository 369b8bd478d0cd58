"""Where pytest stores the process of the virtual machine that runs in parallel to the tests (tests/another_kernel)."""

import subprocess

import pytest

GUEST: "pytest.StashKey[subprocess.Popen[bytes]]" = pytest.StashKey()  # it leads its own process group
