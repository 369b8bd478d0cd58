"""What one half of a pair had: the figures that are compared with its other half."""

from kickwatch.detect.classes import broadcasts_of
from kickwatch.model import HalfFigures, Path, Window


def half_figures(window: Window, *, requests_seen: bool, waits_seen: bool, some_isolated: bool) -> HalfFigures:
    """The figures of a half from its window. A figure that the armed probes cannot know is None.

    `requests_seen`: a probe attributes requests. `waits_seen`: the contention probe knows slab_mutex. `some_isolated`:
    there are isolated CPUs, and requests to them are counted.
    """
    return HalfFigures(
        elsewhere=broadcasts_of(window.cells).elsewhere if requests_seen else None,
        other_waits=sum(wait.waits for wait in window.waits if wait.path is not Path.CREATE) if waits_seen else None,
        isolated=sum(cell.isolated or 0 for cell in window.cells) if requests_seen and some_isolated else None,
    )
