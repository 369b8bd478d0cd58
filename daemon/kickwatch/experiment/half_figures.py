"""What is compared between the halves of a pair, and what its stack assigns to a container without that. Pure."""

from msgspec.structs import replace

from kickwatch.detect.classes import beyond_flips, broadcasts_of
from kickwatch.detect.figures import merge_cells, merge_waits
from kickwatch.experiment.ports import TrialObservers
from kickwatch.model import ContentionRung, HalfFigures, IpiRung, Path, Window


def half_figures(window: Window, observers: TrialObservers, flips_allowed: int = 0) -> HalfFigures:
    """The figures of one half. None for what the observers do not show.

    `flips_allowed`: broadcasts for the freezer of the half's containers (`classes.flips_allowed`).
    """
    probed = observers.rungs.ipis is not IpiRung.COUNTERS and observers.control.passed
    waits_known = observers.rungs.contention is not ContentionRung.NONE and observers.slab_mutex_known
    isolated = probed and bool(observers.isolated_cpus) and window.per_cpu is not None
    return HalfFigures(
        elsewhere=beyond_flips(broadcasts_of(window.cells), flips_allowed).elsewhere if probed else None,
        other_waits=sum(wait.waits for wait in window.waits if wait.path is not Path.CREATE) if waits_known else None,
        isolated=sum(cell.isolated or 0 for cell in window.cells) if isolated else None,
    )


def with_attributed(churn: Window, quiet: Window) -> tuple[Window, Window]:
    """Both windows, with all that the kernel did to create or remove a container in the churn window.

    Part of it is done after the container's half is over (a memory cgroup is freed late). Its stack says what it was
    done for, so it is not compared with anything.
    """
    cells = [cell for cell in quiet.cells if cell.path is not Path.OTHER]
    waits = [wait for wait in quiet.waits if wait.path is not Path.OTHER]
    return (
        replace(churn, cells=merge_cells((*churn.cells, *cells)), waits=merge_waits((*churn.waits, *waits))),
        replace(
            quiet,
            cells=tuple(cell for cell in quiet.cells if cell.path is Path.OTHER),
            waits=tuple(wait for wait in quiet.waits if wait.path is Path.OTHER),
        ),
    )
