"""From events to the figures of the status file. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec

from kickwatch.detect.state import StreamFigures, TrialOutcome
from kickwatch.model import Trial
from kickwatch.outlets.bill import Bill
from kickwatch.outlets.live_status import StreamStatus, TrialStatus


def stream_statuses(figures: Mapping[str, StreamFigures]) -> dict[str, StreamStatus]:
    """Every stream, in the order in which they are judged."""
    return {str(name): StreamStatus(one.evidence, one.threshold, one.alerted) for name, one in figures.items()}


def trial_status(trial: Trial, outcome: TrialOutcome) -> TrialStatus:
    """The figures of one trial, valid or void."""
    bill = Bill()
    bill.add(trial, outcome)
    return bill_status(bill.take(0.0) | {"trial_id": trial.trial_id, "started_unix_s": trial.started_unix_s})


def bill_status(fields: Mapping[str, Any]) -> TrialStatus:
    """From the fields of `kickwatch.summary`."""
    return msgspec.convert(fields, TrialStatus)
