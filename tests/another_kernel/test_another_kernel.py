"""kickwatch on Debian 13's kernel (6.12) with 4 CPUs and cgroup v2: most of the laboratory for that machine."""

from collections.abc import Callable

import pytest

LIMIT_S = 2400


@pytest.mark.long
@pytest.mark.guest
@pytest.mark.timeout(LIMIT_S + 60)
def test_the_laboratory_passes_on_debian_13(laboratory: Callable[[float], str]) -> None:
    output = laboratory(LIMIT_S)
    assert "laboratory: 1 of 1 machines passed" in output.splitlines()[-1], output[-6000:]
