"""A record for a person at a terminal: first the main sentence, then short figures, then values of several lines.

    2026-01-01T00:00:00Z [error   ] kickwatch.broadcast_detected: 3 x do_sync_core per container, sent by the task that
        creates the container
        kernel=6.18.0 cpus_online=2 engine="docker 20.10.24" containers=12 trials=[0badcafe]
        confirm: bpftrace -e '...'
        stack:
            smp_text_poke_batch_finish
            mem_cgroup_write

Sentences are wrapped at the terminal's width; everything else stays on one line, so it can be copied. No key is left
out. Characters that would move the cursor or reverse the text are shown as escapes.
"""

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from kickwatch.journal.plain import as_json, plain, text

MIN_WIDTH = 40  # columns; a narrower terminal is treated as if it had these

_SENTENCES = ("headline", "explanation", "what", "meaning", "remedy")
_FOR_COLLECTORS = frozenset({"schema", "priority"})
_INDENT = "    "
_SHORT = 48  # characters; a longer value gets its own line
_MAX_SENTENCE = 2000  # characters; longer text is not wrapped
_BARE = re.compile(r"[^\s\"'=,;:\[\]{}][^\s\"=,\[\]{}]*")
_RESET, _BOLD, _RED, _YELLOW, _GREEN, _DIM = (f"\x1b[{code}m" for code in (0, 1, 31, 33, 32, 2))
_COLOURS = {"critical": _RED + _BOLD, "error": _RED, "warning": _YELLOW, "info": _GREEN, "debug": _DIM}


def render(record: Mapping[str, Any], width: int, *, colours: bool) -> str:
    """The record as lines, without a final newline. Lines are at most `width` columns if they can be wrapped."""
    width, fields = max(width, MIN_WIDTH), plain(dict(record))
    when, level, event = (printable(text(fields.pop(key, ""))) for key in ("timestamp", "level", "event"))
    front = f"{when} [{level:<8}] {event}"
    first, *lines = _lines(front, fields, width)
    if colours:
        marked = f"{when} [{_COLOURS.get(level, '')}{level:<8}{_RESET}] {_BOLD}{event}{_RESET}"
        first = marked + first.removeprefix(front)
    return "\n".join((first, *lines))


def printable(text: str) -> str:
    """The text, with every character that is neither visible nor a space written as an escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _lines(front: str, fields: dict[str, Any], width: int) -> Iterator[str]:
    sentences = [key for key in _SENTENCES if _is_sentence(fields.get(key))]
    first = sentences[0] if sentences and sentences[0] != "remedy" else None
    short = {key: _pair(key, value) for key, value in fields.items() if key not in _FOR_COLLECTORS.union(sentences)}
    pairs = [pair for pair in short.values() if pair is not None]
    if first is not None:
        yield from _first_lines(front, printable(fields[first]), width)
    elif pairs and len(front) + 2 + len(together := " ".join(pairs)) <= width:
        yield f"{front}: {together}"
        pairs = []
    else:
        yield front
    for key in sentences:
        if key != first:
            yield from _wrapped(f"{key}: {printable(fields[key])}", width, _INDENT, _INDENT + _INDENT)
    yield from _packed(pairs, width, _INDENT)
    for key, pair in short.items():
        if pair is None:
            yield from _block(key, fields[key], width, _INDENT)


def _is_sentence(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\n" not in value and len(value) <= _MAX_SENTENCE


def _first_lines(front: str, sentence: str, width: int) -> list[str]:
    """The sentence after `front`, or below it if only a few words would fit beside it."""
    if len(front) + 2 + len(sentence) <= width:
        return [f"{front}: {sentence}"]
    if width - len(front) < MIN_WIDTH:
        return [f"{front}:", *_wrapped(sentence, width, _INDENT)]
    return _wrapped(sentence, width, f"{front}: ")


def _wrapped(sentence: str, width: int, first_indent: str, further_indent: str = _INDENT) -> list[str]:
    return textwrap.wrap(
        sentence,
        width,
        initial_indent=first_indent,
        subsequent_indent=further_indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _word(value: object) -> str:
    """A value within a line: as it is if it is one word, else in quotes."""
    if not isinstance(value, str):
        return as_json(value)
    if _BARE.fullmatch(value) and value.isprintable():
        return value
    return printable('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"')


def _inline(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_word(key)}={_inline(item)}' for key, item in value.items())}}}"
    return _word(value)


def _pair(key: str, value: object) -> str | None:
    """`key=value`; None if that is too long."""
    shown = _inline(value)
    return f"{_word(key)}={shown}" if len(shown) <= _SHORT else None


def _packed(pairs: list[str], width: int, indent: str) -> Iterator[str]:
    """Lines with as many pairs as fit."""
    line = ""
    for pair in pairs:
        if line and len(indent) + len(line) + 1 + len(pair) > width:
            yield indent + line
            line = ""
        line = f"{line} {pair}" if line else pair
    if line:
        yield indent + line


def _block(key: str, value: object, width: int, indent: str) -> Iterator[str]:
    """A value on its own line or lines."""
    name = _word(key)
    if isinstance(value, str) and "\n" not in value:
        yield f"{indent}{name}: {printable(value)}"
        return
    yield f"{indent}{name}:"
    yield from _items(value, width, indent + _INDENT)


def _items(value: object, width: int, indent: str) -> Iterator[str]:
    if isinstance(value, str):
        yield from (indent + printable(line) for line in value.split("\n"))
    elif isinstance(value, dict):
        yield from _members(value, width, indent)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                yield from _list_item(item, width, indent)
            elif isinstance(item, str) and "\n" not in item:
                yield indent + printable(item)
            elif isinstance(item, str | list):
                yield f"{indent}-"
                yield from _items(item, width, indent + _INDENT)
            else:
                yield indent + _word(item)
    else:
        yield indent + _word(value)


def _list_item(item: dict[str, object], width: int, indent: str) -> Iterator[str]:
    """An object in a list: its first line starts with a dash."""
    lines = list(_members(item, width, indent + "  ")) or [indent + "  {}"]
    yield f"{indent}- {lines[0].removeprefix(indent + '  ')}"
    yield from lines[1:]


def _members(value: dict[str, object], width: int, indent: str) -> Iterator[str]:
    pairs = {key: _pair(key, item) for key, item in value.items()}
    yield from _packed([pair for pair in pairs.values() if pair is not None], width, indent)
    for key, pair in pairs.items():
        if pair is None:
            yield from _block(key, value[key], width, indent)
