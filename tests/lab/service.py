"""The installed service in a guest: a configuration with trials of seconds, and waiting for a finished trial."""

from kickwatch.journal.journal import Event


def configuration(containers: int, *more: str) -> str:
    """The configuration file: short trials without a pause. `more`: lines of further sections."""
    budget = ("[budget]", 'preset = "stress"', "[guard]", "enabled = false")
    trial = ("[trial]", "window_s = 0.5", "[workload]", f"containers_per_trial = {containers}")
    return "\n".join([*budget, *trial, *more, ""])


def until_finished(within_s: int, then: str) -> str:
    """A shell loop that prints the journal's newest finished trial once there is one, and runs `then`."""
    newest = f"journalctl --quiet --boot --lines=1 --output=json MESSAGE_ID={Event.TRIAL_FINISHED.message_id}"
    return f"for second in $(seq {within_s}); do {newest} | grep . && {then}; sleep 1; done"
