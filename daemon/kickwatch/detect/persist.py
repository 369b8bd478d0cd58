"""The monitor's state as bytes and back, to the last bit: JSON, with the numbers of the evidence in hexadecimal.

Evidence that was saved under another null, other bets or another form of this file would prove something else. It is
dropped, stream by stream, and reported.
"""

from typing import TypeVar

import msgspec

from kickwatch.detect import track as tracks
from kickwatch.detect.classes import BpfCost
from kickwatch.detect.comparison import Comparison, RelativeRule, StratumRecord
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.quiet import QuietEvidence, SavedQuietEvidence
from kickwatch.detect.relative import Reference
from kickwatch.detect.state import State
from kickwatch.detect.strata import Stratum
from kickwatch.detect.streams import STREAMS, StreamName
from kickwatch.detect.track import SavedTrack, Track
from kickwatch.detect.verdict import VerdictReason
from kickwatch.detect.wager import Null, SavedWealth, StaleStateError, Wealth
from kickwatch.model import Verdict

VERSION = 1
# Streams that have another name now. Their evidence continues: it is against the same null.
RENAMED = {"unexplained": StreamName.ELSEWHERE.value}

T = TypeVar("T")


class SavedReference(msgspec.Struct, frozen=True):
    """A Reference, its numbers in hexadecimal."""

    burnt: int
    burnt_sum: str
    width: str
    bins: int
    counts: tuple[int, ...]


class SavedRecord(msgspec.Struct, frozen=True):
    """A StratumRecord."""

    stratum: Stratum
    trials: int
    cells: dict[str, SavedReference]
    bpf_containers: int = 0
    bpf_broadcasts: str = "0x0p+0"


class SavedRule(msgspec.Struct, frozen=True):
    """A RelativeRule; `mean` and `clip` are its null's, empty without one."""

    cell: str
    before: str
    mean: str = ""
    clip: str = ""
    track: SavedTrack | None = None


class SavedComparison(msgspec.Struct, frozen=True):
    """A Comparison."""

    record: SavedRecord
    pending: tuple[dict[str, str], ...]
    past: tuple[SavedRecord, ...]
    against: Stratum | None
    rules: tuple[SavedRule, ...]


class SavedState(msgspec.Struct, frozen=True, kw_only=True):
    """A State."""

    version: int
    boot_id: str
    trials: int
    voids: int
    containers: int
    verdict: Verdict
    epoch: int
    tracks: dict[str, SavedTrack]  # by name of the stream, as in `published`
    published: dict[str, SavedWealth]
    comparison: SavedComparison | None
    reasons: tuple[str, ...] = ()
    more_containers: int | None = None
    looked_unix_s: float = 0.0
    quiet: SavedQuietEvidence | None = msgspec.field(name="silence", default=None)  # as earlier releases stored it
    published_since_unix_s: float = 0.0


def save(monitor: Monitor, state: State) -> bytes:
    """The state as JSON."""
    state = monitor.flush_zeros(state)
    comparison = state.comparison
    saved = SavedState(
        version=VERSION,
        boot_id=state.boot_id,
        trials=state.trials,
        voids=state.voids,
        containers=state.containers,
        verdict=state.verdict,
        epoch=state.epoch,
        published_since_unix_s=state.published_since_unix_s,
        # In the order of the streams, not of their first observations: equal evidence is equal bytes.
        tracks={
            name.value: tracks.save(test, state.tracks[name])
            for name, test in monitor.tests.items()
            if name in state.tracks
        },
        published={
            name.value: test.detector.wager.save(state.published[name])
            for name, test in monitor.tests.items()
            if name in state.published
        },
        comparison=_save_comparison(monitor, comparison) if comparison else None,
        reasons=state.reasons,
        more_containers=state.more_containers,
        looked_unix_s=state.looked_unix_s,
        quiet=monitor.quiet_test.save(state.quiet),
    )
    return msgspec.json.encode(saved)


def restore(monitor: Monitor, saved: bytes) -> tuple[State, tuple[str, ...]]:
    """The state, and the parts that could not be used, each with its reason. Never raises: evidence can start again."""
    try:
        known = msgspec.json.decode(saved, type=SavedState)
        if known.version != VERSION:
            return monitor.start(), (f"saved evidence has form {known.version}, and this kickwatch reads {VERSION}",)
        return _restored(monitor, known)
    except (msgspec.DecodeError, ValueError, OverflowError) as error:
        return monitor.start(), (f"saved evidence cannot be read ({error})",)


def _restored(monitor: Monitor, known: SavedState) -> tuple[State, tuple[str, ...]]:
    lost: list[str] = []
    comparison = _restore_comparison(monitor, known.comparison, lost) if known.comparison else None
    own, published = _restore_streams(monitor, known, lost)
    quiet = monitor.quiet_test.restore(known.quiet) if known.quiet else QuietEvidence()
    verdict, reasons = known.verdict, known.reasons
    if verdict is Verdict.QUIET and not quiet.established:  # saved by a release that established no `quiet`
        verdict, reasons = Verdict.UNKNOWN, (VerdictReason.INSUFFICIENT_EVIDENCE.value,)
    state = State(
        boot_id=known.boot_id,
        trials=known.trials,
        voids=known.voids,
        containers=known.containers,
        verdict=verdict,
        tracks=own,
        calm=all(map(tracks.is_calm, own.values())),
        comparison=comparison,
        epoch=known.epoch,
        published=published,
        reasons=reasons,
        more_containers=known.more_containers,
        looked_unix_s=known.looked_unix_s,
        quiet=quiet,
        # A stream that starts again is a new sample for the fleet: the node then counts once more.
        published_since_unix_s=0.0 if lost else known.published_since_unix_s,
    )
    return state, tuple(lost)


def _restore_streams(
    monitor: Monitor, known: SavedState, lost: list[str]
) -> tuple[dict[StreamName, Track], dict[StreamName, Wealth]]:
    """The tracks and the published wealth of every stream. Adds to `lost` what cannot be used."""
    saved_tracks, saved_published = _renamed(known.tracks), _renamed(known.published)
    own: dict[StreamName, Track] = {}
    published: dict[StreamName, Wealth] = {}
    for name, test in monitor.tests.items():
        try:
            if name in saved_tracks:
                own[name] = tracks.restore(test, saved_tracks[name])
            if name in saved_published:
                published[name] = test.detector.wager.restore(saved_published[name])
        except StaleStateError as error:
            lost.append(f"stream {name.value}: {error}")
    lost += [f"stream {name}: this kickwatch has no such stream" for name in saved_tracks if name not in STREAMS]
    return own, published


def _renamed(saved: dict[str, T]) -> dict[str, T]:
    return {RENAMED.get(name, name): value for name, value in saved.items()}


def _save_comparison(monitor: Monitor, comparison: Comparison) -> SavedComparison:
    return SavedComparison(
        record=_save_record(comparison.record),
        pending=tuple({cell: x.hex() for cell, x in sweeps.items()} for sweeps in comparison.pending),
        past=tuple(map(_save_record, comparison.past)),
        against=comparison.against,
        rules=tuple(_save_rule(monitor, rule) for rule in comparison.rules),
    )


def _restore_comparison(monitor: Monitor, saved: SavedComparison, lost: list[str]) -> Comparison:
    return Comparison(
        record=_restore_record(saved.record),
        pending=tuple({cell: float.fromhex(x) for cell, x in sweeps.items()} for sweeps in saved.pending),
        past=tuple(map(_restore_record, saved.past)),
        against=saved.against,
        rules=tuple(_restore_rule(monitor, rule, lost) for rule in saved.rules),
    )


def _save_record(record: StratumRecord) -> SavedRecord:
    cells = {
        cell: SavedReference(known.burnt, known.burnt_sum.hex(), known.width.hex(), known.bins, known.counts)
        for cell, known in record.cells.items()
    }
    return SavedRecord(record.stratum, record.trials, cells, record.bpf.containers, record.bpf.broadcasts.hex())


def _restore_record(saved: SavedRecord) -> StratumRecord:
    cells = {
        cell: Reference(
            known.burnt, float.fromhex(known.burnt_sum), float.fromhex(known.width), known.bins, known.counts
        )
        for cell, known in saved.cells.items()
    }
    bpf = BpfCost(saved.bpf_containers, float.fromhex(saved.bpf_broadcasts))
    return StratumRecord(saved.stratum, saved.trials, cells, bpf)


def _save_rule(monitor: Monitor, rule: RelativeRule) -> SavedRule:
    if rule.null is None or rule.track is None:
        return SavedRule(rule.cell, rule.before.hex())
    track = tracks.save(monitor.comparer.test_of(rule.null), rule.track)
    return SavedRule(rule.cell, rule.before.hex(), rule.null.mean.hex(), rule.null.clip.hex(), track)


def _restore_rule(monitor: Monitor, saved: SavedRule, lost: list[str]) -> RelativeRule:
    before = float.fromhex(saved.before)
    if saved.track is None:
        return RelativeRule(saved.cell, None, before, None)
    null = Null(float.fromhex(saved.mean), float.fromhex(saved.clip))
    test = monitor.comparer.test_of(null)
    try:
        track = tracks.restore(test, saved.track)
    except StaleStateError as error:
        lost.append(f"cell {saved.cell}: {error}")
        track = tracks.start(test)
    return RelativeRule(saved.cell, null, before, track)
