"""What replays come to, as SHA-256 digests: of the recordings, of made-up trials, and of the stored state directories.

A digest covers every outcome and the evidence at the end to the last bit, but no sentence written for people. Run it to
compute the digests with the code that PYTHONPATH names: `PYTHONPATH=OLD/daemon:OLD/tests/support:tests/support python
tests/support/replay_digests.py`.
"""

import json
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import msgspec
from click.testing import CliRunner

from captures_as_trials import trials
from kickwatch.commands.replay import replay
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.persist import restore, save
from kickwatch.detect.rates import Pace
from kickwatch.detect.single import one_shot
from kickwatch.history.history import History
from kickwatch.model import Trial
from made_up_trials import CONTAINERS, PERIOD_S, paired_story, random_story, trial

HISTORIES = Path(__file__).parents[1] / "fixtures" / "histories"
STORED = HISTORIES / "digests.json"
RELEASES = ("5e021c8", "28dc911", "da9df96")
LATER_STREAMS = {"elsewhere_pairs", "contention_pairs", "isolation"}  # which nothing in the stored directories feeds
REPEATS = 40  # of each recording
PACE = Pace(CONTAINERS, PERIOD_S)


def unpacked(release: str, directory: Path) -> Path:
    """A copy of the state directory that the code of a commit has left."""
    with tarfile.open(HISTORIES / f"{release}.tar.xz") as archive:
        archive.extractall(directory, filter="data")
    return directory


def next_trial() -> Trial:
    """The trial after the story: a broadcast of the creation path in three of ten containers."""
    return msgspec.convert(trial(60, boot="third", lives=[1, 0, 0, 2, 0, 0, 1, 0, 0, 0]), Trial)


def digest(*results: Any) -> str:
    """Of what results hold but for the sentences."""
    return sha256(json.dumps([_without_prose(one) for one in results], sort_keys=True).encode()).hexdigest()


def replayed(file: Path) -> str:
    """Of `kickwatch replay --json FILE`."""
    result = CliRunner().invoke(replay, ["--json", str(file)])
    if result.exit_code not in {0, 3, 4}:
        raise AssertionError(result.output) from result.exception
    *outcomes, end = map(json.loads, result.stdout.splitlines())
    # How many trials were judged otherwise when they were recorded differs from release to release, words included.
    return digest(*outcomes, {name: value for name, value in end.items() if name not in {"otherwise", "lost"}})


def continued(directory: Path) -> str:
    """Of one trial more, after the evidence that is stored in a state directory."""
    monitor = Monitor(PACE)
    state, lost = restore(monitor, History(directory).load().state)
    state, outcome = monitor.step(state, next_trial())
    figures = {name: shown for name, shown in monitor.figures(state).items() if name not in LATER_STREAMS}
    return digest(len(lost), outcome, figures, json.loads(save(monitor, state)))


def digests(directory: Path) -> Iterator[tuple[str, str]]:
    """All digests by name; files are made in `directory`."""
    for name, recorded in trials().items():
        yield f"recording {name}", replayed(_lines(directory / "trials.jsonl", [recorded] * REPEATS))
        yield f"one run of {name}", digest(one_shot([recorded]), one_shot([recorded] * 3))
    yield "random story", replayed(_lines(directory / "trials.jsonl", _as_trials(random_story())))
    yield "paired story", replayed(_lines(directory / "trials.jsonl", _as_trials(paired_story())))
    for release in RELEASES:
        state = unpacked(release, directory / release)
        yield f"history {release}", replayed(state / "history.db")
        yield f"history {release}, continued", continued(state)


def _as_trials(made_up: Iterable[dict[str, Any]]) -> Iterator[Trial]:
    return (msgspec.convert(one, Trial) for one in made_up)


def _lines(path: Path, records: Iterable[Trial]) -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in records))
    return path


def _without_prose(value: Any) -> Any:
    plain = msgspec.to_builtins(value)
    if isinstance(plain, dict):
        return {name: _without_prose(held) for name, held in plain.items() if name != "text"}
    return [_without_prose(held) for held in plain] if isinstance(plain, (list, tuple)) else plain


def main() -> None:
    """Print the digests as JSON."""
    with tempfile.TemporaryDirectory(prefix="kickwatch-digests-") as directory:
        found = dict(digests(Path(directory)))
    click.echo(json.dumps(found, indent=2), file=sys.stdout)


if __name__ == "__main__":
    main()
