"""The plots that are not over time: waits, latency, churn against quiet, pairs, stacks. Pure."""

from typing import Any

from kickwatch.report.history_text import moment
from kickwatch.report.html.plots import GREY, SERIES, Plot, chart, colours, figure, fits, layer, shared, tooltips
from kickwatch.report.tally import CLASSES, NOT_KNOWN

_UNITS = (("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000))
_FRAME_PX = 19
_NOT_RECORDED = "Not known: the lengths of the waits were not recorded."
_CHAR_PX = 6.3
_KINDS = ("creation path", "destroying", "other", "several")


def waits(found: dict[str, Any]) -> Plot:
    """The distribution of waits for slab_mutex."""
    known = found["waits"]
    histograms = {} if known is None else {"churn": known["churn_histogram_ns"], "quiet": known["quiet_histogram_ns"]}
    width = max(map(len, histograms.values()), default=0)
    used = [i for i in range(width) if any(i < len(each) and each[i] for each in histograms.values())]
    buckets = range(used[0], used[-1] + 1) if used else ()
    bars = [
        {"bucket": _bucket(i), "order": i, "series": name, "waits": each[i] if i < len(each) else 0}
        for i in buckets
        for name, each in histograms.items()
    ]
    x = {"field": "bucket", "type": "ordinal", "title": "length of a wait", "sort": {"field": "order"}}
    x["axis"] = {"labelAngle": -40, "labelOverlap": True}
    y = {"field": "waits", "type": "quantitative", "title": "waits"}
    colour = colours(("churn", "quiet"), ("var(--alarm)", SERIES[0]))
    tips = tooltips(bucket="length", waits="waits", series="window")
    bar = layer(bars, "bar", x=x, y=y, xOffset={"field": "series"}, color=colour, tooltip=tips)
    rows = [(_bucket(i), *(figure(each[i] if i < len(each) else 0) for each in histograms.values())) for i in buckets]
    absent = (
        f"Nobody waited in {known['containers']:,} containers." if known and not known["waiters"] else _NOT_RECORDED
    )
    return Plot(
        "waits",
        "Waits for slab_mutex",
        "How long tasks waited, in windows with containers (churn) and without (quiet). slab_mutex serialises the"
        " creation of slab caches on the whole machine.",
        ("length", "churn", "quiet"),
        rows,
        chart(220, bar) if bars else None,
        "Not known: not observed, or lost." if known is None else absent,
    )


def _bucket(power: int) -> str:
    """`2.1 ms` for the bucket that begins at 2**21 ns."""
    unit, size = next((unit for unit in reversed(_UNITS) if 2**power >= unit[1]), _UNITS[0])
    return f"{2**power / size:.3g} {unit}"


def latency(found: dict[str, Any]) -> Plot:
    """Create and start by the broadcasts in a container's life."""
    steps = [row for row in found["latency_ms"] if row["step"] in {"create", "start"} and row["p50"] is not None]
    values = [row | {"life": _life(row)} for row in steps]
    order = [_life({"step": step, "broadcasts": of}) for step in ("create", "start") for of in (*CLASSES, NOT_KNOWN)]
    y = {"field": "life", "type": "nominal", "sort": order, "title": None, "axis": {"labelLimit": 200}}
    scale = {"type": "log", "nice": True}

    def x(field: str) -> dict[str, Any]:
        return {"field": field, "type": "quantitative", "title": "ms (log scale)", "scale": scale}

    colour = colours(("create", "start"), (SERIES[0], SERIES[2])) | {"field": "step"}
    tips = tooltips(life="", containers="containers", p5="p5", p25="p25", p50="p50", p75="p75", p95="p95")
    thin = layer(None, {"type": "rule", "strokeWidth": 2}, x=x("p5"), x2={"field": "p95"}, y=y, color=colour)
    thick = layer(None, {"type": "bar", "height": 13}, x=x("p25"), x2={"field": "p75"}, y=y, color=colour, tooltip=tips)
    middle = layer(None, {"type": "tick", "color": "var(--text)", "thickness": 3, "size": 17}, x=x("p50"), y=y)
    percents = ("p5", "p25", "p50", "p75", "p95", "p99")
    rows = [
        (row["step"], row["broadcasts"], figure(row["containers"]), *(figure(row[name]) for name in percents))
        for row in steps
    ]
    return Plot(
        "latency",
        "Create and start against broadcasts",
        "How long the engine took to create and to start a container, by the creation-path broadcasts that fell into"
        " its life. Thick: half of the containers; thin: nine of ten; mark: the median. Percentiles are good to 2 %.",
        ("step", "broadcasts in its life", "containers", *percents),
        rows,
        chart(40 + 30 * len({row["life"] for row in values}), thin, thick, middle, data=shared(values))
        if values
        else None,
        "Not known: no container was started.",
    )


def _life(row: dict[str, Any]) -> str:
    count = row["broadcasts"]
    return f"{row['step']}, {count} broadcasts" if count != NOT_KNOWN else f"{row['step']}, broadcasts not known"


def churn_quiet(found: dict[str, Any]) -> Plot:
    """Requests per second with containers against those without."""
    points = [
        {
            "churn": one["churn_requests_per_s"],
            "quiet": one["quiet_requests_per_s"],
            "series": one["kernel"],
            "trials": one["trials"],
            "since": moment(one["first_unix_s"]),
        }
        for one in found["bins"]
        if one["churn_requests_per_s"] is not None and one["quiet_requests_per_s"] is not None
    ]
    kernels = list(dict.fromkeys(point["series"] for point in points))[: len(SERIES)]
    scale = {"type": "symlog", "constant": 10}
    axis = {"values": [0, *(10**power for power in range(1, 9))], "labelOverlap": True}
    rate: dict[str, Any] = {"type": "quantitative", "scale": scale, "axis": axis}
    x = rate | {"field": "quiet", "title": "requests per second, quiet"}
    y = rate | {"field": "churn", "title": "requests per second, churn"}
    tips = tooltips(series="kernel", churn="churn, per s", quiet="quiet, per s", trials="trials", since="from")
    dots = layer(points, {"type": "point", "size": 45, "filled": True, "opacity": 0.75}, x=x, y=y, tooltip=tips)
    dots["encoding"] |= {"color": colours(kernels, SERIES), "shape": {"field": "series", "legend": None}}
    most = max((max(point["churn"], point["quiet"]) for point in points), default=1.0)
    ends: list[dict[str, Any]] = [{"quiet": 0, "churn": 0}, {"quiet": most, "churn": most}]
    line = layer(ends, {"type": "line", "strokeDash": [4, 3], "color": GREY}, x=x, y=y)
    width = found["bin_trials"]
    each = "a trial" if width == 1 else f"up to {width} trials in a row"
    rows = [
        (point["since"], point["series"], figure(point["churn"]), figure(point["quiet"]), figure(point["trials"]))
        for point in points
    ]
    return Plot(
        "churn-quiet",
        "Churn against quiet",
        f"Each point is {each}. On the dashed line containers make no difference; above it, they do.",
        ("from", "kernel", "churn per s", "quiet per s", "trials"),
        rows,
        chart(320, line, dots) if points else None,
        "Not known: no probe attributed requests.",
    )


def pairs(found: dict[str, Any]) -> Plot:
    """Which half of a pair had more."""
    words = {"wins": "more with", "ties": "equal", "losses": "more without"}
    names = {
        "elsewhere": "broadcasts from elsewhere",
        "other_waits": "waits off the creation path",
        "isolated": "requests to isolated CPUs",
    }
    bars = [
        {"figure": names[name], "series": text, "pairs": score.get(word, 0), "order": order}
        for name, score in found["pairs"].items()
        for order, (word, text) in enumerate(words.items())
    ]
    x = {"field": "pairs", "type": "quantitative", "stack": "zero", "title": "pairs"}
    y = {"field": "figure", "type": "nominal", "title": None, "axis": {"labelLimit": 220}}
    colour = colours(list(words.values()), ("var(--alarm)", GREY, SERIES[0]))
    tips = tooltips(figure="", series="", pairs="pairs")
    bar = layer(bars, "bar", x=x, y=y, color=colour, order={"field": "order"}, tooltip=tips)
    rows = [(names[name], *(figure(score.get(word, 0)) for word in words)) for name, score in found["pairs"].items()]
    return Plot(
        "pairs",
        "Pairs of halves",
        "A pair is one container's time and as much time without it; a coin decided which came first. Where containers"
        " make no difference, both ends of a bar are equally long.",
        ("figure", *words.values()),
        rows,
        chart(50 + 40 * len(found["pairs"]), bar) if bars else None,
        "These trials were not divided into pairs.",
    )


def icicle(found: dict[str, Any], figure_name: str) -> Plot:
    """The stacks that send, root frame on top."""
    frames = [frame | {"series": _kind(frame["of"])} for frame in found["stacks"][figure_name]]
    whole = max((frame["x1"] for frame in frames), default=1)
    values = [
        frame
        | {
            "bottom": frame["depth"] + 1,
            "amount": frame["x1"] - frame["x0"],
            "share": round((frame["x1"] - frame["x0"]) / whole, 5),
            "percent": f"{(frame['x1'] - frame['x0']) / whole:.1%}",
        }
        for frame in frames
    ]
    depth = max((frame["bottom"] for frame in values), default=1)
    x = {"field": "x0", "type": "quantitative", "axis": None, "scale": {"domain": [0, whole], "nice": False}}
    y = {
        "field": "depth",
        "type": "quantitative",
        "axis": None,
        "scale": {"domain": [0, depth], "reverse": True, "nice": False},
    }
    kinds = [f"var(--icicle-{number})" for number in range(1, 5)]
    tips = tooltips(frame="frame", amount=figure_name, percent="share", of="source/path")
    bar = {"type": "bar", "stroke": "var(--surface)", "strokeWidth": 1}
    ends = {"x2": {"field": "x1"}, "y2": {"field": "bottom"}}
    drawn = layer(None, bar, x=x, y=y, **ends, color=colours(_KINDS, kinds), tooltip=tips)
    text = {"type": "text", "clip": True, "align": "left", "baseline": "middle", "dx": 4, "dy": _FRAME_PX / 2}
    names = layer(None, text | {"color": "var(--band-text)", "fontSize": 11}, x=x, y=y, text={"field": "frame"})
    names["encoding"]["opacity"] = fits("frame", _CHAR_PX)
    rows = [
        (f"{'. ' * frame['depth']}{frame['frame']}", figure(frame["amount"]), frame["percent"], frame["of"])
        for frame in values
    ]
    return Plot(
        f"stacks-{figure_name}",
        f"Stacks that send {figure_name}",
        "The outermost caller is on top, the function that the other CPUs run is the last one, in brackets. The width"
        f" is the number of {figure_name} in windows with containers.",
        ("frame", figure_name, "share", "source/path"),
        rows,
        chart(_FRAME_PX * depth, drawn, names, data=shared(values)) if values else None,
        f"There were no {figure_name}." if found["bill"] is not None else "Not known: no probe attributed requests.",
    )


def _kind(of: str) -> str:
    """`slab/create` is the creation path."""
    origin, _, path = of.partition("/")
    if path == "create" and origin in {"slab", "memcg", "cgroup", "namespace", "percpu"}:
        return "creation path"
    return {"destroy": "destroying", "": "several"}.get(path, "other")
