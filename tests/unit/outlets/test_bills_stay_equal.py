"""The four bills (journal summary, metrics, `trial --json`, passive mode) over fixed trials, as they were recorded.

After an intended change write the recording again: `PYTHONPATH=daemon:tests/support python -P THIS_FILE`.
"""

import asyncio
import json
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from builders import TLB, containers, kick, trial, window
from captures_as_trials import trials as captured
from fake_others import ObservedOthers
from kickwatch.configuration.types import Config, ServiceConfig
from kickwatch.detect.figures import merge_cells
from kickwatch.detect.state import TrialOutcome
from kickwatch.experiment.passive import Passive
from kickwatch.model import Cell, Origin, Trial, Verdict
from kickwatch.model import Path as CellPath
from kickwatch.outlets.bill import Bill
from kickwatch.outlets.metrics.bill import bill_of
from kickwatch.report.summary import bill

RECORDING = Path(__file__).parents[2] / "fixtures" / "bills.json"
NAMES = ("do_nothing", "do_sync_core", "flush_tlb_func", "rcu_exp_handler", "ipi_mb", "unnamed_a", "unnamed_b")
ORIGINS = [origin for origin in Origin if origin is not Origin.FREEZER]  # those of the recording
CAPTURES = ("4.19-slab-docker-unpatched: churn", "6.18-slub-docker: network bridge")


def made_up(seed: int, count: int) -> Trial:
    """Many cells, some in one window only, of windows that are not of the same length; reasons without a name too."""
    chance = Random(seed)  # noqa: S311 -- the same trial at every run

    def cells() -> tuple[Cell, ...]:
        found = []
        for index in range(24):
            requests = chance.randrange(1, 5000)
            broadcasts = chance.choice((0, 0, 0, chance.randrange(1, 60)))
            reason = chance.choice(NAMES)
            found.append(
                Cell(
                    reason=reason,
                    func=f"{reason}{index % 2}",
                    origin=chance.choice(ORIGINS),
                    path=chance.choice(list(CellPath)),
                    requests=requests,
                    calls=broadcasts,
                    broadcasts=broadcasts,
                    under_slab_mutex=chance.randrange(requests),
                )
            )
        return merge_cells(found)

    shared = cells()
    quiet = (*(replace(cell, requests=1 + cell.requests // 3) for cell in shared[::2]), *cells()[:6])
    return trial(
        churn=window("churn", *shared, kick(11), TLB, duration_ns=13_370_000_000),
        quiet=window("quiet", *merge_cells(quiet), duration_ns=13_100_000_000),
        containers=containers(count, failed=2),
    )


def examined() -> dict[str, Trial]:
    captures = captured()
    return {name: captures[name] for name in CAPTURES} | {
        "made up, 7 containers": made_up(1, 7),
        "made up, 23 containers": made_up(2, 23),
        "no container counts": made_up(3, 0),
    }


def journal(*trials: Trial) -> Any:
    hour = Bill()
    for each in trials:
        hour.add(each, TrialOutcome(trial=each.trial_id, verdict=Verdict.QUIET))
    return hour.take(3600)["bill"]


def metrics(one: Trial) -> Any:
    costs = bill_of(one)
    return None if costs is None else [[*cell, *cost] for cell, cost in costs.items()]


def report(one: Trial) -> Any:
    """Without keys that the recorded reports do not have: the stack, and requests to isolated CPUs (there are none)."""
    rows = bill(one) or []
    assert {row["isolated"] for row in rows} <= {None}
    return [{key: value for key, value in row.items() if key not in {"stack", "isolated"}} for row in rows]


async def passive(one: Trial) -> Any:
    """All of the window is the containers', except what interrupts sent."""
    config = replace(Config(), service=ServiceConfig(summary_period_s=1.0))
    observed = ObservedOthers(one.churn)
    armed: Any = SimpleNamespace(observatory=observed, control=SimpleNamespace(passed=True))
    watched = Passive(config, armed, lambda _: None)
    await watched.look()  # counts from now on
    observed.probe.started["docker"] = len(one.containers)
    await watched.look()
    await watched.aclose()
    fields = watched.summary_if_due(1.0)
    assert fields is not None
    return fields["bill"]


async def rendered() -> dict[str, Any]:
    """All four of each trial, and the journal's over all of them; through JSON, as they are published."""
    trials = examined()
    found: dict[str, Any] = {"journal, all of them": journal(*trials.values())}
    for name, one in trials.items():
        found[name] = {
            "journal": journal(one),
            "metrics": metrics(one),
            "report": report(one),
            "passive": await passive(one),
        }
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


async def test_they_are_as_recorded_to_the_last_digit() -> None:
    recorded = json.loads(await asyncio.to_thread(RECORDING.read_text, encoding="utf-8"))
    now = await rendered()
    assert now.keys() == recorded.keys()
    for name, bills in recorded.items():
        assert now[name] == bills, name


if __name__ == "__main__":
    RECORDING.write_text(json.dumps(asyncio.run(rendered()), indent=0) + "\n", encoding="utf-8")
