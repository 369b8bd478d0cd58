"""When the e-processes of an epoch began: a fleet counts its samples by that."""

import msgspec
from msgspec.structs import replace

from builders import kick
from kickwatch.detect.monitor import EPOCH_S, Monitor
from kickwatch.detect.persist import restore, save
from watching import PACE, serial, watched

MONITOR = Monitor(PACE)
BEGINS_S = 222 * EPOCH_S + 1000.0


def test_it_is_the_first_trial_of_the_epoch() -> None:
    state, _ = watched(MONITOR, [])
    assert state.published_since_unix_s == 0.0
    trials = [serial(started_unix_s=BEGINS_S + 100.0 * number) for number in range(3)]
    for one in trials:
        state, _ = watched(MONITOR, [one], state)
        assert state.published_since_unix_s == BEGINS_S
    later = BEGINS_S + EPOCH_S
    state, _ = watched(MONITOR, [serial(1, started_unix_s=later)], state)
    assert state.published_since_unix_s == later
    state, _ = watched(MONITOR, [serial(void="cpus_changed", started_unix_s=later + EPOCH_S)], state)
    assert state.published_since_unix_s == later


def test_another_boot_does_not_begin_them_again() -> None:
    state, _ = watched(MONITOR, [serial(1, started_unix_s=BEGINS_S)])
    before = MONITOR.figures(state)["attributed"].e_process
    node = replace(serial().node, boot_id="another")
    state, _ = watched(MONITOR, [serial(1, started_unix_s=BEGINS_S + 100.0, node=node)], state)
    assert state.published_since_unix_s == BEGINS_S
    assert MONITOR.figures(state)["attributed"].e_process > before > 1.0


def test_another_kernel_release_begins_them_again() -> None:
    """A fleet pools by release: what one release did is no evidence against the next."""
    state, _ = watched(MONITOR, [serial(1, started_unix_s=BEGINS_S)])
    assert state.release == serial().node.kernel
    assert MONITOR.figures(state)["attributed"].e_process > 1.0
    node = replace(serial().node, boot_id="another", kernel="6.99.0")
    later = BEGINS_S + 100.0
    state, _ = watched(MONITOR, [serial(started_unix_s=later, node=node)], state)
    assert (state.release, state.published_since_unix_s) == ("6.99.0", later)
    assert MONITOR.figures(state)["attributed"].e_process < 1.0


def test_it_is_kept_with_the_evidence() -> None:
    state, _ = watched(MONITOR, [serial(1, started_unix_s=BEGINS_S)])
    again, lost = restore(MONITOR, save(MONITOR, state))
    assert lost == ()
    assert again.published_since_unix_s == BEGINS_S


def test_an_older_state_counts_from_its_next_trial_and_loses_nothing() -> None:
    state, _ = watched(MONITOR, [serial(1, started_unix_s=BEGINS_S)])
    saved = msgspec.json.decode(save(MONITOR, state))
    del saved["published_since_unix_s"]  # as an older kickwatch wrote it
    old, lost = restore(MONITOR, msgspec.json.encode(saved))
    assert (lost, old.published_since_unix_s) == ((), 0.0)
    new, _ = watched(MONITOR, [serial(1, started_unix_s=BEGINS_S + 100.0)], old)
    known, _ = watched(MONITOR, [serial(1, started_unix_s=BEGINS_S + 100.0)], state)
    assert new.published_since_unix_s == BEGINS_S + 100.0
    assert MONITOR.figures(new) == MONITOR.figures(known)


def test_a_stream_that_starts_again_makes_the_node_one_more_sample() -> None:
    state, _ = watched(MONITOR, [serial(1, kick(1), started_unix_s=BEGINS_S)])
    saved = msgspec.json.decode(save(MONITOR, state))
    saved["published"]["attributed"]["key"] = "another null"  # its wealth would prove something else
    again, lost = restore(MONITOR, msgspec.json.encode(saved))
    assert len(lost) == 1
    assert again.published_since_unix_s == 0.0
