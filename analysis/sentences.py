"""Verdicts in words."""

from collections import Counter
from collections.abc import Sequence

from analysis.numbers import decimals, scale_of, signed, unit_of
from analysis.verdict import DECIDED, Part, Verdict

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
    head, parts, after = pieces(verdict)
    return " ".join([f"{head}: {'; '.join(parts)}.", *after])


def pieces(verdict: Verdict) -> tuple[str, list[str], list[str]]:
    """What :func:`sentence` is made of: its head, what is said of each contrast, what follows."""
    claim, name = verdict.claim, verdict.claim.name
    if verdict.word == "no data":
        return f"{name}: no data", [verdict.reason], []
    if verdict.look is None:
        return f"{name}: no verdict yet", [verdict.reason], []
    if not verdict.parts:
        return f"{name}: no verdict", [verdict.reason], []
    head = {
        "in parts": f"{name}, {_counted(verdict.parts)}",
        "in words": f"{name}, in words",
        "no verdict": f"{name}: no verdict",
    }.get(verdict.word, f"{name} is {verdict.word}")
    told = _in_order(verdict) if claim.direction == "different" else list(verdict.parts)
    after = []
    if claim.direction == "trend":
        after.append(f"{_trend(verdict.parts)}.")
    if claim.direction == "different":
        after.append("Arms whose intervals overlap are in no order that is known.")
    if verdict.next_look:
        after.append(f"The next declared look is at {verdict.next_look} blocks.")
    if verdict.num_later:
        after.append(f"{verdict.num_later} blocks came after this look and are left out.")
    where = f"{head} on {verdict.dataset}, at {verdict.look} blocks"
    return where, [_told(part, verdict) for part in told], after


def in_short(verdict: Verdict) -> str:
    """A verdict in one line, without the numbers of each of several contrasts."""
    if verdict.look is None or len(verdict.parts) < 2:
        return verdict.sentence
    head, _, after = pieces(verdict)
    extra = after[1:] if verdict.claim.direction in ("trend", "different") else after
    return " ".join([f"{head}: {gist(verdict)}.", *extra])


def gist(verdict: Verdict) -> str:
    """What a judged claim comes to, in a line: the number of one contrast, or how many hold."""
    if not any(shown(part, verdict) for part in verdict.parts):
        return verdict.reason or "; ".join(dict.fromkeys(p.note for p in verdict.parts if p.note))
    if len(verdict.parts) == 1:
        [part] = verdict.parts
        return f"{part.arm} - {part.against}: {shown(part, verdict)}"
    if verdict.claim.direction == "trend":
        return _trend(verdict.parts)
    if verdict.claim.direction == "different":
        return _ranked(verdict)
    return f"{_counted(verdict.parts)} of {len(verdict.parts)}; {_range(verdict)}"


def shown(part: Part, verdict: Verdict) -> str:
    """``+0.52 points (+0.21 to +0.83)``, of the interval that decides; nothing if there is none."""
    interval = verdict.deciding(part)
    if interval is None:
        return ""
    scale, measure = scale_of(verdict.claim.measure), verdict.claim.measure
    digits = decimals([interval.half_width], scale)
    low, mean, high = (
        signed(scale * value, digits) for value in (interval.low, interval.mean, interval.high)
    )
    if interval.half_width == 0:  # without noise there is nothing to judge by: no certainty
        return f"{mean}{unit_of(measure)}"
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


def _ranked(verdict: Verdict) -> str:
    """Which contrasts go which way, the largest first."""
    told = _in_order(verdict)
    groups = {word: [p for p in told if p.word == word] for word in ("greater", "less")}
    lines = [
        f"{word}: {', '.join(f'{p.arm} than {p.against}' for p in parts)}"
        for word, parts in groups.items()
        if parts
    ]
    open_ = len(told) - sum(map(len, groups.values()))
    lines += [f"{open_} of {len(told)} not told apart"] if open_ else []
    return "; ".join(lines)


def _range(verdict: Verdict) -> str:
    """The differences of all contrasts, from the least to the largest."""
    intervals = [i for part in verdict.parts if (i := verdict.deciding(part))]
    scale = scale_of(verdict.claim.measure)
    digits = decimals([i.half_width for i in intervals], scale)
    ends = [signed(scale * end(i.mean for i in intervals), digits) for end in (min, max)]
    return f"differences {' to '.join(ends)}{unit_of(verdict.claim.measure)}"


def _counted(parts: Sequence[Part]) -> str:
    words: Counter[str] = Counter(part.word for part in parts)
    order = [word for word in (*DECIDED, *words) if word in words]
    return ", ".join(f"{words[word]} {word}" for word in dict.fromkeys(order))
