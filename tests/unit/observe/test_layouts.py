"""What Python packs and unpacks against what the programs were compiled with: the debug information of each object."""

import re
import struct
from functools import cache
from itertools import accumulate
from pathlib import Path

import pytest

from btf import Btf, Member
from kickwatch.observe import containers, ipis, kprobe, layouts, request_cells, trace_events, tracer
from kickwatch.observe.bpf import PROBES
from kickwatch.observe.container_starts import CgroupEventKind
from kickwatch.observe.contention import ContentionObserver
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.kprobe import KprobeObserver
from kickwatch.observe.layouts import (
    CALLS_CONFIG,
    CONTAINER_EVENT,
    CONTENTION_CONFIG,
    CSD_CONFIG,
    IPIS_CONFIG,
    TRACE_CONFIG,
    Layout,
)
from kickwatch.observe.mutex import MutexObserver
from kickwatch.observe.readings import Health
from kickwatch.observe.trace_events import Kind

# The map of MASK_CALLS has no types: its key is cut to the machine's masks.
LAYOUTS = {name: value for name, value in vars(layouts).items() if isinstance(value, Layout) and name != "MASK_CALLS"}
OBJECTS = sorted(path.name.removesuffix(".bpf.o") for path in PROBES.glob("*.bpf.o"))
COUNTER, INDEX = "unsigned long long", "unsigned int"
REQUEST_MAPS = {
    "cells": ("cell_key", "cell"),
    "each_cpu": (INDEX, "this_cpu"),
    "far_targets": (INDEX, COUNTER),
    "hits": ("hit_key", "hits"),
    "certain_funcs": (COUNTER, "example"),
    "health": (INDEX, COUNTER),
}
WAIT_MAPS = {
    "waits": ("wait_key", "wait"),
    "waiting": (INDEX, "waiting"),
    "histogram": (INDEX, COUNTER),
    "health": (INDEX, COUNTER),
}
MEMBERS = (COUNTER, COUNTER)  # the same in three objects, since one of them is shared
MAPS = {
    CsdObserver.OBJECT: REQUEST_MAPS | {"config": (INDEX, CSD_CONFIG.name), "callsites": (COUNTER, INDEX)},
    KprobeObserver.OBJECT: REQUEST_MAPS | {"config": (INDEX, CALLS_CONFIG.name)},
    ContentionObserver.OBJECT: WAIT_MAPS | {"config": (INDEX, CONTENTION_CONFIG.name)},
    ipis.OBJECT: {"config": (INDEX, IPIS_CONFIG.name), "ipis": (INDEX, "ipis")},
    MutexObserver.OBJECT: WAIT_MAPS | {"config": (INDEX, CONTENTION_CONFIG.name)},
    tracer.OBJECT: REQUEST_MAPS
    | {"config": (INDEX, CSD_CONFIG.name), "callsites": (COUNTER, INDEX)}
    | {"tracing": (INDEX, TRACE_CONFIG.name), "losses": (INDEX, COUNTER)},
    containers.OBJECT: {
        "events": ("event_key", CONTAINER_EVENT.name),
        "members": MEMBERS,
        "makers": ("maker_name", INDEX),
        "executed_as": (COUNTER, "maker_name"),
        "counts": (INDEX, COUNTER),
    },
    containers.CsdMembers.OBJECT: REQUEST_MAPS | {"config": (INDEX, CSD_CONFIG.name), "members": MEMBERS},
    containers.KprobeMembers.OBJECT: REQUEST_MAPS | {"config": (INDEX, CALLS_CONFIG.name), "members": MEMBERS},
}

WITHOUT_READS = ("csd", "contention", "trace")  # probes with a variant for kernel lockdown: nothing else differs


@cache
def types_of(name: str) -> Btf:
    return Btf.of(PROBES / f"{name}.bpf.o")


def packed_members(layout: Layout) -> list[Member]:
    """The members as Python packs them. Only for numbers it matters whether they are signed."""
    sizes = [struct.calcsize(f"={code}") for code in layout.members.values()]
    offsets = accumulate(sizes, initial=0)
    signed = [code[-1].islower() for code in layout.members.values()]
    return [Member(*member) for member in zip(layout.members, offsets, sizes, signed, strict=False)]


def compiled_members(name: str, layout: Layout) -> list[Member]:
    codes = layout.members
    return [
        member._replace(signed=True) if codes.get(member.name, "").endswith("s") else member
        for member in types_of(name).members(layout.name)
    ]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_each_struct_is_as_python_packs_it(layout: Layout) -> None:
    users = [name for name in OBJECTS if layout.name in types_of(name).structs()]
    assert users, "no object has such a struct"
    for name in users:
        assert compiled_members(name, layout) == packed_members(layout), name
        assert types_of(name).structs()[layout.name].size == layout.size, name


@pytest.mark.parametrize("name", MAPS)
def test_each_map_holds_what_python_reads(name: str) -> None:
    found = types_of(name).maps()
    assert {wanted: found[wanted] for wanted in MAPS[name]} == MAPS[name]


def defined(constant: str) -> set[int]:
    """The values with which the sources of the probes define a constant."""
    sources = [path.read_text(encoding="utf-8") for path in (*PROBES.glob("*.h"), *PROBES.glob("*.bpf.c"))]
    pattern = re.compile(rf"^#define {constant}\s+(\d+)", re.MULTILINE)
    return {int(value) for source in sources for value in pattern.findall(source)}


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("MAX_FRAMES", layouts.MAX_FRAMES),
        ("HISTOGRAM_BUCKETS", layouts.HISTOGRAM_BUCKETS),
        ("BANKS", layouts.BANKS),
        ("FREQUENT_FUNCS", layouts.FREQUENT_FUNCS),
        ("MASK_WORDS", layouts.MASK_WORDS),
        ("NEAR_CPUS", layouts.NEAR_CPUS),
        ("CELL_MULTI", request_cells._MULTI),
        ("CELL_UNDER_SLAB_MUTEX", request_cells._UNDER_SLAB_MUTEX),
        ("CELL_CONTROL", request_cells._CONTROL),
        ("TRACE_MULTI", trace_events.MULTI),
        ("TRACE_UNDER_SLAB_MUTEX", trace_events.UNDER_SLAB_MUTEX),
        ("TRACE_BEGINS", trace_events.BEGINS),
        ("TRACE_BANK", trace_events.BANK),
        ("HAS_COND", kprobe._HAS_COND),
        ("HAS_INNER", kprobe._HAS_INNER),
        ("HAS_SENT", kprobe._HAS_SENT),
        ("HAS_NODE", kprobe._HAS_NODE),
        ("MAKER_OF_CGROUPS", containers._MAKES_CGROUPS),
    ],
)
def test_constants_are_those_of_the_c_sources(constant: str, value: int) -> None:
    assert defined(constant) == {value}


def test_health_has_the_order_of_the_c_enum() -> None:
    names = re.findall(r"^\tHEALTH_(\w+),", (PROBES / "probe.h").read_text(encoding="utf-8"), re.MULTILINE)
    assert [name.lower() for name in names] == [*Health._fields, "indexes"]


def test_kinds_of_events_have_the_order_of_the_c_enum() -> None:
    source = (PROBES / "trace.bpf.c").read_text(encoding="utf-8")
    listed = source[source.index("enum trace_kind") : source.index("TRACE_KINDS")]
    assert re.findall(r"^\tTRACE_(\w+)", listed, re.MULTILINE) == [kind.name for kind in Kind]
    assert re.search(r"TRACE_REQUEST = 1,", listed)
    assert [kind.value for kind in Kind] == list(range(1, len(Kind) + 1))


def test_counts_and_events_of_containers_have_the_order_of_the_c_enums() -> None:
    source = (PROBES / "containers.bpf.c").read_text(encoding="utf-8")
    counts = re.findall(r"^\tCOUNT_(\w+),", source, re.MULTILINE)
    assert [name.lower() for name in counts] == list(containers.CgroupCounts._fields)
    kinds = [f"CONTAINER_{kind.name}" for kind in CgroupEventKind]
    assert f"{kinds[0]} = 1, {kinds[1]} }}" in source


def test_every_object_is_known() -> None:
    variants = {f"{name}_noread" for name in WITHOUT_READS}
    assert (
        {*MAPS, "task_layout"} | variants == set(OBJECTS) == {Path(path.stem).stem for path in PROBES.glob("*.bpf.c")}
    )
