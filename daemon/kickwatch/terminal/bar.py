"""The bar of all long commands: one line that is drawn when the work says so, and leaves nothing behind."""

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn

_FREE = 4  # columns: the terminal shows ^C there; beyond the last column it would begin a line that nobody removes


class StepBar(Progress):
    """A bar without a thread of its own: it is drawn by `refresh`, and removed by `stop`."""

    def __init__(self, console: Console, *columns: str | ProgressColumn) -> None:
        """`columns`: what stands to the right of the bar."""
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            *columns,
            console=console,
            auto_refresh=False,
            transient=True,
            expand=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def get_renderable(self) -> RenderableType:
        """The line."""
        return _Narrower(Group(*self.get_renderables()))


@dataclass(frozen=True)
class _Narrower:
    """What it contains, with the last columns of the terminal left alone."""

    inside: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.inside, options.update_width(max(1, options.max_width - _FREE)))
