"""One stream's detector at work: its evidence, since when it grows, and the moments at which its condition turned.

`advance` is pure. The evidence is the verdict's; what is counted beside it (since which trial, how many observations,
how many of them loud) only explains it to people.
"""

import msgspec

from kickwatch.detect.recovery import Hysteresis, SavedWatched, Watched

FORGOTTEN = 8.0  # evidence below it explains nothing: at rest it is about 5, after a single broadcast about 24


class Onset(msgspec.Struct, frozen=True):
    """What the evidence rests on, from the first loud observation on that was not forgotten again."""

    trial: str
    observations: int
    loud: int
    total: float
    longest_wait_ns: int = 0


class Track(msgspec.Struct, frozen=True):
    """The state: everything the next observation needs. `silent`: the latest observations that were not loud."""

    watched: Watched
    onset: Onset | None = None
    silent: int = 0


class SavedTrack(msgspec.Struct, frozen=True):
    """The state as it is written to disk."""

    watched: SavedWatched
    onset: Onset | None
    silent: int


class Turn(msgspec.Struct, frozen=True):
    """A change of condition, and the evidence that made it."""

    raised: bool
    onset: Onset
    silent: int
    evidence: str
    threshold: float
    recovered_in: int = 0  # observations between the alarm and its end


class Given(msgspec.Struct, frozen=True):
    """What a trial gives to one stream. An observation above `loud_above` counts as loud.

    Without `recover` its silence proves nothing: it may raise an alarm and end none.
    """

    trial: str
    observations: tuple[float, ...]
    loud_above: float = 0.0
    longest_wait_ns: int = 0
    recover: bool = True


def start(test: Hysteresis) -> Track:
    """Calm, without evidence."""
    return Track(test.start())


def silence(test: Hysteresis, track: Track, zeros: int) -> Track:
    """`advance` through so many zeros for a stream that is calm, without onset and alert; silence alerts nobody."""
    return Track(test.silence(track.watched, zeros)[0], None, track.silent + zeros)


def is_calm(track: Track) -> bool:
    """Whether nothing is the matter: neither an alert nor the beginning of one."""
    return track.onset is None and not track.watched.alerted


def advance(test: Hysteresis, track: Track, given: Given) -> tuple[Track, tuple[Turn, ...]]:
    """The state after a trial, and its turns in order."""
    xs = given.observations
    turns: list[Turn] = []
    while xs and (given.recover or not track.watched.alerted):
        watched, used = test.scan(track.watched, xs)
        before, track = track, _noted(track, watched, given, xs[:used])
        xs = xs[used:]
        if watched.alerted is not before.watched.alerted:
            turns.append(_turn(test, track))
            track = track if watched.alerted else Track(watched, None, track.silent)
    return _forgetful(track), tuple(turns)


def save(test: Hysteresis, track: Track) -> SavedTrack:
    """The state in a form that JSON keeps to the last bit."""
    return SavedTrack(test.save(track.watched), track.onset, track.silent)


def restore(test: Hysteresis, saved: SavedTrack) -> Track:
    """The inverse of `save`. Raises StaleStateError if it was saved with another null or other bets."""
    return Track(test.restore(saved.watched), saved.onset, saved.silent)


def _noted(track: Track, watched: Watched, given: Given, xs: tuple[float, ...]) -> Track:
    loud = [index for index, x in enumerate(xs) if x > given.loud_above]
    silent = len(xs) - 1 - loud[-1] if loud else track.silent + len(xs)
    onset = track.onset
    if track.watched.alerted or (onset is None and not loud):
        return Track(watched, onset, silent)
    if onset is None:
        onset, xs = Onset(given.trial, 0, 0, 0.0), xs[loud[0] :]
    total = onset.total
    for x in xs:  # in order: a library's sum may round otherwise
        total += x
    longest = max(onset.longest_wait_ns, given.longest_wait_ns)
    return Track(
        watched, Onset(onset.trial, onset.observations + len(xs), onset.loud + len(loud), total, longest), silent
    )


def _turn(test: Hysteresis, track: Track) -> Turn:
    onset = track.onset or Onset("", 0, 0, 0.0)
    watched = track.watched
    if watched.alerted:
        evidence = test.detector.evidence(watched.alarm)
        return Turn(True, onset, track.silent, str(evidence), test.detector.threshold)
    wealth = watched.recovery
    return Turn(False, onset, track.silent, str(wealth.total()), test.recovery_test(watched).threshold, wealth.steps)


def _forgetful(track: Track) -> Track:
    """Without its onset once what began there has come to nothing."""
    if track.onset is None or track.watched.alerted or not track.silent or track.watched.alarm.reaches(FORGOTTEN):
        return track
    return Track(track.watched, None, track.silent)
