"""The claims as a reader sees them: the verdict, the number, and what stands behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.agenda import CostVerdict, Entry
from analysis.claim_figures import claim_figures
from analysis.cost_figures import ratio_figure
from analysis.figures import StudyFigure
from analysis.frames import Frames
from analysis.measured import ratio_table
from analysis.noise_tables import contrast_noise, prospect
from analysis.numbers import cost_words, scale_of, unit_of
from analysis.sentences import gist, pieces
from analysis.summary import costs_of
from analysis.table import Table
from analysis.verdict import DECIDED, Verdict
from analysis.verdict_tables import claim_table

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
MANY = 3  # contrasts that are easier to read as a list


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What one study, or the log of measurements, says of a claim.

    ``dataset``: by name, of a study; ``stem``: of its files; ``section``: where on the page its
    data is. ``prospect``: what the declared number of blocks would find. ``table``: its numbers,
    ``noise``: what they are made of. ``pieces``: head, contrasts and end of ``sentence``; of one
    that is short none.
    """

    where: str
    dataset: str
    stem: str
    section: str
    word: str
    short: str
    sentence: str
    pieces: tuple[str, list[str], list[str]] | None
    declared: str
    prospect: str
    evidence: tuple[str, ...]
    figures: tuple[StudyFigure, ...]
    table: Table | None
    noise: Table | None = None

    @property
    def tables(self) -> list[tuple[str, Table]]:
        """All its tables, by the names of their files."""
        named = [(self.stem, self.table), (f"{self.stem}.noise", self.noise)]
        return [(name, table) for name, table in named if table is not None]

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
    silent: str = ""

    @property
    def command(self) -> str:
        """What would give it data."""
        if self.judged_by == "benchmark":
            return "python -m benchmark operators"
        return f"python -m ablations run {self.judged_by} --preset reference"


def claim_views(
    entries: Sequence[tuple[Entry, Sequence[Verdict | CostVerdict]]], studies: Mapping[str, Frames]
) -> list[ClaimView]:
    """Every claim of the agenda, those without data too.

    Args:
        entries: Of :func:`analysis.agenda.all_verdicts`.
        studies: By the stem of their files.
    """
    stems = {frames.plan.hash: stem for stem, frames in studies.items()}
    views = []
    for entry, said in entries:
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
                silent=entry.silent,
            )
        )
    return views


def summary_line(views: Sequence[ClaimView]) -> str:
    """The answer in one sentence: how many claims are judged, and how.

    A claim counts once: by its verdicts, all of them where studies do not agree (to tell the one
    alone that decides would be to choose it), otherwise by what says most.
    """
    counts: dict[tuple[str, ...], list[str]] = {}
    told = {"no verdict": "no verdict yet", "no data": "not run (no data)"}
    for view in views:
        where: dict[str, list[str]] = {}
        for judged in view.judged:
            where.setdefault(judged.word, []).append(judged.dataset)
        verdicts = [word for word in TONES if word in where and word in (*JUDGED, "inconclusive")]
        words = verdicts or [next((word for word in TONES if word in where), "no data")]
        apart = len(words) > 1 and len({name for word in words for name in where[word]}) > 1
        said = [
            told.get(word, word) + (f" ({', '.join(dict.fromkeys(where[word]))})" if apart else "")
            for word in words
        ]
        counts.setdefault((words[0], " and ".join(said)), []).append(view.name)
    order = sorted(counts, key=lambda said: list(TONES).index(said[0]))
    lines = [f"{', '.join(counts[said])}: {said[1]}" for said in order]
    answered = sum(len(counts[said]) for said in order if said[0] in JUDGED)
    return f"{answered} of {len(views)} claims are answered. {'; '.join(lines)}."


def _of_study(verdict: Verdict, frames: Frames, stem: str) -> Judged:
    claim = verdict.claim
    costs = {x: costs_of(frames, x) for c in claim.contrasts for x in (c.arm, c.against)}
    return Judged(
        where=stem.replace(".", ", "),
        dataset=verdict.dataset,
        stem=f"{stem}.claim-{claim.name}",  # no table of the study is called so
        section=stem if frames.records else "",
        word=verdict.word,
        short=_short(verdict, frames),
        sentence=verdict.sentence,
        pieces=pieces(verdict) if len(verdict.parts) >= MANY else None,
        declared=_declared(verdict, frames),
        prospect="" if verdict.look else prospect(frames, claim),
        evidence=tuple(f"{e.what}: {e.where}" for e in claim.evidence),
        figures=tuple(claim_figures(frames, verdict)),
        table=claim_table(verdict, costs) if verdict.parts else None,
        noise=contrast_noise(frames, claim, verdict.look) if verdict.look else None,
    )


def _of_costs(verdict: CostVerdict) -> Judged:
    claim, figure = verdict.claim, ratio_figure(verdict)
    counted = ", ".join(map(cost_words, claim.equal))
    declared = f"{claim.layer} against {claim.against} at inference"
    declared += f"; equal by count: {counted}" if counted else ""
    declared += f"; time within {100 * claim.margin:g} %" if claim.margin else ": its time, told "
    declared += "" if claim.margin else "as a number and not judged"
    return Judged(
        where="benchmark",
        dataset="",
        stem=f"benchmark.{claim.name}",
        section="speed",
        word=verdict.word,
        short=verdict.short,
        sentence=verdict.sentence,
        pieces=None,
        declared=f"{declared}.",
        prospect="",
        evidence=claim.evidence,
        figures=() if figure is None else (figure,),
        table=ratio_table(verdict),
    )


def _short(verdict: Verdict, frames: Frames) -> str:
    if verdict.word == "no data":
        return "not run"
    if verdict.look is None:
        look = frames.plan.looks[0]
        arms = verdict.num_wanted // look
        return (
            f"{verdict.num_blocks} of {look} blocks ({verdict.num_cells} of {verdict.num_wanted} "
            f"trials of the {arms} arms that it compares), judged when all are there"
        )
    return f"{verdict.look} blocks; {gist(verdict)}"


def _declared(verdict: Verdict, frames: Frames) -> str:
    claim, scale = verdict.claim, scale_of(verdict.claim.measure)
    number = len(claim.contrasts)
    how = {
        "all": "every one must hold",
        "peers": "every peer must be beaten",
        "parts": "each is told apart, by intervals that hold together",
    }[claim.combine]
    fewer = f"; {cost_words(claim.fewer)} must be fewer" if claim.fewer else ""
    return (
        f"Declared before the run: {number} contrast{'s' * (number != 1)} in "
        f"{claim.measure.replace('_', ' ')}, direction {claim.direction}, {how}{fewer}; margin "
        f"{scale * claim.margin:g}{unit_of(claim.measure)}; judged at "
        f"{', '.join(map(str, frames.plan.looks))} blocks."
    )
