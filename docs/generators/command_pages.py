"""One page of Markdown for each command, and the page that lists them."""

from generators.command_help import CommandHelp, all_commands


def pages() -> dict[str, str]:
    """The text of each page below `commands/`."""
    commands = all_commands()
    return {"commands/index.md": _index(commands)} | {f"commands/{one.page}.md": _page(one) for one in commands}


def _index(commands: list[CommandHelp]) -> str:
    rows = [f"| [`{one.name}`]({one.page}.md) | {one.summary} |" for one in commands[1:]]
    tree = "\n".join(["```{toctree}", ":hidden:", "", *(one.page for one in commands), "```"])
    text = (
        "The same text as `kickwatch COMMAND --help` and `man kickwatch-COMMAND`. The [exit statuses]"
        "(../../exit-statuses.md) and the [configuration](../configuration.md) have pages of their own."
    )
    return "\n".join(["# Commands", "", text, "", "| command | purpose |", "|---|---|", *rows, "", tree, ""])


def _page(command: CommandHelp) -> str:
    parts = [f"# {command.name}", f"```text\n{command.name} {command.usage}\n```"]
    parts += [f"```text\n{one.text}\n```" if one.verbatim else one.text for one in command.description]
    if command.options:
        rows = [f"| `{cell(flag)}` | {cell(text)} |" for flag, text in command.options]
        parts.append("\n".join(["## Options", "", "| option | meaning |", "|---|---|", *rows]))
    if command.exit_status:
        parts += ["## Exit status", f"{command.exit_status[:1].upper()}{command.exit_status[1:]}"]
    if command.examples:
        parts += ["## Examples", f"```sh\n{command.examples}\n```"]
    return "\n\n".join(parts) + "\n"


def cell(text: str) -> str:
    """A text as a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
