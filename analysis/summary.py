"""What the records say of each arm and of each declared contrast. No verdicts: estimates."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from analysis.frames import Frames
from analysis.statistics import Estimate, estimate, paired_differences
from records.plan import Plan

MEASURE = "test_accuracy"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """``arm`` minus ``against`` in some measure, over the blocks that have both.

    ``estimate`` is None where nothing can be said, and ``why`` says why.
    """

    arm: str
    against: str
    estimate: Estimate | None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """One arm of a study.

    Args:
        label: Of the arm.
        layer: Name of the class that replaces the convolutions; ``"Conv2d"``: none does.
        note: The study's remark.
        costs: As recorded; the same in every block.
        num_trials: Trials recorded, diverged ones too.
        num_diverged: How many of them diverged.
        value: Mean of the measure over the blocks. None if there is no trial or one diverged: the
            mean of those that survived would flatter the arm.
        difference: To the baseline, block by block; None for the baseline itself.
    """

    label: str
    layer: str
    note: str
    costs: dict[str, float]
    num_trials: int
    num_diverged: int
    value: Estimate | None
    difference: Comparison | None


def summarise(frames: Frames, measure: str = MEASURE) -> list[ArmSummary]:
    """All arms of a study, in its order."""
    plan = frames.plan
    return [
        ArmSummary(
            label=label,
            layer=layer_name(configuration),
            note=plan.notes.get(label, ""),
            costs=costs_of(frames, label),
            num_trials=len(frames.by_block(label, measure)),
            num_diverged=frames.num_diverged(label),
            value=None if frames.num_diverged(label) else estimate(frames.by_block(label, measure)),
            difference=None
            if label == plan.baseline
            else compare(frames, label, plan.baseline, measure),
        )
        for label, configuration in plan.arms.items()
    ]


def compare(frames: Frames, arm: str, against: str, measure: str = MEASURE) -> Comparison:
    """The paired difference of two arms.

    An arm with a diverged trial is not compared: leaving out the trials that went worst, or
    counting them as some number, would decide the difference.
    """
    found, why = None, ""
    for label in (arm, against):
        if diverged := frames.num_diverged(label):
            num_trials = len(frames.by_block(label, measure))
            why = f"{diverged} of {num_trials} trials of {label} diverged"
    if not why:
        differences = paired_differences(
            frames.by_block(arm, measure), frames.by_block(against, measure)
        )
        found = estimate(differences)
        why = "" if found else f"no block has both {arm} and {against}"
    return Comparison(arm=arm, against=against, estimate=found, why=why)


def whole_blocks(frames: Frames, measure: str = MEASURE) -> pd.DataFrame:
    """A row a block, a column an arm: of arms without a diverged trial, blocks that all have."""
    table = pd.DataFrame(
        {
            label: frames.by_block(label, measure)
            for label in frames.plan.arms
            if not frames.num_diverged(label)
        }
    )
    return table.loc[:, table.notna().any()].dropna()


def diverged_arms(frames: Frames, labels: Iterable[str]) -> list[str]:
    """Those of ``labels`` of which a trial diverged."""
    return [label for label in labels if frames.num_diverged(label)]


def dataset(plan: Plan) -> str:
    """Name of the data set of ``plan``."""
    return (plan.arms[plan.baseline].get("data") or {}).get("name", "data")


def num_test(plan: Plan) -> int:
    """Examples that ``plan`` tests on; 0 if it does not say."""
    return (plan.arms[plan.baseline].get("data") or {}).get("num_test") or 0


def heading(plan: Plan) -> str:
    """What a table of ``plan`` begins with: ``depth (reference, fashion_mnist)``."""
    return f"{plan.name} ({plan.preset}, {dataset(plan)})"


def layer_name(configuration: dict) -> str:
    """Name of the class that replaces convolutions in an arm; ``"Conv2d"`` if none does."""
    layer = (configuration.get("arm") or {}).get("layer") or {}
    return layer.get("class", "Conv2d").rpartition(".")[2]


def costs_of(frames: Frames, label: str) -> dict[str, float]:
    """The costs that were recorded of the arm ``label``; empty without a record."""
    found = frames.records_of(label)
    # They follow from the configuration; should two strata count differently, the later is better.
    return max(found, key=lambda record: record.times["finished"]).costs if found else {}
