"""`kickwatch check-config` refuses every configuration that `run` refuses before it arms its probes.

What depends on the node is left to `run`: an address that this node lacks, or a capability that runc needs.
"""

from pathlib import Path

import pytest
from click.testing import CliRunner

from kickwatch.cli import cli
from kickwatch.errors import ConfigError

REFUSED = {
    "not TOML": ("[engine\n", "is not valid TOML"),
    "not UTF-8": ("[workload]\nimage = 'caf\udce9'\n", "is not valid TOML"),
    "a section that is a value": ("engine = 5\n", "engine is a section"),
    "a wrong type": ("[trial]\nwindow_s = '5'\n", "trial.window_s cannot be '5'"),
    "out of range": ("[trial]\nwindow_s = -1\n", "trial.window_s cannot be -1"),
    "not one of the choices": ("[engine]\nkind = 'podman'\n", "engine.kind cannot be 'podman'"),
    "a relative path": ("[state]\ndirectory = 'state'\n", "state.directory cannot be 'state'"),
    "a command without an image": (
        "[workload]\ncommand = ['true']\n",
        "set without workload.image",
    ),
    "more than an hour's budget": (
        "[workload]\ncontainers_per_trial = 61\n",
        "containers_per_hour = 60",
    ),
    "more than a day's budget": (
        "[workload]\ncontainers_per_trial = 50\n[budget]\ncontainers_per_hour = 100\ncontainers_per_day = 40\n",
        "exceeds budget.containers_per_day = 40",
    ),
    "oci with a network": (
        "[engine]\nkind = 'oci'\n[workload]\nnetwork = 'bridge'\n",
        "workload.network=bridge",
    ),
    "oci with an image": ("[engine]\nkind = 'oci'\n[workload]\nimage = 'busybox'\n", "workload.image=busybox"),
    "a CRI with Docker's bridge": (
        "[engine]\nkind = 'cri'\n[workload]\nnetwork = 'bridge'\n",
        "workload.network=bridge",
    ),
    "an image in a CRI without a network": (
        "[engine]\nkind = 'cri'\n[workload]\nimage = 'busybox'\n",
        "workload.image",
    ),
    "Docker with CNI": ("[engine]\nkind = 'docker'\n[workload]\nnetwork = 'cni'\n", "workload.network=cni"),
    "no address": ("[metrics]\nlisten = '999.1.1.1:1'\n", "metrics.listen: 999.1.1.1:1"),
    "a link-local address without its interface": ("[metrics]\nlisten = '[fe80::1]:9893'\n", "has no interface"),
    "nothing": ("", "is empty"),
    "no port": ("[metrics]\nlisten = '127.0.0.1:70000'\n", "metrics.listen: 127.0.0.1:70000"),
}
ACCEPTED = {
    "a comment alone": "# the defaults\n",
    "a link-local address": "[metrics]\nlisten = '[fe80::1%eth0.42]:9893'\n",
    "a larger budget": "[workload]\ncontainers_per_trial = 61\n[budget]\ncontainers_per_hour = 61\n",
    "stress has no limits": "[workload]\ncontainers_per_trial = 1000\n[budget]\npreset = 'stress'\n",
    "runc without a network": "[engine]\nkind = 'oci'\n",
    "an image in a CRI on the host": "[engine]\nkind = 'cri'\n[workload]\nimage = 'busybox'\nnetwork = 'host'\n",
    "passive: the containers are those of others": (
        "[engine]\nkind = 'oci'\n[workload]\nenabled = false\nnetwork = 'bridge'\ncontainers_per_trial = 61\n"
    ),
}


def check(file: Path) -> BaseException | None:
    return CliRunner().invoke(cli, ["check-config", str(file)]).exception


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses(name: str, tmp_path: Path) -> None:
    text, message = REFUSED[name]
    file = tmp_path / "kickwatch.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    error = check(file)
    assert isinstance(error, ConfigError)
    assert message in error.what
    assert error.remedy


@pytest.mark.parametrize("name", ACCEPTED)
def test_it_accepts(name: str, tmp_path: Path) -> None:
    file = tmp_path / "kickwatch.toml"
    file.write_text(ACCEPTED[name], encoding="utf-8")
    assert check(file) is None


def test_it_refuses_an_unknown_key_which_run_only_warns_of(tmp_path: Path) -> None:
    file = tmp_path / "kickwatch.toml"
    file.write_text("[trial]\nwindow = 5\n", encoding="utf-8")
    assert "unknown key trial.window" in str(check(file))


def test_it_refuses_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot be read" in str(check(tmp_path / "none.toml"))
    assert "cannot be read" in str(check(tmp_path))
