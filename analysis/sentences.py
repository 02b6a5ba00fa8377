"""Verdicts in words."""

from collections import Counter
from collections.abc import Sequence

from analysis.numbers import decimals, scale_of, signed
from analysis.verdict import Part, Verdict

_UNITS = {"epochs_to_target": " epochs", "seconds_to_target": " s"}
_SAID = {
    "supported": "holds",
    "contradicted": "is contradicted",
    "equivalent": "makes no difference that matters",
    "inconclusive": "is open",
    "greater": "is greater",
    "less": "is less",
    "no verdict": "has no verdict",
}


def sentence(verdict: Verdict) -> str:
    """A verdict with its numbers, for people."""
    claim, name = verdict.claim, verdict.claim.name
    if verdict.word == "no data":
        return f"{name}: no data: {verdict.reason}."
    if verdict.look is None:
        return f"{name}: no verdict yet: {verdict.reason}."
    if not verdict.parts:
        return f"{name}: no verdict: {verdict.reason}."
    head = {
        "in parts": f"{name}, {_counted(verdict.parts)}",
        "in words": f"{name}, in words",
        "no verdict": f"{name}: no verdict",
    }.get(verdict.word, f"{name} is {verdict.word}")
    told = _in_order(verdict) if claim.direction == "different" else list(verdict.parts)
    text = f"{head}, at {verdict.look} blocks: {'; '.join(_told(p, verdict) for p in told)}."
    if claim.direction == "trend":
        text += f" {_trend(verdict.parts)}."
    if claim.direction == "different":
        text += " Arms whose intervals overlap are in no order that is known."
    if verdict.num_later:
        text += f" {verdict.num_later} blocks came after this look and are left out."
    return text


def unit_of(measure: str) -> str:
    """The unit that differences of ``measure`` are shown in, with a blank before it."""
    return " points" if scale_of(measure) == 100 else _UNITS.get(measure, "")


def shown(part: Part, verdict: Verdict) -> str:
    """``+0.52 points (+0.21 to +0.83)``, of the interval that decides; nothing if there is none."""
    interval = part.alone if verdict.claim.combine == "peers" else part.joint
    if interval is None:
        return ""
    scale, measure = scale_of(verdict.claim.measure), verdict.claim.measure
    digits = decimals([interval.half_width], scale)
    low, mean, high = (
        signed(scale * value, digits) for value in (interval.low, interval.mean, interval.high)
    )
    return f"{mean}{unit_of(measure)} ({low} to {high})"


def _told(part: Part, verdict: Verdict) -> str:
    claim, words = verdict.claim, []
    measure = claim.measure.replace("_", " ")
    words.append(f"{measure} of {part.arm} against {part.against} {_SAID[part.word]}")
    if numbers := shown(part, verdict):
        words.append(numbers)
    if part.word == "inconclusive" and part.smallest_effect:
        scale = scale_of(claim.measure)
        digits = decimals([part.smallest_effect], scale)
        found = f"{scale * part.smallest_effect:.{digits}f}{unit_of(claim.measure)}"
        words.append(f"{found} would have been found, four times in five")
        words.append(_needed(part, claim.margin))
    words.append(part.note)
    return ", ".join(filter(None, words))


def _needed(part: Part, margin: float) -> str:
    if not margin:
        return ""
    if part.more_blocks is None:
        return "more than 1,000 blocks are needed"
    if part.more_blocks == 0:
        return "the interval is narrow already, so the difference is near the margin"
    return f"about {part.more_blocks} more blocks are needed"


def _in_order(verdict: Verdict) -> list[Part]:
    """Parts by their difference, the largest first; those without one last."""
    known = [part for part in verdict.parts if part.joint]
    known.sort(key=lambda part: -part.joint.mean if part.joint else 0)
    return known + [part for part in verdict.parts if not part.joint]


def _trend(parts: Sequence[Part]) -> str:
    """What each chain of steps does: contrasts that begin where the one before ended."""
    chains: list[list[Part]] = []
    for part in parts:
        if chains and chains[-1][-1].arm == part.against:
            chains[-1].append(part)
        else:
            chains.append([part])
    return "; ".join(
        f"from {chain[0].against} to {chain[-1].arm} it {_course(chain)}" for chain in chains
    )


def _course(chain: Sequence[Part]) -> str:
    words = Counter(part.word for part in chain)
    up, down = words["greater"], words["less"]
    steps = f"{up + down} of {len(chain)} steps"
    if up and down:
        return f"rises in {up} and falls in {down} of {len(chain)} steps"
    if up or down:
        way = "rises" if up else "falls"
        return f"{way} at every step" if up + down == len(chain) else f"{way} in {steps}"
    if words["equivalent"] == len(chain):
        return "stays within the margin at every step"
    return "shows no step that can be told from none"


def _counted(parts: Sequence[Part]) -> str:
    words = Counter(part.word for part in parts)
    return ", ".join(f"{count} {word}" for word, count in words.items())
