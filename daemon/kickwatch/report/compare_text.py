"""A comparison as text of at most 80 columns. Pure."""

from textwrap import wrap
from typing import Any

from kickwatch.report.history_text import WIDTH, cut, moment
from kickwatch.report.tables import table


def comparison_text(found: dict[str, Any]) -> str:
    """`found`: from `compare.comparison`."""
    lines = [_side(side.upper(), found[side]) for side in ("a", "b")]
    rows = [
        (
            cut(row["figure"].replace("requests: ", "- "), 26),
            number(row["a"]["value"]),
            number(row["b"]["value"]),
            with_interval(row["difference"]),
            "?" if row["superiority"] is None else f"{row['superiority']:.2f}",
            mark(row["differs"]),
        )
        for row in found["rows"]
    ]
    head = ("per container, or ms", "A", "B", "B - A (95 %)", "P(B>A)", "")
    share = found["shares"][0]
    shares = [f"{share['figure']}:"]
    shares += [f"  {side.upper()}: {_share(share[side])}" for side in ("a", "b")]
    shares += [f"  {'the intervals do not overlap: they differ'}"] if share["differs"] else []
    method = wrap(f"* the interval excludes 0; ? no interval, fewer than 10 spans. {found['method']}", WIDTH)
    return "\n".join([*lines, "", table(head, rows), "", *shares, "", *method])


def number(value: float | None) -> str:
    """A figure in a narrow column."""
    return "not known" if value is None else f"{value:.4g}"


def with_interval(interval: dict[str, float | None]) -> str:
    """`+4.1 [3.2, 5.0]`."""
    if interval["value"] is None:
        return "not known"
    if interval["low"] is None or interval["high"] is None:
        return f"{interval['value']:+.3g}"
    return f"{interval['value']:+.3g} [{interval['low']:.3g}, {interval['high']:.3g}]"


def mark(differs: bool | None) -> str:
    """A star where the interval excludes 0."""
    return "?" if differs is None else "*" if differs else ""


def _share(side: dict[str, Any]) -> str:
    if side["value"] is None:
        return "not known"
    return f"{side['hits']} of {side['of']}, {side['value']:.2%} [{side['low']:.2%}, {side['high']:.2%}]"


def _side(letter: str, side: dict[str, Any]) -> str:
    text = f"{letter}: {side['name']}: {side['verdict']}; {side['trials']} trials, {side['containers']} containers"
    if side["first_unix_s"] is not None:
        text += f", {moment(side['first_unix_s'])} to {moment(side['last_unix_s'])} UTC"
    node = side["nodes"][-1] if side["nodes"] else None
    if node is not None:
        text += f"; Linux {node['kernel']}, {node['cpus_online']} CPUs, {node['engine']}, cgroup {node['cgroup']}"
    return "\n".join(wrap(text, WIDTH, subsequent_indent="   "))
