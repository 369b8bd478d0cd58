"""The facts of one run in words, for its answer: counts, the cell to blame, how sure it is, steps. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from kickwatch.attribution.reasons import reason_of
from kickwatch.attribution.stacks import own_part, top_of_stack
from kickwatch.detect.figures import attributed, counted, known_creation_broadcasts, under_slab_mutex_known
from kickwatch.detect.single import Single
from kickwatch.detect.verdict import ReasonedVerdict, VerdictReason
from kickwatch.model import Cell, Trial
from kickwatch.outlets.broadcast import Blame, blame, bpftrace_line, sender
from kickwatch.outlets.elsewhere import OtherBroadcasts
from kickwatch.report.beside import unallowed
from kickwatch.report.pairs import elsewhere_score

Point = tuple[str, str]  # label, text

WORK_LINE = (
    "bpftrace -e 'tracepoint:workqueue:workqueue_queue_work { @[ksym(args->function), kstack(8)] = count(); }"
    " interval:s:60 { exit(); }'"
)


@dataclass(frozen=True)
class NextStep:
    """Something to do: why, and a command line that does it; empty where none does."""

    what: str
    command: str = ""


# They run the work of others. If such a frame seems to have asked, the work function itself is not on the stack: its
# last act was the call (a tail call).
_CARRIERS = frozenset(
    {"process_one_work", "worker_thread", "kthread_worker_fn", "kthread", "ret_from_fork", "ret_from_fork_asm"}
)


def asker_of(stack: Sequence[str]) -> str:
    """The function that asked; empty without a stack. Of deferred work without its function: what that called."""
    asked = top_of_stack(stack)
    if asked not in _CARRIERS:
        return asked
    frames, _ = own_part(stack)
    inner = [frame for frame in frames[: frames.index(asked)] if frame not in _CARRIERS] if asked in frames else []
    return inner[-1] if inner else asked


def call_chain(cell: Cell, callers: int = 2, most: int = 12) -> str:
    """The functions from two callers of the one that asked down to the one that sent; empty without a stack."""
    frames, _ = own_part(cell.stack)
    asked = asker_of(cell.stack)
    depth = frames.index(asked) + 1 + callers if asked in frames else len(frames)
    return " > ".join(reversed(frames[:depth][-most:]))


@dataclass(frozen=True)
class RunWords:
    """`trials`: those of the run. `recorded`: the file that has their records; empty if none."""

    trials: Sequence[Trial]
    judgement: ReasonedVerdict
    single: Single
    recorded: str = ""

    @property
    def count(self) -> int:
        """Containers that did not fail."""
        return sum(len(counted(trial)) for trial in self.trials)

    @property
    def containers(self) -> str:
        """`1 container`, `23 containers`."""
        return f"{self.count} container{'' if self.count == 1 else 's'}"

    @property
    def created(self) -> int | None:
        """Broadcasts of the creation path; None if not all trials could attribute them."""
        each = [known_creation_broadcasts(trial) for trial in self.trials]
        known = [broadcasts for broadcasts in each if broadcasts is not None]
        return sum(known) if len(known) == len(each) else None

    @property
    def created_words(self) -> str:
        """`3 broadcasts in 12 containers`, or that it is not known."""
        if self.created is None:
            lossy = all(map(attributed, self.trials))
            why = "the probe lost requests, and they may be among them" if lossy else "no probe attributed them"
            return f"broadcasts not known in {self.containers}: {why}"
        return f"{self.created} broadcast{'' if self.created == 1 else 's'} in {self.containers}"

    @property
    def rate(self) -> str:
        """`1 run in 10,000`."""
        return f"1 run in {round(1 / self.single.error_rate):,}"

    @property
    def by_pairs(self) -> bool:
        """Whether broadcasts from elsewhere are a reason of the verdict."""
        return VerdictReason.BROADCASTS_ELSEWHERE in self.judgement.reasons

    @property
    def by_creation(self) -> bool:
        """Whether there is another reason."""
        return any(reason != VerdictReason.BROADCASTS_ELSEWHERE for reason in self.judgement.reasons)

    @property
    def blamed(self) -> Blame | None:
        """The cell of the creation path with most broadcasts."""
        return blame(self.trials)

    @property
    def elsewhere(self) -> str:
        """The broadcasts from elsewhere, most frequent first."""
        return ", ".join(
            f"{one.broadcasts_per_container:g} x {one.reason} per container{_asked_by(one)}"
            for one in unallowed(self.trials)[:2]
        )

    def worst_elsewhere(self) -> Cell | None:
        """The cell with most broadcasts from elsewhere."""
        seen = unallowed(self.trials)
        cells = [cell for trial in self.trials for cell in trial.churn.cells]
        return next((cell for cell in cells if seen and _is(cell, seen[0])), None)

    def asked(self, cell: Cell, otherwise: str) -> list[Point]:
        """Who asked, by which calls, and what it was for. `otherwise`: the sender, if it is no kernel thread."""
        asked = asker_of(cell.stack) or "not known, no stack"
        last_call = "; the work function is not on the stack, since this was its last call"
        deferred = last_call if _is_deferred(cell) else ""
        known = all(map(under_slab_mutex_known, self.trials))
        held = ", holding slab_mutex" if known and cell.under_slab_mutex * 2 >= max(1, cell.requests) else ""
        rows = [("asked by", f"{asked} ({cell.origin}), in {sender(cell, otherwise)}{held}{deferred}")]
        if chain := call_chain(cell):
            rows.append(("call chain", chain))
        if meaning := reason_of(cell.func).sentence:
            rows.append(("CPUs run", meaning))
        return rows

    def sure_by_stack(self, cell: Cell) -> str:
        """A broadcast of the creation path is proven by its stack."""
        return (
            f"proven: each call stack shows it, {cell.broadcasts} times here; a healthy kernel gets this verdict in at"
            f" most {self.rate}"
        )

    def sure_by_pairs(self) -> str:
        """A broadcast from elsewhere is proven by the pairs of halves."""
        score, counts = elsewhere_score(self.trials), ""
        if score is not None:
            more, fewer = score["wins"], score["losses"]
            pairs = sum(score.values())
            counts = f": in {more} of {pairs} pairs the half with a container had more, in {fewer} fewer"
        return f"the pairs prove that the containers are the cause{counts}; wrong in at most {self.rate}"

    def confirm(self, cell: Cell | None) -> NextStep:
        """See it without kickwatch."""
        what = "confirm it without kickwatch: start containers during this minute"
        return NextStep(what, bpftrace_line(cell, self.trials[-1].observers.ipis))

    def find_work(self, cell: Cell | None) -> list[NextStep]:
        """Who queued the work, where only a worker is on the stack; empty where the stack has the work function."""
        if cell is None or "worker_thread" not in cell.stack or not _is_deferred(cell):
            return []
        what = "find the work and who queues it: start containers during this minute"
        return [NextStep(what, WORK_LINE)]

    def bug_report(self) -> NextStep:
        """Text for a mailing list."""
        what = "write a bug report for a kernel mailing list"
        if self.recorded:
            return NextStep(what, f"kickwatch report --bug {self.recorded}")
        record = "kickwatch trial --record trial.jsonl; kickwatch report --bug trial.jsonl"
        return NextStep(f"{what}, from a run with a record", record)


def _is_deferred(cell: Cell) -> bool:
    """Whether the function that wanted the call is no longer on its stack."""
    return bool(cell.stack) and asker_of(cell.stack) != top_of_stack(cell.stack)


def _asked_by(one: OtherBroadcasts) -> str:
    asked = asker_of(one.stack)
    return f", asked for by {asked}" if asked else f" ({one.origin})"


def _is(cell: Cell, one: OtherBroadcasts) -> bool:
    return cell.identity == (one.reason, one.func, one.origin, one.path)
