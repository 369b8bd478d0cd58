"""The configuration as a page: the type, range and default of each key from the types, its meaning from the example."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from generators.command_pages import cell
from kickwatch.configuration.limits import PRESETS
from kickwatch.configuration.loading import allowed, known_keys
from kickwatch.configuration.types import Config

EXAMPLE = Path(__file__).parents[2] / "deploy" / "kickwatch.toml"
_INTRODUCTION = """# Configuration

`/etc/kickwatch/kickwatch.toml` is TOML. Every key has a default, so an empty file is valid.
[kickwatch.toml](../../deploy/kickwatch.toml) has every key with its default, commented out. Durations are in
seconds, sizes in bytes. `kickwatch check-config FILE` names a wrong key and how to fix it; `systemctl reload
kickwatch` makes the daemon read the file again.

Each of these overrides the one before: the default, the file, `KICKWATCH_SECTION_KEY` in the environment
(`KICKWATCH_WORKLOAD_NETWORK=bridge`), `--set section.key=value` on the command line. The program refuses an unknown
key; only the daemon ignores it, and logs `kickwatch.config_warning`.
"""


@dataclass(frozen=True)
class Key:
    """One key: `name` is `section.key`, `meaning` whole sentences."""

    name: str
    values: str
    default: str
    meaning: str


def keys() -> list[Key]:
    """Every key of the configuration, in its order. Raises ValueError if the example lacks one."""
    comments = _comments()
    defaults = msgspec.to_builtins(Config())
    found = []
    for name in known_keys():
        section, _, key = name.partition(".")
        if name not in comments:
            raise ValueError(f"{EXAMPLE}: {name} is missing")
        default = msgspec.json.encode(defaults[section][key]).decode()
        found.append(Key(name, allowed(name), default, _without_range(comments[name], allowed(name))))
    return found


def page() -> str:
    """The page."""
    parts = [_INTRODUCTION]
    for section in msgspec.structs.fields(Config):
        rows = [
            f"| `{key.name.partition('.')[2]}` | `{key.default}` | {cell(key.values)} | {cell(key.meaning)} |"
            for key in keys()
            if key.name.startswith(f"{section.name}.")
        ]
        head = ["| key | default | values | meaning |", "|---|---|---|---|"]
        parts.append("\n".join([f"## `[{section.name}]`", "", *head, *rows, ""]))
    return "\n".join([*parts, _presets()])


def _presets() -> str:
    rows = []
    for preset, limits in PRESETS.items():
        figures = [f"{figure:g}" if figure else "no limit" for figure in msgspec.structs.astuple(limits)[:3]]
        rows.append(f"| `{preset}` | {' | '.join(figures)} |")
    head = ["| preset | containers in any hour | in any day | share of one CPU, the daemon |", "|---|---|---|---|"]
    return "\n".join(["## Presets of the budget", "", *head, *rows, ""])


def _comments() -> dict[str, str]:
    """The comment above each key of the example, as one line."""
    found: dict[str, str] = {}
    section, comment = "", []
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section, comment = line.strip("[]"), []
        elif match := re.match(r"#(\w+) = (.*)$", line):
            tomllib.loads(line[1:])  # a key, not a sentence
            found[f"{section}.{match[1]}"] = " ".join(comment)
            comment = []
        elif line.startswith("# "):
            comment.append(line[2:])
        else:
            comment = []
    return found


def _without_range(comment: str, values: str) -> str:
    """The comment without the words that the column of values repeats."""
    for between in (f": {values}, ", f": {values}"):
        if between in comment:
            return comment.replace(between, ", " if between.endswith(", ") else "", 1)
    return comment
