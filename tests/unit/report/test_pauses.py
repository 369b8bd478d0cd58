"""The guard's pauses, from both forms of the log."""

import json

import pytest

import builders
from kickwatch.report.html.over_time import timeline
from kickwatch.report.pauses import MOST_PAUSES, pauses_of
from report_history import report_on

OWN = [
    {"event": "kickwatch.paused", "timestamp": "2025-11-24T16:00:00.000000Z", "reasons": ["psi_cpu", "load"]},
    {"event": "kickwatch.trial_finished", "timestamp": "2025-11-24T16:01:00Z"},
    {"event": "kickwatch.resumed", "timestamp": "2025-11-24T16:10:00Z", "paused_s": 600.0},
]
JOURNAL = [
    {"KICKWATCH_EVENT": "kickwatch.paused", "__REALTIME_TIMESTAMP": "1764000000000000", "KICKWATCH_REASONS": '["a"]'},
    {"KICKWATCH_EVENT": "kickwatch.resumed", "__REALTIME_TIMESTAMP": "1764000600000000", "KICKWATCH_PAUSED_S": "600"},
]


def lines(records: list[dict[str, object]]) -> list[bytes]:
    return [json.dumps(record).encode() + b"\n" for record in records]


@pytest.mark.parametrize(("records", "reasons"), [(OWN, ["psi_cpu", "load"]), (JOURNAL, ["a"])])
def test_both_forms(records: list[dict[str, object]], reasons: list[str]) -> None:
    assert pauses_of(lines(records)) == [
        {"first_unix_s": 1764000000.0, "last_unix_s": 1764000600.0, "reasons": reasons}
    ]


def test_a_log_that_begins_or_ends_within_a_pause() -> None:
    assert pauses_of(lines(OWN[2:]))[0]["first_unix_s"] == 1764000000.0
    assert pauses_of(lines(OWN[:1]))[0]["last_unix_s"] is None


def test_other_lines_are_passed_over() -> None:
    strange = [b"no json kickwatch.paused\n", b'["kickwatch.paused"]\n', b'{"event": "kickwatch.paused"}\n', b"\xff\n"]
    assert pauses_of(strange) == []


def test_the_longest_stay() -> None:
    pauses = []
    for number in range(MOST_PAUSES + 1):
        for event, at in (("paused", number * 1000), ("resumed", number * 1000 + 10 + number)):
            pauses.append({"KICKWATCH_EVENT": f"kickwatch.{event}", "__REALTIME_TIMESTAMP": str(at * 1_000_000)})
    found = pauses_of(lines(pauses))
    assert len(found) == MOST_PAUSES
    assert found[0]["first_unix_s"] == 1000.0  # the first, the shortest, went


def test_the_timeline_has_them() -> None:
    records = [builders.trial(started_unix_s=1764000000.0 + 70 * number) for number in range(20)]
    plot = timeline(report_on(records) | {"pauses": pauses_of(lines(OWN))})
    assert ("guard", "paused: psi_cpu, load", "2025-11-24 16:00", "2025-11-24 16:10", "0") in plot.rows
    assert not [row for row in timeline(report_on(records)).rows if row[0] == "guard"]
