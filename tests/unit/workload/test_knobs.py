"""The kmem knobs in a cgroup tree of the test's own: plain files that keep, refuse or ignore what is written."""

import asyncio
import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kickwatch.errors import CgroupError
from kickwatch.journal.remark import texts_of
from kickwatch.workload import knobs as module
from kickwatch.workload.knobs import KMEM_LIMIT, KMEM_TCP_LIMIT, Knobs, memory_cgroups

MIB = 1 << 20
UNLIMITED = 9223372036854771712
ENOTSUPP = 524  # the kernel's own, without a name in errno(3)
HEAD = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t2\t1\n"


@dataclass
class Node:
    """A parent memcg with one container's memcg, and a proc that counts memcgs."""

    root: Path
    pushed: list[Path] = field(default_factory=list)

    @property
    def memcg(self) -> Path:
        return self.root / "kickwatch/abc"

    def v1(self) -> "Node":
        self.memcg.mkdir(parents=True)
        for name in (KMEM_LIMIT, KMEM_TCP_LIMIT):
            (self.memcg / name).write_text(f"{UNLIMITED}\n")
        return self.count(40)

    def v2(self) -> "Node":
        self.memcg.mkdir(parents=True)
        (self.memcg / "memory.max").write_text("max\n")
        return self.count(40)

    def count(self, memcgs: int) -> "Node":
        (self.root / "cgroups").write_text(f"{HEAD}memory\t4\t{memcgs}\t1\n")
        return self

    def knobs(self, *, kmem: int = 0, tcp: int = 0, timeout_s: float = 5.0) -> Knobs:
        return Knobs(
            kmem_limit_bytes=kmem,
            kmem_tcp_limit_bytes=tcp,
            parent=self.memcg.parent,
            proc=self.root,
            freed_timeout_s=timeout_s,
        )


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """Pushing dying memcgs out is only noted, where a test does not say otherwise."""
    made = Node(tmp_path)
    push(made, monkeypatch, lambda _: None)
    return made


def push(node: Node, monkeypatch: pytest.MonkeyPatch, effect: Callable[[int], object]) -> None:
    """Let `effect` follow each push, told how many there were."""

    def reclaim(memcg: Path) -> str:
        node.pushed.append(memcg)
        effect(len(node.pushed))
        return ""

    monkeypatch.setattr(module, "reclaim", reclaim)


def when_written(name: str, monkeypatch: pytest.MonkeyPatch, react: Callable[[], None]) -> None:
    """Let the kernel react to a write into the file `name` instead of keeping it."""
    usual = Path.write_text

    def write_text(path: Path, data: str, encoding: str | None = None) -> int:
        if path.name != name:
            return usual(path, data, encoding=encoding)
        react()
        return len(data)

    monkeypatch.setattr(Path, "write_text", write_text)


def failing(number: int) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(number, "the kernel's word")

    return fail


def test_limits_of_zero_leave_the_files_alone(node: Node) -> None:
    knobs = node.v1().knobs()
    knobs.apply(node.memcg)
    assert (node.memcg / KMEM_LIMIT).read_text() == f"{UNLIMITED}\n"
    assert texts_of(knobs.remarks) == []


def test_limits_are_written_where_they_are_asked_for(node: Node) -> None:
    knobs = node.v1().knobs(kmem=32 * MIB)
    knobs.apply(node.memcg)
    assert int((node.memcg / KMEM_LIMIT).read_text()) == 32 * MIB
    assert (node.memcg / KMEM_TCP_LIMIT).read_text() == f"{UNLIMITED}\n"
    assert texts_of(knobs.remarks) == []


def test_a_limit_cut_to_pages_is_no_complaint(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    knobs = node.v1().knobs(kmem=MIB + 5)
    path = node.memcg / KMEM_LIMIT
    when_written(KMEM_LIMIT, monkeypatch, lambda: path.write_bytes(b"%d\n" % MIB))
    knobs.apply(node.memcg)
    assert texts_of(knobs.remarks) == []


@pytest.mark.parametrize("name", [KMEM_LIMIT, KMEM_TCP_LIMIT])
def test_on_v2_there_is_no_such_knob_and_it_is_said_once(node: Node, name: str) -> None:
    node.v2()
    knobs = node.knobs(kmem=MIB) if name == KMEM_LIMIT else node.knobs(tcp=MIB)
    for _ in range(3):
        knobs.apply(node.memcg)
    assert texts_of(knobs.remarks) == [f"{name}: this kernel or cgroup version has no such knob"]


def test_a_refusal_is_said_once_in_the_kernels_words(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """5.16 and later, until the file became a no-op."""
    knobs = node.v1().knobs(kmem=MIB)
    when_written(KMEM_LIMIT, monkeypatch, failing(ENOTSUPP))
    knobs.apply(node.memcg)
    knobs.apply(node.memcg)
    assert texts_of(knobs.remarks) == [f"{KMEM_LIMIT}: the kernel refused the limit (the kernel's word)"]


def test_a_write_without_effect_is_said(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """6.1.y, 6.6 and later."""
    knobs = node.v1().knobs(kmem=MIB)
    when_written(KMEM_LIMIT, monkeypatch, lambda: None)
    knobs.apply(node.memcg)
    assert texts_of(knobs.remarks) == [f"{KMEM_LIMIT}: the kernel ignores this knob (wrote {MIB}, reads {UNLIMITED})"]


def test_a_container_that_ended_is_no_fault_of_the_kernels(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    knobs = node.v1().knobs(kmem=MIB, tcp=MIB)
    knobs.apply(node.root / "kickwatch/gone")
    for number in (errno.ENOENT, errno.ENODEV):  # removed between look and write, and while the file was open
        when_written(KMEM_LIMIT, monkeypatch, failing(number))
        knobs.apply(node.memcg)
    assert texts_of(knobs.remarks) == []


def test_a_file_that_cannot_be_read_back_is_an_error(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    knobs = node.v1().knobs(kmem=MIB)
    path = node.memcg / KMEM_LIMIT
    when_written(KMEM_LIMIT, monkeypatch, lambda: path.write_bytes(b"max\n"))
    with pytest.raises(CgroupError, match=f"{path} contains no number"):
        knobs.apply(node.memcg)
    path.unlink()
    path.mkdir()
    when_written(KMEM_LIMIT, monkeypatch, lambda: None)
    with pytest.raises(CgroupError, match=f"{path} cannot be read back"):
        knobs.apply(node.memcg)


async def test_without_a_tcp_limit_nothing_is_pushed(node: Node) -> None:
    knobs = node.v1().knobs(kmem=MIB)
    await asyncio.to_thread(knobs.apply, node.memcg)
    await knobs.after_container()
    assert node.pushed == []


@pytest.mark.parametrize("kernel", ["v2", "refuses", "ignores"])
async def test_where_no_tcp_limit_was_set_nothing_is_waited_for(
    node: Node, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    if kernel == "v2":
        node.v2()
    else:
        node.v1()
        when_written(KMEM_TCP_LIMIT, monkeypatch, failing(ENOTSUPP) if kernel == "refuses" else lambda: None)
    knobs = node.knobs(tcp=MIB)
    await asyncio.to_thread(knobs.apply, node.memcg)
    async with asyncio.timeout(0.5):
        await knobs.after_container()
    assert node.pushed == []
    assert len(texts_of(knobs.remarks)) == 1


async def test_a_memcg_with_a_tcp_limit_is_pushed_until_it_is_freed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    knobs = node.v1().knobs(tcp=MIB)
    push(node, monkeypatch, lambda pushes: pushes == 5 and node.count(39))
    await asyncio.to_thread(knobs.apply, node.memcg)
    await knobs.after_container()
    assert node.pushed == [node.memcg.parent] * 5
    assert texts_of(knobs.remarks) == []


async def test_it_is_pushed_three_times_though_the_count_fell_already(node: Node) -> None:
    knobs = node.v1().knobs(tcp=MIB)
    await asyncio.to_thread(knobs.apply, node.memcg)
    node.count(12)  # another one's end
    await knobs.after_container()
    assert node.pushed == [node.memcg.parent] * 3
    await knobs.after_container()  # no further container, no further push
    assert len(node.pushed) == 3


async def test_zero_is_what_is_written_into_force_empty(tmp_path: Path) -> None:
    node = Node(tmp_path).v1()
    (node.memcg.parent / "memory.force_empty").write_text("")
    knobs = node.knobs(tcp=MIB)
    await asyncio.to_thread(knobs.apply, node.memcg)
    node.count(39)
    await knobs.after_container()
    assert (node.memcg.parent / "memory.force_empty").read_text() == "0"


async def test_a_memcg_that_stays_is_said_and_ends_the_wait(node: Node) -> None:
    knobs = node.v1().knobs(tcp=MIB, timeout_s=0.15)
    for _ in range(2):
        await asyncio.to_thread(knobs.apply, node.memcg)
        async with asyncio.timeout(2):
            await knobs.after_container()
    assert len(node.pushed) >= 2
    assert len(texts_of(knobs.remarks)) == 1
    assert "kept its kmem TCP limit" in texts_of(knobs.remarks)[0]


async def test_a_proc_that_cannot_be_read_is_an_error_that_names_the_file(node: Node) -> None:
    knobs = node.v1().knobs(tcp=MIB)
    await asyncio.to_thread(knobs.apply, node.memcg)
    (node.root / "cgroups").unlink()
    with pytest.raises(CgroupError, match=f"{node.root}/cgroups cannot be read"):
        await knobs.after_container()


def test_the_count_of_memory_cgroups(tmp_path: Path) -> None:
    Node(tmp_path).count(138)
    assert memory_cgroups(tmp_path) == 138
    (tmp_path / "cgroups").write_text(HEAD)
    with pytest.raises(CgroupError, match="has no memory hierarchy"):
        memory_cgroups(tmp_path)
