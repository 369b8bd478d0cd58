"""Text for a kernel mailing list: the fault, the kernel and its configuration, how to reproduce it, bill and stacks.

Nothing private is in it. Every word is either this module's own, a number, or has passed a filter that knows what it
may be: a kernel release, a symbol of the kernel, the name and version of a known engine. Failures, notes, images,
containers, tasks and paths of the history are never read. Plain ASCII, at most 72 columns, as mail to a list should be.
Pure.
"""

import re
from collections.abc import Mapping
from textwrap import wrap
from typing import Any

from kickwatch.attribution.reasons import explain
from kickwatch.outlets.broadcast import bpftrace_line
from kickwatch.report.bug_subject import Subject, subject_of

WIDTH = 72
MOST_BILL = 8
MOST_STACKS = 3
MOST_FRAMES = 16
HIDDEN = "(withheld)"
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,79}")
_RELEASE = re.compile(r"[0-9]+\.[0-9]+[A-Za-z0-9.+~_-]{0,59}")
_ENGINE = re.compile(r"(docker|podman|containerd|crio|cri-o|cri|oci|runc|crun)( v?[0-9][0-9A-Za-z.+~-]{0,29})?")
_NETWORKS = {"none", "host", "bridge", "private"}
_ARCHES = re.compile(r"[a-z0-9_]{2,12}")


def bug_text(found: dict[str, Any], config: Mapping[str, str]) -> str:
    """The text. `found`: from `overview`; `config`: the kernel's options that matter, empty where not readable."""
    subject = subject_of(found)
    parts = [
        _subject_line(subject),
        "\n".join(_wrapped(_opening(subject))),
        _environment(subject, config),
        _reproduce(subject),
        _bill(subject),
        _stacks(subject),
        _waits(subject),
        _confirm(subject),
        _footer(),
    ]
    return "\n\n".join(part for part in parts if part).encode("ascii", "replace").decode("ascii")


def symbol(text: str) -> str:
    """A symbol of the kernel, without offset and module. The names that users give to BPF programs are withheld."""
    name = text.partition("+")[0].partition(" ")[0].partition("[")[0]
    if name.startswith("bpf_prog_"):
        return "bpf_prog"
    return name if _SYMBOL.fullmatch(name) else HIDDEN


def release(text: str) -> str:
    """A kernel release, as `uname -r` prints it."""
    return text if _RELEASE.fullmatch(text) else HIDDEN


def engine(text: str) -> str:
    """A known engine or runtime with its version."""
    return text if _ENGINE.fullmatch(text) else HIDDEN


def task(holder: str) -> str:
    """Which kind of task: names of tasks can be anything a user chose."""
    if holder.startswith("kworker/"):
        return "a kworker"
    return "a kernel RCU thread" if holder.startswith("rcu_") else "a task"


def _subject_line(subject: Subject) -> str:
    worst = subject.worst
    if worst is None:
        return "Subject: IPIs sent while containers are created"
    return f"Subject: {symbol(worst['func'])} broadcast to all CPUs for each container created"


def _opening(subject: Subject) -> str:
    row, each = subject.kernel, subject.kernel["creation_path_broadcasts_per_container"]
    if subject.passive is not None:
        return _passive_opening(subject, subject.passive)
    if subject.worst is None or not each:
        return (
            f"With Linux {release(row['kernel'])}, {row['containers']} containers made the creation path broadcast"
            f" {'an unknown number of' if each is None else 'no'} IPIs. This report gives what they cost."
        )
    cell = subject.worst
    return (
        f"With Linux {release(row['kernel'])}, creating a container makes the kernel interrupt nearly every other CPU"
        f" {each:g} times ({row['creation_path_broadcasts']} broadcasts for {row['attributed_containers']} containers"
        f" in {row['trials']} trials). Most of them run {symbol(cell['func'])}. {explain(symbol(cell['func']))}"
    )


def _passive_opening(subject: Subject, seen: dict[str, Any]) -> str:
    own, others, cgroups = seen["own_broadcasts"], seen["other_broadcasts"], seen["cgroups_made"]
    if own is None:
        return f"With Linux {release(seen['kernel'])}, others started {seen['containers']} containers unobserved."
    sent = (
        f"With Linux {release(seen['kernel'])}, while others started {seen['containers']} containers, tasks of these"
        f" sent {own} broadcasts on the creation path, and other tasks {others} for {cgroups} cgroups that were made"
        f" ({seen['records']} records; lower bounds, without those that patch kernel text)."
    )
    if subject.worst is None:
        return sent
    func = symbol(subject.worst["func"])
    return f"{sent} Most of them run {func}. {explain(func)}"


def _environment(subject: Subject, config: Mapping[str, str]) -> str:
    node, row = subject.node, subject.kernel
    arch = node["arch"] if _ARCHES.fullmatch(node["arch"]) else HIDDEN
    network = node["network"] if node["network"] in _NETWORKS else "other"
    lines = [
        f"Kernel:      {release(row['kernel'])} ({arch})",
        f"CPUs:        {node['cpus_online']} online",
        f"cgroup:      {node['cgroup'] if node['cgroup'] in {'v1', 'v2'} else HIDDEN}",
        f"kmem:        accounting {node['kmem_accounting']}",
        f"Engine:      {engine(node['engine'])}, {engine(node['runtime'])}, network {network}",
    ]
    if subject.passive is not None:
        lines[-1:] = ["Engine:      any (kickwatch started no container: passive mode)"]
    if subject.others:
        lines.append("Compared:    " + _compared(subject.others[0]))
        lines += [f"             {_compared(other)}" for other in subject.others[1:]]
    if config:
        lines += ["", "Configuration:", *(f"  {name}={value}" for name, value in config.items())]
    else:
        lines += ["", *_wrapped("Configuration: not readable here; please add /proc/config.gz of that kernel.")]
    return "\n".join(lines)


def _compared(row: dict[str, Any]) -> str:
    each = row["creation_path_broadcasts_per_container"]
    return f"{release(row['kernel'])}: {'not known' if each is None else f'{each:g}'} per container"


def _reproduce(subject: Subject) -> str:
    network = subject.node["network"] if subject.node["network"] in {"none", "host"} else "none"
    return "\n".join(
        [
            "Reproduce:",
            f"  for i in $(seq 20); do docker run --rm --network {network} \\",
            "      busybox true; done",
            "  # or without containers, 100 memory cgroups made and used:",
            "  kickwatch reproduce -n 100",
        ]
    )


def _bill(subject: Subject) -> str:
    rows = [
        f"  {row['requests_per_container']:9.2f} {row['broadcasts_per_container']:9.3f}  {row['path']:7.7}"
        f" {row['origin']:10.10} {symbol(row['func'])[:30]}"
        for row in subject.bill[:MOST_BILL]
    ]
    head = "   requests broadcast  path    source     function"
    title = "IPI requests per container (windows without containers subtracted):"
    if subject.passive is not None:
        title = "IPI requests of the creation path per container, by any task:"
    return "\n".join([title, head, *rows]) if rows else ""


def _stacks(subject: Subject) -> str:
    parts = []
    for row in subject.guilty[:MOST_STACKS]:
        where = (
            f"{symbol(row['func'])}, {row['broadcasts']} broadcasts ({row['origin']}, {row['path']}), innermost first:"
        )
        frames = [symbol(frame) for frame in row["stack"][:MOST_FRAMES]]
        parts.append("\n".join([*_wrapped(where), *(f"  {frame[: WIDTH - 2]}" for frame in frames)]))
    return "\n\n".join(parts)


def _waits(subject: Subject) -> str:
    row = subject.kernel
    count = row["slab_mutex_waits"]
    if subject.passive is not None:
        seen = subject.passive["slab_mutex_waits"]
        return f"Waits for slab_mutex: {'not known' if seen is None else f'{seen} in all'}."
    if count is None:
        return "Waits for slab_mutex: not known."
    if not count:
        return "Waits for slab_mutex: none."
    each, waiting = row["slab_mutex_waits_per_container"], row["slab_mutex_wait_ms"]
    who = sorted({f"{symbol(one['waiter'])} behind {task(one['holder'])}" for one in subject.waiters[:5]})
    text = f"Waits for slab_mutex: {each:g} per container, {waiting:g} ms in all ({', '.join(who)})."
    return "\n".join(_wrapped(text))


def _confirm(subject: Subject) -> str:
    rung = "kprobe" if subject.kernel["ipi_rung"] == "kprobe" else "csd"
    worst = subject.worst
    if worst is None:
        return ""
    line = bpftrace_line(None, rung).replace("{ @", f"{_filter(symbol(worst['func']), rung)}{{ @", 1)
    lines = wrap(line, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
    return "\n".join(
        ["Confirm, while containers start (bpftrace accepts the line breaks):", *(f"  {one}" for one in lines)]
    )


def _filter(func: str, rung: str) -> str:
    if func in {HIDDEN, "bpf_prog"}:
        return ""
    return f'/{"arg1" if rung == "kprobe" else "args->func"} == kaddr("{func}")/ '


def _footer() -> str:
    return "\n".join(
        [
            "-- ",
            "Measured by kickwatch: requests and multi-CPU calls counted by BPF",
            "programs with their stacks; a broadcast reaches 90 % of the other CPUs.",
        ]
    )


def _wrapped(text: str) -> list[str]:
    return wrap(text, WIDTH, break_long_words=True, break_on_hyphens=False)
