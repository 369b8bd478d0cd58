"""A command line in a narrow terminal, broken only where a shell reads on: what is copied is one command. Pure."""

from collections.abc import Iterator

_CONTINUED = " \\"


def shell_lines(command: str, columns: int, indent: int = 2) -> list[str]:
    """`command` in lines of at most `columns`, except for a word that is longer by itself.

    A line ends with a backslash, or where a quote is open: the newline then is part of the argument, in place of a
    space. The programs of bpftrace and awk may contain one.
    """
    lines, line, quote = [], " " * indent, ""
    for word, open_quote in _words(command):
        candidate = f"{line} {word}" if line.strip() else f"{line}{word}"
        if line.strip() and len(candidate) + len(_CONTINUED) > columns:
            lines.append(line if quote else line + _CONTINUED)
            candidate = " " * (indent + 2) + word
        line, quote = candidate, open_quote
    return [*lines, line]


def _words(command: str) -> Iterator[tuple[str, str]]:
    """Each word, with the quote that is open after it; empty for none."""
    quote = ""
    for word in command.split(" "):
        for character in word:
            if character == quote:
                quote = ""
            elif character in "'\"" and not quote:
                quote = character
        yield word, quote
