"""All streams of a node, trial after trial: evidence, alarms, the verdict, and a sentence for each change.

`Monitor` holds what the configuration fixes (thresholds), `State` holds everything else. `step` is pure: a replay of
the same trials from the same state gives the same verdicts, to the last bit of the evidence.

Another boot or another stratum drops all evidence. What the node costs under each stratum is kept (`comparison`), and
so are the e-processes that are published for pooling, whose epochs are the same 90 days on all nodes. Only another
kernel release begins them again, because a fleet pools them by release.
"""

import msgspec
from msgspec.structs import replace

from kickwatch.detect import changes
from kickwatch.detect import track as tracks
from kickwatch.detect.classes import bpf_allowance
from kickwatch.detect.comparison import Comparer, Comparison
from kickwatch.detect.detectors import RELATIVE, detectors, shares_of
from kickwatch.detect.examine import Examined, examine
from kickwatch.detect.judgement import ends_quiet, evidence_of, outcome_of
from kickwatch.detect.observations import TrialObservations
from kickwatch.detect.quiet import FAILED_TRIALS, QuietEvidence, QuietTest, with_recent
from kickwatch.detect.rates import Pace, Share
from kickwatch.detect.sentences import Beside
from kickwatch.detect.state import Change, State, StreamFigures, TrialOutcome, ZeroTrials
from kickwatch.detect.streams import STREAMS, TIE, Stream, StreamName
from kickwatch.detect.track import Given, Track
from kickwatch.detect.unfounded import without_wakeups
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
        self.quiet_test = QuietTest()
        self._epochs = {name: test.since_epoch() for name, test in self.tests.items()}

    def start(self) -> State:
        """Nothing observed."""
        return State()

    def step(self, state: State, trial: Trial) -> tuple[State, TrialOutcome]:
        """The state after one more trial, and what the trial says."""
        return self.judge(state, examine(trial))

    def judge(self, state: State, seen: Examined) -> tuple[State, TrialOutcome]:
        """`step` for a trial that was examined elsewhere."""
        if seen.void:
            return _voided(state, seen), TrialOutcome(trial=seen.trial, verdict=Verdict.UNKNOWN, reasons=seen.void)
        state, dropped, restart_reason = self._entered(state, seen)
        state, unfounded = without_wakeups(state, seen)
        before, (state, turned) = state, self._observed(state, seen)
        state = replace(state, trials=state.trials + 1, quiet=self._quiet_after(before, state, seen))
        changed = (*dropped, *unfounded, *changes.of_alarms(before.alerted, turned))
        outcome = outcome_of(state, seen, self.quiet_test, changed, restart_reason)
        looked = seen.started_unix_s if seen.for_quiet is not None else state.looked_unix_s
        return replace(
            state,
            verdict=outcome.verdict,
            reasons=outcome.reasons,
            more_containers=outcome.more_containers,
            looked_unix_s=looked,
        ), outcome

    def flush_zeros(self, state: State) -> State:
        """The same state with the counted zeros added to the evidence."""
        if state.zeros is None:
            return state
        own, published = dict(state.tracks), dict(state.published)
        for name, count in state.zeros.counts:
            test, process = self.tests[name], self._epochs[name]
            trials = state.zeros.trials
            own[name] = tracks.step_zeros(test, own.get(name) or tracks.start(test), count, trials)
            published[name] = process.step_zeros(published.get(name) or process.start(), trials, count)
        return replace(state, tracks=own, published=published, zeros=None)

    def figures(self, state: State) -> dict[str, StreamFigures]:
        """Every stream, for metrics and `status`; empty before the first trial."""
        state, shown = self.flush_zeros(state), dict[str, StreamFigures]()
        for name, test in self.tests.items() if state.comparison else ():
            track, published = state.tracks.get(name), state.published.get(name)
            shown[name.value] = StreamFigures(
                alerted=track is not None and track.watched.alerted,
                evidence=evidence_of(track),
                threshold=test.detector.threshold,
                e_process=self._epochs[name].published(published) if published else 1.0,
            )
        return shown

    def _entered(self, state: State, seen: Examined) -> tuple[State, tuple[Change, ...], str]:
        """The state in which the trial is judged: without evidence if the boot or the stratum changed, and why."""
        known = state.comparison
        if known is None:
            comparison = self.comparer.enter(None, seen.stratum)
            return replace(state, boot_id=seen.boot_id, comparison=comparison), (), ""
        if known.record.stratum == seen.stratum and state.boot_id == seen.boot_id:
            return state, (), ""
        state = self.flush_zeros(state)
        if known.record.stratum != seen.stratum:
            comparison = self.comparer.enter(known, seen.stratum)
            reason = seen.stratum.changes_since(known.record.stratum)
        else:
            comparison, reason = self.comparer.restart(known), "the machine was booted"
        if known.record.stratum.kernel != seen.stratum.kernel:
            state = replace(state, published={}, published_since_unix_s=0.0)
        fresh = replace(
            state,
            boot_id=seen.boot_id,
            containers=0,
            tracks={},
            calm=True,
            quiet=QuietEvidence(),
            comparison=comparison,
        )
        return fresh, changes.dropped(state, reason), reason

    def _observed(self, state: State, seen: Examined) -> tuple[State, list[Change]]:
        """The state after the trial's observations, and the turns of its streams."""
        comparison, observed = state.comparison, seen.observed
        if comparison is None or observed is None:
            return state, []
        lives = 0 if seen.counters else observed.containers
        state = self._in_epoch(state, seen.started_unix_s)
        observed, comparison = self._with_bpf(comparison, seen, observed)
        zeros = observed.zeros if state.calm else ()
        turned = list[Change]()
        if zeros:
            state = self._with_zeros(state, zeros)
        else:
            state, turned = self._stepped(self.flush_zeros(state), _Feed(seen, observed))
        if lives and seen.complete:
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
            comparison = self.comparer.with_bpf_cost(comparison, cost) if seen.complete else comparison
        else:
            amounts[StreamName.BPF] = (each / allowed,)
        return replace(observed, amounts=amounts), comparison

    def _with_zeros(self, state: State, counts: tuple[tuple[StreamName, int], ...]) -> State:
        """The state after one more trial in which every observation was zero."""
        if state.zeros is not None and state.zeros.counts == counts:
            return replace(state, zeros=ZeroTrials(counts, state.zeros.trials + 1))
        return replace(self.flush_zeros(state), zeros=ZeroTrials(counts, 1))

    def _stepped(self, state: State, feed: "_Feed") -> tuple[State, list[Change]]:
        """The state after one trial whose observations are not all zero, stream by stream."""
        own, published, turned = dict(state.tracks), dict(state.published), list[Change]()
        for name, test in self.tests.items():
            stream, track = STREAMS[name], own.get(name) or tracks.start(test)
            xs = feed.observations(stream, track)
            if not xs:
                continue
            process = self._epochs[name]
            published[name] = process.step_trial(published.get(name) or process.start(), xs)
            own[name], turns = tracks.advance(test, track, feed.given(stream, xs))
            turned += [changes.of_stream(stream, turn, feed.beside(stream)) for turn in turns]
        calm = all(map(tracks.is_calm, own.values()))
        return replace(state, tracks=own, published=published, calm=calm), turned

    def _quiet_after(self, before: State, state: State, seen: Examined) -> QuietEvidence:
        """The evidence for `quiet` after the trial."""
        known = replace(state.quiet, failed=state.quiet.failed + 1 if seen.failed else 0, void=0)
        observed = seen.for_quiet
        if observed is not None:
            known = with_recent(known, observed.elsewhere_above_quiet, observed.containers)
        if ends_quiet(before, state):
            return self.quiet_test.restarted(known)
        if observed is not None and observed.churned is not None:
            return self.quiet_test.step(known, observed.churned)
        return known

    def _in_epoch(self, state: State, started_unix_s: float) -> State:
        epoch = int(started_unix_s // EPOCH_S)
        if epoch == state.epoch and state.published_since_unix_s:
            return state
        state = self.flush_zeros(state)
        kept = state.published if epoch == state.epoch else {}  # of an older state, which did not know since when
        return replace(state, epoch=epoch, published=kept, published_since_unix_s=started_unix_s)


class _Feed(msgspec.Struct, frozen=True):
    """A trial's observations, as each stream takes them."""

    seen: Examined
    observed: TrialObservations

    def observations(self, stream: Stream, track: Track) -> tuple[float, ...]:
        """The observations of the stream; empty for none."""
        if stream.paired:
            return self.observed.differences.get(stream.name, ())
        if not stream.coin:
            return self.observed.amounts.get(stream.name, ())
        windows = self.observed.windows.get(stream.name)
        if windows is None or (windows[0] == windows[1] and not track.watched.alerted):
            return ()  # a tie is no toss; but once there is an alarm, it is a sign that the cause may have gone
        return (1.0,) if windows[0] > windows[1] else (0.0,) if windows[0] < windows[1] else (TIE,)

    def given(self, stream: Stream, observations: tuple[float, ...]) -> Given:
        """The observations, with what explains them."""
        longest_wait_ns = self.observed.longest_wait_ns
        return Given(self.seen.trial, observations, stream.hit_above, longest_wait_ns, self.seen.complete)

    def beside(self, stream: Stream) -> Beside:
        """What the sentence of an alarm needs to know of the trial."""
        return Beside(
            counters=self.seen.counters,
            bursts=self.seen.stratum.concurrency > 1,
            mostly=self.observed.mostly.get(stream.name, ""),
            passive=self.seen.passive,
        )


def _voided(state: State, seen: Examined) -> State:
    """The state after a void trial. After two in a row nothing is known until one is valid; an alarm holds."""
    quiet = replace(state.quiet, void=state.quiet.void + 1)
    state = replace(state, voids=state.voids + 1, quiet=quiet)
    if quiet.void < FAILED_TRIALS or AlarmKind.BROADCASTING in state.alerted:
        return state
    return replace(state, verdict=Verdict.UNKNOWN, reasons=seen.void, more_containers=None)
