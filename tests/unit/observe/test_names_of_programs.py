"""The tests that look for programs left in the kernel know every program of kickwatch's by its name."""

import re
from pathlib import Path

import bpf_programs

PROBES = Path(__file__).parents[3] / "daemon/kickwatch/observe/probes"
MOST = 15  # characters that the kernel keeps


def test_every_program_is_known_to_the_tests_of_what_is_left() -> None:
    """Those of passive mode and of `trace` were not, so nothing would have noticed that they stay loaded."""
    sources = "".join(path.read_text("ascii") for path in [*PROBES.glob("*.bpf.c"), *PROBES.glob("*.h")])
    named = re.findall(r'^SEC\("(?!\.maps|license)[^"]+"\)\n(?:static )?int (\w+)\(', sources, re.MULTILINE)
    assert {name[:MOST] for name in named} == bpf_programs.OURS
