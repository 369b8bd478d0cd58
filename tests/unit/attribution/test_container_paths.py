"""The table of cgroup paths: those that engines make for containers with either driver, and those of all else."""

import pytest

from kickwatch.attribution.container_paths import container_of, is_below

ID = "0a1b2c3d" * 8
POD = "b7d15a8f-6c1b-4a43-9d1c-2f2f1e6c7a01"
PODS = "/kubepods.slice/kubepods-burstable.slice"
POD_SLICE = f"{PODS}/kubepods-burstable-pod{POD.replace('-', '_')}.slice"

CONTAINERS = {
    # Docker Engine: cgroupfs, systemd, a parent of the user's, inside Docker (kind).
    f"/docker/{ID}": ("docker", ID),
    f"/system.slice/docker-{ID}.scope": ("docker", ID),
    f"/team.slice/team-web.slice/docker-{ID}.scope": ("docker", ID),
    f"/team/{ID}": ("other", ID),
    f"/docker/{'f' * 64}/docker/{ID}": ("docker", ID),
    "/docker/buildkit/x9cn2kq3l4m5n6o7p8q9r0s1t": ("docker", "x9cn2kq3l4m5n6o7p8q9r0s1t"),
    # containerd through its CRI, with either driver, and with the parent of one and the driver of the other.
    f"/kubepods/burstable/pod{POD}/{ID}": ("Kubernetes", ID),
    f"/kubepods/pod{POD.replace('-', '')}/{ID}": ("Kubernetes", ID),
    f"{POD_SLICE}/cri-containerd-{ID}.scope": ("containerd (CRI)", ID),
    f"/system.slice/containerd.service/kubepods-besteffort-pod1.slice:cri-containerd:{ID}": ("containerd (CRI)", ID),
    f"/docker/{'f' * 64}/kubelet.slice{PODS}/cri-containerd-{ID}.scope": ("containerd (CRI)", ID),
    # containerd's nerdctl, CRI-O, podman, buildah and crun.
    f"/system.slice/nerdctl-{ID}.scope": ("nerdctl", ID),
    f"/default/{ID}": ("other", ID),
    f"{POD_SLICE}/crio-{ID}.scope": ("CRI-O", ID),
    f"/kubepods/besteffort/pod{POD}/crio-{ID}": ("CRI-O", ID),
    f"/machine.slice/libpod-{ID}.scope": ("podman", ID),
    f"/machine.slice/machine-libpod_pod_{'e' * 64}.slice/libpod-{ID}.scope": ("podman", ID),
    f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope": ("podman", ID),
    f"/libpod_parent/libpod-{ID}": ("podman", ID),
    f"/system.slice/web.service/libpod-payload-{ID}": ("podman", ID),
    f"/machine.slice/buildah-buildah-{ID}.scope": ("other", ID),
    # A runtime by itself, with the systemd driver.
    "/system.slice/runc-web.scope": ("runc", "web"),
    "/user.slice/crun-a-b.scope": ("crun", "a-b"),
    # LXC before and since 4.0, LXD, libvirt, nspawn with and without machined.
    "/lxc/web": ("lxc", "web"),
    "/lxc.payload.web-1": ("lxc", "web-1"),
    "/user.slice/lxc.payload.web": ("lxc", "web"),
    "/lxc.payload.project_web": ("lxc", "project_web"),
    "/machine.slice/machine-lxc\\x2d12\\x2dweb.scope": ("libvirt-lxc", "lxc\\x2d12\\x2dweb"),
    "/machine.slice/machine-web.scope": ("systemd-nspawn", "web"),
    "/machine.slice/systemd-nspawn@web.service": ("systemd-nspawn", "web"),
}

OTHERS = (
    "/",
    "/docker",
    "/kubepods",
    f"/kubepods/burstable/pod{POD}",
    POD_SLICE,
    "/system.slice/docker.service",
    "/system.slice/containerd.service",
    "/system.slice/cron.service",
    "/system.slice/run-u17.service",
    "/system.slice/run-r0a1b2c3d0a1b2c3d0a1b2c3d0a1b2c3d.scope",
    "/system.slice/var-lib-docker-overlay2-abc-merged.mount",
    "/user.slice/user-1000.slice/session-4.scope",
    "/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Terminal.slice/vte-spawn-4f.scope",
    "/init.scope",
    f"/machine.slice/libpod-conmon-{ID}.scope",
    f"{POD_SLICE}/crio-conmon-{ID}.scope",
    "/lxc.monitor.web",
    "/lxc.pivot",
    "/lxc",
    "/machine.slice/machine-qemu\\x2d1\\x2ddebian.scope",
    # Inside a container: its own systemd, and crun's.
    f"/docker/{ID}/init",
    f"/docker/{ID}/system.slice/cron.service",
    f"/machine.slice/libpod-{ID}.scope/container",
    "/lxc.payload.web/system.slice",
    "/machine.slice/machine-web.scope/payload",
    "/machine.slice/systemd-nspawn@web.service/supervisor",
    f"/docker/{ID[:40]}",
)


@pytest.mark.parametrize("path", CONTAINERS)
def test_a_container_has_the_same_name_in_every_hierarchy(path: str) -> None:
    assert container_of(path) == CONTAINERS[path]


@pytest.mark.parametrize("path", OTHERS)
def test_other_cgroups_are_no_containers(path: str) -> None:
    assert container_of(path) is None


def test_our_own_parents_are_found_anywhere_in_a_path() -> None:
    own = ("kickwatch", "kickwatchcontainers.slice")
    assert is_below(f"/kickwatch/{ID}", own)
    assert is_below("/system.slice/kickwatch.service/kickwatch/x", own)
    assert is_below(f"/kickwatchcontainers.slice/docker-{ID}.scope", own)
    assert not is_below("/system.slice/kickwatch.service", own)
