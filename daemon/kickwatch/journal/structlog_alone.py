"""Loads structlog without two packages that it loads if they are installed, and that kickwatch has no use for in it.

`rich` would print tracebacks, which kickwatch does not. `greenlet` would keep variables apart that kickwatch does not
bind; it comes with the tests' browser, not with kickwatch. The daemon would carry 5 and 1.2 MiB for nothing, and every
command would start a tenth of a second later (measured).
"""

import sys

_NOT_FOR_STRUCTLOG = ("rich", "greenlet")


def load() -> None:
    """Import structlog; importing one of the two meanwhile fails as if it were not installed (see `sys.modules`)."""
    loaded = {name: sys.modules.pop(name) for name in _NOT_FOR_STRUCTLOG if name in sys.modules}
    sys.modules |= dict.fromkeys(_NOT_FOR_STRUCTLOG)  # type: ignore[arg-type]
    try:
        import structlog  # noqa: F401, PLC0415
    finally:
        for name in _NOT_FOR_STRUCTLOG:
            del sys.modules[name]
        sys.modules |= loaded
