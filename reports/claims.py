"""The claims as a reader sees them: the verdict, the number, and what stands behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.agenda import CostVerdict, all_verdicts
from analysis.claim_figures import claim_figures
from analysis.cost_figures import ratio_figure
from analysis.figures import StudyFigure
from analysis.frames import Frames
from analysis.measured import ratio_table
from analysis.numbers import scale_of
from analysis.sentences import shown, unit_of
from analysis.table import Table
from analysis.tables import claim_table
from analysis.verdict import DECIDED, Verdict

# Class of the page for a verdict, and its sign, for colour alone tells nothing.
TONES = {
    "supported": ("yes", "\N{CHECK MARK}"),
    "contradicted": ("no", "\N{MULTIPLICATION X}"),
    "equivalent": ("same", "="),
    "inconclusive": ("open", "?"),
    "in parts": ("open", "\N{PLUS-MINUS SIGN}"),
    "in words": ("same", "\N{WHITE RIGHT-POINTING TRIANGLE}"),
    "a number": ("same", "#"),
    "no verdict": ("none", "\N{HORIZONTAL ELLIPSIS}"),
    "no data": ("none", "\N{EN DASH}"),
}
JUDGED = (*DECIDED, "in parts", "in words")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What one study, or the log of measurements, says of a claim.

    ``stem``: of its files; ``section``: where on the page its data is.
    """

    where: str
    stem: str
    section: str
    word: str
    short: str
    sentence: str
    declared: str
    evidence: tuple[str, ...]
    figures: tuple[StudyFigure, ...]
    table: Table | None

    @property
    def tone(self) -> str:
        return TONES[self.word][0]

    @property
    def sign(self) -> str:
        return TONES[self.word][1]


@dataclass(frozen=True, kw_only=True)
class ClaimView:
    """A claim of the list, with all that is said of it."""

    name: str
    wording: str
    judged_by: str
    judged: tuple[Judged, ...]

    @property
    def command(self) -> str:
        """What would give it data."""
        if self.judged_by == "benchmark":
            return "python -m benchmark operators"
        return f"python -m ablations run {self.judged_by} --preset reference"


def claim_views(
    studies: Mapping[str, Frames],
    costs: Mapping[str, CostVerdict],
) -> list[ClaimView]:
    """Every claim of the agenda, those without data too.

    Args:
        studies: By the stem of their files.
        costs: What was measured of the claims about cost.
    """
    stems = {frames.plan.hash: stem for stem, frames in studies.items()}
    views = []
    for entry, said in all_verdicts(studies.values(), costs):
        judged = []
        for verdict in said:
            if isinstance(verdict, Verdict):
                stem = stems[verdict.plan]
                judged.append(_of_study(verdict, studies[stem], stem))
            else:
                judged.append(_of_costs(verdict))
        views.append(
            ClaimView(
                name=entry.name,
                wording=entry.wording,
                judged_by=entry.judged_by,
                judged=tuple(judged),
            )
        )
    return views


def summary_line(views: Sequence[ClaimView]) -> str:
    """The answer in one sentence: how many claims are judged, and how.

    A claim counts once, by the verdict that says most.
    """
    counts: dict[str, list[str]] = {}
    for view in views:
        words = [judged.word for judged in view.judged]
        best = next((w for w in (*JUDGED, *TONES) if w in words), "no data")
        counts.setdefault(best, []).append(view.name)
    told = {"no verdict": "no verdict yet", "no data": "not run (no data)"}
    lines = [f"{', '.join(counts[w])}: {told.get(w, w)}" for w in TONES if w in counts]
    judged = sum(len(names) for word, names in counts.items() if word in JUDGED)
    return f"{judged} of {len(views)} claims have a verdict. {'; '.join(lines)}."


def _of_study(verdict: Verdict, frames: Frames, stem: str) -> Judged:
    claim = verdict.claim
    return Judged(
        where=stem.replace(".", ", "),
        stem=f"{stem}.{claim.name}",
        section=stem if frames.records else "",
        word=verdict.word,
        short=_short(verdict, frames),
        sentence=verdict.sentence,
        declared=_declared(verdict, frames),
        evidence=tuple(f"{e.what}: {e.where}" for e in claim.evidence),
        figures=tuple(claim_figures(frames, verdict)),
        table=claim_table(verdict) if verdict.parts else None,
    )


def _of_costs(verdict: CostVerdict) -> Judged:
    claim, values = verdict.claim, [ratio.value for ratio in verdict.ratios]
    figure = ratio_figure(verdict)
    counted = ", ".join(name.replace("_", " ") for name in claim.equal)
    declared = f"{claim.layer} against {claim.against} at inference"
    declared += f"; equal by count: {counted}" if counted else "; a number, not a verdict"
    declared += f"; time within {100 * claim.margin:g} %" if claim.margin else ""
    return Judged(
        where="benchmark",
        stem=f"benchmark.{claim.name}",
        section="speed",
        word=verdict.word,
        short=f"{min(values):.2f} to {max(values):.2f} times the time of {claim.against}, "
        f"{len(values)} case{'s' * (len(values) != 1)}"
        if values
        else verdict.sentence,
        sentence=verdict.sentence if len(values) < 5 else "",
        declared=f"{declared}.",
        evidence=claim.evidence,
        figures=() if figure is None else (figure,),
        table=ratio_table(verdict),
    )


def _short(verdict: Verdict, frames: Frames) -> str:
    if verdict.word == "no data":
        return "not run"
    if verdict.look is None:
        needed = frames.plan.looks[0]
        labels = {x for c in verdict.claim.contrasts for x in (c.arm, c.against)}
        have = [set(frames.by_block(label, verdict.claim.measure).index) for label in labels]
        whole = len([block for block in set.intersection(*have) if block < needed])
        return (
            f"{whole} of {needed} blocks ({verdict.num_cells} of {verdict.num_wanted} trials); "
            "judged at the declared number of blocks, not before"
        )
    told = [(part, shown(part, verdict)) for part in verdict.parts]
    numbers = [f"{part.arm} - {part.against}: {text}" for part, text in told if text]
    if not numbers:
        return verdict.reason or "; ".join(part.note for part in verdict.parts if part.note)
    more = f"; and {len(numbers) - 2} more" if len(numbers) > 2 else ""
    return f"{'; '.join(numbers[:2])}{more}"


def _declared(verdict: Verdict, frames: Frames) -> str:
    claim, scale = verdict.claim, scale_of(verdict.claim.measure)
    number = len(claim.contrasts)
    how = {
        "all": "every one must hold",
        "peers": "every peer must be beaten",
        "parts": "each is told for itself",
    }[claim.combine]
    fewer = f"; {claim.fewer.replace('_', ' ')} must be fewer" if claim.fewer else ""
    return (
        f"Declared before the run: {number} contrast{'s' * (number != 1)} in "
        f"{claim.measure.replace('_', ' ')}, direction {claim.direction}, {how}{fewer}; margin "
        f"{scale * claim.margin:g}{unit_of(claim.measure)}; judged at "
        f"{', '.join(map(str, frames.plan.looks))} blocks."
    )
