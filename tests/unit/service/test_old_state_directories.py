"""The state directories that earlier commits have left: opened, continued, and nothing of them lost."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner

from kickwatch.commands.replay import replay
from kickwatch.configuration.types import Config, StateConfig
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.persist import restore, save
from kickwatch.history.history import History
from kickwatch.history.record_reader import RecordedTrial, open_records
from kickwatch.model import AlarmKind, Verdict
from kickwatch.service.budget import FILE, load_spent
from kickwatch.service.evidence import Evidence
from made_up_trials import CONTAINERS
from replay_digests import PACE, RELEASES, next_trial, unpacked

TRIALS, VOIDS = 60, 3
# The null of `bpf` is another one since 5e021c8: its evidence cannot be used. All else goes on.
DROPPED = {"5e021c8": ["bpf"]}


def rows(directory: Path) -> list[RecordedTrial]:
    with open_records(directory / "history.db") as found:
        return list(found)


def assert_holds(found: Any, stored: Any) -> None:
    """All that is stored is found again. What is found may have keys that an earlier commit did not know."""
    if isinstance(stored, dict):
        for name, value in stored.items():
            assert_holds(found[name], value)
    else:
        assert found == stored


@pytest.mark.parametrize("release", RELEASES)
async def test_the_daemon_continues_in_it(tmp_path: Path, release: str) -> None:
    directory = unpacked(release, tmp_path)
    before, files = await asyncio.to_thread(rows, directory), sorted(path.name for path in directory.iterdir())
    with structlog.testing.capture_logs() as logs:
        evidence = await Evidence.open(Config(state=StateConfig(directory=str(directory))))
        known = evidence.state
        outcome = await evidence.take(next_trial())
        await evidence.close()
    dropped = [log["what"].split(":")[0] for log in logs]
    assert dropped == [f"stream {name}" for name in DROPPED.get(release, [])]
    assert (known.trials, known.voids, known.verdict) == (TRIALS - VOIDS, VOIDS, Verdict.BROADCASTING)
    assert known.alerted == {AlarmKind.BROADCASTING: ("signature",)}
    assert "elsewhere" in known.tracks
    assert "unexplained" not in known.tracks
    assert (outcome.verdict, evidence.state.trials) == (Verdict.BROADCASTING, TRIALS - VOIDS + 1)
    assert sorted(path.name for path in directory.iterdir()) == files  # nothing is set aside
    after = await asyncio.to_thread(rows, directory)
    assert after[:TRIALS] == before
    assert [row.trial for row in after[TRIALS:]] == [next_trial()]


@pytest.mark.parametrize("release", RELEASES)
def test_a_replay_of_it_reads_every_trial(tmp_path: Path, release: str) -> None:
    found = rows(unpacked(release, tmp_path))
    assert [int(row.trial.trial_id, 16) for row in found] == list(range(TRIALS))
    assert all(row.pace is not None and row.pace.containers == CONTAINERS for row in found)


@pytest.mark.parametrize("release", [release for release in RELEASES if release not in DROPPED])
def test_the_evidence_in_it_is_restored_to_the_last_bit(tmp_path: Path, release: str) -> None:
    stored, monitor = History(unpacked(release, tmp_path)).load().state, Monitor(PACE)
    state, lost = restore(monitor, stored)
    assert lost == ()
    assert_holds(json.loads(save(monitor, state)), json.loads(stored))


def test_the_outcomes_in_the_newest_are_those_of_today(tmp_path: Path) -> None:
    """Under the names that they were stored with. Only the sentences may be worded differently."""
    result = CliRunner().invoke(replay, ["--json", str(unpacked("da9df96", tmp_path) / "history.db")])
    end = json.loads(result.stdout.splitlines()[-1])
    assert (end["trials"], end["otherwise"], end["lost"]) == (TRIALS, 0, [])


@pytest.mark.parametrize("release", RELEASES)
def test_what_was_spent_is_still_spent(tmp_path: Path, release: str) -> None:
    spent = load_spent(unpacked(release, tmp_path) / FILE)
    assert spent is not None
    assert sum(containers for _, containers in spent) == TRIALS * CONTAINERS
