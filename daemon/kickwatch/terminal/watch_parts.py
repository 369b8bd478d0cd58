"""The parts of the screen of `kickwatch watch`: lines of text, each with the figures of one thing."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from kickwatch.model import Origin, Path, on_creation_path
from kickwatch.outlets.live_status import BillLine, OthersStatus, StreamStatus
from kickwatch.outlets.status import Status
from kickwatch.report import passive_words
from kickwatch.report import status_words as words
from kickwatch.report.passive_words import OBSERVING, is_passive

HEAD, FAINT, GOOD, BAD, DOUBT = "bold", "dim", "bold green", "bold red", "bold yellow"
_ORIGINS, _PATHS = set(Origin), set(Path)
_LEAST_BAR = 6


@dataclass(frozen=True)
class Part:
    """A headline, and rows that may be cut off: the most important first. `folded` is what stands for the rest.

    `weight`: how many lines it gets in a turn, where not all parts fit.
    """

    headline: Text
    rows: tuple[Text, ...]
    folded: str = "more"
    weight: int = 1

    def lines(self, most: int) -> list[Text]:
        """At most so many lines. The last one says how many rows are not shown."""
        if most <= 0:
            return []
        if len(self.rows) + 1 <= most:
            return [self.headline, *self.rows]
        shown = max(0, most - 2)
        left = len(self.rows) - shown
        return [self.headline, *self.rows[:shown], Text(f"  ... {left} {self.folded}", FAINT)][:most]


def plain(text: str) -> str:
    """Without control characters: what an engine or a kernel names itself must not steer the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def text(content: str, style: str = "") -> Text:
    """One line."""
    return Text(plain(content), style, no_wrap=True, end="")


def headline(title: str, note: str = "") -> Text:
    """`EVIDENCE  note`."""
    return text(title, HEAD).append(plain(f"  {note}") if note else "", FAINT)


def bar(share: float, width: int) -> str:
    """`[####------]`."""
    inner = max(1, width - 2)
    full = min(inner, max(0, math.floor(share * inner + 1e-9)))
    return f"[{'#' * full}{'-' * (inner - full)}]"


def evidence_share(stream: StreamStatus) -> float:
    """How far the evidence is on the way to the alarm, on a logarithmic scale: 1 is none, the threshold is all."""
    if stream.evidence >= stream.threshold:
        return 1.0
    if stream.evidence <= 1.0 or stream.threshold <= 1.0:
        return 0.0
    return math.log(stream.evidence) / math.log(stream.threshold)


def evidence(status: Status, width: int) -> Part:
    """A bar for each stream: those with an alarm first, then by how far they are."""
    control = {True: "passed", False: "FAILED", None: words.NOT_KNOWN}[status.control_passed]
    passive = is_passive(status)
    seen = f"{words.many(status.trials, 'trial')}, {words.many(status.containers, 'container')}"
    seen = f"{words.many(status.trials, 'record')}" if passive else seen
    note = f"probe control {control}; {seen}; full bar = alarm"
    if status.streams is None:
        return Part(headline("EVIDENCE"), (text(f"  {words.EARLIER_VERSION}"),))
    if not status.streams:
        missing = "no record of containers yet" if passive else "no trial yet"
        return Part(headline("EVIDENCE", note), (text(f"  {words.NOT_KNOWN}: {missing}"),))
    # In passive mode the other streams observe nothing: an empty bar would look as if they did.
    streams = {n: one for n, one in status.streams.items() if not passive or n in OBSERVING or one.alerted}
    ordered = sorted(streams.items(), key=lambda item: (not item[1].alerted, -evidence_share(item[1])))
    names = max(map(cell_len, streams), default=0)
    bar_width = min(32, width - names - 4 - 22)
    rows = [_evidence_row(name, one, names, bar_width) for name, one in ordered]
    return Part(headline("EVIDENCE", note), tuple(rows), "streams with less")


def _evidence_row(name: str, stream: StreamStatus, names: int, width: int) -> Text:
    share = evidence_share(stream)
    shown = text(f"  {name:<{names}} ")
    if width >= _LEAST_BAR:
        shown.append(bar(share, width), BAD if stream.alerted else DOUBT if share > 0.5 else "")
    shown.append(f" {_number(stream.evidence):>7} of {_number(stream.threshold)}")
    return shown.append("  ALARM", BAD) if stream.alerted else shown


def rates(status: Status, width: int) -> Part:
    """Requests per second by reason, most first."""
    found = status.rates
    if found is None:
        missing = words.EARLIER_VERSION if status.progress is None else f"{words.NOT_KNOWN} yet"
        return Part(headline("IPIs PER SECOND"), (text(f"  {missing}"),))
    head = headline("IPIs PER SECOND", f"all CPUs, last {found.span_s:.0f} s, by reason")
    rows = [_creation_row(found.creation_broadcasts)]
    if found.requests is None:
        rows.append(text(f"  by reason: {words.NOT_KNOWN} (no probe attributes them)"))
    else:
        ordered = sorted(found.requests.items(), key=lambda item: -item[1])
        rows += bars([(name, rate) for name, rate in ordered], width)
        if not ordered:
            rows.append(text("  none"))
    if found.interrupts:
        counters = ", ".join(f"{kind} {_number(rate)}" for kind, rate in found.interrupts.items())
        rows.append(text(f"  /proc/interrupts: {counters}", FAINT))
    return Part(head, tuple(rows), "reasons with less")


def _creation_row(broadcasts: int | None) -> Text:
    if broadcasts is None:
        return text(f"  creation-path broadcasts: {words.NOT_KNOWN}")
    return text(f"  creation-path broadcasts: {broadcasts or 'none'}", BAD if broadcasts else "")


def bars(figures: Sequence[tuple[str, float]], width: int) -> list[Text]:
    """`  name  1234 ####`: the longest bar is the largest figure."""
    if not figures:
        return []
    names = min(max(cell_len(name) for name, _ in figures), max(8, width - 14))
    most = max(figure for _, figure in figures)
    space = min(32, width - names - 12)
    rows = []
    for name, figure in figures:
        row = text(f"  {name[:names]:<{names}} {_number(figure):>7} ")
        if space >= _LEAST_BAR and most > 0:
            row.append("#" * round(space * figure / most))
        rows.append(row)
    return rows


def bill(status: Status, now_unix_s: float) -> Part:
    """What a container of the latest trial cost: the creation path first, then broadcasts, then requests."""
    trial = status.trial
    if trial is None:
        missing = words.EARLIER_VERSION if status.progress is None else f"{words.NOT_KNOWN}: {_no_trial(status)}"
        return Part(headline("BILL PER CONTAINER"), (text(f"  {missing}"),))
    when = words.duration(now_unix_s - trial.started_unix_s)
    what = "latest trial (began" if trial.trial_id else "latest period (ended"  # of passive mode
    bound = "" if trial.trial_id else ", a lower bound"
    whose = f"{what} {when} ago, {_known(trial.containers)} containers{_failed(trial.failed)}{bound})"
    rows: list[Text] = []
    if status.void_trial is not None:
        what = ", ".join(status.void_trial.void)
        rows.append(text(f"  a later trial is void and proves nothing: {what}", DOUBT))
    if trial.bill is None:
        rows.append(
            text(f"  {words.NOT_KNOWN}: no probe attributes requests{'' if trial.trial_id else ' to containers'}")
        )
    elif not trial.trial_id and trial.containers == 0:
        rows.append(text("  none: nobody started a container in it"))
    else:
        rows.append(_bill_row(("requests", "broadcasts", "path", "origin", "reason"), FAINT))
        rows += [_bill_line(line) for line in sorted(trial.bill, key=_weight)]
    return Part(headline("BILL PER CONTAINER", whose), tuple(rows), "rows with less", weight=2)


def _no_trial(status: Status) -> str:
    if status.void_trial is not None:
        return f"the trials so far are void ({', '.join(status.void_trial.void)})"
    if status.progress is not None and status.progress.mode == "passive":
        return "the first period of passive mode has not ended"
    return "no trial yet since this daemon started"


def _failed(failed: int | None) -> str:
    return f", {failed} failed" if failed else ""


def _on_creation_path(line: BillLine) -> bool:
    known = line.origin in _ORIGINS and line.path in _PATHS
    return known and on_creation_path(Origin(line.origin), Path(line.path))


def _weight(line: BillLine) -> tuple[bool, float, float]:
    broadcasts, requests = line.broadcasts_per_container or 0.0, line.requests_per_container or 0.0
    return (not (broadcasts and _on_creation_path(line)), -broadcasts, -requests)


def _bill_line(line: BillLine) -> Text:
    guilty = bool(line.broadcasts_per_container) and _on_creation_path(line)
    requests, broadcasts = _known(line.requests_per_container), _known(line.broadcasts_per_container)
    return _bill_row((requests, broadcasts, line.path, line.origin, line.reason), BAD if guilty else "")


def _bill_row(row: tuple[str, str, str, str, str], style: str) -> Text:
    requests, broadcasts, path, origin, reason = row
    return text(f"  {requests:>8} {broadcasts:>10}  {path:<7} {origin:<10} {reason}", style)


def guard(status: Status) -> Part:
    """The decision, and each figure with its limit; the nearest to its limit first."""
    found = status.progress.guard if status.progress is not None else None
    paused = found is not None and found.paused
    head = headline("GUARD").append_text(text(f"  {words.guard(status)}", DOUBT if paused else ""))
    if found is None:
        return Part(head, ())
    age = f", read {words.duration(found.age_s)} before" if found.age_s and found.age_s > 30 else ""
    rows = [
        text(f"  {words.guard_reading(one)}{age}", DOUBT if one.exceeded else "")
        for one in sorted(found.readings, key=lambda one: not one.exceeded)
    ]
    return Part(head, tuple(rows), "figures within their limits" if not paused else "figures", weight=0)


def others(found: OthersStatus | None) -> Part:
    """How many containers others have started. What is not known is no number."""
    return Part(
        headline("CONTAINERS OF OTHERS").append_text(text(f"  {passive_words.others(found, remedy=False)}")), ()
    )


def losses(status: Status) -> Part | None:
    """What the observers cannot see."""
    found = status.progress.losses if status.progress is not None else None
    if not found:
        return None
    first, *rest = found
    head = headline("CANNOT SEE").append_text(text(f"  {first}"))
    return Part(head, tuple(text(f"            {loss}") for loss in rest), "losses", weight=0)


def wrapped(content: Iterable[str], width: int, most: int, style: str = "") -> list[Text]:
    """Sentences as at most `most` lines of whole words."""
    lines: list[str] = []
    for word in plain(" ".join(content)).split():
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]  # cut off where it is drawn
    return [text(line, style) for line in lines]


def _known(figure: float | None) -> str:
    return "?" if figure is None else _number(figure)


def _number(figure: float) -> str:
    """Three digits: `0.0123`, `1.5`, `230`, `1.2e+08`."""
    if figure and (abs(figure) >= 1e6 or abs(figure) < 0.01):
        return f"{figure:.1e}"
    return f"{figure:,.0f}".replace(",", "") if abs(figure) >= 100 else f"{figure:.3g}"
