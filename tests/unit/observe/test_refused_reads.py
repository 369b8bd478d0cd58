"""A map that may not be read does not count as empty: only ENOENT means that there is no entry."""

import errno
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fake_bpf import FakeBpf
from kickwatch.errors import ObserveError
from kickwatch.experiment.armed_observers import ArmedObservers
from kickwatch.model import Control
from kickwatch.node.roots import HOST
from kickwatch.observe import control
from kickwatch.observe.contention import ContentionObserver
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.readings import Health, read_health, read_stack
from kickwatch.observe.symbols import Symbols
from kickwatch.service.arming import _works

KEYS = [struct.pack("=I", number) for number in range(3)]
CALLS = {"lookup", "batch", "update", "delete", "next", "info"}
SYMBOLS = Symbols.parse("1000 t smp_call_function_many_cond\n2000 t end\n")


class QuietHelper:
    """Stands in for the native program that makes the known requests. The counts do not matter here."""

    def __init__(self, *_: object, **__: object) -> None:
        self.ready = SimpleNamespace(fields={})

    async def __aenter__(self) -> "QuietHelper":
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to end."""

    async def ask(self, *_: object) -> SimpleNamespace:
        return SimpleNamespace(fields={"calls": "23", "requests": "23"})


@pytest.fixture
def fake() -> FakeBpf:
    made = FakeBpf()
    made.maps["some"] = {key: struct.pack("=Q", 7) for key in KEYS}
    return made


def test_existing_entries_are_read_and_others_are_missing(fake: FakeBpf) -> None:
    assert dict(fake.map("some").items()) == dict.fromkeys(KEYS, struct.pack("=Q", 7))
    assert fake.map("some").get(b"none") is None
    fake.map("some").delete(b"none")
    fake.map("some").clear(keep=KEYS[:1])
    assert list(fake.map("some").keys()) == KEYS[:1]
    fake.map("some").clear()
    assert list(fake.map("some").items()) == []


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES, errno.ENOMEM, errno.EBADF, errno.EINVAL, errno.E2BIG])
@pytest.mark.parametrize(
    ("call", "does"),
    [
        ("lookup", lambda fake: fake.map("some").get(KEYS[0])),
        ("lookup", lambda fake: list(fake.map("some").items())),
        ("next", lambda fake: list(fake.map("some").keys())),
        ("next", lambda fake: fake.map("some").clear()),
        ("delete", lambda fake: fake.map("some").delete(KEYS[0])),
        ("delete", lambda fake: fake.map("some").clear()),
        ("update", lambda fake: fake.map("some").put(KEYS[0], bytes(8))),
    ],
)
def test_any_other_errno_is_an_error_with_map_and_errno(
    fake: FakeBpf, code: int, call: str, does: Callable[[FakeBpf], Any]
) -> None:
    fake.refusals[call] = code
    with pytest.raises(ObserveError) as raised:
        does(fake)
    assert "BPF map some" in raised.value.what
    assert errno.errorcode[code] in raised.value.what
    assert raised.value.remedy


def test_a_walk_that_fails_halfway_is_an_error(fake: FakeBpf) -> None:
    walk = fake.map("some").keys()
    assert next(walk) == KEYS[0]
    fake.refusals["next"] = errno.EPERM
    with pytest.raises(ObserveError, match="EPERM"):
        next(walk)


def test_refused_statistics_are_an_error(fake: FakeBpf) -> None:
    assert fake.probe().run_statistics("csd_queue_cpu") == (0, 0, 0)
    fake.refusals["info"] = errno.EPERM
    with pytest.raises(ObserveError, match=r"csd_queue_cpu.*EPERM"):
        fake.probe().run_statistics("csd_queue_cpu")


def test_missing_health_counters_are_an_error(fake: FakeBpf) -> None:
    fake.maps["health"] = {struct.pack("=I", number): struct.pack("=Q", number) for number in range(4)}
    assert read_health(fake.map("health")) == Health(0, 1, 2, 3)
    del fake.maps["health"][KEYS[0]]
    with pytest.raises(ObserveError, match="health has no entry 0"):
        read_health(fake.map("health"))


def test_a_deleted_stack_is_empty_and_a_refused_one_an_error(fake: FakeBpf) -> None:
    assert read_stack(fake.map("stacks"), 9, SYMBOLS) == ()
    fake.refusals["lookup"] = errno.EPERM
    with pytest.raises(ObserveError, match="stacks"):
        read_stack(fake.map("stacks"), 9, SYMBOLS)


# --- the check before CAP_BPF is dropped, when nothing is counted yet


@pytest.fixture
def armed(fake: FakeBpf) -> ArmedObservers:
    observatory = Observatory(HOST, 2, SYMBOLS)
    observatory.requests = CsdObserver(fake.probe(), SYMBOLS, 2)
    observatory.contention = ContentionObserver(fake.probe("contention"), SYMBOLS, 0x8000, 0)
    return ArmedObservers(observatory, Control(passed=True, detail=""))


def test_probes_work_if_their_maps_may_be_read_and_written(fake: FakeBpf, armed: ArmedObservers) -> None:
    assert _works(armed)
    assert set(fake.calls) == CALLS


@pytest.mark.parametrize("call", sorted(CALLS))
def test_one_refused_call_is_enough_to_keep_the_capability(fake: FakeBpf, armed: ArmedObservers, call: str) -> None:
    fake.refusals[call] = errno.EPERM
    assert not _works(armed)


def test_maps_that_refuse_every_call_are_not_taken_for_empty_ones(fake: FakeBpf, armed: ArmedObservers) -> None:
    """So it is before 5.19 without CAP_BPF."""
    fake.refusals = dict.fromkeys(CALLS, errno.EPERM)
    assert not _works(armed)


async def test_a_failed_control_has_its_reason(
    fake: FakeBpf, armed: ArmedObservers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "control_cpus", lambda *_: (0, 1))
    monkeypatch.setattr(control, "Helper", QuietHelper)
    fake.refusals["lookup"] = errno.EPERM
    await armed.prove()
    assert not armed.control.passed
    assert "BPF map" in armed.control.detail
    assert "EPERM" in armed.control.detail
