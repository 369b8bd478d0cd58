"""Where a trial's creation-path broadcasts lie: within one container's life, or within no single one's. Pure.

In a serial churn the record has the rise of the creation path over each container's life. What no single life holds is
the burst: all of it when several containers live at once, and in a serial churn what came after the last container was
gone (until 5.9 a kworker made a memcg's slab caches, seconds later). Lives and burst together hold every creation-path
broadcast of a trial once, except those in the lives of failed containers, which count neither way.

Late broadcasts are not added to the last container: clipped at 4, they would be lost among the zeros of the other
containers, and it would take 40 trials instead of 6 to find the fault of 2017. They are not shared out evenly either:
equal shares of one burst would look like as many broadcasts by as many containers, and cause false alarms.
"""

import msgspec

from kickwatch.model import Trial


class Lives(msgspec.Struct, frozen=True):
    """The containers of a trial that count, and where their creation-path broadcasts lie."""

    count: int
    own: tuple[float, ...]  # of each container whose life is known, in order
    late: int  # in no container's life
    created: int = 0  # containers that were created, failed ones included
    in_failed: int = 0  # broadcasts in the lives of failed containers


class Churned(msgspec.Struct, frozen=True):
    """The containers of one churn as the test of one run takes them.

    `lives`: broadcasts in each life that is known; `late`: in no container's life; `others`: containers without a known
    life.
    """

    lives: tuple[float, ...]
    late: float = 0.0
    others: int = 0

    @property
    def containers(self) -> int:
        """How many there were."""
        return len(self.lives) + self.others


def lives_of(trial: Trial, broadcasts: int) -> Lives:
    """Where the churn window's creation-path `broadcasts` lie."""
    rises = [life.creation_path_broadcasts for life in trial.containers if not life.failure]
    created = sum([1 for life in trial.containers if not life.failure or life.create_ms > 0.0])
    if trial.concurrency != 1:
        return Lives(len(rises), (), broadcasts, created)
    own = tuple([float(rise) for rise in rises if rise is not None and rise >= 0])
    in_lives = in_failed = 0
    if broadcasts:
        in_lives = sum([life.creation_path_broadcasts or 0 for life in trial.containers])
        in_failed = sum([life.creation_path_broadcasts or 0 for life in trial.containers if life.failure])
    return Lives(len(rises), own, max(0, broadcasts - max(0, in_lives)), created, in_failed)


def churned_of(lives: Lives) -> Churned:
    """The same for the test of one run."""
    return Churned(lives.own, float(lives.late), lives.count - len(lives.own))
