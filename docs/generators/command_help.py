"""What `--help` shows, as data: one value for each command, for Markdown and for roff alike."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

import click

from kickwatch.cli import COMMANDS, cli

_VERBATIM = "\b"  # click leaves a paragraph after it as it is


@dataclass(frozen=True)
class Paragraph:
    """A part of a description. `verbatim`: its lines are examples or columns, and stay as they are."""

    text: str
    verbatim: bool = False


@dataclass(frozen=True)
class CommandHelp:
    """One command. `options` are pairs of what to type and what it does, in the order of `--help`.

    The paragraphs that begin with `Exit status:` and `Examples:` are apart, without these words; empty if missing.
    """

    name: str
    summary: str
    usage: str
    description: tuple[Paragraph, ...]
    options: tuple[tuple[str, str], ...]
    exit_status: str
    examples: str

    @property
    def page(self) -> str:
        """The name of its man page and of its file."""
        return self.name.replace(" ", "-")


def all_commands() -> list[CommandHelp]:
    """`kickwatch` itself, then its commands, in the order of `kickwatch --help`."""
    with click.Context(cli, info_name="kickwatch") as context:
        found = [_help_of(cli, context, "kickwatch", "Does creating a container interrupt every other CPU?")]
        found += [
            _help_of(command, click.Context(command, info_name=name, parent=context), f"kickwatch {name}", summary)
            for name, (_, summary) in COMMANDS.items()
            if (command := cli.get_command(context, name)) is not None
        ]
    return found


def _help_of(command: click.Command, context: click.Context, name: str, summary: str) -> CommandHelp:
    records = (parameter.get_help_record(context) for parameter in command.get_params(context))
    paragraphs = [*_paragraphs(command.help or ""), *_paragraphs(command.epilog or "")]
    exit_status, examples = _taken(paragraphs, "Exit status:"), _taken(paragraphs, "Examples:")
    return CommandHelp(
        name=name,
        summary=summary,
        usage=" ".join(command.collect_usage_pieces(context)),
        description=tuple(paragraphs),
        options=tuple(record for record in records if record is not None),
        exit_status=exit_status,
        examples=examples,
    )


def _taken(paragraphs: list[Paragraph], head: str) -> str:
    """Take the paragraph that begins with `head` out of the list; return the rest of its text, or nothing."""
    for paragraph in paragraphs:
        if paragraph.text.startswith(head):
            paragraphs.remove(paragraph)
            return inspect.cleandoc(paragraph.text.removeprefix(head))
    return ""


def _paragraphs(text: str) -> Iterator[Paragraph]:
    """The paragraphs of a docstring as click sees them."""
    for part in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        first, _, rest = part.partition("\n")
        if first.strip() == _VERBATIM:
            yield Paragraph(inspect.cleandoc(rest), verbatim=True)
        elif part.strip():
            yield Paragraph(" ".join(part.replace(_VERBATIM, "").split()))
