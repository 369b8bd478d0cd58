"""kickwatch's unit tests in the user land of Debian 13: Python 3.13, libbpf 1.5."""

import re
from collections.abc import Callable

import pytest

LIMIT_S = 2400


@pytest.mark.long
@pytest.mark.userland
@pytest.mark.timeout(LIMIT_S + 60)
def test_the_unit_tests_pass_on_debian_13(user_land: Callable[[float], str]) -> None:
    output = user_land(LIMIT_S)
    last = output.splitlines()[-1]
    passed = re.search(r"(\d+) passed", last)
    assert passed is not None, output[-6000:]
    assert int(passed[1]) > 4000, output[-6000:]
    assert not re.search(r"failed|error", last), output[-6000:]
