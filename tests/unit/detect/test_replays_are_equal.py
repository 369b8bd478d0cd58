"""Replays give the same outcomes and the same evidence as before the streams became one table, to the last bit."""

import json

import pytest

from replay_digests import RELEASES, STORED, digest, digests

EXPECTED: dict[str, str] = json.loads(STORED.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return dict(digests(tmp_path_factory.mktemp("replays")))


def test_every_recording_and_every_history_has_a_stored_digest(found: dict[str, str]) -> None:
    assert list(found) == list(EXPECTED)
    assert len(found) == 2 * 15 + 2 + 2 * len(RELEASES)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_replay_gives_the_stored_digest(found: dict[str, str], name: str) -> None:
    assert found[name] == EXPECTED[name]


def test_a_digest_covers_the_last_bit_of_a_number_and_no_sentence() -> None:
    outcome = {"verdict": "quiet", "changes": [{"evidence": 1.0, "text": "one sentence"}]}
    assert digest(outcome) == digest({"changes": [{"text": "another", "evidence": 1.0}], "verdict": "quiet"})
    assert digest(outcome) != digest(
        {"changes": [{"text": "one sentence", "evidence": 1.0 + 2**-52}], "verdict": "quiet"}
    )
