"""Loads structlog as on a node without `rich`, which it otherwise loads for tracebacks that kickwatch does not print.

The daemon would carry it for nothing, 5 MiB, and every command would start a tenth of a second later (measured).
"""

import sys

_RICH = "rich"


def load() -> None:
    """Import structlog; an `import rich` meanwhile fails as if it were not installed (see `sys.modules`)."""
    loaded = {name: sys.modules.pop(name) for name in [_RICH] if name in sys.modules}
    sys.modules[_RICH] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401, PLC0415
    finally:
        del sys.modules[_RICH]
        sys.modules |= loaded
