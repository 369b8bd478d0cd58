"""Write what is made from the code: `generate.py pages DIRECTORY` for Sphinx, `generate.py man DIRECTORY`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from generators import atlas_page, command_pages, configuration_page, metrics_page, reasons_page, roff, schema_page


def pages() -> dict[str, str]:
    """The text of each generated page by its path below docs/generated."""
    return command_pages.pages() | {
        "atlas.md": atlas_page.page(),
        "configuration.md": configuration_page.page(),
        "metrics.md": metrics_page.page(),
        "reasons.md": reasons_page.page(),
        "schema.md": schema_page.page(),
    }


def write(texts: dict[str, str], directory: Path) -> None:
    """Make `directory` contain these files and no others. A file that is equal is not touched."""
    for stale in [path for path in directory.rglob("*") if path.is_file()]:
        if str(stale.relative_to(directory)) not in texts:
            stale.unlink()
    for name, text in texts.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def main(kind: str, directory: Path) -> None:
    """Write the files of one kind."""
    if directory.is_file():
        raise SystemExit(f"{directory} is a file")
    write(pages() if kind == "pages" else roff.man_pages(), directory)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
