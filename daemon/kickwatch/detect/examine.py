"""What of one trial its verdict depends on, before anything that was observed earlier: trust, stratum, observations.

What a trial may change depends on why it can be trusted, never on what was seen:

- void (disturbed, or no kernel memory was charged), a probe that failed its control, one CPU: nothing but a counter;
- events lost, accounting not known: it may raise an alarm; its silence ends none and enters no record;
- without a probe: the canary's counters alone.
"""

from operator import attrgetter

import msgspec

from kickwatch.detect.observations import TrialObservations, observations_of
from kickwatch.detect.strata import Stratum, stratum_of
from kickwatch.detect.verdict import Finding, VerdictReason, doubts_of, nearly_all_failed, swept, void_reasons
from kickwatch.model import IpiRung, Trial

# Reasons for which a probe's figures are no observations at all.
_WORTHLESS = frozenset({VerdictReason.BLIND.value, VerdictReason.ONE_CPU.value})
# What is no doubt about one trial: the silence of many is added up, and one trial of failures is an accident.
_OVER_MANY = frozenset({VerdictReason.TOO_FEW_CONTAINERS.value, VerdictReason.CONTAINERS_FAILED.value})
_FAILURE = attrgetter("failure")


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """One trial as the monitor needs it; some hundred bytes of its record.

    `counters`: no probe attributes. `observed` is None where nothing was; `silence`: whether its silence is evidence;
    `failed`: nearly all containers failed.
    """

    trial: str
    boot_id: str
    started_unix_s: float
    stratum: Stratum
    counters: bool
    void: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    observed: TrialObservations | None = None
    silence: bool = False
    failed: bool = False

    @property
    def established(self) -> TrialObservations | None:
        """What the test of silence may hear: the trial looked, it can be trusted, containers lived. Else None."""
        heard = self.silence and self.observed is not None and self.observed.churned is not None
        return self.observed if heard else None


def examine(trial: Trial) -> Examined:
    """The trial on its own."""
    counters = trial.observers.ipis is IpiRung.COUNTERS
    void = tuple(void_reasons([trial]))
    doubts = () if void else tuple(doubt for doubt in doubts_of([trial]) if doubt not in _OVER_MANY)
    # Without a probe the streams that need one hear nothing: it is no doubt about the others.
    open_doubts = tuple(doubt for doubt in doubts if not (counters and doubt == VerdictReason.BLIND))
    worthless = bool(void) or not _WORTHLESS.isdisjoint(open_doubts)
    findings = [Finding.UNSETTLED.value] if trial.unsettled else []
    findings += [Finding.FAILED_CONTAINERS.value] if any(map(_FAILURE, trial.containers)) else []
    findings += [Finding.SINGLE_REQUEST_SWEEPS.value] if swept([trial]) else []
    return Examined(
        trial=trial.trial_id,
        boot_id=trial.node.boot_id,
        started_unix_s=trial.started_unix_s,
        stratum=stratum_of(trial),
        counters=counters,
        void=void,
        doubts=doubts,
        findings=tuple(findings),
        observed=None if worthless else observations_of(trial),
        silence=not open_doubts,
        failed=nearly_all_failed(trial),
    )
