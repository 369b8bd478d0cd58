"""Checks in the formats that pipelines read: JUnit XML, KTAP, and plain lines. Pure.

KTAP is the kernel's format for test results (Documentation/dev-tools/ktap.rst), version 1. What is unknown is an
<error> in JUnit and `not ok` in KTAP: a pipeline that knows only two outcomes stops.
"""

import re
from collections.abc import Mapping, Sequence
from textwrap import wrap
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from kickwatch.report.checks import Check, Outcome

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2
_LEAST_COLUMNS = 30  # of text beside a head
_JUNIT = {Outcome.FAILED: "failure", Outcome.UNKNOWN: "error", Outcome.SKIPPED: "skipped"}


def junit(checks: Sequence[Check], properties: Mapping[str, str], took_s: float) -> str:
    """A suite `kickwatch gate`. The time of the run is that of the suite: the checks share its trials."""
    count = {outcome: str(sum(check.outcome is outcome for check in checks)) for outcome in Outcome}
    suite = Element(
        "testsuite",
        name="kickwatch gate",
        tests=str(len(checks)),
        failures=count[Outcome.FAILED],
        errors=count[Outcome.UNKNOWN],
        skipped=count[Outcome.SKIPPED],
        time=f"{took_s:.3f}",
    )
    listed = SubElement(suite, "properties")
    for name, value in properties.items():
        SubElement(listed, "property", name=name, value=_clean(value))
    for check in checks:
        case = SubElement(suite, "testcase", classname="kickwatch.gate", name=check.name, time="0")
        if kind := _JUNIT.get(check.outcome):
            SubElement(case, kind, message=_clean(check.text))
        else:
            SubElement(case, "system-out").text = _clean(check.text)
    indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(suite, encoding="unicode") + "\n"


def ktap(checks: Sequence[Check]) -> str:
    """KTAP version 1. What was seen stands in front of each result, as a diagnostic line."""
    lines = ["KTAP version 1", f"1..{len(checks)}"]
    for number, check in enumerate(checks, 1):
        text = " ".join(check.text.split())
        if check.outcome is Outcome.SKIPPED:
            lines.append(f"ok {number} {check.name} # SKIP {text.replace('#', '')}")
            continue
        unknown = "unknown: " if check.outcome is Outcome.UNKNOWN else ""
        passed = "ok" if check.outcome is Outcome.PASSED else "not ok"
        lines += [f"# {check.name}: {unknown}{text}", f"{passed} {number} {check.name}"]
    return "\n".join(lines) + "\n"


def plain(checks: Sequence[Check], verdict: str, columns: int | None = None) -> str:
    """A line for each check, and the verdict. `columns`: of a terminal, where longer lines are folded."""
    width = max(len(check.name) for check in checks)
    rows = [(f"{check.outcome:7}  {check.name:{width}}  ", check.text) for check in checks]
    lines = [
        f"{head}{text}" if columns is None else _folded(head, text, columns) for head, text in (*rows, ("", verdict))
    ]
    return "\n".join(lines) + "\n"


def _folded(head: str, text: str, columns: int) -> str:
    """The text beside its head, or below it where the terminal is narrow."""
    beside = columns - len(head) >= _LEAST_COLUMNS
    indent = " " * (len(head) if beside and head else 2)
    first = head if beside else f"{head.rstrip()}\n{indent}"
    lines = wrap(text, max(columns - len(indent), _LEAST_COLUMNS), break_on_hyphens=False) or [""]
    return first + f"\n{indent}".join(lines)


def _clean(text: str) -> str:
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)
