"""Totals over the records of passive mode under one kernel release, apart from those of trials. Pure.

A record has no containers of ours and no quiet window: what it saw is of the whole machine, and no trial's figure.
"""

from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from kickwatch.detect.bill import share
from kickwatch.detect.figures import attributed, broadcasts_may_be_lost, known_waits
from kickwatch.detect.passive import counting_cells
from kickwatch.model import Trial
from kickwatch.report.tally import Tally


@dataclass(slots=True)
class PassiveTotals:
    """Valid records. `watched`: waits were seen in all of them.

    `own`, `others`: broadcasts of the creation path that count, as of `Look`; they and `cgroups` are of the records
    whose probe passed its control. `seen`: what the kernel sent meanwhile, for whatever reason; of the broadcasts
    those that count.
    """

    containers: int = 0
    cgroups: int = 0
    own: int = 0
    others: int = 0
    watched: bool = True
    seen: Tally = field(default_factory=Tally)

    def add(self, record: Trial) -> None:
        """Add a valid record."""
        self.seen.add(replace(record, churn=replace(record.churn, cells=counting_cells(record))), [])
        self.watched = self.watched and known_waits(record) is not None
        seen = any(look.own or look.others for look in record.looks)
        known = attributed(record) and (seen or not broadcasts_may_be_lost(record))
        for look in record.looks:
            self.containers += look.containers
            if not known:
                continue
            self.seen.attributed += look.containers
            self.cgroups += look.cgroups
            self.own += look.own
            self.others += look.others

    def figures(self, kernel: str) -> dict[str, Any]:
        """As the report has them. A broadcast of another task may be a container's: both are lower bounds."""
        known = self.seen.attributed
        return {
            "kernel": kernel,
            "records": self.seen.trials,
            "containers": self.containers,
            "cgroups_made": self.cgroups,
            "own_broadcasts": self.own if known else None,
            "own_broadcasts_per_container": share(self.own, known),
            "other_broadcasts": self.others if known else None,
            "other_broadcasts_per_cgroup": share(self.others, max(self.cgroups, known)),
            "slab_mutex_waits": sum(one.waits for one in self.seen.waiters.values()) if self.watched else None,
        }


def records_of(found: dict[str, Any]) -> int:
    """How many records of passive mode are among the trials of a report."""
    return sum(int(row["records"]) for row in found["passive"])


def only_passive(found: dict[str, Any]) -> bool:
    """True if others started all containers of a report: figures of trials would be those of nothing."""
    return bool(0 < found["total"]["trials"] == records_of(found))
