"""The papers of a Debian package: debian/copyright (DEP-5), its changelog, and the list of its parts (CycloneDX)."""

import os
import re
import textwrap
import time
import uuid
from collections.abc import Iterable, Sequence
from email.utils import formatdate
from typing import Any

from parts import Part

# As Debian's tools have it, for those who build a package for their own repository.
_NAME = os.environ.get("DEBFULLNAME", "kickwatch maintainers")
_MAIL = os.environ.get("DEBEMAIL", "kickwatch@packages.invalid")
MAINTAINER = f"{_NAME} <{_MAIL}>"
_HEADER = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: kickwatch
Comment: kickwatch with the Python packages that it needs, in a virtual environment of its own. The static programs
 and the BPF objects contain code of glibc, GCC's runtime library, libbpf and Linux' headers.
 /usr/share/doc/kickwatch/kickwatch.cdx.json lists each part with its version and the digest of its wheel.
"""
# The file of each licence on a Debian system; other texts are in debian/copyright.
_COMMON = {
    "Apache-2.0": "Apache-2.0",
    "GPL-2.0-only": "GPL-2",
    "GPL-2.0-only WITH Linux-syscall-note": "GPL-2",
    "GPL-3.0-or-later WITH GCC-exception-3.1": "GPL-3",
    "LGPL-2.1-only": "LGPL-2.1",
    "LGPL-2.1-or-later": "LGPL-2.1",
    "MPL-2.0": "MPL-2.0",
}


def changelog(version: str, suite: str, changes: Sequence[str], epoch: int) -> str:
    """debian/changelog: the one release that the package is; `changes` are the entries of CHANGELOG.md about it."""
    lines = [f"kickwatch ({version}) {suite}; urgency=medium", ""]
    for entry in changes:
        lines += textwrap.wrap(entry, 76, initial_indent="  * ", subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join([*lines, "", f" -- {MAINTAINER}  {formatdate(epoch)}", ""])


def changes_of(text: str, version: str) -> list[str]:
    """The entries of CHANGELOG.md for a release, or those of [Unreleased] before it has a heading of its own."""
    sections = dict(re.findall(r"^## \[([^\]]+)\][^\n]*\n(.*?)(?=^## \[|\Z)", text, re.MULTILINE | re.DOTALL))
    section = sections.get(version) or sections.get("Unreleased") or ""
    entries = re.findall(r"^- (.*(?:\n  .*)*)", section, re.MULTILINE)
    return [" ".join(entry.split()) for entry in entries] or [f"Release {version}."]


def copyright_file(parts: Iterable[Part]) -> str:
    """debian/copyright: a paragraph for each part, with the text of its licence or the file that has it."""
    parts = sorted(parts, key=lambda part: (part.name != "kickwatch", part.name.lower()))
    paragraphs = [_HEADER, *(_paragraph(part) for part in parts)]
    needed = sorted({one for part in parts for one in _singles(part.licence) if one in _COMMON})
    paragraphs += [
        f"License: {_dep5(one)}\n The full text is in /usr/share/common-licenses/{_COMMON[one]} on a Debian system.\n"
        for one in needed
    ]
    return "\n".join(paragraphs)


def _paragraph(part: Part) -> str:
    home = "usr/lib/kickwatch/lib/python3*/site-packages"
    if part.name == "kickwatch":
        files = "*"
    elif part.files:
        files = "\n ".join(f"{home}/{name}{'' if name.endswith('.py') else '/*'}" for name in part.files)
    else:
        files = f"{home}/kickwatch/native/bin/*\n {home}/kickwatch/observe/probes/*.bpf.o"
    holders = ["the authors of kickwatch"] if part.name == "kickwatch" else part.holders
    lines = [f"Files: {files}", f"Copyright: {f'{chr(10)}           '.join(map(_holder, holders))}"]
    notices = [text for name, text in part.texts if "NOTICE" in name.upper()]
    if not part.files:
        notices.append(
            f"Code of {part.name} that is linked into these files, which are part of kickwatch (GPL-2.0-only)."
        )
    if notices:
        lines.append(f"Comment:\n{_indented(''.join(notices))}")
    lines.append(f"License: {_dep5(part.licence)}")
    if not all(one in _COMMON for one in _singles(part.licence)):
        texts = [text for name, text in part.texts if "NOTICE" not in name.upper() and "Apache License" not in text]
        elsewhere = f"{home}/{part.files[-1]}/licenses" if part.files else f"Debian's package {part.name}"
        lines.append(_indented("\n".join(texts) or f"The text is in the files themselves; see {elsewhere}."))
    return "\n".join(lines) + "\n"


def _holder(line: str) -> str:
    return re.sub(r"^copyright:?\s*(\(c\))?\s*", "", line, flags=re.IGNORECASE)


def _indented(text: str) -> str:
    return "\n".join(f" {line.strip() or '.'}" for line in text.strip().splitlines())


def _singles(licence: str) -> list[str]:
    return re.split(r" (?:AND|OR) ", licence)


def _dep5(licence: str) -> str:
    words = licence.replace(" AND ", " and ").replace(" OR ", " or ")
    return re.sub(r" WITH (\S+)", r" with \1 exception", words)


def sbom(parts: Iterable[Part], version: str, architecture: str, epoch: int) -> dict[str, Any]:
    """The parts of the package as CycloneDX 1.5. Two builds of the same parts give the same document."""
    root = f"pkg:deb/kickwatch@{version.replace('+', '%2B')}?arch={architecture}"
    components = [_component(part) for part in sorted(parts, key=lambda part: part.purl)]
    content = " ".join([root, *(f"{one['purl']} {one.get('hashes')}" for one in components)])
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)),
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": "kickwatch",
                "version": version,
                "licenses": [{"expression": "GPL-2.0-only"}],
                "purl": root,
            },
        },
        "components": components,
        "dependencies": [{"ref": root, "dependsOn": [one["bom-ref"] for one in components]}],
    }


def _component(part: Part) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": part.purl,
        "name": part.name,
        "version": part.version,
        "licenses": [{"expression": part.licence}],
        "purl": part.purl,
    }
    if part.sha256:
        found["hashes"] = [{"alg": "SHA-256", "content": part.sha256}]
    return found
