"""What a Debian package of kickwatch is made of, and under which licence: the wheels, and what its programs contain.

A part without a licence that is known to be free ends the build.
"""

import hashlib
import re
import subprocess
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path

ALLOWED = frozenset(
    {
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "GPL-2.0-only",
        "GPL-2.0-only WITH Linux-syscall-note",
        "GPL-3.0-or-later WITH GCC-exception-3.1",
        "LGPL-2.1-only",
        "LGPL-2.1-or-later",
        "MIT",
        "MPL-2.0",
    }
)
# What authors wrote before metadata had License-Expression (PEP 639), as SPDX writes it.
_WRITTEN = {"The MIT License (MIT)": "MIT", "3-Clause BSD License": "BSD-3-Clause"}
_CLASSIFIERS = {
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
}
# Debian packages of the build machine whose code is in the programs and BPF objects: name, whether a cross compiler has
# its own, licence, copyright holder.
_LINKED = (
    ("libc6-dev", True, "LGPL-2.1-or-later", "Free Software Foundation, Inc. and contributors"),
    ("libgcc-*-dev", True, "GPL-3.0-or-later WITH GCC-exception-3.1", "Free Software Foundation, Inc."),
    ("libbpf-dev", False, "LGPL-2.1-only OR BSD-2-Clause", "Facebook and the contributors of libbpf"),
    ("linux-libc-dev", True, "GPL-2.0-only WITH Linux-syscall-note", "Linus Torvalds and the contributors of Linux"),
)
_TEXTS = re.compile(r"\.dist-info/(licenses/)?(LICEN[CS]E|COPYING|NOTICE)[^/]*$", re.IGNORECASE)
_HOLDER = re.compile(r"^(copyright|\(c\)|©).*\b(19|20)\d\d\b", re.IGNORECASE)


class PartError(Exception):
    """What a part lacks, and where."""


@dataclass(frozen=True)
class Part:
    """`licence`: an SPDX expression. `sha256`: of its wheel. `texts`: of its licence and notices, by file name.

    Of what is linked, `source` is the Debian source as in Built-Using, and neither files nor texts are there.
    """

    name: str
    version: str
    licence: str
    purl: str
    sha256: str = ""
    files: tuple[str, ...] = ()  # in site-packages, the first component of each
    holders: tuple[str, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    source: str = ""


def of_wheel(path: Path) -> Part:
    """What a wheel says about itself. Raises PartError where its licence is unknown or has no text."""
    with zipfile.ZipFile(path) as wheel:
        names = sorted(wheel.namelist())
        metadata = Parser().parsestr(_only(wheel, r"\.dist-info/METADATA$"))
        found = [name for name in names if _TEXTS.search(name)]
        texts = tuple((name.rpartition("/")[2], wheel.read(name).decode()) for name in found)
    name, version = metadata["Name"], metadata["Version"]
    if not any("notice" not in name.lower() for name, _ in texts):
        raise PartError(f"{path.name} has no text of its licence")
    return Part(
        name=name,
        version=version,
        licence=checked(name, _licence(metadata)),
        purl=f"pkg:pypi/{re.sub('[-_.]+', '-', name).lower()}@{version}",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        files=tuple(sorted({name.partition("/")[0] for name in names if ".data/" not in name})),
        holders=tuple(dict.fromkeys(_holders(texts))) or (_author(metadata),),
        texts=texts,
    )


def linked(architecture: str, *, cross: bool) -> list[Part]:
    """The parts of static programs and BPF objects, from the Debian packages on this machine that they come from."""
    found = []
    for name, has_cross, licence, holder in _LINKED:
        package, version, source = _installed(f"{name}-{architecture}-cross" if cross and has_cross else name)
        purl = f"pkg:deb/debian/{package}@{version.replace('+', '%2B')}"
        found.append(Part(package, version, checked(package, licence), purl, holders=(holder,), source=source))
    return found


def checked(name: str, licence: str) -> str:
    """The same expression, if each of its licences is allowed."""
    for single in re.split(r" (?:AND|OR) |[()]", licence):
        if single and single not in ALLOWED:
            raise PartError(f"{name}: licence {licence!r} is not among those that deploy/debian/parts.py allows")
    return licence


def _licence(metadata: "Message[str, str]") -> str:
    if expression := metadata["License-Expression"]:
        return expression
    if written := metadata["License"]:
        first = written.strip().splitlines()[0]  # some give the whole text
        return _WRITTEN.get(first, first)
    classifiers: Iterable[str] = metadata.get_all("Classifier", [])
    return next((_CLASSIFIERS[one] for one in classifiers if one in _CLASSIFIERS), "none")


def _holders(texts: Iterable[tuple[str, str]]) -> Iterator[str]:
    for _, text in texts:
        for line in map(str.strip, text.splitlines()):
            if _HOLDER.match(line):
                yield line


def _author(metadata: "Message[str, str]") -> str:
    name, mail = metadata["Author"], metadata["Author-email"]
    return f"{name} <{mail}>" if name and mail else name or mail or "unknown"


def _only(wheel: zipfile.ZipFile, pattern: str) -> str:
    (name,) = (name for name in wheel.namelist() if re.search(pattern, name))
    return wheel.read(name).decode()


def _installed(pattern: str) -> tuple[str, str, str]:
    """Name and version of the newest installed package with such a name, and its source as in Built-Using."""
    form = "--showformat=${db:Status-Status}\\t${Package}\\t${Version}\\t${source:Package} (= ${source:Version})\\n"
    command = ["dpkg-query", "--show", form, pattern]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    found = [line.split("\t")[1:] for line in lines if line.startswith("installed\t")]
    if not found:
        raise PartError(f"the Debian package {pattern} is not installed here, so its version is unknown: make packages")
    name, version, source = found[-1]
    return name, version, source
