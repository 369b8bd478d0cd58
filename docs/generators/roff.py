"""Man pages: one for each command, and kickwatch.toml(5)."""

import re

from generators.command_help import CommandHelp, Paragraph, all_commands
from generators.configuration_page import keys
from kickwatch import __version__

_SEE = ("systemctl(1)", "journalctl(1)", "bpftrace(8)")


def man_pages() -> dict[str, str]:
    """The text of each page by its path below a man directory."""
    commands = all_commands()
    found = {f"man1/{one.page}.1": _command_page(one, commands) for one in commands}
    return found | {"man5/kickwatch.toml.5": _configuration_page()}


def _command_page(command: CommandHelp, commands: list[CommandHelp]) -> str:
    lines = [*_head(command.page, 1, command.summary), ".SH SYNOPSIS", f".B {escaped(command.name)}"]
    lines += [escaped(command.usage), ".SH DESCRIPTION", *_paragraphs(command.description)]
    if command.options:
        lines.append(".SH OPTIONS")
        for flag, text in command.options:
            lines += [".TP", f".B {escaped(flag)}", escaped(" ".join(text.split()))]
    if command.exit_status:
        lines += [".SH EXIT STATUS", escaped(command.exit_status)]
    if command.examples:
        lines += [".SH EXAMPLES", ".nf", *(escaped(line) for line in command.examples.splitlines()), ".fi"]
    if command is commands[0]:
        lines += [".SH COMMANDS"]
        for other in commands[1:]:
            lines += [".TP", f".BR {escaped(other.page)} (1)", escaped(other.summary)]
        lines += _files()
    others = [f"{one.page}(1)" for one in commands if one is not command]
    return _page(lines, [*others, "kickwatch.toml(5)", *_SEE])


def _configuration_page() -> str:
    lines = [*_head("kickwatch.toml", 5, "configuration of kickwatch"), ".SH DESCRIPTION"]
    lines += [
        escaped("TOML. Every key has a default, so an empty file is valid. Durations are in seconds, sizes in bytes."),
        escaped("KICKWATCH_SECTION_KEY in the environment overrides a key, --set section.key=value both."),
        escaped("`kickwatch check-config FILE` names a wrong key and how to fix it."),
    ]
    section = ""
    for key in keys():
        inside, _, name = key.name.partition(".")
        if inside != section:
            section = inside
            lines.append(f".SH [{section}]")
        lines += [".TP", f".B {escaped(f'{name} = {key.default}')}", escaped(f"{key.meaning} Values: {key.values}.")]
    return _page(lines, ["kickwatch(1)", "kickwatch-check-config(1)"])


def _files() -> list[str]:
    lines = [".SH FILES"]
    for path, text in (
        ("/etc/kickwatch/kickwatch.toml", "The configuration; see kickwatch.toml(5)."),
        ("/run/kickwatch/drain", "While it exists, the daemon starts no containers."),
        ("/var/lib/kickwatch", "History and evidence."),
    ):
        lines += [".TP", f".I {path}", escaped(text)]
    return lines


def _head(name: str, section: int, summary: str) -> list[str]:
    title = f'.TH {escaped(name.upper())} {section} "" "kickwatch {__version__}" "kickwatch"'
    return [title, ".SH NAME", rf"{escaped(name)} \- {escaped(summary[:1].lower() + summary[1:].rstrip('.'))}"]


def _page(lines: list[str], see: list[str]) -> str:
    names = [re.sub(r"(.+)\((\d)\)", r".BR \1 (\2)", escaped(name)) for name in see]
    return "\n".join([*lines, ".SH SEE ALSO", *(f"{name}," for name in names[:-1]), names[-1], ""])


def _paragraphs(paragraphs: tuple[Paragraph, ...]) -> list[str]:
    lines: list[str] = []
    for paragraph in paragraphs:
        if paragraph.verbatim:
            lines += [".PP", ".nf", *(escaped(line) for line in paragraph.text.splitlines()), ".fi"]
        else:
            lines += [".PP", escaped(paragraph.text)]
    return lines[1:] if lines[:1] == [".PP"] else lines


def escaped(text: str) -> str:
    """A text in which roff changes nothing: backslashes, hyphens as typed, no accidental request."""
    safe = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("`", r"\(ga")
    return rf"\&{safe}" if safe.startswith(".") else safe
