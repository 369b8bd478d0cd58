"""The kernel's build configuration: only of the kernel asked for, only the options that matter."""

import gzip
from pathlib import Path

from kickwatch.node.kernel_config import kernel_config

TEXT = 'CONFIG_SLAB=y\nCONFIG_LOCALVERSION="-acme"\n# CONFIG_SLUB is not set\nCONFIG_NR_CPUS=64\nCONFIG_SMP=y\n'
WANTED = {"CONFIG_SMP": "y", "CONFIG_NR_CPUS": "64", "CONFIG_SLAB": "y"}


def host(tmp_path: Path, release: str) -> tuple[Path, Path]:
    proc, boot = tmp_path / "proc", tmp_path / "boot"
    (proc / "sys/kernel").mkdir(parents=True)
    (proc / "sys/kernel/osrelease").write_text(f"{release}\n")
    boot.mkdir()
    return proc, boot


def test_the_running_kernels(tmp_path: Path) -> None:
    proc, boot = host(tmp_path, "6.1.0")
    (proc / "config.gz").write_bytes(gzip.compress(TEXT.encode()))
    assert kernel_config("6.1.0", proc, boot) == WANTED
    assert list(kernel_config("6.1.0", proc, boot)) == [*WANTED]  # in the order of OPTIONS
    assert kernel_config("6.2.0", proc, boot) == {}  # another kernel's configuration says nothing


def test_the_distributions_file(tmp_path: Path) -> None:
    proc, boot = host(tmp_path, "6.1.0")
    (boot / "config-6.2.0").write_text(TEXT)
    assert kernel_config("6.2.0", proc, boot) == WANTED


def test_what_cannot_be_read_is_empty(tmp_path: Path) -> None:
    proc, boot = host(tmp_path, "6.1.0")
    (proc / "config.gz").write_bytes(b"no gzip")
    assert kernel_config("6.1.0", proc, boot) == {}
    assert kernel_config("../boot/x", tmp_path / "none", boot) == {}
