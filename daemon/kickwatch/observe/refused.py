"""The error for what the kernel refused, with its cause."""

import errno
import os
from dataclasses import replace

from kickwatch.errors import ObserveError
from kickwatch.node.causes import LossCause
from kickwatch.node.diagnosis import Act, Facts, Refusal, diagnose, exhausted, too_old
from kickwatch.node.facts import privileges_now, read_facts
from kickwatch.observe.bpf_calls import KERNEL


class RefusedError(ObserveError):
    """The kernel refused a call: `cause` says why, as far as it can be found out."""

    def __init__(self, what: str, refusal: Refusal, cause: LossCause | None = None) -> None:
        """`what` names the map, program or place, and the call. `cause`: if it is known already."""
        self.refusal = refusal
        self.cause = cause or exhausted(refusal.code) or diagnose(refusal, _facts(refusal))
        name = f"{errno.errorcode.get(refusal.code, refusal.code)}: {os.strerror(refusal.code)}"
        super().__init__(f"{what} ({name}): {self.cause.what}", self.cause.remedy)


def _facts(refusal: Refusal) -> Facts:
    """The facts that decide: most kernels are refused nothing but what is newer than they are."""
    known = privileges_now()
    facts = known if refusal.act is Act.MAP or too_old(refusal, known) else read_facts()
    return replace(facts, answered=_answered(refusal.act)) if facts.seccomp else facts


def _answered(act: Act) -> bool:
    """Whether the seccomp filter lets the system call of `act` through."""
    return KERNEL.perf_event_open_answers() if act is Act.KPROBE else KERNEL.bpf_answers()


def refused(what: str, code: int, act: Act = Act.MAP, subject: str = "", log: str = "") -> RefusedError:
    """The error for a call that failed with errno `code`; `what` names the map or program, and the call."""
    return RefusedError(f"{what} failed", Refusal(act, code, subject, log))


def reads_refused(error: RefusedError) -> RefusedError:
    """The error for a program that the kernel accepts only without its reads of kernel memory.

    Its cause is that of `error`: lockdown is the usual one, but not the only one.
    """
    return RefusedError(f"reading kernel memory in {error.refusal.subject}", error.refusal, error.cause)
