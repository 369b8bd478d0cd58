"""The report on a history as text: verdict first, then tables. No line is wider than 80 columns. Pure."""

from datetime import UTC, datetime
from textwrap import wrap
from typing import Any

from kickwatch.report.passive_totals import only_passive, records_of
from kickwatch.report.passive_words import OBSERVING
from kickwatch.report.tables import table

WIDTH = 80
_MOST_ROWS = 12
_MOST_CHANGES = 20


def history_text(found: dict[str, Any]) -> str:
    """`found`: from `overview`."""
    parts = [
        _head(found),
        _changes(found),
        _kernels(found),
        _passive(found),
        _nodes(found),
        _spans(found, "verdict", "VERDICT OVER TIME"),
        _spans(found, "engine", "ENGINES"),
        _spans(found, "boot", "BOOTS"),
        _pauses(found),
        _bill(found),
        _waits(found),
        _latency(found),
        _pairs(found),
        _evidence(found),
    ]
    return "\n\n".join(part for part in parts if part)


def moment(unix_s: float) -> str:
    """UTC, to the minute."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M")


def cut(text: str, most: int) -> str:
    """The text, or the beginning of it with three dots."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _head(found: dict[str, Any]) -> str:
    total = found["total"]
    why = f" ({', '.join((*found['reasons'], *found['findings']))})" if found["reasons"] or found["findings"] else ""
    lines = _wrapped(f"VERDICT: {found['verdict']}{why}")
    if found["first_unix_s"] is None:
        return "\n".join([*lines, "the history has no trials"])
    span = f"{moment(found['first_unix_s'])} to {moment(found['last_unix_s'])} UTC"
    records = records_of(found)
    counts = [f"{total['trials'] - records} trials", f"{records} records of passive mode" if records else ""]
    counts = counts[only_passive(found) :]
    lines.append(f"{span}: {', '.join(filter(None, counts))}, {total['void_trials']} void")
    if only_passive(found):
        return "\n".join([*lines, *_replayed_otherwise(found)])
    lines.append(f"{total['containers']} containers, {total['failed']} failed")
    each = known(total["creation_path_broadcasts_per_container"])
    lines.append(f"creation path: {each} broadcasts per container, {known(total['creation_path_broadcasts'])} in all")
    if total["containers_with_broadcasts"] is not None:
        hit, of = total["containers_with_broadcasts"], total["containers_known"]
        lines.append(f"containers with a creation-path broadcast in their life: {hit} of {of}")
    return "\n".join([*lines, *_replayed_otherwise(found)])


def _replayed_otherwise(found: dict[str, Any]) -> list[str]:
    differ = found["replay"]["otherwise"]
    return _wrapped(f"for {differ} trials the stored outcome differs from the recomputed one") if differ else []


def _changes(found: dict[str, Any]) -> str:
    changes = found["changes"]
    if not changes:
        return "ALARMS\n  none raised, none ended"
    lines = ["ALARMS"]
    for change in changes[-_MOST_CHANGES:]:
        what = f"{moment(change['unix_s'])}  {change['alarm']} {change['kind']} ({change['stream']}): {change['text']}"
        lines += wrap(what, WIDTH - 2, initial_indent="  ", subsequent_indent="    ")
    left = len(changes) - len(changes[-_MOST_CHANGES:]) + found["changes_left_out"]
    return "\n".join([*lines, *([f"  {left} more: see --json"] if left else [])])


def _kernels(found: dict[str, Any]) -> str:
    records = {row["kernel"]: row["records"] for row in found["passive"]}
    rows = [
        (
            cut(row["kernel"], 26),
            str(row["trials"] - records.get(row["kernel"], 0)),
            str(row["containers"]),
            known(row["creation_path_broadcasts_per_container"]),
            known(row["requests_per_container"]),
            known(row["slab_mutex_waits_per_container"]),
        )
        for row in found["kernels"]
        if row["trials"] > records.get(row["kernel"], 0) or row["kernel"] not in records
    ]
    head = ("kernel", "trials", "containers", "creation b.", "requests", "waits")
    if not rows and only_passive(found):
        return ""
    return "KERNELS, per container: creation-path broadcasts, requests, slab_mutex waits\n" + table(head, rows)


def _passive(found: dict[str, Any]) -> str:
    rows = [
        (
            cut(row["kernel"], 26),
            str(row["records"]),
            str(row["containers"]),
            known(row["own_broadcasts_per_container"]),
            known(row["other_broadcasts_per_cgroup"]),
            known(row["slab_mutex_waits"]),
        )
        for row in found["passive"]
    ]
    head = ("kernel", "records", "containers", "own b.", "others' b.", "waits")
    what = (
        "PASSIVE MODE, containers that others started: creation-path broadcasts that do\n"
        "not patch kernel text, of their tasks per container, of other tasks per cgroup\n"
        "(lower bounds); waits for slab_mutex in all\n"
    )
    return what + table(head, rows) if rows else ""


def _nodes(found: dict[str, Any]) -> str:
    rows = [
        (
            row["engine"],
            row["runtime"],
            row["network"],
            row["arch"],
            str(row["cpus_online"]),
            row["cgroup"],
            row["kmem_accounting"],
            str(row["trials"]),
        )
        for row in found["nodes"]
    ]
    narrow = [tuple(cut(cell, 18) for cell in row) for row in rows[:_MOST_ROWS]]
    head = ("engine", "runtime", "network", "arch", "CPUs", "cgroup", "kmem", "trials")
    return "NODE\n" + table(head, narrow) if narrow else ""


def _spans(found: dict[str, Any], name: str, title: str) -> str:
    spans = found["spans"][name]
    shown = spans[-_MOST_ROWS:]
    rows = [
        (
            cut(span["value"] or "not known", 34),
            moment(span["first_unix_s"]),
            moment(span["last_unix_s"]),
            str(span["trials"]),
        )
        for span in shown
    ]
    left = len(spans) - len(shown) + found["spans_left_out"][name]
    note = f"\n  {left} more: see --json" if left else ""
    return f"{title}\n" + table((name, "first trial", "last trial", "trials"), rows) + note if rows else ""


def _pauses(found: dict[str, Any]) -> str:
    if not found["pauses"]:
        return ""
    rows = [
        (
            moment(one["first_unix_s"]),
            "not over" if one["last_unix_s"] is None else moment(one["last_unix_s"]),
            cut(", ".join(one["reasons"]), 36),
        )
        for one in found["pauses"][-_MOST_ROWS:]
    ]
    return "PAUSES OF THE GUARD\n" + table(("from", "to", "why"), rows)


def _bill(found: dict[str, Any]) -> str:
    if only_passive(found):
        return "IPIS PER CONTAINER\n  not known: passive mode's bills are in the log (kickwatch.summary)"
    if found["bill"] is None:
        return "IPIS PER CONTAINER\n  not known: no probe attributed them"
    shown = found["bill"][:_MOST_ROWS]
    rows = [
        (
            f"{row['requests_per_container']:.1f}",
            f"{row['broadcasts_per_container']:.2f}",
            row["path"],
            cut(row["reason"], 28),
            row["origin"],
            "creation" if row["creation_path"] else "",
        )
        for row in shown
    ]
    left = len(found["bill"]) - len(shown)
    note = f"\n  {left} more: see --json" if left else ""
    head = ("requests", "bcast", "path", "function", "source", "path of")
    return "IPIS PER CONTAINER, requests above the rate of quiet windows\n" + table(head, rows) + note


def _waits(found: dict[str, Any]) -> str:
    waits, total = found["waits"], found["total"]
    if only_passive(found):
        return ""
    if waits is None:
        return "SLAB_MUTEX\n  waits not known: not observed, or lost"
    if not waits["waiters"]:
        return f"SLAB_MUTEX\n  nobody waited in {waits['containers']} containers"
    rows = [
        (
            cut(row["waiter"], 26),
            cut(row["holder"], 18),
            str(row["waits"]),
            known(row["wait_ms"]),
            known(row["longest_ms"]),
        )
        for row in waits["waiters"][:_MOST_ROWS]
    ]
    left = len(waits["waiters"]) - len(rows) + waits["left_out"]
    note = f"\n  {left} more: see --json" if left else ""
    each = known(total["slab_mutex_waits_per_container"])
    head = ("waiter", "held by", "waits", "total ms", "longest ms")
    return f"SLAB_MUTEX: {each} waits per container\n" + table(head, rows) + note


def _latency(found: dict[str, Any]) -> str:
    rows = [
        (
            row["step"],
            row["broadcasts"],
            str(row["containers"]),
            *(known(row[percent]) for percent in ("p50", "p95", "p99")),
        )
        for row in found["latency_ms"]
        if row["step"] in {"create", "start"}
    ]
    head = ("step", "broadcasts in life", "containers", "p50", "p95", "p99")
    return "CREATE AND START, ms\n" + table(head, rows) if rows else ""


def _pairs(found: dict[str, Any]) -> str:
    rows = [
        (name, *(str(score.get(word, 0)) for word in ("wins", "ties", "losses")))
        for name, score in found["pairs"].items()
    ]
    head = ("figure", "more with", "equal", "more without")
    return "PAIRS OF HALVES, with a container and without\n" + table(head, rows) if rows else ""


def _evidence(found: dict[str, Any]) -> str:
    rows = [
        (name, f"{row['evidence']:.3g}", f"{row['threshold']:.3g}", "alarm" if row["alerted"] else "")
        for name, row in found["evidence"].items()
        if name in OBSERVING or row["alerted"] or not only_passive(found)
    ]
    return "EVIDENCE after the last trial\n" + table(("stream", "evidence", "threshold", ""), rows) if rows else ""


def known(figure: float | None) -> str:
    """A figure as a person reads it."""
    return "not known" if figure is None else f"{figure:.4g}" if isinstance(figure, float) else str(figure)


def _wrapped(text: str) -> list[str]:
    return wrap(text, WIDTH, subsequent_indent="  ")
