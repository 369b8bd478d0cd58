"""File systems that tests build once and keep in the user's cache directory, under the digest of their recipe."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock `path`, so that one test run at a time continues."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cached_root(name: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """The directory `name` of this recipe; if it is not in the cache, `make` builds it, and older ones are deleted."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kickwatch-tests"
    wanted = cache / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with locked(cache / f"{name}.lock"):
        if not wanted.exists():
            for old in cache.glob(f"{name}-*"):
                shutil.rmtree(old)
            made = wanted.with_suffix(".new")
            make(made)
            made.rename(wanted)
    return wanted
