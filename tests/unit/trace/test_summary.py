"""Whether a trace is complete: losses, the count of the ordinary probe, the limit of the file's size."""

import pytest

from kickwatch.model import Container, Control
from kickwatch.observe.trace_events import MULTI, Kind, Losses, TraceEvent
from kickwatch.trace.summary import make_trace
from recordings import RCU, SHOOTDOWN, SYNC, WAKEUP, call, ran, recording, sent, window
from trace_reader import read_trace


def test_a_complete_trace_has_the_counts_of_the_bill() -> None:
    made = make_trace(recording([*call(5_000, SYNC, [1, 2]), sent(6_000, WAKEUP, 1)], calls=1, requests=3))
    assert (made.calls_shown, made.requests_shown, made.faults) == (1, 3, [])
    facts = read_trace(made.content).facts
    assert (facts["calls_on_timeline"], facts["calls_on_bill"], facts["complete"]) == (1, 1, True)


def test_losses_explain_a_difference_only_as_far_as_they_reach() -> None:
    events = call(5_000, SYNC, [1, 2])
    lost = Losses(calls=1, by_kind={Kind.REQUEST: 2})
    explained = make_trace(recording(events, calls=2, requests=4, losses=lost)).faults
    assert explained == [
        "2 events were lost (2 request)",
        "1 multi-CPU calls on the timeline, 2 on the bill: explained by the lost events",
        "2 requests on the timeline, 4 on the bill: explained by the lost events",
    ]
    assert make_trace(recording(events, calls=2, requests=2)).faults == [
        "1 multi-CPU calls on the timeline, 2 on the bill: not explained; report it"
    ]
    counter = recording([*events, *call(8_000, SYNC, [1, 2])], window=window(0, 4, lost=1))
    assert make_trace(counter).faults == [
        "2 multi-CPU calls on the timeline, 0 on the bill: the counting probe lost 1 events"
    ]


def test_a_skipped_request_explains_no_call() -> None:
    events = [*call(5_000, SYNC, [1, 2]), *call(8_000, SYNC, [1, 2])]
    (lost, calls) = make_trace(recording(events, calls=3, requests=4, losses=Losses(skipped=1))).faults
    assert "sent by an interrupt while the probe ran" in lost
    assert calls.endswith("not explained; report it")


def test_a_rest_of_a_call_is_shown_but_not_counted() -> None:
    made = make_trace(recording([sent(5_000, SYNC, 2, flags=MULTI)], requests=1))
    assert (made.calls_shown, made.faults) == (0, [])
    (one,) = read_trace(made.content).named("call")
    assert one["args"]["begin"] == "not listed: only the rest of a call"


def test_a_failed_control_and_a_failed_container_make_a_trace_incomplete() -> None:
    made = recording(
        [], control=Control(passed=False, detail="0 of 23 calls"), containers=[Container(index=0, failure="no image")]
    )
    assert make_trace(made).faults == [
        "container 0 failed: no image",
        "the positive control failed, so counts prove nothing: 0 of 23 calls",
    ]


@pytest.fixture(scope="module")
def busy() -> list[TraceEvent]:
    """Wakeups and shootdowns by the hundred, and one call that matters."""
    events = call(4_000, SYNC, [1, 2, 3])
    for number in range(400):
        at_ns = 10_000 + 2_000 * number
        request = sent(at_ns, WAKEUP, 1, csd=5)
        events += [request, *ran(request, at_ns + 10, at_ns + 20)]
        if number % 4 == 0:
            events += call(at_ns + 100, SHOOTDOWN, [1, 2, 3], stack=-1)
    return events


@pytest.mark.parametrize(
    ("most_bytes", "left_out"),
    [
        (1 << 20, {}),
        (250_000, {"sched_ttwu_pending": 400}),
        (1, {"sched_ttwu_pending": 400, "flush_tlb_func": 300, "do_sync_core": 3}),
    ],
)
def test_a_file_that_is_too_large_loses_its_most_frequent_requests_but_no_call(
    busy: list[TraceEvent], most_bytes: int, left_out: dict[str, int]
) -> None:
    made = make_trace(recording(busy, calls=101, requests=703), most_bytes)
    read = read_trace(made.content)
    assert read.facts["left_out"] == made.left_out == left_out
    assert len(read.named("call")) == made.calls_shown == 101
    assert made.faults == []
    if most_bytes > 1:
        assert len(made.content) <= most_bytes


def test_a_surplus_is_never_explained_by_losses() -> None:
    events = [*call(4_000, SYNC, [1, 2]), *call(5_000, SYNC, [1, 2])]
    made = make_trace(recording(events, calls=0, requests=4, losses=Losses(calls=5)))
    assert made.faults == ["2 multi-CPU calls on the timeline, 0 on the bill: not explained; report it"]


def test_the_first_call_of_a_cpu_may_be_the_rest_of_an_earlier_one_for_the_counting_probe() -> None:
    """That one was armed before, and knew the last call. A healthy guest with a single call was incomplete."""
    alone = call(5_000, SYNC, [1, 2])
    assert make_trace(recording(alone, calls=0, requests=2)).faults == []
    earlier = call(1_000, SYNC, [1, 2])  # before the counted span: since then both probes know the same
    assert make_trace(recording([*earlier, *alone], calls=0, requests=2)).faults != []


def test_left_out_requests_are_still_counted() -> None:
    made = make_trace(recording([sent(5_000, RCU, 1)], requests=1), most_bytes=1)
    assert made.requests_shown == 1
