"""What BPF programs cost on arm64 raises no alarm on a healthy kernel."""

import pytest
from msgspec.structs import replace

from kickwatch.detect.monitor import Monitor
from kickwatch.detect.single import one_shot
from kickwatch.model import Cell, Origin, Path, Trial, Verdict
from watching import PACE, changes, serial, watched

# Broadcasts for BPF programs per container on healthy kernels of arm64, which kick all CPUs for each to this day: crun
# loads two, runc four, and with the systemd cgroup driver systemd more (42 where the containers are in system.slice).
ON_ARM64 = {
    "5.10 crun": 2,
    "6.1 crun": 2,
    "6.1 runc": 4,
    "6.12 crun": 6,
    "6.12 runc": 12,
    "7.2 crun": 4,
    "7.2 runc": 8,
    "7.2 runc, systemd": 10,
    "7.2 runc, systemd, system.slice": 42,
}


@pytest.mark.parametrize("each", ON_ARM64.values(), ids=ON_ARM64)
def test_200_containers_of_a_healthy_arm64_are_quiet_whatever_their_programs_cost(each: int) -> None:
    def healthy(number: int, *, late: int) -> Trial:
        programs = Cell(
            reason="kick_all_cpus_sync",
            func="do_nothing",
            origin=Origin.BPF,
            path=Path.CREATE,
            requests=3 * (each * number - late),
            calls=each * number - late,
            broadcasts=each * number - late,
        )
        one = serial(0, programs, number=number)
        return replace(one, node=replace(one.node, arch="aarch64", kernel="6.12.118+deb13-arm64"))

    assert one_shot([healthy(23, late=0)]).verdict is Verdict.QUIET
    # A program of the last container is freed after the trial now and then.
    _, outcomes = watched(Monitor(PACE), [healthy(10, late=number % 3) for number in range(20)])
    assert not changes(outcomes)
    assert outcomes[-1].verdict is Verdict.QUIET
