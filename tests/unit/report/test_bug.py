"""The text for a mailing list: complete, plain, and without anything private."""

from typing import Any

import pytest
from msgspec.structs import replace

import builders
from kickwatch.model import Trial
from kickwatch.report.bug import HIDDEN, WIDTH, bug_text, engine, release, symbol, task
from report_history import faulty_history, report_on

CONFIG = {"CONFIG_SLAB": "y", "CONFIG_MEMCG_KMEM": "y"}
# Words that a history may hold and a public list must not see.
PRIVATE = ("acme", "web-07", "corp.example", "/srv/secret", "payroll", "f00dfeed", "alice", "10.1.2.3", "zz-boot-zz")


def private_trial() -> Trial:
    """The fault, on a node whose every free text is private."""
    node = replace(
        builders.trial().node,
        kernel="6.18.44-amd64",
        engine="docker 28.0 on web-07.corp.example",
        runtime="/srv/secret/acme-runc",
        network="acme-payroll",
        cgroup="v1:/srv/secret",
        arch="x86_64 web-07",
        boot_id="zz-boot-zz",
    )
    lives = list(builders.containers(20, failed=1))
    lives[-1] = replace(lives[-1], failure="container payroll-f00dfeed of image acme/web:1 of alice failed at 10.1.2.3")
    stack = ("kick_all_cpus_sync+0x1/0x2 [acme_mod]", "bpf_prog_6deef7357e7b4530_acme_payroll", "/srv/secret/alice")
    cell = replace(builders.kick(40), stack=stack)
    other = replace(builders.kick(30), func="bpf_prog_0011223344556677_acme", reason="acme")
    waits = (replace(builders.wait(9, holder="alice-payroll"), waiter="slab_start"),)
    return builders.trial(
        cell,
        other,
        trial_id="f00dfeed",
        node=node,
        containers=tuple(lives),
        churn=builders.window("churn", builders.TLB, cell, other, waits=waits),
        notes=("image acme/web:1 on web-07 in /srv/secret",),
        control=None,
    )


@pytest.fixture(scope="module")
def faulty() -> str:
    return bug_text(report_on(list(faulty_history(10))), CONFIG)


def test_nothing_private_is_in_it() -> None:
    text = bug_text(report_on([private_trial()] * 3), CONFIG)
    assert [word for word in PRIVATE if word in text.lower()] == []
    assert "6.18.44-amd64" in text  # what a developer needs is there
    assert "do_nothing" in text
    assert HIDDEN in text


def test_it_is_plain_and_narrow(faulty: str) -> None:
    assert faulty.isascii()
    assert [line for line in faulty.splitlines() if len(line) > WIDTH] == []
    private = bug_text(report_on([private_trial()]), CONFIG)
    assert [line for line in private.splitlines() if len(line) > WIDTH] == []


@pytest.mark.parametrize(
    "part",
    [
        "Subject: do_nothing broadcast to all CPUs for each container created",
        "Kernel:      4.19.1 (x86_64)",
        "CPUs:        4 online",
        "cgroup:      v1",
        "4.19.1-patched: 0 per container",
        "  CONFIG_SLAB=y",
        "docker run --rm --network none",
        "kickwatch reproduce -n 100",
        "  kick_all_cpus_sync",
        "  __do_tune_cpucache",
        "Waits for slab_mutex: ",
        "slab_start\nbehind a kworker",
        "bpftrace -e 'kprobe:smp_call_function_many_cond",
        'kaddr("do_nothing")',
    ],
)
def test_it_has_what_a_kernel_developer_needs(faulty: str, part: str) -> None:
    assert " ".join(part.split()) in " ".join(faulty.split())


def test_its_figures_are_the_kernels(faulty: str) -> None:
    found = report_on(list(faulty_history(10)))
    row = found["kernels"][-1]
    assert f"{row['creation_path_broadcasts']} broadcasts for {row['attributed_containers']} containers" in " ".join(
        faulty.split()
    )


def test_a_healthy_history_says_so() -> None:
    text = bug_text(report_on([builders.trial()] * 2), {})
    assert "made the creation path broadcast no IPIs" in " ".join(text.split())
    assert "Configuration: not readable here" in text


@pytest.mark.parametrize(
    ("frame", "shown"),
    [
        ("smp_call_function_many_cond+0x1d", "smp_call_function_many_cond"),
        ("do_x.isra.0", "do_x.isra.0"),
        ("nf_x [nf_tables]", "nf_x"),
        ("bpf_prog_6deef7357e7b4530_payroll", "bpf_prog"),
        ("/srv/secret", HIDDEN),
        ("", HIDDEN),
    ],
)
def test_symbols(frame: str, shown: str) -> None:
    assert symbol(frame) == shown


def test_other_words() -> None:
    assert release("6.1.0-25-amd64") == "6.1.0-25-amd64"
    assert release("6.1.0 web-07") == release("acme") == HIDDEN
    assert engine("docker 20.10.24") == "docker 20.10.24"
    assert engine("docker on web-07") == engine("acme 1.0") == HIDDEN
    assert [task(name) for name in ("kworker/0:1", "rcu_exp_gp_kthr", "alice")] == [
        "a kworker",
        "a kernel RCU thread",
        "a task",
    ]


def test_no_word_of_the_record_slips_through() -> None:
    """Every string of the record that is not a kernel's word is marked, and none may come back."""
    marked = private_trial()
    fields: dict[str, Any] = {name: f"mark{number}" for number, name in enumerate(("runtime", "network", "boot_id"))}
    marked = replace(marked, node=replace(marked.node, **fields), notes=("mark9",), trial_id="mark8")
    assert "mark" not in bug_text(report_on([marked]), {}).lower().replace("marked", "")
