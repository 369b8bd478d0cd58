"""What the containers' memcgs say of kernel memory accounting."""

from msgspec.structs import replace

from builders import containers
from kickwatch.model import Container, KmemAccounting
from kickwatch.plan import kmem_accounting


def charged(*kmem_bytes: int | None) -> tuple[Container, ...]:
    """Containers whose memcgs told these figures."""
    lives = containers(len(kmem_bytes))
    return tuple(replace(life, kmem_bytes=told) for life, told in zip(lives, kmem_bytes, strict=True))


def test_a_counter_must_be_above_zero_in_every_container() -> None:
    assert kmem_accounting(charged(1, 2), disabled=False, deferred=False) is KmemAccounting.ON
    assert kmem_accounting(charged(1, 0), disabled=False, deferred=False) is KmemAccounting.OFF


def test_a_deferred_statistic_tells_by_one_container_that_was_charged() -> None:
    assert kmem_accounting(charged(0, 4096, 0), disabled=False, deferred=True) is KmemAccounting.ON
    assert kmem_accounting(charged(0, 0, 0), disabled=False, deferred=True) is KmemAccounting.UNKNOWN
    assert kmem_accounting(charged(0, 0, 0), disabled=False, deferred=True, paid=True) is KmemAccounting.ON
    assert kmem_accounting(charged(0, 0, 0), disabled=True, deferred=True, paid=True) is KmemAccounting.OFF


def test_what_no_container_tells_is_unknown_and_the_command_line_outranks_all() -> None:
    for deferred in (False, True):
        assert kmem_accounting(charged(None), disabled=False, deferred=deferred) is KmemAccounting.UNKNOWN
        assert kmem_accounting(charged(4096), disabled=True, deferred=deferred) is KmemAccounting.OFF
