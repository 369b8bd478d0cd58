"""The name of a mutex's holder, from the 16 bytes of task_struct.comm."""

from typing import TYPE_CHECKING, cast

import pytest

from kickwatch.observe.contention import _KEY, ContentionObserver, ContentionSample, WaitTotals
from kickwatch.observe.symbols import Symbols

if TYPE_CHECKING:
    from kickwatch.observe.bpf import BpfObject

SLAB_MUTEX = 0xFFFF0000


@pytest.mark.parametrize(
    ("comm", "name"),
    [
        (b"cat", "cat"),
        # Until 5.17 __set_task_comm() copied only to the end of the new name: here a systemd-run became a cat.
        (b"cat\0\0md\x000", "cat"),
        (b"sixteen letters!", "sixteen letters!"),
        (b"\0md", "(not named)"),
        (b"", "(not named)"),
    ],
)
def test_a_name_ends_at_its_first_nul(comm: bytes, name: str) -> None:
    observer = ContentionObserver(cast("BpfObject", None), Symbols.parse("1000 t slab_start\n"), SLAB_MUTEX, 8)
    after = ContentionSample({_KEY.pack(SLAB_MUTEX, 0, -1, 0, comm): WaitTotals(1, 5, 5)})
    (wait,) = observer.waits(ContentionSample({}), after)
    assert wait.holder == name
