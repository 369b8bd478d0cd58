"""Where single events cannot be listed, one line says what is missing; losses are read as the probe counted them."""

from types import SimpleNamespace
from typing import Any

import pytest

from kickwatch.errors import ObserveError
from kickwatch.observe import tracer
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.kprobe import KprobeObserver
from kickwatch.observe.losses import Loss, Lost
from kickwatch.observe.trace_events import Kind


def observatory(requests: object, *losses: Loss) -> Any:
    return SimpleNamespace(requests=requests, lost=lambda *_: list(losses))


def counting(kind: type) -> Any:
    made = object.__new__(kind)
    made.probe = SimpleNamespace(map=lambda name: name)
    made.possible, made.cpus_online = [0, 1], 2
    return made


@pytest.mark.parametrize("requests", [None, counting(KprobeObserver)])
def test_without_the_first_rung_there_is_no_trace(requests: object) -> None:
    cause = "Linux has tracepoint csd_queue_cpu since 6.5, and this is 6.1"
    lost = Loss(Lost.REQUESTS, cause, "Linux 6.5 or later")
    with pytest.raises(ObserveError) as raised:
        tracer.Tracer.arm(observatory(requests, lost))
    assert raised.value.what == (
        "no trace on this kernel: single requests cannot be listed "
        "(Linux has tracepoint csd_queue_cpu since 6.5, and this is 6.1)"
    )
    assert raised.value.remedy == "Linux 6.5 or later"


class Refusing:
    """A probe that cannot be attached to one tracepoint."""

    closed: bool = False
    missing = ""

    def __init__(self, name: str, **options: Any) -> None:
        assert name == "trace"
        assert set(options["shared"]) == {"config", "callsites"}
        if not Refusing.missing:
            raise ObserveError("the kernel refused the probe trace (Invalid argument)", "ring: unknown map type 27")

    def map(self, name: str) -> str:
        return name

    def attach_raw_tracepoint(self, _program: str, tracepoint: str) -> None:
        if tracepoint == Refusing.missing:
            raise ObserveError(f"cannot attach to tracepoint {tracepoint} (No such file)", "")

    def close(self) -> None:
        Refusing.closed = True


@pytest.mark.parametrize(
    ("missing", "words"),
    [("", "it refused the probe or its ring buffer, which needs 5.8"), ("csd_function_entry", "csd_function_entry")],
)
def test_the_error_names_the_part_that_the_kernel_lacks(
    monkeypatch: pytest.MonkeyPatch, missing: str, words: str
) -> None:
    monkeypatch.setattr(tracer, "BpfObject", Refusing)
    monkeypatch.setattr(tracer, "Ring", lambda *_: None)
    monkeypatch.setattr(tracer, "learn_comm_offset", lambda: 0)
    Refusing.missing, Refusing.closed = missing, False
    with pytest.raises(ObserveError) as raised:
        tracer.Tracer.arm(observatory(counting(CsdObserver)))
    assert raised.value.what.startswith("no trace on this kernel")
    assert words in str(raised.value)
    assert Refusing.closed == bool(missing)  # what was loaded is freed


def test_losses_are_read_by_kind_and_skips_from_the_begin_of_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracer, "Ring", lambda *_: SimpleNamespace(consume=lambda: 0, close=lambda: None))
    monkeypatch.setattr(tracer, "sums_of", lambda _map, indices: [2, 5, 0, 1, *[0] * (len(indices) - 4)])
    misses = iter([1, 1, 1, 4, 1, 1])
    put: list[bytes] = []
    probe: Any = SimpleNamespace(
        map=lambda _: SimpleNamespace(put=lambda _key, value: put.append(value)),
        run_statistics=lambda _: (0, 0, next(misses)),
    )
    made = tracer.Tracer(probe, observatory(None), _comm_offset=0x740)
    made.switch(on=True)
    found = made.losses()
    assert (found.calls, found.by_kind, found.skipped) == (2, {Kind.REQUEST: 5, Kind.EXIT: 1}, 3)
    assert put == [tracer.TRACE_CONFIG.pack(1, 0x740)]
