"""Two kernel releases, histories or hosts side by side: each figure of both, and how far B is from A. Pure.

Both are the reports of `overview`; the blocks of the bootstrap are their bins.
"""

from collections.abc import Callable
from typing import Any

from kickwatch.report.intervals import RESAMPLES, SEED, Block, EffectSize, Interval, bootstrapped, effect, exact_share

SCHEMA = 1
MOST_REASONS = 8
METHOD = (
    f"Means per container, with 95 % intervals by a bootstrap of spans of consecutive trials ({RESAMPLES} resamples,"
    f" seed {SEED}). Shares of containers with exact 95 % intervals (Clopper-Pearson). P(B > A): the chance that a span"
    " of B has more than one of A, ties counted half; 0.5 where nothing differs. No correction for the number of rows:"
    " of 20 rows without any difference, about one has an interval that excludes 0."
)

Of = Callable[[dict[str, Any]], float | None]


def comparison(one: dict[str, Any], other: dict[str, Any], names: tuple[str, str]) -> dict[str, Any]:
    """One JSON object (schema 1): the contract of `kickwatch report --compare A B --json`. `names`: of A and of B."""
    rows = [
        _row(name, unit, _blocks(one, of, weight), _blocks(other, of, weight)) for name, unit, of, weight in _FIGURES
    ]
    reasons = _reasons(one, other)
    rows += [
        _row(
            f"requests: {reason}",
            "per container",
            *(_blocks(each, _requests(reason), "attributed_containers") for each in (one, other)),
        )
        for reason in reasons
    ]
    return {
        "schema": SCHEMA,
        "a": _side(one, names[0]),
        "b": _side(other, names[1]),
        "method": METHOD,
        "rows": [row for row in rows if row["a"]["value"] is not None or row["b"]["value"] is not None],
        "shares": [_share(one, other)],
    }


def _total(one: dict[str, Any]) -> float | None:
    each = one["requests_per_container"]
    return None if each is None else sum(amount or 0.0 for amount in each.values())


_FIGURES: tuple[tuple[str, str, Of, str], ...] = (
    (
        "creation-path broadcasts",
        "per container",
        lambda one: one["creation_path_broadcasts_per_container"],
        "attributed_containers",
    ),
    ("other broadcasts", "per container", lambda one: one["other_broadcasts_per_container"], "attributed_containers"),
    ("requests", "per container", _total, "attributed_containers"),
    ("slab_mutex waits", "per container", lambda one: one["slab_mutex_waits_per_container"], "watched_containers"),
    (
        "slab_mutex waiting, ms",
        "ms per container",
        lambda one: one["slab_mutex_wait_ms_per_container"],
        "watched_containers",
    ),
    ("create, ms", "ms", lambda one: one["create_ms"], "containers"),
    ("start, ms", "ms", lambda one: one["start_ms"], "containers"),
)


def _requests(reason: str) -> Of:
    def of(one: dict[str, Any]) -> float | None:
        each = one["requests_per_container"]
        return None if each is None else each.get(reason) or 0.0

    return of


def _blocks(found: dict[str, Any], of: Of, weight: str) -> list[Block]:
    return [
        Block(each * one[weight], one[weight]) for one in found["bins"] if one[weight] and (each := of(one)) is not None
    ]


def _reasons(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The functions with most requests on either side."""
    most: dict[str, float] = {}
    for found in (one, other):
        for row in found["bill"] or ():
            most[row["reason"]] = max(most.get(row["reason"], 0.0), row["requests_per_container"])
    return sorted(most, key=lambda reason: (-most[reason], reason))[:MOST_REASONS]


def _row(name: str, unit: str, one: list[Block], other: list[Block]) -> dict[str, Any]:
    found: EffectSize = effect(one, other)
    return {
        "figure": name,
        "unit": unit,
        "a": _shown(bootstrapped(one)),
        "b": _shown(bootstrapped(other)),
        "difference": _shown(found.difference),
        "ratio": _shown(found.ratio),
        "superiority": None if found.superiority is None else round(found.superiority, 3),
        "differs": _differs(found.difference),
    }


def _differs(difference: Interval) -> bool | None:
    """Whether the interval excludes 0; None where there is no interval."""
    if difference.low is None or difference.high is None:
        return None
    return not difference.low <= 0.0 <= difference.high


def _share(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    sides = {}
    for side, found in (("a", one), ("b", other)):
        hits, of = found["total"]["containers_with_broadcasts"], found["total"]["containers_known"]
        sides[side] = _shown(exact_share(hits or 0, of)) | {"hits": hits, "of": of}
    apart = [
        sides[x]["low"] > sides[y]["high"]
        for x, y in (("a", "b"), ("b", "a"))
        if sides[x]["low"] is not None and sides[y]["high"] is not None
    ]
    return {"figure": "containers with a creation-path broadcast", **sides, "differs": any(apart) if apart else None}


def _shown(interval: Interval) -> dict[str, float | None]:
    return {name: None if value is None else float(f"{value:.5g}") for name, value in interval._asdict().items()}


def _side(found: dict[str, Any], name: str) -> dict[str, Any]:
    total = found["total"]
    return {
        "name": name,
        "verdict": found["verdict"],
        "kernels": [row["kernel"] for row in found["kernels"]],
        "nodes": found["nodes"],
        "trials": total["trials"],
        "void_trials": total["void_trials"],
        "containers": total["containers"],
        "first_unix_s": found["first_unix_s"],
        "last_unix_s": found["last_unix_s"],
        "spans": len(found["bins"]),
    }
