"""The error for what the kernel refused, with its cause."""

import errno
import os

from kickwatch.errors import ObserveError
from kickwatch.node.causes import LOCKDOWN_UNSEEN, Act, Cause, CauseKind, Refusal, cause_of, diagnose
from kickwatch.node.facts import privileges_now, read_facts


class RefusedError(ObserveError):
    """The kernel refused a call: `cause` says why, as far as it can be found out."""

    def __init__(self, what: str, refusal: Refusal, cause: Cause | None = None) -> None:
        """`what` names the map, program or place, and the call. `cause`: if it is known already."""
        self.refusal = refusal
        self.cause = cause or diagnose(refusal, privileges_now() if refusal.act is Act.MAP else read_facts())
        name = f"{errno.errorcode.get(refusal.code, refusal.code)}: {os.strerror(refusal.code)}"
        super().__init__(f"{what} ({name}): {self.cause.what}", self.cause.remedy)


def refused(what: str, code: int, act: Act = Act.MAP, subject: str = "", log: str = "") -> RefusedError:
    """The error for a call that failed with errno `code`; `what` names the map or program, and the call."""
    return RefusedError(f"{what} failed", Refusal(act, code, subject, log))


def reads_refused(error: RefusedError) -> RefusedError:
    """The error for a program that the kernel accepts only without its reads of kernel memory."""
    cause = cause_of(CauseKind.LOCKDOWN_READ, lockdown=read_facts().lockdown or LOCKDOWN_UNSEEN)
    return RefusedError(f"reading kernel memory in {error.refusal.subject}", error.refusal, cause)
