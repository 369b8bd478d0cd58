"""Capabilities that are kept once the probes are armed: no more than reading their maps requires."""

import pytest

from kickwatch.node import privileges
from kickwatch.node.privileges import LinuxCapability


@pytest.mark.parametrize(
    ("needs", "more"),
    [
        (None, set()),
        (LinuxCapability.BPF, {LinuxCapability.BPF}),
        (LinuxCapability.SYS_ADMIN, {LinuxCapability.SYS_ADMIN}),
        (LinuxCapability.DAC_OVERRIDE, set()),  # kept anyway; bpf(2) does not need it
    ],
)
def test_the_weakest_capability_that_works_is_kept(
    monkeypatch: pytest.MonkeyPatch, needs: LinuxCapability | None, more: set[LinuxCapability]
) -> None:
    in_effect = [0]
    monkeypatch.setattr(privileges, "_set", lambda **given: in_effect.append(given["effective"]))
    everything = (1 << 41) - 1
    kept = privileges._enough(everything, lambda: needs is None or bool(in_effect[-1] & 1 << needs))
    assert kept == sum(1 << one for one in privileges.KEPT | more)
    assert in_effect[-1] == everything


def test_nothing_is_kept_if_no_capability_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privileges, "_set", lambda **_: None)
    assert (
        privileges._enough(1 << LinuxCapability.BPF | 1 << LinuxCapability.KILL, lambda: False)
        == 1 << LinuxCapability.KILL
    )
