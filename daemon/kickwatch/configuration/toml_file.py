"""Reads the configuration file. One that holds nothing or cannot be read for now is absent; it is not the defaults.

With the defaults a passive node (`workload.enabled = false`) would start containers.
"""

import os
import stat
import tomllib
from errno import EACCES, EISDIR, ELOOP, ENAMETOOLONG, EPERM
from pathlib import Path
from typing import Any

from kickwatch.errors import ConfigAbsentError, ConfigError

# A restart changes none of these. Others pass: a file that is being replaced, a network file system (ESTALE, EIO).
_LASTING = frozenset({EACCES, EPERM, EISDIR, ELOOP, ENAMETOOLONG})
_NOTHING = " \t\r\n\0"  # NULs: what a crash may leave of a file


def read_toml(path: Path) -> dict[str, Any]:
    """The document in the file at `path`.

    Raises ConfigError, or ConfigAbsentError if the file is missing, holds nothing, or cannot be read for now. Only a
    character device may hold nothing: `/dev/null` stands for the defaults. An empty pipe does not, since a process
    substitution is empty if its command failed, and when it is read again at a reload.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text, mode = file.read(), os.fstat(file.fileno()).st_mode
    except OSError as error:
        kind = ConfigError if error.errno in _LASTING else ConfigAbsentError
        raise kind(f"{path} cannot be read ({error.strerror})", "give a readable TOML file") from error
    except ValueError as error:  # UnicodeDecodeError
        raise _invalid(path, error) from error
    if not text.strip(_NOTHING) and not stat.S_ISCHR(mode):
        raise ConfigAbsentError(f"{path} is empty", "put its content back; a comment stands for the defaults")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, a number of 5000 digits
        raise _invalid(path, error) from error


def _invalid(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{path} is not valid TOML ({error})", "fix its syntax")
