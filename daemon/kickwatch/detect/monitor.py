"""All streams of a node, trial after trial: evidence, conditions, the verdict, and words for each change.

`Monitor` holds what the configuration fixes (thresholds), `State` is everything else; `step` is pure, so a replay of
the same trials from the same state gives the same verdicts, to the last bit of the evidence.

What a trial may change depends on why it can be trusted, never on what was seen:

- void (disturbed, or no kernel memory was charged), a probe that failed its control, one CPU: nothing but a counter;
- events lost, accounting not known: it may raise an alarm; its silence ends none and enters no record;
- without a probe: the canary's counters alone.

Another boot or another stratum drops all evidence. What the node costs under its strata outlives that (`comparison`),
and so do the e-processes that are published for pooling: their epochs are the same 90 days on all nodes.
"""

import msgspec
from msgspec.structs import replace

from kickwatch.config import Config
from kickwatch.detect import changes
from kickwatch.detect import track as tracks
from kickwatch.detect.comparison import MOST_RULES, Comparer
from kickwatch.detect.edetector import EDetector
from kickwatch.detect.eprocess import EpochEProcess, Null, Wager
from kickwatch.detect.rates import Allowance, Pace, Share, Stream, observations_per_year, split
from kickwatch.detect.recovery import PLAIN, Ceiling, Hysteresis
from kickwatch.detect.state import Change, Figures, Outcome, State
from kickwatch.detect.strata import Stratum, stratum_of
from kickwatch.detect.streams import COUNTERS, SWAPPED, Condition, Name, Observed, allowance_of, jit_broadcasts, observe
from kickwatch.detect.swap import SwapTest
from kickwatch.detect.track import Given, Track
from kickwatch.detect.verdict import MIN_CONTAINERS, Finding, Reason, doubts_of, void_reasons
from kickwatch.model import Trial, Verdict

EPOCH_S = 90 * 86_400  # from 1970 on: epochs begin on the same day everywhere
RELATIVE = "relative"
# Reasons for which a probe's figures are no observations at all.
_WORTHLESS = frozenset({Reason.BLIND.value, Reason.ONE_CPU.value})
_REASON_OF = {
    Name.ATTRIBUTED: Reason.CREATION_PATH,
    Name.BURST: Reason.CREATION_PATH,
    Name.SIGNATURE: Reason.CREATION_PATH,
    Name.CANARY: Reason.CANARY,
}


def pace_of(config: Config) -> Pace:
    """The configuration's pace: a trial has two windows and a pause."""
    return Pace(config.workload.containers_per_trial, config.trial.interval_s + 2.0 * config.trial.window_s)


class Monitor:
    """Steps a State; construct one per configuration."""

    def __init__(self, pace: Pace) -> None:
        """Thresholds follow from the pace: one false alarm in 1000 node-years, all streams together."""
        per_year = observations_per_year(pace.period_s)
        streams = [Stream(name.value, per_year * (pace.containers if name is Name.ATTRIBUTED else 1)) for name in Name]
        self.pace = pace
        self.shares: tuple[Share, ...] = split((*streams, Stream(RELATIVE, per_year * MOST_RULES)))
        thresholds = {share.name: share.threshold for share in self.shares}
        self.comparer = Comparer(thresholds[RELATIVE])
        self._tests = {jit: _tests(thresholds, jit=jit) for jit in (False, True)}
        self._epochs = {
            id(test): EpochEProcess(test.detector.wager) for tests in self._tests.values() for test in tests.values()
        }

    def start(self) -> State:
        """Nothing observed."""
        return State()

    def tests(self, stratum: Stratum) -> dict[Name, Hysteresis]:
        """The detector of every stream under this stratum."""
        return self._tests[jit_broadcasts(stratum.arch, stratum.kernel)]

    def step(self, state: State, trial: Trial) -> tuple[State, Outcome]:
        """The state after one more trial, and what it says."""
        void = void_reasons([trial])
        if void:
            outcome = Outcome(trial=trial.trial_id, verdict=Verdict.UNKNOWN, reasons=tuple(void))
            return replace(state, voids=state.voids + 1), outcome
        state, gone, anew = self._entered(state, trial)
        doubts = tuple(doubt for doubt in doubts_of([trial]) if doubt != Reason.TOO_FEW_CONTAINERS)
        before = state.alerted
        state, turned = self._fed(state, trial, doubts)
        told = (*gone, *changes.of_conditions(before, turned))
        outcome = _judged(state, trial, doubts, told, anew)
        return replace(state, trials=state.trials + 1, verdict=outcome.verdict), outcome

    def figures(self, state: State) -> dict[str, Figures]:
        """Every stream, for metrics and `status`; empty before the first trial."""
        shown: dict[str, Figures] = {}
        for name, test in self.tests(state.comparison.record.stratum).items() if state.comparison else ():
            track, published = state.tracks.get(name), state.published.get(name)
            shown[name.value] = Figures(
                alerted=track is not None and track.watched.alerted,
                evidence=track.watched.alarm.total().capped(1e300) if track else 0.0,
                threshold=test.detector.threshold,
                e_process=self._epochs[id(test)].published(published) if published else 1.0,
            )
        return shown

    def _entered(self, state: State, trial: Trial) -> tuple[State, tuple[Change, ...], str]:
        """The state in which the trial is judged: without evidence if boot or stratum are others than before."""
        stratum, known, boot_id = stratum_of(trial), state.comparison, trial.node.boot_id
        if known is None:
            return replace(state, boot_id=boot_id, comparison=self.comparer.enter(None, stratum)), (), ""
        if known.record.stratum != stratum:
            comparison, anew = self.comparer.enter(known, stratum), stratum.changes_since(known.record.stratum)
        elif state.boot_id != boot_id:
            comparison, anew = self.comparer.restart(known), "the machine was booted"
        else:
            return state, (), ""
        fresh = replace(state, boot_id=boot_id, containers=0, tracks={}, comparison=comparison)
        return fresh, changes.dropped(state, anew), anew

    def _fed(self, state: State, trial: Trial, doubts: tuple[str, ...]) -> tuple[State, list[Change]]:
        """The state after the trial's observations, and the turns of its streams."""
        counters = trial.observers.ipis == COUNTERS
        comparison = state.comparison
        if counters:  # then the streams that need a probe hear nothing anyway
            doubts = tuple(doubt for doubt in doubts if doubt != Reason.BLIND)
        if comparison is None or _WORTHLESS.intersection(doubts):
            return state, []
        observed = observe(trial)
        lives = 0 if counters else observed.containers
        feed = _Feed(trial.trial_id, observed, recover=not doubts)
        state, turned = self._stepped(_in_epoch(state, trial), comparison.record.stratum, feed, counters=counters)
        if lives and not doubts:
            comparison, risen = self.comparer.step(comparison, trial.trial_id, observed.sweeps)
            turned += [changes.of_rule(comparison, rule, turn) for rule, turn in risen]
        return replace(state, comparison=comparison, containers=state.containers + lives), turned

    def _stepped(self, state: State, stratum: Stratum, feed: "_Feed", *, counters: bool) -> tuple[State, list[Change]]:
        own, published, turned = dict(state.tracks), dict(state.published), list[Change]()
        for name, test in self.tests(stratum).items():
            track = own.get(name) or tracks.start(test)
            xs = feed.heard(name, track)
            if not xs:
                continue
            published[name] = self._epochs[id(test)].step_mean(published.get(name), xs)
            silent = tracks.silence(test, track, xs)
            if silent:
                own[name] = silent
                continue
            own[name], turns = tracks.advance(test, track, feed.given(name, xs))
            turned += [changes.of_stream(name, test, turn, counters=counters) for turn in turns]
        return replace(state, tracks=own, published=published), turned


class _Feed(msgspec.Struct, frozen=True):
    """A trial's observations, dealt to the streams."""

    trial: str
    observed: Observed
    recover: bool

    def heard(self, name: Name, track: Track) -> tuple[float, ...]:
        """The observations of the stream; empty for none."""
        if name not in SWAPPED:
            return self.observed.means.get(name, ())
        pair = self.observed.pairs.get(name)
        if pair is None or (pair[0] == pair[1] and not track.watched.alerted):
            return ()  # no toss; once there was an alarm, a tie tells that its cause may have gone
        return (1.0,) if pair[0] > pair[1] else (0.0,) if pair[0] < pair[1] else (0.5,)

    def given(self, name: Name, observations: tuple[float, ...]) -> Given:
        """They with what explains them."""
        loud_above = 0.5 if name in SWAPPED else 0.0
        return Given(self.trial, observations, loud_above, self.observed.longest_wait_ns, self.recover)


def _tests(thresholds: dict[str, float], *, jit: bool) -> dict[Name, Hysteresis]:
    tests = {}
    for name in Name:
        if name in SWAPPED:
            tests[name] = SwapTest(thresholds[name.value]).hysteresis
        else:
            tests[name] = _test(allowance_of(name, jit=jit), thresholds[name.value])
    return tests


def _test(allowance: Allowance, threshold: float) -> Hysteresis:
    """A class that may do much has recovered when it keeps to that; the others when they are nearly silent."""
    detector = EDetector(Wager(Null(allowance.mean, allowance.clip)), threshold)
    if allowance.mean < PLAIN.mean:
        return Hysteresis(detector)
    ceiling = Ceiling(allowance.mean, allowance.clip)
    return Hysteresis(detector, ceiling, ceiling)


def _in_epoch(state: State, trial: Trial) -> State:
    epoch = int(trial.started_unix_s // EPOCH_S)
    return state if epoch == state.epoch else replace(state, epoch=epoch, published={})


def _judged(state: State, trial: Trial, doubts: tuple[str, ...], told: tuple[Change, ...], anew: str) -> Outcome:
    alerted = state.alerted
    verdict, reasons = Verdict.QUIET, tuple[str, ...]()
    if Condition.BROADCASTING in alerted:
        verdict, reasons = Verdict.BROADCASTING, _guilty(alerted[Condition.BROADCASTING], trial)
    elif doubts:
        verdict, reasons = Verdict.UNKNOWN, doubts
    elif state.containers < MIN_CONTAINERS:
        verdict, reasons = Verdict.UNKNOWN, (Reason.TOO_FEW_CONTAINERS.value,)
    findings = [condition.value for condition in alerted if condition is not Condition.BROADCASTING]
    findings += [Finding.UNSETTLED.value] if trial.unsettled else []
    findings += [Finding.FAILED_CONTAINERS.value] if any(life.failure for life in trial.containers) else []
    return Outcome(
        trial=trial.trial_id, verdict=verdict, reasons=reasons, findings=tuple(findings), changes=told, anew=anew
    )


def _guilty(streams: tuple[str, ...], trial: Trial) -> tuple[str, ...]:
    """Why the verdict is broadcasting, in the words of the one-trial verdict."""
    counters = trial.observers.ipis == COUNTERS
    reasons = [_REASON_OF[Name(stream)] for stream in streams]
    if counters:
        reasons = [Reason.CANARY_INTERRUPTS if reason is Reason.CANARY else reason for reason in reasons]
    return tuple(dict.fromkeys(reason.value for reason in reasons))
