"""Single events to calls: what belongs to the counted span, which requests make one call, when a function ran."""

from kickwatch.observe.trace_events import BANK, BEGINS, MULTI
from kickwatch.trace.requests import calls_between
from recordings import FIRST, LAST, RCU, SHOOTDOWN, SYNC, WAKEUP, call, ran, sent


def test_a_call_has_all_its_targets_and_the_time_that_each_took() -> None:
    (found,) = calls_between(call(5_000, SYNC, [1, 2, 3]), FIRST, LAST)
    assert (found.multi, found.begun) == (True, True)
    assert [request.sent.target for request in found.requests] == [1, 2, 3]
    assert {request.ran for request in found.requests} == {(5_500, 5_900)}


def test_calls_of_two_senders_at_the_same_time_are_two() -> None:
    found = calls_between([*call(5_000, SYNC, [1, 2], cpu=0), *call(5_001, SYNC, [0, 2], cpu=3)], FIRST, LAST)
    assert [(each.sent.cpu, len(each.requests)) for each in found] == [(0, 2), (3, 2)]


def test_a_single_request_between_the_requests_of_a_call_does_not_divide_it() -> None:
    first, second, *functions = call(5_000, SYNC, [1, 2])
    found = calls_between([first, sent(5_000, WAKEUP, 3), second, *functions], FIRST, LAST)
    assert sorted((each.multi, len(each.requests)) for each in found) == [(False, 1), (True, 2)]


def test_what_was_counted_outside_of_the_span_is_left_out() -> None:
    """At an edge the bank decides: in [began, ended] a request may be on either side."""
    early, late = sent(500, RCU, 1), sent(950_000, RCU, 1)
    before = sent(1_050, RCU, 1)._replace(flags=0)
    after = sent(1_050, RCU, 2)
    counted = sent(900_050, RCU, 3)
    beyond = sent(900_050, RCU, 3)._replace(flags=0)
    assert counted.flags == BANK
    found = calls_between([early, before, after, counted, beyond, late], FIRST, LAST)
    assert [(each.sent.at_ns, each.sent.target) for each in found] == [(1_050, 2), (900_050, 3)]


def test_a_function_may_run_after_the_span() -> None:
    request = sent(899_999, RCU, 1)
    (found,) = calls_between([request, *ran(request, 900_500, 900_700)], FIRST, LAST)
    assert found.requests[0].ran == (900_500, 900_700)


def test_a_call_whose_begin_was_lost_is_no_call_and_joins_no_other() -> None:
    rest = sent(6_000, SHOOTDOWN, 2, flags=MULTI)
    found = calls_between([*call(5_000, SYNC, [1, 3]), rest], FIRST, LAST)
    assert [(each.begun, len(each.requests)) for each in found] == [(True, 2), (False, 1)]
    lower = sent(6_000, SYNC, 1, flags=MULTI)
    assert [each.begun for each in calls_between([*call(5_000, SYNC, [1, 3]), lower], FIRST, LAST)] == [True, False]


def test_two_calls_in_a_row_are_two_since_the_probe_says_where_one_begins() -> None:
    events = [sent(5_000, SYNC, 1, flags=MULTI | BEGINS), sent(5_010, SYNC, 2, flags=MULTI | BEGINS)]
    assert [len(each.requests) for each in calls_between(events, FIRST, LAST)] == [1, 1]


def test_requests_that_a_target_took_together_have_no_time_of_their_own() -> None:
    """Wakeups are queued in one list: one entry for all of them, with the latest csd of that address."""
    first, second = sent(5_000, WAKEUP, 1, csd=9), sent(5_100, WAKEUP, 1, csd=9)
    found = calls_between([first, second, *ran(second, 5_200, 5_300)], FIRST, LAST)
    assert [each.requests[0].ran for each in found] == [None, (5_200, 5_300)]
