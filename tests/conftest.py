"""What all tests share: needs that KICKWATCH_REQUIRE names are not skipped, nothing blocks the loop or arms a probe.

A test marked `kernel`, `docker`, `systemd`, `prometheus`, `guest`, `browser`, `userland` or `cross` skips with the
reason where the need is not met. Where KICKWATCH_REQUIRE=kernel,docker,... names the need, it fails instead, and so
does any other skip of such a test; excepted is a skip whose reason begins with `feature:`, for what this kernel or
engine lacks and no one can bring.
"""

import os
import signal
from collections.abc import Generator
from contextlib import suppress
from typing import NoReturn

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings

from beside import GUEST
from kickwatch.observe import bpf_calls
from needs import FEATURE, NEEDS, unmet
from slowness import SLOWNESS

# A deadline would measure what else runs on the machine; each test has a timeout.
settings.register_profile("kickwatch", deadline=None)
settings.load_profile("kickwatch")


def required() -> frozenset[str]:
    """The needs that KICKWATCH_REQUIRE names."""
    return frozenset(filter(None, (word.strip() for word in os.environ.get("KICKWATCH_REQUIRE", "").split(","))))


def pytest_configure() -> None:
    """Refuse a need that is misspelt, since it would require nothing."""
    if unknown := required() - NEEDS.keys():
        raise pytest.UsageError(f"KICKWATCH_REQUIRE names {', '.join(sorted(unknown))}; known are {', '.join(NEEDS)}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give every test the time that it takes here. What a test is marked with last counts first."""
    if SLOWNESS == 1:  # pytest's own --timeout has its say
        return
    for item in items:
        marker = item.get_closest_marker("timeout")
        seconds = marker.args[0] if marker else float(config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(seconds * SLOWNESS), append=False)


def needs_of(item: pytest.Item) -> list[str]:
    """The needs that a test is marked with."""
    return [need for need in NEEDS if item.get_closest_marker(need)]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose need is not met; `pytest_runtest_makereport` decides whether it may."""
    for need in needs_of(item):
        if reason := unmet(need):
            pytest.skip(f"{need}: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where the test's need is required."""
    report = yield
    must = required().intersection(needs_of(item))
    if report.skipped and must and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not reason.removeprefix("Skipped: ").startswith(FEATURE):
            report.outcome = "failed"
            report.longrepr = f"KICKWATCH_REQUIRE names {', '.join(sorted(must))}, so this may not skip: {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def no_blocking_in_the_loop() -> Generator[None]:
    """A blocking call of kickwatch inside a running event loop raises BlockingError. Tests themselves may block."""
    with blockbuster_ctx(["kickwatch"]):
        yield


@pytest.fixture(autouse=True)
def arms_no_probe(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test without needs runs beside live tests, whose trials are void when another process arms a probe."""
    if needs_of(request.node):
        return

    def refuse(*_: object) -> NoReturn:
        pytest.fail("a test that arms a real probe must be marked `kernel`")

    def bpf(command: int, attr: bytes) -> int:
        return refuse() if command == bpf_calls._RAW_TRACEPOINT_OPEN else unguarded(command, attr)

    unguarded = bpf_calls.bpf
    monkeypatch.setattr(bpf_calls, "bpf", bpf)
    monkeypatch.setattr(bpf_calls, "_perf_event_open", refuse)


@pytest.fixture
def alone(request: pytest.FixtureRequest) -> Generator[None]:
    """The guest that runs beside the tests stands still meanwhile."""
    guest = request.config.stash.get(GUEST, None)
    with suppress(ProcessLookupError):
        if guest is not None:
            os.killpg(guest.pid, signal.SIGSTOP)
    yield
    with suppress(ProcessLookupError):
        if guest is not None:
            os.killpg(guest.pid, signal.SIGCONT)
