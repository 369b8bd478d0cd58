"""From cgroup events to containers started: each once, whatever the hierarchies, drivers and order of parents."""

from collections.abc import Iterator

import pytest

from kickwatch.observe.container_starts import SETTLE_NS, CgroupEvent, CgroupEventKind, StartLedger
from kickwatch.workload.names import OWN_CGROUPS

MKDIR, RMDIR = CgroupEventKind.MKDIR, CgroupEventKind.RMDIR
HIERARCHIES = 12
ID = "0a1b2c3d" * 8
LATER = 10 * SETTLE_NS


def name(number: int) -> str:
    return f"{number:064x}"


def life(path: str, at_ns: int = 0, run: int = 0, comm: str = "runc") -> Iterator[CgroupEvent]:
    """A container's cgroup in every hierarchy of v1, made and removed."""
    for hierarchy in range(HIERARCHIES):
        yield CgroupEvent(at_ns + hierarchy, MKDIR, path, run, comm)
    for hierarchy in range(HIERARCHIES):
        yield CgroupEvent(at_ns + 100 + hierarchy, RMDIR, path)


def counted(*events: CgroupEvent, now_ns: int = LATER) -> dict[str, int]:
    ledger = StartLedger(OWN_CGROUPS)
    ledger.take(events, now_ns)
    return dict(ledger.started)


def test_the_many_hierarchies_of_v1_count_a_container_once() -> None:
    events = [
        event for number in range(997) for event in life(f"/docker/{name(number)}", number * 1000, run=number + 1)
    ]
    assert counted(*events) == {"docker": 997}


def test_a_container_that_is_started_again_counts_again() -> None:
    """`docker restart`: the same name. All its cgroups have gone before."""
    assert counted(*life(f"/docker/{ID}"), *life(f"/docker/{ID}", 1000)) == {"docker": 2}


def test_a_cgroup_that_goes_in_one_hierarchy_is_no_end() -> None:
    """systemd removes a scope's empty cgroup from hierarchies that it does not need."""
    scope = f"/system.slice/docker-{ID}.scope"
    events = [CgroupEvent(at, MKDIR, scope) for at in range(HIERARCHIES)]
    events += [CgroupEvent(20, RMDIR, scope), CgroupEvent(21, MKDIR, scope)]
    assert counted(*events) == {"docker": 1}


def test_a_container_that_ran_before_counts_when_it_is_started_again() -> None:
    gone = [CgroupEvent(at, RMDIR, f"/docker/{ID}") for at in range(HIERARCHIES)]
    assert counted(*gone) == {}
    assert counted(*gone, *life(f"/docker/{ID}", 1000)) == {"docker": 1}


def test_a_runtime_counts_once_for_each_run_whatever_names_it_gives() -> None:
    """`runc run web` in two hierarchies with other parents, then the same name again; `ctr` with a namespace."""
    events = [
        CgroupEvent(1, MKDIR, "/web", 7, "runc"),
        CgroupEvent(2, MKDIR, "/session/web", 7, "runc"),
        CgroupEvent(3, RMDIR, "/web"),
        CgroupEvent(4, MKDIR, "/web", 8, "runc"),
        CgroupEvent(5, MKDIR, "/default", 9, "runc"),
        CgroupEvent(6, MKDIR, "/default/web", 9, "runc"),
        CgroupEvent(7, MKDIR, "/web", 10, "crun"),
    ]
    assert counted(*events) == {"runc": 3, "crun": 1}


def test_parents_that_a_runtime_makes_first_are_no_containers() -> None:
    events = [CgroupEvent(1, MKDIR, "/docker", 7, "runc"), *life(f"/docker/{ID}", 2, run=7)]
    assert counted(*events) == {"docker": 1}


def test_a_run_counts_once_it_has_made_no_cgroup_for_a_second() -> None:
    ledger = StartLedger()
    ledger.take([CgroupEvent(0, MKDIR, "/docker", 7, "runc")], SETTLE_NS - 1)
    assert ledger.total == 0
    ledger.take([CgroupEvent(SETTLE_NS - 1, MKDIR, f"/docker/{ID}", 7, "runc")], SETTLE_NS)
    ledger.take([], LATER)
    assert dict(ledger.started) == {"docker": 1}
    ledger.take([CgroupEvent(LATER, MKDIR, "/late", 8, "runc")], LATER)
    ledger.take([], LATER + SETTLE_NS)
    ledger.take([CgroupEvent(LATER + 2 * SETTLE_NS, MKDIR, "/late/er", 8, "runc")], 2 * LATER)
    assert ledger.total == 2


@pytest.mark.parametrize("scope", [f"/machine.slice/libpod-{ID}.scope", "/system.slice/crun-web.scope"])
def test_what_crun_makes_in_the_scope_that_systemd_made_is_part_of_it(scope: str) -> None:
    events = [CgroupEvent(1, MKDIR, scope, 0, "systemd"), CgroupEvent(2, MKDIR, f"{scope}/container", 7, "crun")]
    assert sum(counted(*events).values()) == 1


def test_kickwatch_own_containers_and_another_kickwatch_s_do_not_count() -> None:
    events = [
        *life(f"/kickwatch/{ID}", run=1),
        *life("/kickwatch/kickwatch-1-0", 200, run=2),
        CgroupEvent(400, MKDIR, "/kickwatch", 3, "runc"),
        CgroupEvent(401, MKDIR, "/kickwatch/kickwatch-1-1", 3, "runc"),
        *life(f"/kickwatchcontainers.slice/docker-{ID}.scope", 500),
        *life("/system.slice/kickwatch.service/kickwatch/kickwatch-2", 700, run=4),
    ]
    assert counted(*events) == {}


def test_services_that_come_and_go_and_cgroups_inside_a_container_do_not_count() -> None:
    events = [
        *life("/system.slice/cron.service", comm="systemd"),
        *life("/user.slice/user-0.slice/session-1.scope", comm="systemd"),
        *life(f"/docker/{ID}/init", comm="systemd"),
        *life(f"/machine.slice/libpod-conmon-{ID}.scope", comm="systemd"),
    ]
    assert counted(*events) == {}


def test_a_container_whose_removal_was_lost_counts_when_it_is_started_again() -> None:
    """The map was full while its cgroups went: `docker restart` has the same name, and nobody else ends that name."""
    scope = f"/system.slice/docker-{ID}.scope"
    ledger = StartLedger()
    ledger.take([CgroupEvent(at, MKDIR, scope) for at in range(HIERARCHIES)], 50)
    ledger.lost(LATER)
    ledger.take([CgroupEvent(2 * LATER + at, MKDIR, scope) for at in range(HIERARCHIES)], 3 * LATER)
    assert dict(ledger.started) == {"docker": 2}
    ledger.take(
        [CgroupEvent(4 * LATER, MKDIR, scope)], 5 * LATER
    )  # nothing was lost since: a hierarchy's cgroup is back
    assert dict(ledger.started) == {"docker": 2}


def test_another_run_of_a_runtime_starts_a_container_again_though_one_cgroup_of_v1_stayed() -> None:
    events = [CgroupEvent(at, MKDIR, f"/docker/{ID}", 7, "runc") for at in range(HIERARCHIES)]
    events += [CgroupEvent(100 + at, RMDIR, f"/docker/{ID}") for at in range(HIERARCHIES - 1)]
    events += [CgroupEvent(2 * SETTLE_NS + at, MKDIR, f"/docker/{ID}", 8, "runc") for at in range(HIERARCHIES - 1)]
    assert counted(*events) == {"docker": 2}


def test_containers_of_one_name_are_as_many_as_there_are() -> None:
    """A name that a person chose is unique for one engine and one user, not on the node."""
    user = "/user.slice/user-{0}.slice/user@{0}.service/user.slice/crun-web.scope"
    paths = ["/lxc.payload.web", "/machine.slice/machine-web.scope", "/system.slice/crun-web.scope"]
    paths += [user.format(1000), user.format(1001)]
    events = [CgroupEvent(at, MKDIR, path) for at, path in enumerate(paths)]
    assert counted(*events) == {"lxc": 1, "systemd-nspawn": 1, "crun": 3}


def test_runs_that_may_be_containers_are_pending_until_they_are_certain() -> None:
    ledger = StartLedger()
    ledger.take([CgroupEvent(number, MKDIR, f"/web{number}", number + 1, "runc") for number in range(20)], 20)
    assert (ledger.total, ledger.pending) == (0, 20)
    ledger.take([], LATER)
    assert (ledger.total, ledger.pending) == (20, 0)


def test_the_ledger_forgets_what_it_no_longer_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kickwatch.observe.container_starts._MOST_RUNS", 10)
    monkeypatch.setattr("kickwatch.observe.container_starts._MOST_LIVE", 10)
    ledger = StartLedger()
    for number in range(50):
        ledger.take([CgroupEvent(number, MKDIR, f"/docker/{name(number)}", number + 1, "runc")], LATER)
    assert (len(ledger._live), len(ledger._runs)) == (10, 10)
    assert ledger.total == 50
