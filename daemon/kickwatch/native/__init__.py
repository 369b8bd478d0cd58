"""The native programs, built from the C beside this file by `make native`, and what drives them.

Imports `errors` and `process`; it knows no container and no probe.
"""

from pathlib import Path

from kickwatch.errors import KickwatchError

_BIN = Path(__file__).parent / "bin"


def binary(name: str) -> Path:
    """Path of the program `name` (`workload` or `helper`). Raises KickwatchError when it was not built."""
    path = _BIN / name
    if not path.is_file():
        raise KickwatchError(f"the native program {path} is missing", "build it with `make native`")
    return path
