"""What the verdict needs to know of one trial, whatever was observed before: trust, stratum, observations.

How far a trial can be trusted decides what it may change, and what was seen in it does not:

- void (disturbed, or no kernel memory was charged), a probe that failed its control, one CPU: only a counter;
- events lost, accounting not known: it may raise an alarm; its zeros end none and enter no record;
- without a probe: only what the canary's counters show.
"""

from operator import attrgetter

import msgspec

from kickwatch.detect.observations import TrialObservations, observations_of
from kickwatch.detect.strata import Stratum, stratum_of
from kickwatch.detect.verdict import Finding, VerdictReason, doubts_of, nearly_all_failed, swept, void_reasons
from kickwatch.model import IpiRung, Trial

# Reasons for which a probe's figures are no observations at all.
_UNUSABLE = frozenset({VerdictReason.BLIND.value, VerdictReason.ONE_CPU.value})
# Doubts about a trial without a probe, whose canary may count all the same.
_OF_COUNTERS = frozenset({VerdictReason.BLIND.value, VerdictReason.WAKEUPS_COUNTED.value})
# Doubts that do not apply to one trial among many: containers are added up, and one trial of failures is an accident.
_OVER_MANY = frozenset({VerdictReason.TOO_FEW_CONTAINERS.value, VerdictReason.CONTAINERS_FAILED.value})
_FAILURE = attrgetter("failure")


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """One trial as the monitor needs it: a few hundred bytes of its record.

    `counters`: no probe attributes. `observed` is None where nothing was observed; `complete`: nothing can have gone
    unseen, so zeros are evidence; `failed`: nearly all containers failed; `passive`: others started the containers.
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
    complete: bool = False
    failed: bool = False
    passive: bool = False

    @property
    def for_quiet(self) -> TrialObservations | None:
        """What counts as evidence for `quiet`; None unless the trial is complete and a probe attributed."""
        counts = self.complete and self.observed is not None and self.observed.churned is not None
        return self.observed if counts else None


def examine(trial: Trial) -> Examined:
    """The trial by itself."""
    counters = trial.observers.ipis is IpiRung.COUNTERS
    void = tuple(void_reasons([trial]))
    doubts = () if void else tuple(doubt for doubt in doubts_of([trial]) if doubt not in _OVER_MANY)
    # Without a probe the streams that need one observe nothing, which is no doubt about the other streams.
    open_doubts = tuple(doubt for doubt in doubts if not (counters and doubt in _OF_COUNTERS))
    unusable = bool(void) or not _UNUSABLE.isdisjoint(open_doubts)
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
        observed=None if unusable else observations_of(trial),
        complete=not open_doubts,
        failed=nearly_all_failed(trial),
        passive=bool(trial.looks),
    )
