"""From records to verdicts: what an interval and an exact test agree on."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.convergence import claimed_values
from analysis.frames import Frames
from analysis.intervals import Interval, blocks_until, pairwise, simultaneous_intervals
from analysis.looks import reached, share
from analysis.maxt import max_t, smallest_p
from analysis.numbers import cost_words
from analysis.quantiles import Weights
from analysis.sentences import sentence
from analysis.summary import costs_of, dataset
from analysis.verdict import DECIDED, Part, Verdict, Word
from records.claim import Claim, Contrast


def verdicts(frames: Frames) -> list[Verdict]:
    """A verdict a claim of the plan, in its order; 5 % is the error of each of them."""
    return [judge(frames, claim) for claim in frames.plan.claims]


def judge(frames: Frames, claim: Claim) -> Verdict:
    """What the records say of ``claim``, at the looks that its plan declares.

    The first look that decides stands; what is run after it is left out. Unfinished trials are
    waited for, since which of them end first may depend on how they go.
    """
    plan, labels = frames.plan, _labels(frames, claim)
    error = share(plan.looks)
    there = {label: set(frames.by_block(label, claim.measure).index) for label in labels}
    complete = sorted(set.intersection(*there.values()))
    looks = reached(plan.looks, complete)
    wanted = plan.looks[0] if not looks else looks[-1]
    found = Verdict(
        claim=claim,
        study=plan.name,
        preset=plan.preset,
        dataset=dataset(plan),
        plan=plan.hash,
        word="no verdict" if any(there.values()) else "no data",
        error=error,
        num_cells=sum(len(have & set(range(wanted))) for have in there.values()),
        num_wanted=wanted * len(labels),
        num_blocks=sum(block < wanted for block in complete),
        reason="" if any(there.values()) else "not run",
    )
    if any(there.values()) and not looks:
        found = dataclasses.replace(
            found, reason=f"{found.num_cells} of {found.num_wanted} trials are there"
        )
    for look in looks:
        found = _judge_at(found, frames, look)
        if found.word in DECIDED:
            break
    if found.look is not None:
        later = sum(block >= found.look for block in complete)
        ahead = [look for look in plan.looks if look > found.look]
        next_look = ahead[0] if ahead and found.word not in DECIDED else None
        found = dataclasses.replace(found, num_later=later, next_look=next_look)
    return dataclasses.replace(found, sentence=sentence(found))


def _labels(frames: Frames, claim: Claim) -> list[str]:
    """Arms that the claim needs, in the study's order."""
    named = {label for c in claim.contrasts for label in (c.arm, c.against)}
    if claim.target is not None:
        named.add(frames.plan.baseline)  # the target is its accuracy
    return [label for label in frames.plan.arms if label in named]


def _judge_at(found: Verdict, frames: Frames, look: int) -> Verdict:
    claim, error = found.claim, found.error
    cells = look * len(_labels(frames, claim))
    found = dataclasses.replace(
        found, look=look, num_cells=cells, num_wanted=cells, num_blocks=look
    )
    if smallest_p(look) > error:
        reason = f"{look} blocks cannot reach {100 * error:.2g} %, whatever they say"
        return dataclasses.replace(found, word="no verdict", reason=reason)
    parts = judge_parts(frames, claim, range(look), error)
    return dataclasses.replace(found, word=combine(claim, parts), parts=tuple(parts))


def judge_parts(frames: Frames, claim: Claim, blocks: Sequence[int], error: float) -> list[Part]:
    """The contrasts of ``claim`` over ``blocks``, of which all trials are there.

    An arm with a diverged trial leaves: leaving out the trials that went worst, or counting them
    as some number, would decide the difference. The other arms keep all their blocks.
    """
    labels = _labels(frames, claim)
    values = claimed_values(frames, claim, labels).reindex(list(blocks))
    missing = _missing(frames, values, labels)
    family = pairwise([(c.arm, c.against) for c in claim.contrasts], labels)
    if claim.target is not None and frames.plan.baseline in missing:
        lost = missing[frames.plan.baseline]
        missing = dict.fromkeys(labels, f"no target to reach: {lost}")
    kept = [c for c in claim.contrasts if not missing.keys() & {c.arm, c.against}]
    judged = iter(_numbers(values, kept, claim, family, error))
    parts = []
    for contrast in claim.contrasts:
        if contrast in kept:
            part = _with_word(next(judged), claim, error)
        else:
            lost = contrast.against if contrast.against in missing else contrast.arm
            word: Word = "no verdict" if lost == contrast.against else "inconclusive"
            part = Part(arm=contrast.arm, against=contrast.against, word=word, note=missing[lost])
        parts.append(_with_costs(part, frames, claim))
    return parts


def combine(claim: Claim, parts: Sequence[Part]) -> Word:
    """The verdict of all contrasts together."""
    words = Counter(part.word for part in parts)
    if words["no verdict"] == len(parts):
        return "no verdict"
    if claim.direction in ("trend", "different"):
        return "in words"
    if claim.combine == "parts":
        return "in parts"
    if words["contradicted"]:
        return "contradicted"
    for word in ("supported", "equivalent"):
        if words[word] == len(parts):
            return word
    return "inconclusive"


def _missing(frames: Frames, values: pd.DataFrame, labels: Sequence[str]) -> dict[str, str]:
    """Arms that leave, and why."""
    cells, missing = frames.cells, {}
    for label in labels:
        rows = cells[(cells["label"] == label) & cells["block"].isin(values.index)]
        diverged = int((rows["outcome"] == "diverged").sum())
        lacking = int(values[label].isna().sum())
        if diverged:
            missing[label] = f"{diverged} of {len(rows)} trials of {label} diverged"
        elif lacking:
            missing[label] = f"{lacking} of {len(rows)} trials of {label} recorded no value"
    return missing


def _numbers(
    values: pd.DataFrame, kept: Sequence[Contrast], claim: Claim, family: Weights, error: float
) -> list[Part]:
    """Intervals and exact tests of the contrasts that can be had; the word is yet to come."""
    if not kept:
        return []
    used = [str(label) for label in values if any(label in (c.arm, c.against) for c in kept)]
    weights = pairwise([(c.arm, c.against) for c in kept], used)
    table = values[used].to_numpy(float)
    differences = table @ np.array(weights).T
    joint = simultaneous_intervals(table, weights, 1 - error, family)
    narrow = simultaneous_intervals(table, weights, 1 - error, family, tails=1)
    # Of any one contrast by itself the quantile is the same: Student's.
    alone = simultaneous_intervals(table, weights, 1 - error, weights[:1])
    together = max_t(differences)
    parts = []
    for index, contrast in enumerate(kept):
        tested = (alone if claim.combine == "peers" else joint)[index]
        needed = blocks_until(tested, claim.margin / 2)
        parts.append(
            Part(
                arm=contrast.arm,
                against=contrast.against,
                word="inconclusive",
                joint=joint[index],
                narrow=narrow[index],
                alone=alone[index],
                p=together[index],
                p_alone=max_t(differences[:, [index]])[0],
                smallest_effect=tested.smallest_effect,
                more_blocks=None if needed is None else max(0, needed - len(table)),
            )
        )
    return parts


def _with_word(part: Part, claim: Claim, error: float) -> Part:
    joint, narrow, alone = part.joint, part.narrow, part.alone
    assert joint and narrow and alone and part.p is not None and part.p_alone is not None
    if joint.half_width == 0:
        note = f"all {joint.n} differences are equal: there is no noise to judge by"
        return dataclasses.replace(part, note=note)
    wanted = {"greater": 1, "less": -1}.get(claim.direction, 0)
    told, doubt = side(joint, part.p, error)
    if claim.combine == "peers":
        # Each peer must be beaten, so support needs no allowance for their number.
        told_alone, doubt_alone = side(alone, part.p_alone, error)
        if told_alone == wanted or told == 0 == told_alone:
            told, doubt = told_alone, doubt_alone
        elif told == 0:  # any of several peers that is better contradicts: that needs allowance
            doubt = "by itself it is contradicted, by the intervals of all peers together it is not"
    word: Word = "inconclusive"
    if told:
        if wanted == 0:
            word = "greater" if told > 0 else "less"
        else:
            word = "supported" if told == wanted else "contradicted"
        if within(narrow, claim.margin):
            doubt = "the difference is smaller than the declared margin"
    elif within(narrow, claim.margin):
        word = "equivalent"
    return dataclasses.replace(part, word=word, note=doubt)


def side(interval: Interval, p: float, error: float) -> tuple[int, str]:
    """On which side of zero interval and exact test agree that it is; 0: they do not say."""
    outside = interval.low > 0 or interval.high < 0
    if outside and p <= error:
        return (1 if interval.mean > 0 else -1), ""
    if outside:
        return 0, f"the interval excludes zero and the exact test does not (p = {p:.2g})"
    if p <= error:
        return 0, f"the exact test excludes zero (p = {p:.2g}) and the interval does not"
    return 0, ""


def within(interval: Interval, margin: float) -> bool:
    return -margin < interval.low and interval.high < margin


def _with_costs(part: Part, frames: Frames, claim: Claim) -> Part:
    """The count that must be fewer: exact, so a single look at it decides."""
    if claim.fewer is None:
        return part
    here, there = (costs_of(frames, x).get(claim.fewer) for x in (part.arm, part.against))
    name = cost_words(claim.fewer)
    notes = [part.note] if part.note else []
    if here is None or there is None:
        word: Word = "inconclusive" if part.word == "supported" else part.word
        note = "; ".join([*notes, f"{name} not recorded"])
        return dataclasses.replace(part, word=word, note=note)
    part = dataclasses.replace(part, costs=(float(here), float(there)))
    if here < there:
        return part
    note = "; ".join([*notes, f"{name} are not fewer: {here:,.0f} against {there:,.0f}"])
    return dataclasses.replace(part, word="contradicted", note=note)
