"""The whole screen of `kickwatch watch` in any size: never wider or higher than the terminal."""

import time
from collections.abc import Sequence

from rich.text import Text

from kickwatch.model import Condition
from kickwatch.outlets.status import Presence, Status
from kickwatch.report import passive_words
from kickwatch.report import status_words as words
from kickwatch.report.passive_words import is_passive
from kickwatch.terminal import watch_parts as parts
from kickwatch.terminal.watch_parts import BAD, DOUBT, FAINT, GOOD, HEAD, Part, text, wrapped
from kickwatch.terminal.watch_view import View

TWO_COLUMNS = 120
_GAP = 2
_STYLES = {
    Condition.QUIET: GOOD,
    Condition.CONTENDED: DOUBT,
    Condition.BROADCASTING: BAD,
    Condition.UNKNOWN: DOUBT,
}


def screen(view: View, columns: int, rows: int | None, *, footer: str = "") -> list[Text]:
    """The lines of the screen, each at most `columns` wide; at most `rows` of them, None: as many as there are."""
    if view.status is None:
        lines = _without_daemon(view, columns)
    else:
        lines = _with_daemon(view, view.status, columns, None if rows is None else rows - bool(footer))
    if rows is not None:
        lines = lines[: rows - bool(footer)]
        lines += [text("")] * (rows - bool(footer) - len(lines))
    if footer and (rows is None or rows > 0):
        lines.append(text(footer, FAINT))
    return [cut(line, columns) for line in lines]


def cut(line: Text, columns: int) -> Text:
    """The line, cut off with two dots if it is too wide."""
    if line.cell_len <= columns:
        return line
    line = line.copy()
    line.truncate(max(0, columns - 2), overflow="crop")
    return line.append(".." if columns >= 2 else "")


def _with_daemon(view: View, status: Status, columns: int, rows: int | None) -> list[Text]:
    top = _head(view, status, columns)
    bottom = _foot(status, columns)
    space = None if rows is None else rows - len(top) - len(bottom)
    now_s = view.now_unix_s
    losses = parts.losses(status)
    others = [parts.others(status.progress.others)] if status.progress is not None and is_passive(status) else []
    if columns < TWO_COLUMNS:
        stack = [*others, parts.evidence(status, columns), parts.rates(status, columns), parts.bill(status, now_s)]
        return [*top, *_stacked([*stack, parts.guard(status), *([losses] if losses else [])], space), *bottom]
    half = (columns - _GAP) // 2
    left = [*others, parts.evidence(status, half), parts.guard(status), *([losses] if losses else [])]
    right = [parts.rates(status, half), parts.bill(status, now_s)]
    return [*top, *_beside(_stacked(left, space), _stacked(right, space), half), *bottom]


def _head(view: View, status: Status, columns: int) -> list[Text]:
    """Condition, reasons and alerts, and what the daemon does now."""
    now_s = view.now_unix_s
    ago_s, for_s = now_s - status.updated_unix_s, now_s - status.condition_since_unix_s
    style = _STYLES[status.condition]
    first = text(status.condition.upper(), style).append(f" for {words.duration(for_s)}", HEAD)
    if status.verdict_age_s is not None or not is_passive(status):
        first.append(f"; {words.confirmed(status, now_s)}")
    lines = [_identity(view, status, columns), first, *wrapped([words.meaning(status.condition)], columns, 2, style)]
    if status.reasons:
        lines += wrapped([f"why: {words.why(status)}."], columns, 2)
    lines += [line for alert in words.alerts(status) for line in wrapped([f"ALERT: {alert}"], columns, 2, BAD)]
    lines += [text(step)] if (step := words.next_step(status)) else []
    if words.needed(status):
        lines.append(text(words.needed(status)))
    if words.late(status, now_s):
        what = f"NO NEWS for {words.duration(ago_s)}: the daemon is stuck, or the node is busy. Figures are as old."
        lines += wrapped([what], columns, 2, BAD)
    return [*lines, *wrapped([f"now: {words.doing(status)}; {words.next_trial(status.progress, ago_s)}"], columns, 3)]


def _identity(view: View, status: Status, columns: int) -> Text:
    progress = status.progress
    facts = [f"kickwatch {status.version}", f"pid {status.pid}"]
    if progress is not None:
        facts += [f"Linux {progress.kernel}"] if progress.kernel else []
        facts += [f"{progress.cpus_online} CPUs"] if progress.cpus_online else []
        facts += [progress.engine] if progress.engine else []
    if status.started_unix_s is not None:
        facts.insert(2, f"up {words.duration(view.now_unix_s - status.started_unix_s)}")
    return _with_clock("  ".join(facts), view, columns)


def _with_clock(facts: str, view: View, columns: int) -> Text:
    """The clock of this terminal is at the right: a screen that stands still shows it."""
    clock = time.strftime("%H:%M:%S", time.localtime(view.now_unix_s))
    space = columns - len(clock) - 1
    line = cut(text(facts, FAINT), max(0, space))
    return line.append(" " * max(1, columns - len(clock) - line.cell_len)).append(clock, HEAD)


def _foot(status: Status, columns: int) -> list[Text]:
    """What is always there, whatever the height."""
    rows = wrapped([f"slab_mutex: {words.slab_mutex(status)}"], columns, 2)
    return rows + wrapped([f"budget: {words.budget(status)}"], columns, 2)


def _without_daemon(view: View, columns: int) -> list[Text]:
    """No figure of the last daemon is shown as if it were live."""
    now_s, last = view.now_unix_s, view.last
    lines = [_with_clock("kickwatch watch", view, columns)]
    if view.sight.presence is Presence.OTHER:
        lines.append(text("NOT RUNNING AS A DAEMON", DOUBT))
        what = f"Another kickwatch (pid {view.sight.holder}) holds this node: a daemon that is starting, or one trial."
        lines += wrapped([what, *([f"({view.sight.why.what})"] if view.sight.why is not None else [])], columns, 4)
    else:
        lines.append(text("NOT RUNNING", BAD))
        lines += wrapped(["No kickwatch daemon runs on this node. Start it: systemctl start kickwatch"], columns, 3)
    since_s = view.seen_until_unix_s
    if since_s is None:
        lines.append(text(f"since: {words.NOT_KNOWN}"))
    else:
        lines += wrapped(
            [f"since {_at(since_s)} ({words.duration(now_s - since_s)} ago), when it was last seen"], columns, 2
        )
    lines.append(text(""))
    if last is None:
        return [*lines, *wrapped([f"last state: {words.NOT_KNOWN} ({_why_no_state(view)})"], columns, 4)]
    reasons = f" ({words.why(last)})" if last.reasons else ""
    counts = f"{words.many(last.trials, 'trial')}, {words.many(last.containers, 'container')}"
    if is_passive(last):
        counts = passive_words.evidence(last)
    return [
        *lines,
        text("LAST STATE  as the daemon left it; it says nothing about now", HEAD),
        *wrapped([f"{last.condition}{reasons}, since {_at(last.condition_since_unix_s)}"], columns, 3),
        *[line for alert in words.alerts(last) for line in wrapped([f"alert then: {alert}"], columns, 2)],
        *wrapped([f"it did: {words.doing(last)}"], columns, 2),
        *wrapped([f"kickwatch {last.version}, pid {last.pid}, {counts}"], columns, 2),
    ]


def _why_no_state(view: View) -> str:
    return view.sight.why.what if view.sight.why is not None else "no daemon has run since the node booted"


def _at(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))


def _stacked(stack: Sequence[Part], space: int | None) -> list[Text]:
    """The parts one below the other in so many lines: all headlines first, then lines in turn."""
    wanted = [len(part.rows) + 1 for part in stack]
    given = _shared(wanted, [part.weight for part in stack], space) if space is not None else wanted
    return [line for part, most in zip(stack, given, strict=True) for line in part.lines(most)]


def _shared(wanted: Sequence[int], weights: Sequence[int], space: int) -> list[int]:
    """How many of `space` lines each part gets. One of weight 0 gets more than its headline if others want no more."""
    given = [int(number < space) for number in range(len(wanted))]
    for turn in (weights, [1] * len(weights)):
        hungry = True
        while hungry:
            hungry = False
            for number, weight in enumerate(turn):
                more = min(weight, wanted[number] - given[number], space - sum(given))
                if more > 0:
                    given[number], hungry = given[number] + more, True
    return given


def _beside(left: Sequence[Text], right: Sequence[Text], half: int) -> list[Text]:
    """Two columns."""
    lines = []
    for number in range(max(len(left), len(right))):
        line = cut(left[number], half).copy() if number < len(left) else text("")
        if number < len(right):
            line.append(" " * (half + _GAP - line.cell_len)).append_text(cut(right[number], half))
        lines.append(line)
    return lines
