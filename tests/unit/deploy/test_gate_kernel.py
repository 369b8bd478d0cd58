"""`deploy/gate-kernel`: what it asks of virtme-ng, and that only a gate that ended with 0 lets a kernel pass.

virtme-ng is a script here that runs the guest's script on this machine; tests/lab/test_bisect.py boots kernels.
"""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
VNG = """#!/bin/sh
printf '%s\\n' "$@" >"$VNG_SAW"
while [ "$1" != -- ]; do shift; done
[ "$VNG_DOES" = hang ] && exec sleep 60
[ "$VNG_DOES" = deaf ] && { trap '' TERM; for i in 1 2 3 4 5 6 7 8; do sleep 2; done; }
[ "$VNG_DOES" = panic ] && exit 0
[ "$VNG_DOES" = twice ] && [ ! -e "$VNG_SAW.once" ] && { touch "$VNG_SAW.once"; exit 1; }
"$2"
exit 77
"""
KICKWATCH = """#!/bin/sh
printf '%s\\n' "$@" >"$KICKWATCH_SAW"
exit "$KICKWATCH_ENDS"
"""


class Pipeline:
    """A kernel, a program and a virtme-ng in a directory whose name has a space and a quote."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "it's here"
        self.directory.mkdir()
        self.results = self.directory / "results"
        self._script("vng", VNG)
        self._script("kickwatch", KICKWATCH)
        (self.directory / "bzImage").touch()

    def _script(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)
        (self.directory / name).chmod(0o755)

    def run(self, *arguments: str, ends: int = 0, does: str = "run", **environment: str) -> tuple[int, str]:
        """Its exit status, and what it printed."""
        given = {
            "KICKWATCH": str(self.directory / "kickwatch"),
            "GATE_VNG": str(self.directory / "vng"),
            "VNG_SAW": str(self.directory / "vng.saw"),
            "VNG_DOES": does,
            "KICKWATCH_SAW": str(self.directory / "kickwatch.saw"),
            "KICKWATCH_ENDS": str(ends),
        }
        words = arguments or (str(self.directory / "bzImage"), str(self.results))
        done = subprocess.run(
            [ROOT / "deploy" / "gate-kernel", *words],
            capture_output=True,
            text=True,
            env=os.environ | given | environment,
            timeout=30,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def saw(self, name: str) -> list[str]:
        """The arguments that a program was started with."""
        return (self.directory / f"{name}.saw").read_text().splitlines()


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path)


@pytest.mark.parametrize(("ends", "status"), [(0, 0), (3, 3), (4, 4), (1, 4), (2, 4), (137, 4)])
def test_only_a_gate_that_ends_with_0_lets_a_kernel_pass(pipeline: Pipeline, ends: int, status: int) -> None:
    found, output = pipeline.run(ends=ends)
    assert found == status, output
    assert (f"kickwatch gate ended with {ends}" in output) == (ends not in (0, 3, 4))


def test_a_kernel_that_does_not_boot_is_unknown_even_after_one_that_passed(pipeline: Pipeline) -> None:
    assert pipeline.run()[0] == 0
    found, output = pipeline.run(does="panic")
    assert found == 4
    assert "did not boot, hung, or ended early: see" in output


def test_a_guest_that_does_not_start_is_started_once_more(pipeline: Pipeline) -> None:
    """A guest of a bisection ended within seconds, on a machine that ran four: its kernel got no timer interrupt."""
    found, output = pipeline.run(does="twice", ends=3)
    assert found == 3, output
    assert "the first guest did not get as far as the gate" in output
    assert "unknown" not in output


def test_no_stream_of_the_guest_overwrites_another(pipeline: Pipeline) -> None:
    """QEMU opens /proc/self/fd/1 and 2 for each of them, and truncates what is a file."""
    streams = "echo verdict >/proc/self/fd/1\necho panic >/proc/self/fd/2\n"
    (pipeline.directory / "vng").write_text(f"#!/bin/sh\n{streams}")
    _, output = pipeline.run()
    for seen in (output, (pipeline.results / "console.log").read_text()):
        assert "verdict" in seen
        assert "panic" in seen


def test_the_console_of_the_kernel_is_kept(pipeline: Pipeline) -> None:
    """Without --verbose virtme-ng sends it to /dev/null, and a guest that panics ends without a word."""
    assert pipeline.run()[0] == 0
    assert "--verbose" in pipeline.saw("vng")


def test_a_gate_that_is_cut_off_is_not_repeated(pipeline: Pipeline) -> None:
    (pipeline.directory / "kickwatch").write_text("#!/bin/sh\necho gated\nkill -9 $PPID\n")
    found, output = pipeline.run()
    assert (found, output.count("gated")) == (4, 1), output
    assert "did not boot, hung, or ended early" in output


def test_a_guest_that_hangs_is_stopped(pipeline: Pipeline) -> None:
    found, output = pipeline.run(does="hang", GATE_LIMIT_S="1")
    assert found == 4, output


def test_a_guest_that_ignores_its_end_is_killed(pipeline: Pipeline) -> None:
    found, output = pipeline.run(does="deaf", GATE_LIMIT_S="0.5", GATE_KILL_S="0.5")
    assert found == 4, output
    assert not (pipeline.directory / "kickwatch.saw").exists()


def test_the_options_reach_the_gate_whatever_is_in_them(pipeline: Pipeline) -> None:
    image = str(pipeline.directory / "bzImage")
    status, output = pipeline.run(image, str(pipeline.results), "--set", 'workload.command=["sh", "it\'s"]')
    assert status == 0, output
    words = pipeline.saw("kickwatch")
    assert words[:3] == ["gate", "--set", "engine.kind=oci"]
    assert words[-2:] == ["--set", 'workload.command=["sh", "it\'s"]']
    assert words[words.index("--junit") + 1] == str(pipeline.results / "gate.xml")


def test_emulation_has_one_thread_and_no_check_that_a_busy_machine_fails(pipeline: Pipeline) -> None:
    assert pipeline.run(GATE_KVM="no", GATE_QEMU="-smbios type=1")[0] == 0
    words = pipeline.saw("vng")
    assert "--disable-kvm" in words
    assert words[words.index("--append") + 1] == "no_timer_check"
    assert "--qemu-opts=-smbios type=1 -cpu max -accel tcg,thread=single" in words
    assert pipeline.run()[0] == 0
    assert not [word for word in pipeline.saw("vng") if word.startswith(("--disable-kvm", "--qemu-opts"))]


def test_the_guest_runs_a_command_first(pipeline: Pipeline) -> None:
    assert pipeline.run(GATE_BEFORE=f"touch '{pipeline.directory.parent}/before'")[0] == 0
    assert (pipeline.directory.parent / "before").exists()


def test_a_kernel_that_could_not_be_prepared_does_not_pass(pipeline: Pipeline) -> None:
    found, output = pipeline.run(GATE_BEFORE="true; echo tried; false")
    assert found == 4, output
    assert "GATE_BEFORE failed in the guest" in output
    assert not (pipeline.directory / "kickwatch.saw").exists()
    assert output.count("tried") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(("bzImage",), "usage: gate-kernel"), (("/no/such/image", "/tmp/x"), "/no/such/image does not exist")],
)
def test_wrong_usage_is_one_line(pipeline: Pipeline, arguments: tuple[str, ...], complaint: str) -> None:
    status, output = pipeline.run(*arguments)
    assert (status, len(output.splitlines())) == (2, 1)
    assert complaint in output


def test_a_missing_virtme_ng_is_named(pipeline: Pipeline) -> None:
    status, output = pipeline.run(GATE_VNG="/no/such/vng")
    assert (status, output) == (2, "gate-kernel: /no/such/vng is missing: pip install virtme-ng\n")
