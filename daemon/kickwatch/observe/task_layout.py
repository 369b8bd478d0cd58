"""Where the kernel's task_struct keeps the name of a task (`comm`), learnt through the probe task_layout.bpf.c."""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor

from kickwatch.errors import ObserveError
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.readings import INDEX, entry

_PR_SET_NAME = 15


def learn_comm_offset() -> int:
    """Offset of task_struct.comm, found in a copy of our own task that is renamed. Raises ObserveError.

    Without BTF this is the only way to get from a task's pointer to its name. The thread renames itself twice: the
    tracepoint fires before the new name is written, so the second copy has the first name.
    """
    with ThreadPoolExecutor(1) as thread:  # since the caller keeps its name
        found = thread.submit(_find_comm).result()
    if found <= 0:
        what = "no copy of a task_struct contains the name of its task"
        raise ObserveError(what, "report it, with the kernel's release: nothing on this node helps")
    return found


def _find_comm() -> int:
    name = b"kw" + os.urandom(6).hex().encode()
    libc = ctypes.CDLL(None)
    probe = BpfObject("task_layout")
    try:
        wanted = probe.map("wanted")
        wanted.put(INDEX.pack(0), name.ljust(wanted.value_bytes, b"\0"))
        probe.attach_raw_tracepoint("task_rename", "task_rename")
        for new_name in (name, b"kickwatch"):
            libc.prctl(_PR_SET_NAME, ctypes.c_char_p(new_name), 0, 0, 0)
        copy = entry(probe.map("task"), 0)
    finally:
        probe.close()
    return copy.find(name + b"\0")
