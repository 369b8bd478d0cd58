"""The errors kickwatch raises on purpose: one line that says what is wrong and how to fix it."""

import signal


class KickwatchError(Exception):
    """A failure that a person can act on. `exit_status` is the exit status of the command."""

    exit_status = 1

    def __init__(self, what: str, remedy: str = "") -> None:
        """`what` names the file, container or key and what is wrong with it; `remedy` says how to fix it."""
        super().__init__(f"{what}: {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy


class ConfigError(KickwatchError):
    """The configuration or the command line is wrong."""

    exit_status = 2


class ConfigAbsentError(ConfigError):
    """The configuration file is missing, empty, or cannot be read for now. All of that may pass."""


class AddressUnusableError(ConfigError):
    """A configured address is taken, or this node lacks it, its interface or IPv6. All of that may change."""


class EngineError(KickwatchError):
    """The container engine refused a call, failed, or did not answer in time."""


class EngineAnswerLostError(EngineError):
    """A call was sent and got no answer. Only a search by label shows what it did."""


class LeftoversStayError(EngineError):
    """The engine does not remove yet what an earlier kickwatch left. Each refusal has been logged."""


class ImageAbsentError(EngineError):
    """The engine does not have an image, or not all of it."""


class EngineAbsentError(EngineError):
    """No engine answers on the configured socket."""


class NoHostProcessError(EngineAbsentError):
    """The engine's runtime runs our program in a sandbox or a virtual machine: no container of it can be measured."""


class ObserveError(KickwatchError):
    """The kernel refused an observation, or returned something that cannot be parsed."""


class CgroupError(KickwatchError):
    """A cgroup file could not be read or written."""


class InterruptedRunError(KickwatchError):
    """A signal ended the command before it had a result."""


class TimeLimitError(KickwatchError):
    """The time limit came before a result."""


class OutputError(KickwatchError):
    """A result could not be written."""


class ReaderGoneError(OutputError):
    """The reader of a pipe has ended, as `head` does. Not a failure; nothing is printed."""

    exit_status = 128 + signal.SIGPIPE  # what a shell reports for a program that SIGPIPE ended


class BusyError(KickwatchError):
    """Another kickwatch is already running experiments on this node."""
