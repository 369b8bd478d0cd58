"""The study as JSON and as text."""

from collections.abc import Iterable, Sequence

import msgspec

from kickwatch.detect.simulate.study import DelayResult, NullResult, SimulationResult


def to_json(result: SimulationResult) -> str:
    """Nulls (run lengths in observations, of pairs in trials) and effects (delays in containers, at threshold 5.3e8).

    Delays by pairs are those of `kickwatch trial`, and of the daemon by default.
    """
    nulls = [
        {"name": n.name, "threshold": n.threshold, "arl_bound": n.arl_bound, "arl_lower95": n.arl_lower95}
        for n in (*result.nulls, *result.pair_nulls)
    ]
    effects = [
        {
            "broadcasts_per_container": e.effect.broadcasts_per_container,
            "allowance": e.effect.allowance.mean,
            "law": e.effect.law,
            "median": e.delay.median,
            "p95": e.delay.p95,
        }
        for e in result.effects
    ]
    quiet = [
        {"name": q.name, "start_median": q.start and q.start.median, "unknown_share": q.unknown_mean}
        for q in result.quiet_node
    ]
    pairs = [
        {
            "broadcasts_per_container": p.effect.broadcasts_per_container,
            "background": p.effect.background,
            "law": p.effect.law,
            "one_run": p.effect.one_run,
            "allowed": p.effect.allowed,
            "median": p.delay.median,
            "p95": p.delay.p95,
        }
        for p in result.pair_delays
    ]
    return msgspec.json.encode({"nulls": nulls, "effects": effects, "quiet": quiet, "pairs": pairs}).decode()


def to_text(result: SimulationResult) -> str:
    """Tables for people."""
    parts = [
        _nulls(
            "False alarms: mean run length in observations, at least the threshold by proof (runs end at 8 thresholds)",
            result.nulls,
        ),
        _nulls("Pairs of halves: mean run length in trials, at least the threshold by proof", result.pair_nulls),
        _nulls("Outside the promise (the mean given the past exceeds the allowance): measured only", result.outside),
        _delays("Delay in containers at threshold 5.3e8", (e.delay for e in result.effects)),
        _delays("The same without clipping", (e.delay for e in result.without_clip)),
        _delays("Delay of the other tests, in observations at threshold 5.3e8", result.others),
        _delays("Delay in containers by pairs of halves, of one run and of the daemon by default", _pairs(result)),
        _delays("Recovery: healthy containers after the fault", result.recoveries),
        _errors(result),
        _steady(result),
        _quiet(result),
    ]
    return "\n\n".join(part for part in parts if part)


def _table(title: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(r, widths, strict=True)))
        for r in [head, *rows]
    ]
    return "\n".join([title, *(line.rstrip() for line in lines)])


def _nulls(title: str, results: Iterable[NullResult]) -> str:
    rows = [
        (
            n.name,
            f"{n.threshold:.3g}",
            f"{n.arl_mean:.3g}",
            f"{n.arl_lower95:.3g}",
            f"{n.arl_lower95 / n.arl_bound:.2f}",
            str(n.runs),
            n.method,
        )
        for n in results
    ]
    return _table(title, ("", "threshold", "mean", "lower 95 %", "of bound", "samples", "method"), rows)


def _delays(title: str, results: Iterable[DelayResult]) -> str:
    rows = [
        (
            d.name,
            str(d.median),
            "{}..{}".format(*d.median_bounds),
            str(d.p95),
            "{}..{}".format(*d.p95_bounds),
            str(d.runs),
        )
        for d in results
    ]
    return _table(title, ("", "median", "95 %", "p95", "95 %", "runs"), rows)


def _pairs(result: SimulationResult) -> Iterable[DelayResult]:
    return (p.delay for p in result.pair_delays)


def _errors(result: SimulationResult) -> str:
    rows = [(e.name, f"{e.bound:.1e}", f"{e.estimate:.1e}", f"{e.upper95:.1e}") for e in result.errors]
    return _table("Wrong verdicts of one `kickwatch trial`", ("", "bound", "probability", "upper 95 %"), rows)


def _steady(result: SimulationResult) -> str:
    rows = [
        (f"{s.mean:g} per container", f"{s.changes_mean:.1f}", str(s.changes_max), str(s.runs)) for s in result.steady
    ]
    return _table("Changes of the alarm in 50000 containers under a constant mean", ("", "mean", "most", "runs"), rows)


def _quiet(result: SimulationResult) -> str:
    rows = [
        (
            q.name,
            str(q.start.median) if q.start else "",
            str(q.start.p95) if q.start else "",
            f"{100 * q.unknown_mean:.2f} %",
            f"{100 * q.unknown_upper95:.2f} %",
        )
        for q in result.quiet_node
    ]
    title = "`quiet` of a healthy node: containers until it is established; share of time `unknown` afterwards"
    return _table(title, ("", "median", "p95", "unknown", "upper 95 %"), rows)
