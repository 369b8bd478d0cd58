"""`doctor` with the service's capabilities: this kernel grants what they allow, and what they lack is a loss."""

import asyncio
import threading

import pytest

from kickwatch.experiment import service_probes
from kickwatch.experiment.service_probes import ServiceProbes, open_observatory
from kickwatch.node.privileges import SERVICE, LinuxCapability, effective

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]


async def tried(capabilities: frozenset[LinuxCapability], monkeypatch: pytest.MonkeyPatch) -> ServiceProbes:
    """What a service with these capabilities can arm. This process keeps its own, and no thread is left."""
    monkeypatch.setattr(service_probes, "service_capabilities", lambda: capabilities)
    before = effective()
    observatory, found = await open_observatory((), ())
    try:
        assert observatory.requests is not None  # root's, or armed by the service
    finally:
        observatory.close()
    assert effective() == before
    async with asyncio.timeout(5):
        # A thread that ends sets no event.
        while any(thread.name.startswith("as-service") for thread in threading.enumerate()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert found is not None
    return found


async def test_the_units_capabilities_arm_all_that_root_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await tried(SERVICE, monkeypatch)
    assert found.lost == ()
    assert "CAP_BPF alone" in found.detail


@pytest.mark.parametrize("name", ["BPF", "PERFMON", "SYSLOG"])
async def test_a_service_without_a_capability_that_root_has_is_found_blind(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Doctor tested root's capabilities, and promised the whole job."""
    found = await tried(SERVICE - {LinuxCapability[name]}, monkeypatch)
    assert f"this process lacks CAP_{name}" in found.detail
    assert "IPIs by reason" in found.detail
    assert f"CapabilityBoundingSet=CAP_{name}" in found.remedy
