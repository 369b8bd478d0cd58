"""Which kernel of a history a bug report is about, and its figures. Pure."""

from typing import Any, NamedTuple


class Subject(NamedTuple):
    """`kernel`: the figures of the release; `guilty`: its creation-path cells with broadcasts, worst first.

    `others`: the figures of the other releases of the history, for comparison.
    """

    kernel: dict[str, Any]
    node: dict[str, Any]
    bill: list[dict[str, Any]]
    guilty: list[dict[str, Any]]
    waiters: list[dict[str, Any]]
    others: list[dict[str, Any]]

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
