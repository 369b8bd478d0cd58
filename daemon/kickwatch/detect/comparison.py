"""This node against itself: every cell's cost per container beside its record under the previous stratum.

Under each stratum a record of every cell grows (`relative.Reference`). When the stratum changes (a kernel update,
another engine), the old record becomes the yardstick. Each cell that had a cost in it is watched for a rise. So is each
cell that appears later, from the trial after its appearance on; its record is the zeros until then. Streams with a
fixed allowance do not read these records: a broken kernel cannot become normal through them.

Pure: `Comparer` holds what the configuration fixes, `Comparison` is the state.
"""

import msgspec

from kickwatch.detect.classes import BpfCost
from kickwatch.detect.recovery import Hysteresis
from kickwatch.detect.relative import BURN_IN, Reference, all_zero, null_of, watch_of
from kickwatch.detect.strata import Stratum
from kickwatch.detect.track import Given, Track, Turn, advance, start
from kickwatch.detect.wager import Null

LEAST_SWEEPS = 0.25  # per container: a rise to less than that does no harm
MOST_RULES = 32
MOST_CELLS = 64  # of a record; in a record of that many the absence of a cell means nothing
MOST_PAST = 4
ENOUGH_TRIALS = 200  # a record of that length is preferred to a newer, shorter one
FOLD_AT = 64  # trials are added to the record 64 at a time, which is cheaper and changes no bit of it


class StratumRecord(msgspec.Struct, frozen=True):
    """The cost of the cells under one stratum, and of the BPF programs of its first containers."""

    stratum: Stratum
    trials: int = 0
    cells: dict[str, Reference] = {}
    bpf: BpfCost = BpfCost()

    @property
    def full(self) -> bool:
        """True if a cell that is not in it may have been left out."""
        return len(self.cells) >= MOST_CELLS

    def of(self, cell: str) -> Reference | None:
        """The cell's record; one of zeros if the cell never occurred; None where that is not known."""
        known = self.cells.get(cell)
        if known is None and not self.full:
            return all_zero(self.trials)
        return known


class RelativeRule(msgspec.Struct, frozen=True):
    """A cell that is watched. `null` is None where its record is too short for a test."""

    cell: str
    null: Null | None
    before: float  # sweeps per container under the old stratum
    track: Track | None


class Comparison(msgspec.Struct, frozen=True):
    """The state. `pending`: cell costs of trials that are not in the record yet; `past`: other strata, latest first."""

    record: StratumRecord
    pending: tuple[dict[str, float], ...] = ()
    past: tuple[StratumRecord, ...] = ()
    against: Stratum | None = None
    rules: tuple[RelativeRule, ...] = ()

    @property
    def yardstick(self) -> StratumRecord | None:
        """The record with which the node is compared."""
        return next((record for record in self.past if record.stratum == self.against), None)


class Comparer:
    """Steps a Comparison; `threshold` is that of each rule."""

    def __init__(self, threshold: float) -> None:
        """No rule yet."""
        self.threshold = threshold
        self._tests: dict[tuple[float, float], Hysteresis] = {}

    def enter(self, comparison: Comparison | None, stratum: Stratum) -> Comparison:
        """The state at the first trial under another stratum."""
        left = (self._folded(comparison).record, *comparison.past) if comparison else ()
        record = next((record for record in left if record.stratum == stratum), StratumRecord(stratum))
        past = tuple(other for other in left if other.stratum != stratum and other.trials)[:MOST_PAST]
        yardstick = _choose(past, stratum)
        rules = self._rules_from(yardstick) if yardstick else ()
        return Comparison(record, (), past, yardstick.stratum if yardstick else None, rules)

    def restart(self, comparison: Comparison) -> Comparison:
        """The state after a reboot under the same stratum: records stay, evidence starts again."""
        rules = tuple(self._rule(rule.cell, rule.null, rule.before) for rule in comparison.rules)
        return msgspec.structs.replace(comparison, rules=rules)

    def step(
        self, comparison: Comparison, trial: str, costs: dict[str, float]
    ) -> tuple[Comparison, tuple[tuple[RelativeRule, Turn], ...]]:
        """The state after one more trial with its cell costs, and the turns of its rules."""
        turned: list[tuple[RelativeRule, Turn]] = []
        rules: list[RelativeRule] = []
        for rule in comparison.rules:
            stepped, turns = self._step(rule, trial, costs.get(rule.cell, 0.0))
            rules.append(stepped)
            turned += ((stepped, turn) for turn in turns)
        if comparison.against is not None:
            rules += self._new_rules(comparison, costs)
        pending = (*comparison.pending, costs)
        stepped_comparison = Comparison(comparison.record, pending, comparison.past, comparison.against, tuple(rules))
        if len(pending) >= FOLD_AT:
            stepped_comparison = self._folded(stepped_comparison)
        return stepped_comparison, tuple(turned)

    def with_bpf_cost(self, comparison: Comparison, cost: BpfCost) -> Comparison:
        """The state with one more trial's BPF cost in the record."""
        record = msgspec.structs.replace(comparison.record, bpf=comparison.record.bpf.plus(cost))
        return msgspec.structs.replace(comparison, record=record)

    def test_of(self, null: Null) -> Hysteresis:
        """The detector of a rule."""
        key = (null.mean, null.clip)
        if key not in self._tests:
            self._tests[key] = watch_of(null, self.threshold)
        return self._tests[key]

    def _step(self, rule: RelativeRule, trial: str, x: float) -> tuple[RelativeRule, tuple[Turn, ...]]:
        if rule.null is None or rule.track is None:
            return rule, ()
        given = Given(trial, (x,), hit_above=rule.null.mean)
        track, turns = advance(self.test_of(rule.null), rule.track, given)
        return RelativeRule(rule.cell, rule.null, rule.before, track), turns

    def _rules_from(self, yardstick: StratumRecord) -> tuple[RelativeRule, ...]:
        """Rules for the cells that had a cost, the most expensive first."""
        costly = [(cell, record) for cell, record in yardstick.cells.items() if record.mean >= LEAST_SWEEPS]
        costly.sort(key=lambda item: (-item[1].mean, item[0]))
        return tuple(self._rule(cell, _null(record), record.mean) for cell, record in costly[:MOST_RULES])

    def _new_rules(self, comparison: Comparison, costs: dict[str, float]) -> list[RelativeRule]:
        """Rules for cells that have a cost for the first time.

        They begin with the next trial: the observation for which a cell is chosen is no evidence against it.
        """
        watched = {rule.cell for rule in comparison.rules}
        found: list[RelativeRule] = []
        for cell in sorted(costs):
            yardstick = comparison.yardstick
            if costs[cell] < LEAST_SWEEPS or cell in watched or yardstick is None:
                continue
            if len(watched) + len(found) >= MOST_RULES:
                break
            record = yardstick.of(cell)
            found.append(self._rule(cell, _null(record) if record else None, record.mean if record else 0.0))
        return found

    def _rule(self, cell: str, null: Null | None, before: float) -> RelativeRule:
        return RelativeRule(cell, null, before, start(self.test_of(null)) if null else None)

    @staticmethod
    def _folded(comparison: Comparison) -> Comparison:
        """The state with all pending trials in its record."""
        record, pending = comparison.record, comparison.pending
        cells = dict(record.cells)
        for cell in sorted({cell for costs in pending for cell in costs}):
            if cell not in cells and len(cells) < MOST_CELLS:
                cells[cell] = all_zero(record.trials)
        grown = {
            cell: known.with_observations(costs.get(cell, 0.0) for costs in pending) for cell, known in cells.items()
        }
        full = StratumRecord(record.stratum, record.trials + len(pending), grown, record.bpf)
        return Comparison(full, (), comparison.past, comparison.against, comparison.rules)


def _null(record: Reference) -> Null | None:
    return null_of(record, least=LEAST_SWEEPS)


def _choose(past: tuple[StratumRecord, ...], stratum: Stratum) -> StratumRecord | None:
    """Of the records that are comparable the latest that is long enough, else the longest."""
    alike = [record for record in past if record.stratum.yardstick == stratum.yardstick and record.trials > BURN_IN]
    return next((record for record in alike if record.trials >= ENOUGH_TRIALS), None) or max(
        alike, key=lambda record: record.trials, default=None
    )
