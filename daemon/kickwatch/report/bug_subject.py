"""Which kernel of a history a bug report is about, and its figures. Pure."""

from typing import Any, NamedTuple

from kickwatch.report.passive_totals import only_passive


class Subject(NamedTuple):
    """`kernel`: the figures of the release; `guilty`: its creation-path cells with broadcasts, worst first.

    `others`: the figures of the other releases of the history, for comparison. `passive`: what passive mode saw under
    the release, if the report is about that.
    """

    kernel: dict[str, Any]
    node: dict[str, Any]
    bill: list[dict[str, Any]]
    guilty: list[dict[str, Any]]
    waiters: list[dict[str, Any]]
    others: list[dict[str, Any]]
    passive: dict[str, Any] | None = None

    @property
    def worst(self) -> dict[str, Any] | None:
        """The cell to blame."""
        return self.guilty[0] if self.guilty else None


MOST_OTHERS = 3


def subject_of(found: dict[str, Any]) -> Subject:
    """The release with most creation-path broadcasts per container, else the last one. The history has trials."""
    kernels, nodes = found["kernels"], found["nodes"]
    worst = max(kernels, key=lambda row: row["creation_path_broadcasts_per_container"] or 0.0)
    if not worst["creation_path_broadcasts_per_container"]:
        passive = max(found["passive"], key=_broadcasts, default=None)
        if passive is not None and (_broadcasts(passive) or only_passive(found)):
            return _of_passive(passive, kernels, nodes)
        worst = kernels[-1]
    bill = worst["bill"] or []
    return Subject(
        kernel=worst,
        node=next((node for node in reversed(nodes) if node["kernel"] == worst["kernel"]), nodes[-1]),
        bill=bill,
        guilty=[row for row in bill if row["creation_path"] and row["broadcasts"]],
        waiters=worst["waiters"],
        others=[row for row in kernels if row is not worst][-MOST_OTHERS:],
    )


def _broadcasts(passive: dict[str, Any]) -> int:
    return int((passive["own_broadcasts"] or 0) + (passive["other_broadcasts"] or 0))


def _of_passive(passive: dict[str, Any], kernels: list[dict[str, Any]], nodes: list[dict[str, Any]]) -> Subject:
    """The release under which others' containers met most broadcasts. Its bill is the creation path alone."""
    name, path = passive["kernel"], passive["creation_path"]
    return Subject(
        kernel=next((row for row in kernels if row["kernel"] == name), kernels[-1]),
        node=next((node for node in reversed(nodes) if node["kernel"] == name), nodes[-1]),
        bill=path,
        guilty=[row for row in path if row["broadcasts"]],
        waiters=[],
        others=[],
        passive=passive,
    )
