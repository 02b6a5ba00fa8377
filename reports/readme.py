"""What README.md says of results, filled in from the tables of the report.

It stands between ``<!-- results: NAME -->`` and ``<!-- end of results -->``.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence

from analysis.looks import FEWEST_BLOCKS
from analysis.simulation import Simulated, committed
from analysis.summary import num_test
from reports.claims import ClaimView, summary_line
from reports.sections import Section

_PLACE = re.compile(r"(<!-- results: ([\w-]+) -->\n).*?(<!-- end of results -->)", re.DOTALL)


def filled(readme: str, texts: Mapping[str, str]) -> str:
    """``readme`` with what it says of results made anew.

    Raises:
        ValueError: A place names a text that does not exist.
    """

    def fill(place: re.Match[str]) -> str:
        if place[2] not in texts:
            raise ValueError(
                f"README.md names the results {place[2]!r}; there are {', '.join(texts)}"
            )
        return f"{place[1]}{texts[place[2]]}\n{place[3]}"

    return _PLACE.sub(fill, readme)


def texts(views: Sequence[ClaimView], sections: Sequence[Section]) -> dict[str, str]:
    """All texts, by name: the picture, the claims, what was recorded, how often verdicts err."""
    return {
        "picture": _picture(sections),
        "claims": _claims(views),
        "recorded": _recorded(views, sections),
        "errors": _errors(committed()),
    }


def _picture(sections: Sequence[Section]) -> str:
    """The costs of the study with the most blocks; of several that with the largest test, and of
    these that with the fewest arms, which is the easiest to read."""
    drawn = [s for s in sections if any(figure.name == "costs" for figure in s.figures)]
    if not drawn:
        return "*Nothing is recorded yet.*"
    s = max(drawn, key=lambda s: (s.num_blocks, num_test(s.plan), -len(s.plan.arms)))
    few = (
        f" {_number(s.num_blocks, 'block')} cannot decide anything."
        if s.num_blocks < FEWEST_BLOCKS
        else ""
    )
    words = (
        f"*{s.plan.question} From the records in `reports/data`: {_told(s)}, {s.num_trials} "
        f"trials.{few} All of it is on the page, `reports/index.html`.*"
    )
    picture = f"![Accuracy against parameters, of {_told(s)}](reports/figures/{s.stem}.costs.png)"
    return f"{picture}\n\n{_wrapped(words)}"


def _claims(views: Sequence[ClaimView]) -> str:
    lines = ["| claim | wording | verdict | found |", "|---|---|---|---|"]
    for view in views:
        if not view.judged:
            lines.append(f"| {view.name} | {view.wording} | not run | `{view.command}` |")
        silent = f" *What it does not show:* {view.silent}" if view.silent else ""
        for judged in view.judged:
            found = f"{judged.where}: {judged.short.rstrip('.')}."
            lines.append(
                f"| {view.name} | {view.wording} | {judged.word} | {found}{silent} |"
            )  # labels of arms hold no line breaks, and claims of ours no bars
    return "\n".join(lines)


def _recorded(views: Sequence[ClaimView], sections: Sequence[Section]) -> str:
    studies = "; ".join(_told(s) for s in sections) or "none"
    return _wrapped(
        f"- **What is recorded.** {summary_line(views)} Studies with records: {studies}.", "  "
    )


def _errors(found: Simulated) -> str:
    rates = list(found.rows.values())
    even = [r.power for (n, _, case), r in found.rows.items() if (n, case) == (10, "equal")]
    return _wrapped(
        f"Of {found.studies:,} simulated studies a case, in {len(rates)} cases, joint intervals "
        f"hold in {_percent(min(r.coverage for r in rates))} or more, a study without an effect "
        f"gets a verdict in {_percent(max(r.false for r in rates))} or fewer, arms that differ by "
        "the margin are called equivalent in "
        f"{_percent(max(max(r.one_side, r.either_side) for r in rates))} or fewer, and ten blocks "
        f"of equally noisy arms find a difference of 2 SD in {_percent(min(even))} or more: "
        "[analysis/simulated.md](analysis/simulated.md)."
    )


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, 130, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _told(s: Section) -> str:
    return (
        f"`{s.plan.name}` on {s.dataset}, preset {s.plan.preset}, {len(s.plan.arms)} arms, "
        f"{_number(s.num_blocks, 'block')}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _number(count: int, of: str) -> str:
    return f"{count} {of}{'s' * (count != 1)}"
