"""Which arm of a study is the best, if that can be said at all."""

from itertools import combinations

from analysis.frames import Frames
from analysis.intervals import pairwise, simultaneous_intervals
from analysis.looks import ERROR
from analysis.maxt import smallest_p
from analysis.statistics import CONFIDENCE
from analysis.summary import MEASURE, whole_blocks


def best_arm(frames: Frames, measure: str = MEASURE) -> tuple[str | None, str]:
    """The arm of the highest mean, if intervals of all pairs of arms put it above every other.

    All pairs, since the arm is chosen by looking: the family must hold whichever comes out first.
    Over the blocks that all arms have; without the arms of which a trial diverged.

    Returns:
        Its label or None, and in words why none is, or what was left out.
    """
    table = whole_blocks(frames, measure)
    arms, n = [str(label) for label in table], len(table)
    if len(arms) < 2 or n < 2 or smallest_p(n) > ERROR:
        return None, f"No arm is marked best: {n} whole blocks cannot say so."
    weights = pairwise(list(combinations(arms, 2)), arms)
    found = simultaneous_intervals(table.to_numpy(float), weights, CONFIDENCE)
    first = str(table.mean().idxmax())
    rivals = [
        one if first == other else other
        for (one, other), interval in zip(combinations(arms, 2), found, strict=True)
        if first in (one, other)
        and (interval.half_width == 0 or interval.low <= 0 <= interval.high)
    ]
    if rivals:
        return None, (
            f"No arm is marked best: {first} has the highest mean, and is not told from "
            f"{', '.join(rivals)} by the 95 % intervals of all pairs together."
        )
    left_out = len(frames.plan.arms) - len(arms)
    rest = f" ({left_out} arms are left out: diverged, or not run)" if left_out else ""
    return first, f"Bold: above every other arm by the 95 % intervals of all pairs together{rest}."
