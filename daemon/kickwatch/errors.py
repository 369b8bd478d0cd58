"""The errors kickwatch raises on purpose: one line that names the thing, and the remedy."""

import signal


class KickwatchError(Exception):
    """Any failure a person can act on. `exit_status` is what the command line returns for it."""

    exit_status = 1

    def __init__(self, what: str, remedy: str = "") -> None:
        """`what` names the file, container or key and what is wrong with it; `remedy` says what to do."""
        super().__init__(f"{what}: {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy


class ConfigError(KickwatchError):
    """The configuration or the command line is wrong."""

    exit_status = 2


class AddressTakenError(ConfigError):
    """Somebody else listens at an address of ours; it may be free later."""


class EngineError(KickwatchError):
    """The container engine refused, failed or did not answer in time."""


class EngineAnswerLostError(EngineError):
    """A call was sent and no answer came: what it did is unknown until it is resolved by label."""


class ImageAbsentError(EngineError):
    """The engine does not hold an image, or not all of it."""


class EngineAbsentError(EngineError):
    """No engine answers at the configured socket."""


class ObserveError(KickwatchError):
    """The kernel would not let us look, or what it said cannot be read."""


class CgroupError(KickwatchError):
    """A cgroup file could not be read or written."""


class InterruptedRunError(KickwatchError):
    """A signal ended the command before its result."""


class OutputError(KickwatchError):
    """A result could not be written."""


class ReaderGoneError(OutputError):
    """Whoever read the result through a pipe has ended, as `head` does: no failure, and nothing to report."""

    exit_status = 128 + signal.SIGPIPE  # as a shell has it of a program that SIGPIPE ended


class BusyError(KickwatchError):
    """Another kickwatch already experiments on this node."""
