"""Where pytest stores the processes that run in parallel to the tests: each leads its own process group.

`GUEST` is the virtual machine of tests/another_kernel, `USER_LAND` the unit tests of tests/debian_13.
"""

import subprocess

import pytest

GUEST: "pytest.StashKey[subprocess.Popen[bytes]]" = pytest.StashKey()
USER_LAND: "pytest.StashKey[subprocess.Popen[bytes]]" = pytest.StashKey()
