"""The file that a recording becomes, read by the rules of the format."""

from kickwatch.observe.trace_events import UNDER_SLAB_MUTEX, Kind, TraceEvent
from kickwatch.trace.recording import Recording, Step
from kickwatch.trace.summary import make_trace
from kickwatch.trace.tasks import UNNAMED
from recordings import (
    CONTAINER_ID,
    FIRST,
    LAST,
    RCU,
    SHOOTDOWN,
    STACKS,
    SYNC,
    WAKEUP,
    call,
    event,
    ran,
    recording,
    sent,
)
from trace_reader import TraceFile, read_trace


def drawn(made: Recording) -> TraceFile:
    return read_trace(make_trace(made).content)


def test_a_call_is_a_slice_on_its_sender_with_an_arrow_to_each_target() -> None:
    read = drawn(recording(call(5_000, SYNC, [1, 2, 3]), calls=1, requests=3))
    (one,) = read.named("call")
    assert read.group(one) == "CPU 0"
    assert one["args"] | {"stack": ""} == {
        "reason": "do_sync_core",
        "origin": "memcg",
        "path": "create",
        "function": "do_sync_core",
        "asked in": "mem_cgroup_write",
        "task": "runc",
        "targets": 3,
        "broadcast": True,
        "creation path": True,
        "stack": "",
    }
    assert read.stack(one) == list(STACKS[1])
    assert one["dur"] == 0.9  # until the last target is done
    assert [(begin["name"], read.group(end)) for begin, end in read.arrows] == [
        ("do_sync_core call", f"CPU {cpu}") for cpu in (1, 2, 3)
    ]
    assert {there["dur"] for there in read.named("target")} == {0.4}


def test_a_single_request_lasts_until_its_target_takes_it() -> None:
    request = sent(5_000, RCU, 2, stack=2)
    read = drawn(recording([request, *ran(request, 5_300, 5_400)], requests=1))
    (one,) = read.named("single")
    assert (one["dur"], one["args"]["target"], one["args"]["origin"]) == (0.3, "CPU 2", "rcu")
    assert len(read.arrows) == 1


def test_what_is_not_known_has_no_length() -> None:
    read = drawn(recording([sent(5_000, WAKEUP, 1)], requests=1))
    (one,) = read.instants
    assert one["args"]["target"] == "CPU 1; when it ran there is not known"
    assert read.facts["requests_without_time_on_target"] == 1
    assert read.named("single") == read.named("target") == []


def test_requests_that_overlap_are_on_tracks_beside_each_other() -> None:
    slow, fast = sent(5_000, RCU, 1, csd=1), sent(5_100, RCU, 2, csd=2)
    later = sent(5_200, RCU, 3, csd=3)
    functions = [*ran(slow, 5_900, 5_950), *ran(fast, 5_150, 5_160), *ran(later, 6_900, 6_950)]
    read = drawn(recording([slow, fast, later, *functions], requests=3))
    assert {name for group, name in read.tracks.values() if group == "CPU 0"} >= {"sends", "sends, meanwhile 1"}


def test_a_shootdown_is_never_a_broadcast() -> None:
    (one,) = drawn(recording(call(5_000, SHOOTDOWN, [1, 2, 3]), calls=1, requests=3)).named("call")
    assert "broadcast" not in one["args"]


def test_a_call_under_slab_mutex_says_so() -> None:
    first, *rest = call(5_000, SYNC, [1, 2, 3])
    marked = first._replace(flags=first.flags | UNDER_SLAB_MUTEX)
    (one,) = drawn(recording([marked, *rest], calls=1, requests=3)).named("call")
    assert one["args"]["under slab_mutex"] is True


def wait(at_ns: int, kind: Kind, holder: str = "") -> TraceEvent:
    return event(kind, at_ns, stack=3, text=holder, tid=9, comm="kworker/0:1")


def test_a_wait_lasts_from_its_first_begin_and_names_its_holder() -> None:
    events = [wait(5_000, Kind.WAIT, "runc"), wait(6_000, Kind.WAIT, "kworker/1:0"), wait(7_000, Kind.TAKEN)]
    (one,) = drawn(recording(events)).named("slab_mutex")
    assert (one["ts"], one["dur"]) == (4.0, 2.0)  # FIRST is moment 0
    assert (one["args"]["waiter"], one["args"]["holder"]) == ("kworker/0:1", "runc")
    assert one["args"]["in"] == "kmem_cache_create"


def test_a_wait_without_end_says_so() -> None:
    (one,) = drawn(recording([wait(5_000, Kind.WAIT)])).named("slab_mutex")
    assert one["args"]["end"] == "not seen: it still waited"
    assert one["args"]["holder"] == "not known"


def test_what_begins_after_the_counted_span_and_does_not_end_has_no_negative_length() -> None:
    after = LAST.ended_ns + 2_000
    events = [event(Kind.EXEC, after, pid=50, tid=50, comm="runc"), wait(after + 500, Kind.WAIT)]
    read = drawn(recording(events, own_pids={50: 0}))
    assert [(one["name"], one["dur"]) for one in read.named("process") + read.named("slab_mutex")] == [
        ("runc", 0.5),
        ("waits for slab_mutex", 0.0),
    ]


def test_what_ended_before_the_counted_span_is_not_before_the_begin_of_the_timeline() -> None:
    """Perfetto wants times from 0 on. On a busy node 70 ms passed between the arming and the first edge."""
    before = FIRST.began_ns - 700
    events = [event(Kind.EXEC, before, pid=50, tid=50, comm="runc"), event(Kind.END, before + 100, pid=50, tid=50)]
    read = drawn(recording([*events, wait(FIRST.ended_ns + 500, Kind.WAIT)], own_pids={50: 0}))
    assert [(one["ts"], one["dur"]) for one in read.named("process")] == [(0.0, 0.1)]


def test_steps_programs_and_cgroups_of_ours_are_shown_and_no_others() -> None:
    path = f"/kickwatch/{CONTAINER_ID}"
    events = [
        event(Kind.MKDIR, 2_100, text=path),
        event(Kind.MKDIR, 2_200, text="/kickwatch"),
        event(Kind.MKDIR, 2_300, text="/customer/secret"),
        event(Kind.RMDIR, 4_100, text=path),
        event(Kind.EXEC, 2_400, pid=50, tid=50, comm="runc"),
        event(Kind.EXEC, 2_500, pid=50, tid=50, comm="users-program"),
        event(Kind.END, 3_900, pid=50, tid=50, comm="users-program"),
        event(Kind.EXEC, 2_600, pid=60, tid=60, comm="customer-db"),
    ]
    made = recording(events, own_pids={50: 0})
    read = drawn(made)
    assert [step["name"] for step in read.named("engine")] == ["create", "remove"]
    assert [life["name"] for life in read.named("container")] == ["container 0"]
    assert [(one["name"], one["args"]["path"]) for one in read.instants] == [
        ("cgroup mkdir", "/kickwatch/<container 0>"),
        ("cgroup mkdir", "/kickwatch"),
        ("cgroup rmdir", "/kickwatch/<container 0>"),
    ]
    assert [(one["name"], one["dur"], one["args"]["container"]) for one in read.named("process")] == [
        ("runc", 0.1, 0),
        ("users-program", 1.4, 0),
    ]
    content = make_trace(made).content
    for private in (b"secret", b"customer", CONTAINER_ID.encode()):
        assert private not in content


def test_our_program_is_in_the_container_that_was_started_last() -> None:
    """Also if it ended before its cgroup could be looked at. Before the first start it is none of ours."""
    steps = [Step(index, name, at, at + 100) for index, name, at in ((0, "start", 2_000), (1, "start", 6_000))]
    events = [
        event(kind, at_ns, pid=pid, tid=pid, comm=comm)
        for pid, began in ((40, 1_500), (50, 2_500), (60, 6_500))
        for kind, at_ns, comm in ((Kind.EXEC, began, "workload"), (Kind.END, began + 200, "kw-barrier"))
    ]
    read = drawn(recording(events, steps=steps))
    assert [(one["name"], one["dur"], one["args"]["container"]) for one in read.named("process")] == [
        ("workload", 0.2, 0),
        ("workload", 0.2, 1),
    ]


def test_the_sender_of_a_request_is_named_only_if_it_is_the_kernels_or_an_engines() -> None:
    events = [*call(5_000, SYNC, [1, 2, 3]), sent(6_000, WAKEUP, 1, comm="customer-db")]
    made = make_trace(recording(events, calls=1, requests=4))
    assert b"customer-db" not in made.content
    assert [one["args"]["task"] for one in read_trace(made.content).instants] == [UNNAMED]
