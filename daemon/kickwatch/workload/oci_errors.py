"""How failures of a runtime and of its files become errors of the engine, with the container and a remedy.

`what` completes the sentence "could not ...".
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kickwatch.errors import CgroupError, EngineAbsentError, EngineAnswerLostError, EngineError
from kickwatch.workload.oci_runtime import Runtime
from kickwatch.workload.oci_support import INSTALL_REMEDY


@contextmanager
def version_errors(runtime: Runtime) -> Iterator[None]:
    """A runtime that cannot report its version is no engine."""
    try:
        yield
    except (TimeoutError, OSError) as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror
        raise EngineAbsentError(f"{runtime.program} --version: {reason}", INSTALL_REMEDY) from error


@contextmanager
def runtime_errors(what: str, runtime: Runtime) -> Iterator[None]:
    """A command without an answer may or may not have taken effect."""
    try:
        yield
    except TimeoutError as error:
        lost = f"could not {what}: no answer within {runtime.timeout_s:g} s"
        raise EngineAnswerLostError(lost, f"does `{runtime.program} --version` answer?") from error
    except OSError as error:
        lost = f"could not {what}: {runtime.program}: {error.strerror}"
        raise EngineAnswerLostError(lost, INSTALL_REMEDY) from error


@contextmanager
def file_errors(what: str, root: Path) -> Iterator[None]:
    """Errors of files and cgroups, with the reason in the operating system's words."""
    try:
        yield
    except (OSError, CgroupError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        raise EngineError(f"could not {what}: {reason}{where}", f"see {root}") from error
