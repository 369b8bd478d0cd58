"""The words for a passive daemon: no number where nobody counted, and no promise of `quiet`."""

import pytest
from msgspec.structs import replace

from kickwatch.commands.status import text_of
from kickwatch.outlets.live_status import OthersStatus
from kickwatch.report import passive_words
from kickwatch.report import status_words as words
from watched_status import LACKS, NOW, PASSIVE, STATUS, UNCOUNTED


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "not known: not counted yet"),
        (OthersStatus(containers=0, containers_at_least=0), "0 since the daemon's start"),
        (OthersStatus(unknown=f"{LACKS}; fix: run it as root"), f"not known: {LACKS}; fix: run it as root"),
        (
            OthersStatus(containers_at_least=3, by_engine={"runc": 3}, unknown="7 cgroup events found the map full"),
            "at least 3 since the daemon's start (runc 3): 7 cgroup events found the map full",
        ),
    ],
)
def test_others_are_a_number_only_where_they_were_counted(found: OthersStatus | None, said: str) -> None:
    assert passive_words.others(found) == said


def test_passive_mode_does_not_promise_that_evidence_will_come() -> None:
    for reason in ("insufficient_evidence", "too_few_containers"):
        assert words.why(replace(PASSIVE, reasons=(reason,))) == passive_words.NEVER_QUIET
        assert "yet" in words.why(replace(STATUS, reasons=(reason,)))
    assert "positive control" in words.why(UNCOUNTED)


def test_the_evidence_of_trials_before_passive_mode_is_named() -> None:
    assert passive_words.evidence(replace(PASSIVE, trials=1)) == "1 record of passive mode since the evidence began"
    assert passive_words.evidence(replace(PASSIVE, trials=41, containers=943)) == (
        "41 trials and records, 943 containers of trials since the evidence began"
    )


def test_status_has_the_count_of_others_and_no_zeros_of_trials() -> None:
    assert text_of(PASSIVE, NOW).splitlines() == [
        "unknown (insufficient_evidence) for 2 h 3 min: kickwatch 0.1.0, pid 4711",
        "kickwatch cannot say whether creating containers interrupts all CPUs: passive mode raises alerts, and nothing"
        " in it can establish `quiet`",
        "unknown; passive: 9 containers started by others (updated 2 s ago)",
        "containers of others: 9 since the daemon's start (docker 7, runc 2)",
        "2 records of passive mode since the evidence began",
        "no trials: passive mode starts no containers",
    ]
    assert f"containers of others: not known: {LACKS}; fix: run it as root" in text_of(UNCOUNTED, NOW)
