"""Sentences for the engineer whom an alarm wakes."""

import pytest
from msgspec.structs import replace

from kickwatch.detect import sentences
from kickwatch.detect.sentences import Beside
from kickwatch.detect.streams import STREAMS, Stream, StreamName
from kickwatch.detect.track import Onset, Turn

ALARM = Turn(True, Onset("0badcafe", 12, 12, 36.0, 9_000_000), 0, "3.1e9", 5.3e8)
END = Turn(False, Onset("0badcafe", 12, 12, 36.0), 37, "1.2e4", 1e4, recovered_in=40)


def test_the_sentence_of_an_alarm() -> None:
    assert sentences.raised(STREAMS[StreamName.ATTRIBUTED], ALARM) == (
        "12 of the last 12 containers made the creation path broadcast (allowed: 1 in 20);"
        " evidence 3.1e9 against a threshold of 5.3e8; first seen at trial 0badcafe"
    )


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("counters", [False, True])
def test_every_stream_has_its_sentences(stream: Stream, counters: bool) -> None:
    text = sentences.raised(stream, ALARM, Beside(counters=counters))
    assert text.startswith("12 of the last 12 ")
    assert "{" not in text
    assert ("half of them" in text) is stream.coin
    assert ("(allowed: 1 in " in text) is (not stream.coin and stream.name is not StreamName.BPF)
    assert sentences.ended(stream, END).startswith("over 40 trials, " if stream.paired else "the last 37 ")


def test_a_longest_wait_that_is_not_known_is_not_0_ms() -> None:
    known, unknown = ALARM, replace(ALARM, onset=Onset("0badcafe", 12, 12, 36.0))
    assert ", the longest 9 ms;" in sentences.raised(STREAMS[StreamName.CONTENTION], known)
    for name in (StreamName.CONTENTION, StreamName.CONTENTION_EXCESS, StreamName.CONTENTION_PAIRS):
        assert ", the longest not known;" in sentences.raised(STREAMS[name], unknown)


def test_the_sentences_of_pairs_count_containers_and_name_the_function() -> None:
    stream = STREAMS[StreamName.ELSEWHERE_PAIRS]
    assert sentences.raised(stream, ALARM, Beside(mostly="do_sync_core")) == (
        "12 of the last 12 containers came with more broadcasts from outside the creation path (mostly do_sync_core)"
        " than as much time without a container (by chance: half of them at most);"
        " evidence 3.1e9 against a threshold of 5.3e8; first seen at trial 0badcafe"
    )
    assert sentences.ended(stream, END) == (
        "over 40 trials, containers came with no more than as much time without them (the last 37 never with more);"
        " evidence of recovery 1.2e4 against a threshold of 1.0e4"
    )


def test_a_burst_is_not_taken_for_a_container() -> None:
    text = sentences.raised(STREAMS[StreamName.ISOLATION], ALARM, Beside(bursts=True))
    assert text.startswith("12 bursts among the last 12 containers came with more requests to isolated CPUs than")


def test_the_sentence_of_a_recovery() -> None:
    assert sentences.ended(STREAMS[StreamName.ATTRIBUTED], END) == (
        "the last 37 containers were within bounds, of 40 since the alarm;"
        " evidence of recovery 1.2e4 against a threshold of 1.0e4"
    )


def test_the_sentence_of_a_regression() -> None:
    text = sentences.risen(
        "rcu_exp_handler rcu other", ALARM, before=1.5, bound=2.25, since="kernel 6.12 (before: 6.1)"
    )
    assert text == (
        "rcu_exp_handler rcu other: 3 requests per container and other CPU over the last 12 trials; before: 1.5,"
        " allowed: 2.25; changed: kernel 6.12 (before: 6.1);"
        " evidence 3.1e9 against a threshold of 5.3e8; first seen at trial 0badcafe"
    )
    assert sentences.fallen("rcu_exp_handler rcu other", END).startswith(
        "rcu_exp_handler rcu other: the last 37 trials"
    )


@pytest.mark.parametrize(
    ("value", "shown"), [(0.05, "0.05"), (32.0, "32"), (5.02, "5.02"), (1530.4, "1530"), (0.0, "0"), (99.99, "100")]
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert sentences.number(value) == shown


@pytest.mark.parametrize(("mean", "shown"), [(0.05, "1 in 20"), (0.001, "1 in 1000"), (0.5, "1 in 2"), (6.0, "6 each")])
def test_an_allowance_is_shown_as_a_share_or_a_number(mean: float, shown: str) -> None:
    assert sentences.allowed(mean) == shown
