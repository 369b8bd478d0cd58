"""A node as Prometheus sees it: real evidence with its own state directory, the real outlet and its server.

Only the kernel and the engine are left out: trials are recordings of real ones, and the observers see nothing.
"""

import time
from itertools import count
from pathlib import Path

from msgspec.structs import replace

import kickwatch.outlets.metrics.registry
import kickwatch.outlets.metrics.serve  # noqa: F401 -- loaded where used: a blocking read in the event loop
from beliefs import believing
from captures_as_trials import trials
from kickwatch.configuration.types import Config, MetricsConfig, StateConfig
from kickwatch.detect.state import TrialOutcome
from kickwatch.model import AlarmKind, Condition, Trial, Verdict
from kickwatch.observe.interrupts import InterruptSample
from kickwatch.observe.windows import Sample
from kickwatch.outlets import events
from kickwatch.outlets.belief import Belief
from kickwatch.outlets.metrics.outlet import PrometheusOutlet
from kickwatch.service.evidence import Evidence

RECORDED = trials()
HEALTHY = RECORDED["6.18-slub-docker: network bridge"]
FLIPS_A_KEY = RECORDED["6.18-slub-docker: memory.kmem.tcp.limit_in_bytes written in each container's memcg"]
FAULT_OF_2017 = RECORDED["4.19-slab-docker-unpatched: churn"]
_numbers = count(1)


class _NoObservers:
    contention = None
    containers = None
    passive = False
    waits_known = False

    async def sample(self) -> Sample:
        return Sample(1, InterruptSample((), {}), None, None)


class EvidenceNode:
    """Open with `await EvidenceNode.open(directory)`; give it trials; `close` it."""

    def __init__(self, evidence: Evidence, outlet: PrometheusOutlet) -> None:
        """Use `open`."""
        self.evidence, self.outlet, self.outcome = evidence, outlet, None

    outcome: TrialOutcome | None

    @classmethod
    async def open(cls, directory: Path) -> "EvidenceNode":
        """Serve on a free port, and continue with the evidence in `directory`."""
        metrics, state = MetricsConfig(listen="127.0.0.1:0"), StateConfig(directory=str(directory))
        config = replace(Config(), metrics=metrics, state=state)
        made = cls(await Evidence.open(config), PrometheusOutlet(_NoObservers()))  # type: ignore[arg-type]
        await made.outlet.start(config)
        await made.outlet.take(events.EvidenceOpened(made.evidence.figures, made.belief))
        return made

    @property
    def instance(self) -> str:
        """Host and port of the metrics."""
        assert self.outlet._server is not None
        host, port = self.outlet._server.address
        return f"{host}:{port}"

    def belief(self) -> Belief:
        """As the daemon derives it from the evidence, but for its age and the observers."""
        state = self.evidence.state
        broadcasting, quiet = AlarmKind.BROADCASTING in state.alerted, state.verdict is Verdict.QUIET
        known = Condition.BROADCASTING if broadcasting else Condition.QUIET if quiet else Condition.UNKNOWN
        return believing(
            condition=known,
            reasons=state.reasons if known is Condition.UNKNOWN else (),
            alerted=state.alerted,
            published_since_unix_s=state.published_since_unix_s,
            release=state.release,
        )

    async def trial(self, release: str, recorded: Trial) -> None:
        """A recorded trial, as if it had run now under that kernel."""
        node = replace(HEALTHY.node, kernel=release, boot_id=f"boot of {release}")
        name = f"{next(_numbers):08x}"
        one = replace(recorded, node=node, trial_id=name, started_unix_s=time.time(), concurrency=HEALTHY.concurrency)
        self.outcome = await self.evidence.take(one)
        await self.outlet.take(events.TrialTaken(one, self.outcome, (one,), 0.0, self.evidence.figures))

    async def close(self) -> None:
        """Stop serving."""
        await self.outlet.close()
        await self.evidence.close()
