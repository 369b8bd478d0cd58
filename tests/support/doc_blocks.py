"""The command lines of the documentation: fenced blocks of shell, and code in the text.

The first line of a block says what a test does with it, in words that no renderer shows: ```` ```sh run exit=3 ````.

- `run`: it runs as it stands, in the order of the page, and exits with 0 or with the status of `exit=`. With `v1` only
  on cgroup v1.
- `parse`: it cannot run in a test (it installs, boots, or takes hours); its lines are parsed by the command itself.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_WRITTEN = [path for path in ROOT.glob("docs/**/*.md") if "generated" not in path.parts]
PAGES = tuple(sorted([*ROOT.glob("*.md"), *_WRITTEN]))
_FENCE = re.compile(
    r"^(?P<indent> *)```(?:sh|console)(?P<words>[^\n]*)\n(?P<text>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL
)
_INLINE = re.compile(r"(?<!`)`((?:\.venv/bin/)?kickwatch(?: [^`]+)?|make [^`]+)`(?!`)")
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
_LAST = re.compile(r"[|&;<>]+\S*")


@dataclass(frozen=True)
class Block:
    """A fenced block of shell. `words` are those after `sh`; `status` is the exit status that the page promises."""

    page: Path
    line: int
    words: tuple[str, ...]
    text: str

    @property
    def where(self) -> str:
        """Page and line, for messages and test ids."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def status(self) -> int:
        """What it exits with."""
        return next((int(word.removeprefix("exit=")) for word in self.words if word.startswith("exit=")), 0)


def blocks(page: Path) -> list[Block]:
    """The blocks of one page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        indent = len(match["indent"])
        body = "".join(line[indent:] if line[:indent].isspace() else line for line in match["text"].splitlines(True))
        found.append(Block(page, text.count("\n", 0, match.start()) + 1, tuple(match["words"].split()), body))
    return found


def command_lines(text: str) -> list[list[str]]:
    """The words of every `kickwatch` and `make` in a piece of shell, without comments, redirections and environment."""
    found = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        for part in re.split(r"&&|\|\||;", line):
            words = _words(part)
            while words and _ASSIGNMENT.fullmatch(words[0]):
                words = words[1:]
            if words and words[0] in {"kickwatch", ".venv/bin/kickwatch", "make"}:
                found.append(words)
    return found


def inline_lines(text: str) -> list[list[str]]:
    """The same for code in running text, outside of its blocks."""
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [_words(" ".join(match[1].split())) for match in _INLINE.finditer(text)]


def _words(part: str) -> list[str]:
    """The words up to a comment, a pipe or a redirection; none if a quote stays open (several lines)."""
    try:
        words = shlex.split(part, comments=True)
    except ValueError:
        return []
    end = next((index for index, word in enumerate(words) if _LAST.fullmatch(word)), len(words))
    return words[:end]
