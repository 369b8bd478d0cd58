"""All streams of a node, trial after trial: evidence, conditions, the verdict, and words for each change.

`Monitor` holds what the configuration fixes (thresholds), `State` is everything else; `step` is pure, so a replay of
the same trials from the same state gives the same verdicts, to the last bit of the evidence.

Another boot or another stratum drops all evidence. What the node costs under its strata outlives that (`comparison`),
and so do the e-processes that are published for pooling: their epochs are the same 90 days on all nodes.
"""

import msgspec
from msgspec.structs import replace

from kickwatch.detect import changes
from kickwatch.detect import track as tracks
from kickwatch.detect.classes import bpf_allowance
from kickwatch.detect.comparison import Comparer, Comparison
from kickwatch.detect.detectors import RELATIVE, detectors, shares_of
from kickwatch.detect.eprocess import EpochEProcess
from kickwatch.detect.examine import Examined, examine
from kickwatch.detect.judgement import ends_silence, evidence_of, outcome_of
from kickwatch.detect.observations import TrialObservations
from kickwatch.detect.quiet import FAILED_TRIALS, Silence, SilenceTest, remembered
from kickwatch.detect.rates import Pace, Share
from kickwatch.detect.state import Change, Figures, SilentTrials, State, TrialOutcome
from kickwatch.detect.streams import STREAMS, TIE, Stream, StreamName
from kickwatch.detect.track import Given, Track
from kickwatch.model import AlarmKind, Trial, Verdict

EPOCH_S = 90 * 86_400  # from 1970 on: epochs begin on the same day everywhere


class Monitor:
    """Steps a State; construct one per configuration."""

    def __init__(self, pace: Pace) -> None:
        """Thresholds follow from the pace: one false alarm in 1000 node-years, all streams together."""
        self.pace = pace
        self.shares: tuple[Share, ...] = shares_of(pace)
        thresholds = {share.name: share.threshold for share in self.shares}
        self.comparer = Comparer(thresholds[RELATIVE])
        self.tests = detectors(thresholds)
        self.silence = SilenceTest()
        self._epochs = {name: EpochEProcess(test.detector.wager) for name, test in self.tests.items()}

    def start(self) -> State:
        """Nothing observed."""
        return State()

    def step(self, state: State, trial: Trial) -> tuple[State, TrialOutcome]:
        """The state after one more trial, and what it says."""
        return self.judge(state, examine(trial))

    def judge(self, state: State, seen: Examined) -> tuple[State, TrialOutcome]:
        """`step` for a trial that was examined elsewhere."""
        if seen.void:
            return _voided(state, seen), TrialOutcome(trial=seen.trial, verdict=Verdict.UNKNOWN, reasons=seen.void)
        state, gone, anew = self._entered(state, seen)
        before, (state, turned) = state, self._fed(state, seen)
        state = replace(state, trials=state.trials + 1, silence=self._listened(before, state, seen))
        changed = (*gone, *changes.of_conditions(before.alerted, turned))
        outcome = outcome_of(state, seen, self.silence, changed, anew)
        looked = seen.started_unix_s if seen.established is not None else state.looked_unix_s
        return replace(
            state,
            verdict=outcome.verdict,
            reasons=outcome.reasons,
            more_containers=outcome.more_containers,
            looked_unix_s=looked,
        ), outcome

    def flush_silence(self, state: State) -> State:
        """The same state with the silent trials added to the evidence."""
        if state.silent is None:
            return state
        own, published = dict(state.tracks), dict(state.published)
        for name, zeros in state.silent.heard:
            test, process = self.tests[name], self._epochs[name]
            own[name] = tracks.silence(test, own.get(name) or tracks.start(test), zeros * state.silent.trials)
            published[name] = process.silence(published.get(name) or process.start(), state.silent.trials)
        return replace(state, tracks=own, published=published, silent=None)

    def figures(self, state: State) -> dict[str, Figures]:
        """Every stream, for metrics and `status`; empty before the first trial."""
        state, shown = self.flush_silence(state), dict[str, Figures]()
        for name, test in self.tests.items() if state.comparison else ():
            track, published = state.tracks.get(name), state.published.get(name)
            shown[name.value] = Figures(
                alerted=track is not None and track.watched.alerted,
                evidence=evidence_of(track),
                threshold=test.detector.threshold,
                e_process=self._epochs[name].published(published) if published else 1.0,
            )
        return shown

    def _entered(self, state: State, seen: Examined) -> tuple[State, tuple[Change, ...], str]:
        """The state in which the trial is judged: without evidence if boot or stratum are others than before."""
        known = state.comparison
        if known is None:
            comparison = self.comparer.enter(None, seen.stratum)
            return replace(state, boot_id=seen.boot_id, comparison=comparison), (), ""
        if known.record.stratum == seen.stratum and state.boot_id == seen.boot_id:
            return state, (), ""
        state = self.flush_silence(state)
        if known.record.stratum != seen.stratum:
            comparison = self.comparer.enter(known, seen.stratum)
            anew = seen.stratum.changes_since(known.record.stratum)
        else:
            comparison, anew = self.comparer.restart(known), "the machine was booted"
        fresh = replace(
            state, boot_id=seen.boot_id, containers=0, tracks={}, calm=True, silence=Silence(), comparison=comparison
        )
        return fresh, changes.dropped(state, anew), anew

    def _fed(self, state: State, seen: Examined) -> tuple[State, list[Change]]:
        """The state after the trial's observations, and the turns of its streams."""
        comparison, observed = state.comparison, seen.observed
        if comparison is None or observed is None:
            return state, []
        lives = 0 if seen.counters else observed.containers
        state = self._in_epoch(state, seen.started_unix_s)
        observed, comparison = self._with_bpf(comparison, seen, observed)
        silence = observed.zeros if state.calm else ()
        turned = list[Change]()
        if silence:
            state = self._silent(state, silence)
        else:
            state, turned = self._stepped(self.flush_silence(state), _Feed(seen, observed))
        if lives and seen.silence:
            comparison, risen = self.comparer.step(comparison, seen.trial, observed.cell_costs)
            turned += [changes.of_rule(comparison, rule, turn) for rule, turn in risen]
        return replace(state, comparison=comparison, containers=state.containers + lives), turned

    def _with_bpf(
        self, comparison: Comparison, seen: Examined, observed: TrialObservations
    ) -> tuple[TrialObservations, Comparison]:
        """What the stream `bpf` observes, or the record that learns what it may cost: never both from one trial."""
        cost = observed.bpf
        if cost is None:
            return observed, comparison
        allowed = bpf_allowance(seen.stratum, comparison.record.bpf)
        amounts = dict(observed.amounts)
        (each,) = amounts.pop(StreamName.BPF)
        if allowed is None:
            comparison = self.comparer.learnt(comparison, cost) if seen.silence else comparison
        else:
            amounts[StreamName.BPF] = (each / allowed,)
        return replace(observed, amounts=amounts), comparison

    def _silent(self, state: State, heard: tuple[tuple[StreamName, int], ...]) -> State:
        """The state after one more trial in which nothing was heard."""
        if state.silent is not None and state.silent.heard == heard:
            return replace(state, silent=SilentTrials(heard, state.silent.trials + 1))
        return replace(self.flush_silence(state), silent=SilentTrials(heard, 1))

    def _stepped(self, state: State, feed: "_Feed") -> tuple[State, list[Change]]:
        own, published, turned = dict(state.tracks), dict(state.published), list[Change]()
        for name, test in self.tests.items():
            stream, track = STREAMS[name], own.get(name) or tracks.start(test)
            xs = feed.heard(stream, track)
            if not xs:
                continue
            process = self._epochs[name]
            published[name] = process.step_mean(published.get(name) or process.start(), xs)
            own[name], turns = tracks.advance(test, track, feed.given(stream, xs))
            turned += [changes.of_stream(stream, turn, counters=feed.seen.counters) for turn in turns]
        calm = all(map(tracks.is_calm, own.values()))
        return replace(state, tracks=own, published=published, calm=calm), turned

    def _listened(self, before: State, state: State, seen: Examined) -> Silence:
        """What is known of silence after the trial."""
        known = replace(state.silence, failed=state.silence.failed + 1 if seen.failed else 0, void=0)
        established = seen.established
        if established is not None:
            known = remembered(known, established.elsewhere_above_quiet, established.containers)
        if ends_silence(before, state):
            return self.silence.begun_again(known)
        if established is not None and established.churned is not None:
            return self.silence.heard(known, established.churned)
        return known

    def _in_epoch(self, state: State, started_unix_s: float) -> State:
        epoch = int(started_unix_s // EPOCH_S)
        if epoch == state.epoch and state.published_since_unix_s:
            return state
        state = self.flush_silence(state)
        kept = state.published if epoch == state.epoch else {}  # of a state that did not know yet since when
        return replace(state, epoch=epoch, published=kept, published_since_unix_s=started_unix_s)


class _Feed(msgspec.Struct, frozen=True):
    """A trial's observations, dealt to the streams."""

    seen: Examined
    observed: TrialObservations

    def heard(self, stream: Stream, track: Track) -> tuple[float, ...]:
        """The observations of the stream; empty for none."""
        if not stream.coin:
            return self.observed.amounts.get(stream.name, ())
        pair = self.observed.pairs.get(stream.name)
        if pair is None or (pair[0] == pair[1] and not track.watched.alerted):
            return ()  # no toss; once there was an alarm, a tie tells that its cause may have gone
        return (1.0,) if pair[0] > pair[1] else (0.0,) if pair[0] < pair[1] else (TIE,)

    def given(self, stream: Stream, observations: tuple[float, ...]) -> Given:
        """They with what explains them."""
        longest_wait_ns = self.observed.longest_wait_ns
        return Given(self.seen.trial, observations, stream.hit_above, longest_wait_ns, self.seen.silence)


def _voided(state: State, seen: Examined) -> State:
    """The state after a void trial: two in a row, and nothing is known until one is valid. An alarm holds."""
    silence = replace(state.silence, void=state.silence.void + 1)
    state = replace(state, voids=state.voids + 1, silence=silence)
    if silence.void < FAILED_TRIALS or AlarmKind.BROADCASTING in state.alerted:
        return state
    return replace(state, verdict=Verdict.UNKNOWN, reasons=seen.void, more_containers=None)
