"""JUnit and KTAP as their readers parse them: what is unknown never passes."""

from xml.etree import ElementTree

import pytest

from kickwatch.report.check_formats import junit, ktap, plain
from kickwatch.report.checks import Check, Outcome

CHECKS = (
    Check("measurement", Outcome.PASSED, "23 containers"),
    Check("creation_path", Outcome.FAILED, "3 x kick_all_cpus_sync <per> container & more\x00"),
    Check("elsewhere", Outcome.UNKNOWN, "a worker\nmay ask"),
    Check("slab_mutex", Outcome.SKIPPED, "cannot be seen #here"),
)


def test_junit_counts_and_carries_every_text() -> None:
    text = junit(CHECKS, {"kernel": "6.12", "verdict": "broadcasting"}, 41.5)
    suite = ElementTree.fromstring(text.encode())  # noqa: S314 -- our own
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped", "time")} == {
        "tests": "4",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
        "time": "41.500",
    }
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    failure = cases["creation_path"].find("failure")
    assert failure is not None
    assert failure.get("message") == "3 x kick_all_cpus_sync <per> container & more\N{REPLACEMENT CHARACTER}"
    assert cases["measurement"].findtext("system-out") == "23 containers"
    assert cases["elsewhere"].find("error") is not None
    assert cases["slab_mutex"].find("skipped") is not None
    assert {one.get("name"): one.get("value") for one in suite.iter("property")}["kernel"] == "6.12"


def test_ktap_has_a_result_for_each_check_and_what_was_seen_in_front_of_it() -> None:
    assert ktap(CHECKS).splitlines() == [
        "KTAP version 1",
        "1..4",
        "# measurement: 23 containers",
        "ok 1 measurement",
        "# creation_path: 3 x kick_all_cpus_sync <per> container & more\x00",
        "not ok 2 creation_path",
        "# elsewhere: unknown: a worker may ask",
        "not ok 3 elsewhere",
        "ok 4 slab_mutex # SKIP cannot be seen here",
    ]


def test_plain_lines_end_with_the_verdict() -> None:
    lines = plain(CHECKS[:1], "verdict: quiet").splitlines()
    assert lines == ["passed   measurement  23 containers", "verdict: quiet"]


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_lines_are_folded_to_the_terminal_and_no_word_is_lost(columns: int) -> None:
    text = "0 broadcasts in 23 containers; one in every third container or more is excluded (wrong in 1 run of 10,000)"
    checks = (Check("measurement", Outcome.PASSED, "23 containers"), Check("creation_path", Outcome.UNKNOWN, text))
    shown = plain(checks, f"verdict: unknown, {text}", columns)
    assert max(map(len, shown.splitlines())) <= columns
    assert shown.split() == plain(checks, f"verdict: unknown, {text}").split()
    assert shown.splitlines()[0].startswith("passed   measurement")
