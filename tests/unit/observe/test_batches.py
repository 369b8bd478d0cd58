"""Reading a map with few system calls, and falling back to one call for each entry where the kernel cannot do that."""

import ctypes
import errno
import struct
from typing import TYPE_CHECKING, Any, cast

import pytest

from kickwatch.errors import ObserveError
from kickwatch.observe import bpf_map
from kickwatch.observe.bpf_map import BpfMap
from kickwatch.observe.map_definitions import MapDefinition

if TYPE_CHECKING:
    from kickwatch.observe.bpf_calls import BpfCalls


class FakeKernel:
    """A fake of the calls for one map of 4-byte keys and 8-byte values, in the order of its keys.

    `at_most`: entries that a batch returns, whatever was asked for. `refusals`: errnos of the next batch calls.
    """

    def __init__(self, entries: int, at_most: int = 1000) -> None:
        self.values = {struct.pack("=I", key): struct.pack("=Q", key * key) for key in range(entries)}
        self.at_most = at_most
        self.refusals: list[int] = []
        self.batches = self.single = 0

    def lookup_batch(self, _fd: int, token: bytes | None, *, following: Any, keys: Any, values: Any, count: Any) -> int:
        self.batches += 1
        if self.refusals:
            return -self.refusals.pop(0)
        wanted = count
        all_keys = list(self.values)
        first = 0 if token is None else all_keys.index(token[:4]) + 1
        taken = all_keys[first : first + min(wanted.value, self.at_most)]
        for index, key in enumerate(taken):
            ctypes.memmove(ctypes.addressof(keys) + 4 * index, key, 4)
            ctypes.memmove(ctypes.addressof(values) + 8 * index, self.values[key], 8)
        if taken:
            following.raw = taken[-1].ljust(len(following), b"\0")
        ended = len(taken) < min(wanted.value, self.at_most) or first + len(taken) == len(all_keys)
        wanted.value = len(taken)
        return -errno.ENOENT if ended else 0

    def lookup(self, _fd: int, key: bytes, value: Any) -> int:
        self.single += 1
        if bytes(key) not in self.values:
            return -errno.ENOENT
        value.raw = self.values[bytes(key)]
        return 0

    def next_key(self, _fd: int, key: Any, following: Any) -> int:
        keys = list(self.values)
        at = 0 if key is None else keys.index(key.raw) + 1
        if at == len(keys):
            return -errno.ENOENT
        following.raw = keys[at]
        return 0


def map_of(kernel: FakeKernel) -> BpfMap:
    return BpfMap("some", 3, MapDefinition(1, 4, 8), cast("BpfCalls", kernel))


@pytest.mark.parametrize("entries", [0, 1, 15, 16, 17, 300])
def test_all_entries_are_read_batch_by_batch(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf_map, "_BATCH_BYTES", 16 * 12)
    kernel = FakeKernel(entries)
    assert dict(map_of(kernel).items()) == kernel.values
    assert kernel.single == 0
    assert kernel.batches <= entries // 16 + 1


def test_the_kernel_may_return_fewer_entries_than_asked_for() -> None:
    kernel = FakeKernel(50, at_most=7)
    assert dict(map_of(kernel).items()) == kernel.values


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, 524])
def test_an_older_kernel_is_asked_for_each_entry_and_only_once_for_a_batch(code: int) -> None:
    kernel = FakeKernel(20)
    kernel.refusals = [code]
    read = map_of(kernel)
    for _ in range(3):
        assert dict(read.items()) == kernel.values
    assert (kernel.batches, kernel.single) == (1, 60)


def test_a_batch_without_room_is_read_one_by_one_and_asked_for_again_later() -> None:
    kernel = FakeKernel(20, at_most=5)
    kernel.refusals = [errno.ENOSPC]
    read = map_of(kernel)
    assert dict(read.items()) == kernel.values
    assert kernel.single == 20
    assert dict(read.items()) == kernel.values
    assert kernel.single == 20


@pytest.mark.parametrize("code", [errno.EPERM, errno.EBADF, errno.ENOMEM])
def test_a_refused_batch_is_an_error(code: int) -> None:
    kernel = FakeKernel(20)
    kernel.refusals = [code]
    with pytest.raises(ObserveError, match="lookup batch"):
        list(map_of(kernel).items())


@pytest.mark.parametrize("indices", [range(4), range(3, 9), range(19, 20)])
@pytest.mark.parametrize("old", [False, True])
def test_consecutive_entries_of_an_array(indices: range, *, old: bool) -> None:
    kernel = FakeKernel(20, at_most=4)
    kernel.refusals = [errno.EINVAL] if old else []
    assert map_of(kernel).entries(indices) == [struct.pack("=Q", index * index) for index in indices]


@pytest.mark.parametrize("old", [False, True])
def test_an_array_without_an_entry_is_an_error(*, old: bool) -> None:
    kernel = FakeKernel(20)
    kernel.refusals = [errno.EINVAL] if old else []
    with pytest.raises(ObserveError, match="has no entry 20"):
        map_of(kernel).entries(range(18, 22))
