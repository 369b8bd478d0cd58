"""One stream's detector at work: its evidence, since when that grows, and the moments at which its alarm turned.

`advance` is pure. The verdict rests on the evidence alone; what is counted beside it (since which trial, how many
observations, how many hits) only explains it to people.
"""

import msgspec

from kickwatch.detect.recovery import Hysteresis, SavedWatched, Watched

FORGOTTEN = 8.0  # evidence below it explains nothing: at rest it is about 5, after a single broadcast about 24


class Onset(msgspec.Struct, frozen=True):
    """What the evidence rests on: the observations since the first hit that was not forgotten again."""

    trial: str
    observations: int
    hits: int = msgspec.field(name="loud")  # as earlier releases stored it
    total: float
    longest_wait_ns: int = 0


class Track(msgspec.Struct, frozen=True):
    """The state: everything the next observation needs. `since_hit`: observations since the latest hit."""

    watched: Watched
    onset: Onset | None = None
    since_hit: int = 0


class SavedTrack(msgspec.Struct, frozen=True):
    """The state as it is written to disk."""

    watched: SavedWatched
    onset: Onset | None
    since_hit: int = msgspec.field(name="silent")


class Turn(msgspec.Struct, frozen=True):
    """An alarm that is raised or that ends, and the evidence that made it do so."""

    raised: bool
    onset: Onset
    since_hit: int
    evidence: str
    threshold: float
    recovered_in: int = 0  # observations between the alarm and its end


class Given(msgspec.Struct, frozen=True):
    """What a trial gives to one stream. An observation above `hit_above` is a hit.

    `may_end`: its zeros are evidence. Without it the trial may raise an alarm but end none.
    """

    trial: str
    observations: tuple[float, ...]
    hit_above: float = 0.0
    longest_wait_ns: int = 0
    may_end: bool = True


def start(test: Hysteresis) -> Track:
    """No alarm, no evidence."""
    return Track(test.start())


def step_zeros(test: Hysteresis, track: Track, zeros: int, trials: int = 1) -> Track:
    """`advance` through trials of that many zeros each, for a stream that is calm. Zeros raise no alarm."""
    watched, used = test.step_zeros(track.watched, zeros, trials)
    return Track(watched, None, track.since_hit + used)


def is_calm(track: Track) -> bool:
    """True without an alarm and without the beginning of one."""
    return track.onset is None and not track.watched.alerted


def advance(test: Hysteresis, track: Track, given: Given) -> tuple[Track, tuple[Turn, ...]]:
    """The state after a trial, and its turns in order."""
    xs = given.observations
    turns: list[Turn] = []
    while xs and (given.may_end or not track.watched.alerted):
        watched, used = test.scan(track.watched, xs)
        before, track = track, _noted(track, watched, given, xs[:used])
        xs = xs[used:]
        if watched.alerted is not before.watched.alerted:
            turns.append(_turn(test, track))
            track = track if watched.alerted else Track(watched, None, track.since_hit)
    return _without_stale_onset(track), tuple(turns)


def save(test: Hysteresis, track: Track) -> SavedTrack:
    """The state in a form that JSON keeps to the last bit."""
    return SavedTrack(test.save(track.watched), track.onset, track.since_hit)


def restore(test: Hysteresis, saved: SavedTrack) -> Track:
    """The inverse of `save`. Raises StaleStateError if it was saved with another null or other bets."""
    return Track(test.restore(saved.watched), saved.onset, saved.since_hit)


def _noted(track: Track, watched: Watched, given: Given, xs: tuple[float, ...]) -> Track:
    """The state after observations that left the detector as `watched`, with the counts that explain it."""
    hits = [index for index, x in enumerate(xs) if x > given.hit_above]
    since_hit = len(xs) - 1 - hits[-1] if hits else track.since_hit + len(xs)
    onset = track.onset
    if track.watched.alerted or (onset is None and not hits):
        return Track(watched, onset, since_hit)
    if onset is None:
        onset, xs = Onset(given.trial, 0, 0, 0.0), xs[hits[0] :]
    total = onset.total
    for x in xs:  # in order: a library's sum may round otherwise
        total += x
    longest = max(onset.longest_wait_ns, given.longest_wait_ns)
    grown = Onset(onset.trial, onset.observations + len(xs), onset.hits + len(hits), total, longest)
    return Track(watched, grown, since_hit)


def _turn(test: Hysteresis, track: Track) -> Turn:
    onset = track.onset or Onset("", 0, 0, 0.0)
    watched = track.watched
    if watched.alerted:
        evidence = test.detector.evidence(watched.alarm)
        return Turn(True, onset, track.since_hit, str(evidence), test.detector.threshold)
    wealth = watched.recovery
    threshold = test.recovery_test(watched).threshold
    return Turn(False, onset, track.since_hit, str(wealth.total()), threshold, wealth.steps)


def _without_stale_onset(track: Track) -> Track:
    """Without its onset, once the evidence that began there has fallen back to rest."""
    if track.onset is None or track.watched.alerted or not track.since_hit or track.watched.alarm.reaches(FORGOTTEN):
        return track
    return Track(track.watched, None, track.since_hit)
