"""What is said of a claim, with all the numbers behind it."""

from dataclasses import dataclass
from typing import Literal

from analysis.intervals import Interval
from records.claim import Claim

Word = Literal[
    "supported",
    "contradicted",
    "equivalent",
    "inconclusive",
    "greater",
    "less",
    "in parts",
    "in words",
    "no verdict",
    "no data",
]
DECIDED = ("supported", "contradicted", "equivalent", "greater", "less")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One contrast of a claim, at one look.

    Args:
        arm, against: Its arms.
        word: Of a claim that has a direction, whether it holds here; of a trend or a difference,
            which way it goes.
        joint: Interval of ``arm - against`` that holds together with those of the other contrasts;
            None if there is none.
        narrow: That of two one-sided bounds, which decides equivalence: any choice of one bound a
            contrast holds for all together.
        alone: That of this contrast by itself, which decides support where every peer must be
            beaten.
        p: Of the exact test, adjusted for the family; ``p_alone``: by itself.
        costs: The cost that must be fewer: of ``arm``, of ``against``.
        smallest_effect: What would have been told from zero with a chance of 80 %.
        more_blocks: About how many until the interval is half the margin to each side. None: not
            within a thousand, or no margin is declared.
        note: What speaks against it, or explains it.
    """

    arm: str
    against: str
    word: Word
    joint: Interval | None = None
    narrow: Interval | None = None
    alone: Interval | None = None
    p: float | None = None
    p_alone: float | None = None
    costs: tuple[float, float] | None = None
    smallest_effect: float | None = None
    more_blocks: int | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the records of a study say of a claim.

    Args:
        claim: As declared in the plan.
        study, preset, dataset, plan: Name, preset, data set and hash of the plan.
        word: The verdict.
        reason: Why it is no other, where the parts do not say.
        parts: A contrast each, in the order of the claim.
        look: Blocks that were judged, 0 to ``look - 1``; None: none yet.
        error: Chance of a false verdict that this look may spend.
        num_cells, num_wanted: Trials that are there, of those that the look needs.
        num_blocks: Blocks below the look, or below the first look, of which all trials are there.
        num_later: Blocks that came after the look, and are left out.
        next_look: The next declared look, of a claim that is open at this one; None: there is none.
        sentence: All of it for people.
    """

    claim: Claim
    study: str
    preset: str
    dataset: str
    plan: str
    word: Word
    reason: str = ""
    parts: tuple[Part, ...] = ()
    look: int | None = None
    error: float
    num_cells: int
    num_wanted: int
    num_blocks: int = 0
    num_later: int = 0
    next_look: int | None = None
    sentence: str = ""

    def deciding(self, part: Part) -> Interval | None:
        """The interval that decides ``part``: where every peer must be beaten, that of each alone.

        Contradiction and equivalence are decided by ``joint`` and ``narrow`` all the same.
        """
        return part.alone if self.claim.combine == "peers" else part.joint

    def p(self, part: Part) -> float | None:
        """The p of the exact test that goes with :meth:`deciding`."""
        return part.p_alone if self.claim.combine == "peers" else part.p
