"""The native programs, which `make native` builds from the C files here, and the driver of kw-helper.

Imports `errors` and `process`; never the rooms that know containers or probes.
"""

from pathlib import Path

from kickwatch.errors import KickwatchError

_BIN = Path(__file__).parent / "bin"


def binary(name: str) -> Path:
    """Path of the program `name` (`workload`, `pause` or `kw-helper`). Raises KickwatchError if it was not built."""
    path = _BIN / name
    if not path.is_file():
        raise KickwatchError(f"the native program {path} is missing", "build it with `make native`")
    return path
