"""The kmem knobs, with plain files instead of cgroup files: they keep, refuse or ignore what is written."""

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
ENOTSUPP = 524  # internal to the kernel; not in errno(3)
HEAD = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t2\t1\n"


@dataclass
class Node:
    """A parent memcg with one container's memcg, and /proc/cgroups."""

    root: Path
    reclaimed: list[Path] = field(default_factory=list)

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
    """`reclaim` is replaced and only recorded, unless a test gives it an effect."""
    made = Node(tmp_path)
    replace_reclaim(made, monkeypatch, lambda _: None)
    return made


def replace_reclaim(node: Node, monkeypatch: pytest.MonkeyPatch, effect: Callable[[int], object]) -> None:
    """Call `effect` after each reclaim, with the number of reclaims so far."""

    def reclaim(memcg: Path) -> str:
        node.reclaimed.append(memcg)
        effect(len(node.reclaimed))
        return ""

    monkeypatch.setattr(module, "reclaim", reclaim)


def when_written(name: str, monkeypatch: pytest.MonkeyPatch, react: Callable[[], None]) -> None:
    """Call `react` for a write to the file `name`, instead of writing."""
    original = Path.write_text

    def write_text(path: Path, data: str, encoding: str | None = None) -> int:
        if path.name != name:
            return original(path, data, encoding=encoding)
        react()
        return len(data)

    monkeypatch.setattr(Path, "write_text", write_text)


def failing(number: int) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(number, "the kernel's message")

    return fail


def test_limits_of_zero_are_not_written(node: Node) -> None:
    knobs = node.v1().knobs()
    knobs.apply(node.memcg)
    assert (node.memcg / KMEM_LIMIT).read_text() == f"{UNLIMITED}\n"
    assert texts_of(knobs.remarks) == []


def test_configured_limits_are_written(node: Node) -> None:
    knobs = node.v1().knobs(kmem=32 * MIB)
    knobs.apply(node.memcg)
    assert int((node.memcg / KMEM_LIMIT).read_text()) == 32 * MIB
    assert (node.memcg / KMEM_TCP_LIMIT).read_text() == f"{UNLIMITED}\n"
    assert texts_of(knobs.remarks) == []


def test_a_limit_rounded_to_pages_is_accepted(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    knobs = node.v1().knobs(kmem=MIB + 5)
    path = node.memcg / KMEM_LIMIT
    when_written(KMEM_LIMIT, monkeypatch, lambda: path.write_bytes(b"%d\n" % MIB))
    knobs.apply(node.memcg)
    assert texts_of(knobs.remarks) == []


@pytest.mark.parametrize("name", [KMEM_LIMIT, KMEM_TCP_LIMIT])
def test_missing_knobs_on_v2_are_remarked_on_once(node: Node, name: str) -> None:
    node.v2()
    knobs = node.knobs(kmem=MIB) if name == KMEM_LIMIT else node.knobs(tcp=MIB)
    for _ in range(3):
        knobs.apply(node.memcg)
    assert texts_of(knobs.remarks) == [f"{name}: this kernel or cgroup version has no such knob"]


def test_a_refused_limit_is_remarked_on_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels 5.16 and later, until the file became a no-op."""
    knobs = node.v1().knobs(kmem=MIB)
    when_written(KMEM_LIMIT, monkeypatch, failing(ENOTSUPP))
    knobs.apply(node.memcg)
    knobs.apply(node.memcg)
    assert texts_of(knobs.remarks) == [f"{KMEM_LIMIT}: the kernel refused the limit (the kernel's message)"]


def test_a_write_without_effect_is_remarked_on(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels 6.1.y, 6.6 and later."""
    knobs = node.v1().knobs(kmem=MIB)
    when_written(KMEM_LIMIT, monkeypatch, lambda: None)
    knobs.apply(node.memcg)
    assert texts_of(knobs.remarks) == [f"{KMEM_LIMIT}: the kernel ignores this knob (wrote {MIB}, reads {UNLIMITED})"]


def test_an_exited_container_gives_no_remark(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    knobs = node.v1().knobs(kmem=MIB, tcp=MIB)
    knobs.apply(node.root / "kickwatch/gone")
    for number in (errno.ENOENT, errno.ENODEV):  # removed before the write, and while the file was open
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


async def test_without_a_tcp_limit_nothing_is_reclaimed(node: Node) -> None:
    knobs = node.v1().knobs(kmem=MIB)
    await asyncio.to_thread(knobs.apply, node.memcg)
    await knobs.after_container()
    assert node.reclaimed == []


@pytest.mark.parametrize("kernel", ["v2", "refuses", "ignores"])
async def test_with_a_tcp_limit_that_was_not_accepted_nothing_is_waited_for(
    node: Node, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    if kernel == "v2":
        node.v2()
    else:
        node.v1()
        when_written(KMEM_TCP_LIMIT, monkeypatch, failing(ENOTSUPP) if kernel == "refuses" else lambda: None)
    knobs = node.knobs(tcp=MIB)
    await asyncio.to_thread(knobs.apply, node.memcg)
    async with asyncio.timeout(10):
        await knobs.after_container()
    assert node.reclaimed == []
    assert len(texts_of(knobs.remarks)) == 1


async def test_a_memcg_with_a_tcp_limit_is_reclaimed_until_it_is_freed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    knobs = node.v1().knobs(tcp=MIB)
    replace_reclaim(node, monkeypatch, lambda reclaims: reclaims == 5 and node.count(39))
    await asyncio.to_thread(knobs.apply, node.memcg)
    await knobs.after_container()
    assert node.reclaimed == [node.memcg.parent] * 5
    assert texts_of(knobs.remarks) == []


async def test_at_least_three_reclaims_even_if_the_count_has_fallen(node: Node) -> None:
    knobs = node.v1().knobs(tcp=MIB)
    await asyncio.to_thread(knobs.apply, node.memcg)
    node.count(12)  # another memcg was freed
    await knobs.after_container()
    assert node.reclaimed == [node.memcg.parent] * 3
    await knobs.after_container()  # no further container, no further reclaim
    assert len(node.reclaimed) == 3


async def test_force_empty_gets_a_zero(tmp_path: Path) -> None:
    node = Node(tmp_path).v1()
    (node.memcg.parent / "memory.force_empty").write_text("")
    knobs = node.knobs(tcp=MIB)
    await asyncio.to_thread(knobs.apply, node.memcg)
    node.count(39)
    await knobs.after_container()
    assert (node.memcg.parent / "memory.force_empty").read_text() == "0"


async def test_a_memcg_that_stays_is_remarked_on_after_the_timeout(node: Node) -> None:
    knobs = node.v1().knobs(tcp=MIB, timeout_s=0.15)
    for _ in range(2):
        await asyncio.to_thread(knobs.apply, node.memcg)
        async with asyncio.timeout(20):
            await knobs.after_container()
    assert len(node.reclaimed) >= 2
    assert len(texts_of(knobs.remarks)) == 1
    assert "kept its kmem TCP limit" in texts_of(knobs.remarks)[0]


async def test_an_unreadable_proc_file_is_an_error_with_its_name(node: Node) -> None:
    knobs = node.v1().knobs(tcp=MIB)
    await asyncio.to_thread(knobs.apply, node.memcg)
    (node.root / "cgroups").unlink()
    with pytest.raises(CgroupError, match=f"{node.root}/cgroups cannot be read"):
        await knobs.after_container()


def test_memory_cgroups_are_counted(tmp_path: Path) -> None:
    Node(tmp_path).count(138)
    assert memory_cgroups(tmp_path) == 138
    (tmp_path / "cgroups").write_text(HEAD)
    with pytest.raises(CgroupError, match="has no memory hierarchy"):
        memory_cgroups(tmp_path)
