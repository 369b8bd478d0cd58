"""`kickwatch watch`: the running daemon, live."""

import sys

import click

from kickwatch.commands.status import exit_status

_EXAMPLES = """\b
Examples:
  kickwatch watch
  kickwatch watch --once >ticket.txt
"""


@click.command(epilog=_EXAMPLES)
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.2, max=3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look at the daemon, and to draw what changed. The daemon publishes every 5 s.",
)
@click.option("--once", is_flag=True, help="Print one screen and end, with the exit status of `status`.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object in one line for each change.")
def watch(interval_s: float, once: bool, as_json: bool) -> None:
    """Watch the running daemon: its condition, evidence, IPIs, the bill of a container, guard and budget.

    On a terminal a screen that fits any size; elsewhere, and if TERM is dumb, a line for each change. It only reads the
    status file: it needs no root, takes no lock, and the daemon does not notice it. The daemon may stop and start
    meanwhile.

    Exit status: 0 after q, Ctrl-C or SIGTERM. With --once as `kickwatch status`: 0 quiet or contended, 3 broadcasting,
    4 unknown or no news from the daemon, 1 if no daemon runs.
    """
    # loaded here: `--help` does without rich
    from kickwatch.terminal import watch as form  # noqa: PLC0415
    from kickwatch.terminal.watch_view import Viewer  # noqa: PLC0415

    viewer = Viewer()
    if once:
        view = viewer.view()
        if as_json:
            click.echo("\n".join(form.json_lines(None, view)))
        else:
            form.print_once(view)
        sys.exit(1 if view.status is None else exit_status(view.status, view.now_unix_s))
    if as_json:
        form.watch_lines(viewer, interval_s, form.json_lines)
    elif form.can_show_screens(sys.stdout):
        form.watch_screen(viewer, interval_s)
    else:
        form.watch_lines(viewer, interval_s)
