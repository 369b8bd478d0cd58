"""`kickwatch trace`: the life of a few containers on a timeline."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kickwatch.commands.common import complain, config_options, read_config, run, say
from kickwatch.errors import ConfigError, OutputError
from kickwatch.process.atomic_file import write_private
from kickwatch.process.signals import Shutdown, until_signalled

if TYPE_CHECKING:
    from kickwatch.trace.summary import Trace

_INCOMPLETE_STATUS = 4
_EXAMPLES = """\b
Examples:
  kickwatch trace --containers 3 --out trace.json
  kickwatch trace --containers 1 --out - | gzip > trace.json.gz
"""


@click.command(epilog=_EXAMPLES)
@config_options
@click.option(
    "--containers", type=click.IntRange(1, 20), default=3, show_default=True, metavar="N", help="Containers to start."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    required=True,
    metavar="FILE",
    help="Where to write the trace (JSON trace format); - for standard output.",
)
def trace(config_path: Path | None, sets: tuple[str, ...], containers: int, out: Path) -> None:
    """Draw the lives of a few containers: what the engine does, and what each step asks of every CPU.

    Lists single events, which `trial` only counts: engine calls, processes, each request to another CPU from its
    sender to its target with reason, origin and stack, waits for slab_mutex, cgroups. Open the file at
    https://ui.perfetto.dev or in chrome://tracing; nothing is uploaded. Needs root and Linux 6.5 or later. Its
    containers are removed at the end.

    Exit status: 0, or 4 if the trace is not complete: events were lost, the timeline and the count differ without a
    known cause, a container or the positive control failed.
    """
    if str(out) != "-" and not os.access(out if out.exists() and not out.is_file() else out.parent, os.W_OK):
        raise ConfigError(f"{out} cannot be written", "choose another file with --out")
    made = _made(config_path, sets, containers)
    _write(out, made.content)
    for line in _lines(made, out):
        click.echo(line, err=True)
    if made.faults:
        complain(f"the trace is not complete: {'; '.join(made.faults)}")
        sys.exit(_INCOMPLETE_STATUS)


def _made(config_path: Path | None, sets: tuple[str, ...], containers: int) -> "Trace":
    from kickwatch.experiment.trace_run import record  # noqa: PLC0415 -- `--help` loads neither
    from kickwatch.trace.summary import make_trace  # noqa: PLC0415

    config = read_config(config_path, sets)
    ending = Shutdown()
    return make_trace(run(until_signalled(record(config, containers, say, ending), stopping=ending.begin)))


def _write(out: Path, content: bytes) -> None:
    """Raises OutputError."""
    if str(out) == "-":
        sys.stdout.buffer.write(content)
        return
    try:
        if out.exists() and not out.is_file():  # a pipe or a device: renaming over it would replace it
            out.write_bytes(content)
        else:
            write_private(out.resolve(), content)
    except OSError as error:
        raise OutputError(f"cannot write {out} ({error.strerror})", "choose another file with --out") from error


def _lines(made: "Trace", out: Path) -> list[str]:
    shown = [f"{made.calls_shown} multi-CPU calls on the timeline, {made.calls_counted} on the bill"]
    shown += [f"{made.requests_shown} requests on the timeline, {made.requests_counted} on the bill"]
    if not made.faults and made.calls_shown > made.calls_counted:
        shown.append("the bill took the first call of a CPU for the rest of one before the trace")
    shown += [f"{made.recording.losses.events} events lost"]
    if made.left_out:
        names = ", ".join(f"{name} ({requests})" for name, requests in made.left_out.items())
        shown.append(f"left out, since the file may have 20 MiB: single requests of {names}")
    if not made.recording.waits_known:
        shown.append("waits for slab_mutex are not known: its address is not")
    where = "standard output" if str(out) == "-" else str(out)
    return [*shown, f"{len(made.content) / 1e6:.1f} MB to {where}: open it at https://ui.perfetto.dev"]
