"""The plots over time: timeline, broadcasts, requests by reason, evidence. Pure."""

from collections import Counter
from itertools import pairwise
from math import log10
from typing import Any

from kickwatch.report.history_text import moment
from kickwatch.report.html.plots import (
    SERIES,
    SINCE,
    Plot,
    chart,
    colours,
    figure,
    fits,
    kernel_rules,
    layer,
    shared,
    shown_ends,
    time_axis,
    tooltips,
)

MOST_REASONS = 7
MOST_STREAMS = 6
OTHER = "all others"
_SPANS = ("verdict", "kernel", "engine", "boot")
_ROWS = (*_SPANS, "guard", "no trials")
_TONES = ("quiet", "broadcasting", "unknown", "one", "two", "gap")
_FLOOR, _CEILING = -10.0, 3.0  # powers of ten of evidence over threshold


def timeline(found: dict[str, Any]) -> Plot:
    """Verdicts, kernels, engines, boots, and times without trials, as bands."""
    bands = _bands(found)
    x = time_axis()
    y = {
        "field": "row",
        "type": "nominal",
        "sort": list(_ROWS),
        "title": None,
        "axis": {"domain": False, "ticks": False},
    }
    tones = {
        "field": "tone",
        "type": "nominal",
        "scale": {"domain": list(_TONES), "range": [f"var(--band-{tone})" for tone in _TONES]},
        "legend": None,
    }
    tips = tooltips(row="band", label="value", since="from", until="to", trials="trials")
    text = {"type": "text", "clip": True, "align": "left", "dx": 5, "color": "var(--band-text)", "fontSize": 12}
    labels = layer(None, text, x=x, y=y, text={"field": "label"}, opacity=fits("label", 6.6))
    bar = {"type": "bar", "height": {"band": 0.8}, "stroke": "var(--surface)", "strokeWidth": 1}
    drawn = layer(None, bar, x=x, x2={"field": "to"}, y=y, color=tones, tooltip=tips)
    spec = chart(190 if found["pauses"] is None else 225, drawn, labels, *kernel_rules(found)[:1], data=shared(bands))
    rows = [(band["row"], band["label"], band["since"], band["until"], figure(band["trials"])) for band in bands]
    return Plot(
        "timeline",
        "Timeline",
        "Each band is a span of trials. A history does not store why no trials ran: the guard paused them, the daemon"
        " was stopped, or the machine was off. "
        + ("" if found["pauses"] is None else "The pauses of the guard are from the daemon's log."),
        ("band", "value", "first trial", "last trial", "trials"),
        rows,
        spec,
    )


def _bands(found: dict[str, Any]) -> list[dict[str, Any]]:
    whole = max(1.0, found["last_unix_s"] - found["first_unix_s"])
    bands = []
    gaps = {gap["first_unix_s"] for gap in found["gaps"]}
    for row in _SPANS:
        spans = found["spans"][row]
        for number, (span, after) in enumerate(pairwise([*spans, None])):
            end = span["last_unix_s"]
            if after is not None and end not in gaps:
                end = max(end, after["first_unix_s"])
            tone = span["value"] if row == "verdict" else ("one", "two")[number % 2]
            label = f"boot {number + 1}" if row == "boot" else span["value"] or "not known"
            bands.append(_band(row, label, tone, (span["first_unix_s"], end), whole) | {"trials": span["trials"]})
    for pause in found["pauses"] or ():
        span = (pause["first_unix_s"], pause["last_unix_s"] or found["last_unix_s"])
        label = f"paused: {', '.join(pause['reasons'])}" if pause["reasons"] else "paused"
        bands.append(_band("guard", label, "unknown", span, whole) | {"trials": 0})
    for gap in found["gaps"]:
        why = "why is not known" if gap["why"] == "not known" else gap["why"]
        bands.append(_band("no trials", why, "gap", (gap["first_unix_s"], gap["last_unix_s"]), whole) | {"trials": 0})
    return bands


def _band(row: str, label: str, tone: str, span: tuple[float, float], whole: float) -> dict[str, Any]:
    return {
        "row": row,
        "label": label,
        "tone": tone,
        "from": span[0] * 1000.0,
        "to": span[1] * 1000.0,
        "since": moment(span[0]),
        "until": moment(span[1]),
        "share": round((span[1] - span[0]) / whole, 5),
    }


def broadcasts(found: dict[str, Any]) -> Plot:
    """Broadcasts per container, creation path against the rest."""
    names = {"creation_path_broadcasts_per_container": "creation path", "other_broadcasts_per_container": "elsewhere"}
    bars, rows = [], []
    for one, end in zip(found["bins"], shown_ends(found), strict=True):
        low = 0.0
        for key, name in names.items():
            if one[key] is not None:
                bars.append(_bar(one, end, name, one[key], low))
                low += one[key]
        rows.append(
            (moment(one["first_unix_s"]), one["kernel"], one["containers"], *(figure(one[key]) for key in names))
        )
    colour = colours(list(names.values()), ("var(--alarm)", SERIES[0]))
    return Plot(
        "broadcasts",
        "Broadcasts per container",
        "A broadcast interrupts nearly every other CPU at once. A healthy kernel makes none on the creation path;"
        " some kernels make a few elsewhere.",
        ("from", "kernel", "containers", "creation path", "elsewhere"),
        rows,
        _bars(found, bars, colour, "broadcasts per container") if bars else None,
        "Not known: no probe attributed requests.",
    )


def requests(found: dict[str, Any]) -> Plot:
    """Requests per container by reason."""
    known = [one for one in found["bins"] if one["requests_per_container"] is not None]
    total: Counter[str] = Counter()
    for one in known:
        for reason, each in one["requests_per_container"].items():
            total[reason] += max(0.0, each or 0.0) * one["containers"]
    top = [reason for reason, _ in total.most_common(MOST_REASONS)]
    names = [*top, OTHER] if len(total) > len(top) else top
    bars, rows = [], []
    for one, end in zip(found["bins"], shown_ends(found), strict=True):
        if one["requests_per_container"] is None:
            continue
        amounts = _by_name(one["requests_per_container"], names)
        low = 0.0
        for name, each in amounts.items():
            if each > 0.0:
                bars.append(_bar(one, end, name, each, low))
                low += each
        rows.append((moment(one["first_unix_s"]), one["kernel"], *(figure(amounts[name], 1) for name in names)))
    return Plot(
        "requests",
        "IPI requests per container, by function",
        "Requests of the windows with containers beyond the rate of those without. Most are ordinary: wakeups, TLB"
        " shootdowns, RCU. The table has slightly negative figures where noise made them so; the plot leaves them out.",
        ("from", "kernel", *names),
        rows,
        _bars(found, bars, colours(names, SERIES), "requests per container", 260) if bars else None,
        "Not known: no probe attributed requests.",
    )


def _by_name(amounts: dict[str, float | None], names: list[str]) -> dict[str, float]:
    found = dict.fromkeys(names, 0.0)
    for reason, each in amounts.items():
        name = reason if reason in found else OTHER
        found[name] += each or 0.0
    return {name: round(each, 3) for name, each in found.items()}


def _bar(one: dict[str, Any], end: float, name: str, each: float, low: float) -> dict[str, Any]:
    return {
        "from": one["first_unix_s"] * 1000.0,
        "to": end,
        "series": name,
        "low": round(low, 3),
        "high": round(low + each, 3),
        "each": each,
        "trials": one["trials"],
    }


def _bars(
    found: dict[str, Any], bars: list[dict[str, Any]], colour: dict[str, Any], title: str, height: int = 220
) -> dict[str, Any]:
    tips = [*tooltips(series="function", each=title, trials="trials"), SINCE]
    y = {"field": "low", "type": "quantitative", "title": title}
    bar = layer(bars, "bar", x=time_axis(), x2={"field": "to"}, y=y, y2={"field": "high"}, color=colour, tooltip=tips)
    return chart(height, bar, *kernel_rules(found))


def evidence(found: dict[str, Any]) -> Plot:
    """Evidence over threshold, in powers of ten."""
    thresholds = {name: row["threshold"] for name, row in found["evidence"].items()}
    highest = {
        name: max((one["evidence"].get(name, 0.0) for one in found["bins"]), default=0.0) / threshold
        for name, threshold in thresholds.items()
    }
    names = [name for name in sorted(highest, key=lambda name: -highest[name]) if highest[name] > 0.0][:MOST_STREAMS]
    points = [
        {
            "from": one["last_unix_s"] * 1000.0,
            "series": name,
            "power": _power(one["evidence"][name], thresholds[name]),
            "evidence": one["evidence"][name],
            "threshold": thresholds[name],
            "run": run,
        }
        for one, run in zip(found["bins"], _runs(found), strict=True)
        for name in names
        if name in one["evidence"]
    ]
    y = {
        "field": "power",
        "type": "quantitative",
        "title": "evidence / threshold, power of ten",
        "scale": {"domain": [_FLOOR, _CEILING]},
    }
    tips = [*tooltips(series="stream", evidence="evidence", threshold="threshold"), SINCE]
    line = {"type": "line", "interpolate": "step-after", "strokeWidth": 2, "clip": True}
    run = {"field": "run", "type": "nominal"}
    lines = layer(None, line, x=time_axis(), y=y, color=colours(names, SERIES), detail=run)
    dots = layer(None, {"type": "point", "filled": True, "size": 14}, x=time_axis(), y=y, tooltip=tips)
    dots["encoding"]["color"] = colours(names, SERIES)
    limit = [{"power": 0, "label": "threshold: above it, an alarm"}]
    rule = layer(limit, {"type": "rule", "color": "var(--alarm)", "strokeWidth": 2, "strokeDash": [6, 3]}, y=y)
    text = {"type": "text", "align": "left", "dx": 4, "dy": -7, "x": 0, "color": "var(--alarm-text)"}
    label = layer(limit, text, y=y, text={"field": "label"})
    heads = [f"{name} ({thresholds[name]:.3g})" for name in names]
    rows = [
        (
            moment(one["last_unix_s"]),
            *(f"{one['evidence'][name]:.3g}" if name in one["evidence"] else "" for name in names),
        )
        for one in found["bins"]
    ]
    return Plot(
        "evidence",
        "Evidence against threshold",
        "An e-value for each stream: how strongly the trials speak against a healthy kernel. At its threshold a stream"
        " raises an alarm. A reboot or another kernel drops all evidence. The plot ends at the powers"
        f" {_FLOOR:.0f} and {_CEILING:.0f}.",
        ("at", *heads),
        rows,
        chart(260, lines, dots, rule, label, *kernel_rules(found), data=shared(points)) if points else None,
        "No trial gave evidence.",
    )


def _runs(found: dict[str, Any]) -> list[int]:
    """For each bin a number that rises where the kernel changes or trials paused: a line ends there."""
    gaps = {gap["first_unix_s"] for gap in found["gaps"]}
    runs, before = [0], None
    for one in found["bins"]:
        if before is not None:
            parted = before["kernel"] != one["kernel"] or before["last_unix_s"] in gaps
            runs.append(runs[-1] + parted)
        before = one
    return runs[: len(found["bins"])]


def _power(evidence_of: float, threshold: float) -> float:
    return round(min(_CEILING, max(_FLOOR, log10(evidence_of / threshold))), 3) if evidence_of > 0.0 else _FLOOR
