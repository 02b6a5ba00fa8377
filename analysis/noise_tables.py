"""What differences are made of, and what more blocks would find: tables beside the verdicts."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from analysis.convergence import claimed_values, values_of
from analysis.examples import Noise, noise, on_new_data, paired_outcomes
from analysis.frames import Frames
from analysis.intervals import MOST_BLOCKS, pairwise
from analysis.looks import FEWEST_BLOCKS
from analysis.numbers import NOTHING, decimals, scale_of, signed, unit_of
from analysis.power import (
    PAIR,
    WinShare,
    block_correlation,
    blocks_needed,
    hedges_d,
    smallest_effect,
    win_share,
)
from analysis.quantiles import Weights
from analysis.statistics import FEWEST_FOR_INTERVAL, paired_differences
from analysis.summary import MEASURE, diverged_arms, heading, whole_blocks
from analysis.table import Column, Table
from records.claim import Claim, Contrast

SIZES = (6, 8, 10, 15, 20, 30, 50)  # blocks


def noise_table(frames: Frames) -> Table | None:
    """Every arm against the baseline, over all blocks that both have; None if none has two."""
    plan = frames.plan
    contrasts = [
        Contrast(arm=label, against=plan.baseline) for label in plan.arms if label != plan.baseline
    ]
    table = _table(frames, contrasts, MEASURE, None, frames.blocks)
    if table is None:
        return None
    more = [note for note in (_correlation(frames), _rounding(frames)) if note]
    return Table(
        title=f"{heading(plan)}: what the differences are made of",
        columns=table.columns,
        rows=table.rows,
        data=table.data,
        footnotes=(*table.footnotes, *more),
    )


def contrast_noise(frames: Frames, claim: Claim, look: int) -> Table | None:
    """The contrasts of a claim at its look; None if nothing can be paired."""
    table = _table(frames, claim.contrasts, claim.measure, claim.target, range(look))
    if table is None:
        return None
    return Table(
        title=f"{claim.name}: what its differences are made of",
        columns=table.columns,
        rows=table.rows,
        data=table.data,
        footnotes=table.footnotes,
    )


def design_table(frames: Frames) -> Table | None:
    """The smallest difference in accuracy that a number of blocks finds four times in five.

    A column for one comparison by itself, one for all arms against the baseline together, and one
    a claim. None before there are two whole blocks to take the noise from.
    """
    values = whole_blocks(frames).to_numpy(float)
    if min(values.shape) < 2 or not (spread := _paired_spread(values)):
        return None
    plan = frames.plan
    arms = list(plan.arms)
    families: dict[str, Weights] = {"one comparison": PAIR}
    if len(arms) > 2:
        against = [(label, plan.baseline) for label in arms if label != plan.baseline]
        families["all arms to the baseline"] = pairwise(against, arms)
    claims = [claim for claim in plan.claims if claim.measure == MEASURE]
    families |= {claim.name: _family(claim) for claim in claims}
    rows, data = [], []
    for n in SIZES:
        found = {name: 100 * smallest_effect(spread, n, of) for name, of in families.items()}
        data.append({"blocks": n, **found})
        rows.append({"blocks": str(n), **{name: f"{x:.2f}" for name, x in found.items()}})
    notes = [
        "The difference in test accuracy that is told from zero with a chance of 80 %, by the "
        "interval of its family, if the noise stays as it is: the standard deviation of a "
        f"difference is {100 * spread:.2f} points, over {len(values)} blocks of "
        f"{values.shape[1]} arms.",
        f"No verdict comes from fewer than {FEWEST_BLOCKS} blocks.",
    ]
    for claim in claims:
        # Peers are beaten one by one.
        family = PAIR if claim.combine == "peers" else families[claim.name]
        if claim.margin:
            needed = blocks_needed(claim.margin, spread, family)
            many = f"more than {MOST_BLOCKS:,}" if needed is None else f"about {needed}"
            notes.append(f"{claim.name}: {100 * claim.margin:g} points take {many} blocks.")
    return Table(
        title=f"{heading(plan)}: what a number of blocks would find",
        columns=(
            Column("blocks", "blocks"),
            *(Column(name, name, unit="points") for name in families),
        ),
        rows=tuple(rows),
        data=tuple(data),
        footnotes=tuple(notes),
    )


def prospect(frames: Frames, claim: Claim) -> str:
    """What the declared number of blocks would find of a claim, by the noise of those so far.

    Empty before there are two blocks that have all the arms that the noise is taken of.
    """
    if claim.measure == MEASURE:  # of all arms, as in the table of the study
        values = whole_blocks(frames).to_numpy(float)
    else:
        labels = dict.fromkeys(x for c in claim.contrasts for x in (c.against, c.arm))
        values = claimed_values(frames, claim, labels).dropna().to_numpy(float)
    if min(values.shape) < 2 or not (spread := _paired_spread(values)):
        return ""
    family = PAIR if claim.combine == "peers" else _family(claim)  # peers are beaten one by one
    look, scale, unit = frames.plan.looks[-1], scale_of(claim.measure), unit_of(claim.measure)
    found = scale * smallest_effect(spread, look, family)
    digits = max(2, decimals([found], scale))
    text = (
        f"By the noise of {len(values)} blocks (a difference of two arms has a standard deviation "
        f"of {scale * spread:.{digits}f}{unit}), {look} blocks tell {found:.{digits}f}{unit} from "
        "zero four times in five"
    )
    if not claim.margin:
        return f"{text}."
    needed = blocks_needed(claim.margin, spread, family)
    many = f"more than {MOST_BLOCKS:,}" if needed is None else f"about {needed}"
    return f"{text}; the margin of {scale * claim.margin:g}{unit} takes {many} blocks."


def _table(
    frames: Frames,
    contrasts: Sequence[Contrast],
    measure: str,
    target: float | None,
    blocks: Sequence[int],
) -> Table | None:
    scale, unit = scale_of(measure), unit_of(measure).strip()
    found, said = [], []
    for contrast in contrasts:
        lost = diverged_arms(frames, (contrast.arm, contrast.against))
        one, other = (
            values_of(frames, label, measure, target).reindex(list(blocks))
            for label in (contrast.arm, contrast.against)
        )
        differences = paired_differences(one, other)
        if lost or len(differences) < 2:
            continue
        components, why = None, ""
        if measure == MEASURE:
            components, why = _components(frames, contrast, blocks)
        found.append((contrast, differences, win_share(differences), components))
        said += [why] if why and why not in said else []
    if not found:
        return None
    columns = [
        Column("contrast", "contrast", is_text=True),
        Column("n", "n", unit="blocks"),
        Column("wins", "higher in"),
        Column("share", "its share, 95 %"),
        Column("d", "d (Hedges)"),
        Column("spread", "SD of differences", unit=unit),
    ]
    notes = [
        "Higher in: blocks in which the first arm is higher, of those without a tie, with the "
        "exact interval of its share. d: mean over SD of the differences, corrected for few "
        "blocks, of three or more.",
        *said,
    ]
    if measure == MEASURE:
        columns += [
            Column("seed", "seed noise", unit=unit),
            Column("test_set", "test-set noise", unit=unit),
            Column("new", "95 % on new data", unit=unit),
        ]
        notes.append(
            "Seed noise: standard deviation of the difference over blocks, were there endless test "
            "examples. Test-set noise: over other test sets as large, were there endless blocks. "
            "On new data: interval of the difference, were both drawn anew; the others are of this "
            "test set. One at a time: no verdicts. Of either noise, -: none that can be told from "
            "the rest."
        )
    rows = tuple(_row(*item, scale) for item in found)
    return Table(
        title="",
        columns=tuple(c for c in columns if any(row[c.key] != NOTHING for row in rows)),
        rows=rows,
        data=tuple(_data(*item, scale, unit) for item in found),
        footnotes=tuple(notes),
    )


def _components(
    frames: Frames, contrast: Contrast, blocks: Sequence[int]
) -> tuple[Noise | None, str]:
    """Seed noise and test-set noise of a difference, or why they cannot be told apart."""
    try:
        paired = paired_outcomes(frames, contrast.arm, contrast.against, blocks)
    except ValueError as error:  # a record that does not say how many bits it holds
        return None, f"Noise of seeds and test set are not told apart: {error}."
    if paired is None:
        return None, "Noise of seeds and test set are not told apart: outcomes were not recorded."
    return noise(paired), ""


def _row(
    contrast: Contrast,
    differences: pd.Series,
    wins: WinShare,
    components: Noise | None,
    scale: float,
) -> dict[str, str]:
    d, spread = hedges_d(differences), float(differences.std())
    digits = 1 + decimals([spread], scale)  # two digits: it is the uncertainty that is told here
    row = {
        "contrast": f"{contrast.arm} - {contrast.against}",
        "n": str(len(differences)),
        "wins": f"{wins.wins} of {wins.n}",
        "share": NOTHING if wins.low is None else f"{wins.low:.2f} to {wins.high:.2f}",
        "d": NOTHING if d is None else signed(d, 1),
        "spread": f"{scale * spread:.{digits}f}",
        **dict.fromkeys(("seed", "test_set", "new"), NOTHING),
    }
    if components:
        parts = {"seed": components.seed, "test_set": components.test_set}
        # Zero is where an estimate of a variance came out below it, and no measured quiet.
        row |= {name: f"{scale * x:.{digits}f}" for name, x in parts.items() if x}
    if ends := _on_new_data(components):
        row["new"] = " to ".join(signed(scale * x, digits - 1) for x in ends)
    return row


def _on_new_data(components: Noise | None) -> tuple[float, float] | None:
    if components is None or components.num_blocks < FEWEST_FOR_INTERVAL:
        return None
    return on_new_data(components)


def _data(
    contrast: Contrast,
    differences: pd.Series,
    wins: WinShare,
    components: Noise | None,
    scale: float,
    unit: str,
) -> dict[str, Any]:
    low, high = _on_new_data(components) or (None, None)
    return {
        "arm": contrast.arm,
        "against": contrast.against,
        "unit": unit or "as measured",
        "blocks": len(differences),
        "difference": scale * float(differences.mean()),
        "spread": scale * float(differences.std()),
        "d": hedges_d(differences),
        "wins": wins.wins,
        "ties": wins.ties,
        "share": wins.share,
        "share_low": wins.low,
        "share_high": wins.high,
        "examples": components and components.num_examples,
        "seed_noise": components and scale * components.seed,
        "test_set_noise": components and scale * components.test_set,
        "new_data_low": None if low is None else scale * low,
        "new_data_high": None if high is None else scale * high,
    }


def _family(claim: Claim) -> Weights:
    labels = list(dict.fromkeys(x for c in claim.contrasts for x in (c.against, c.arm)))
    return pairwise([(c.arm, c.against) for c in claim.contrasts], labels)


def _paired_spread(values: np.ndarray) -> float:
    """Standard deviation of a difference of two arms of a block, pooled over all pairs of arms.

    ``sqrt(2)`` times that of the residual of the two-way table; 0 if that is rounding.
    """
    pairs = [values[:, i] - values[:, j] for i, j in combinations(range(values.shape[1]), 2)]
    spread = float(np.mean([pair.var(ddof=1) for pair in pairs])) ** 0.5
    return spread if spread > 1e-12 * np.abs(values).max() else 0.0


def _correlation(frames: Frames) -> str:
    values = whole_blocks(frames).to_numpy(float)
    rho = block_correlation(values) if min(values.shape) > 1 else None
    if rho is None:
        return ""
    gain = f": a paired block is worth {1 / (1 - rho):.1f} unpaired ones" if 0 < rho < 0.99 else ""
    return (
        f"Correlation of two arms within a block, over all pairs of the {values.shape[1]} arms: "
        f"{rho:.2f} ({len(values)} blocks){gain}."
    )


def _rounding(frames: Frames) -> str:
    """How far trials moved that were trained in another stratum too: same seed, other rounding."""
    here = {record.trial: record for record in frames.records}
    moves = [
        here[stray.trial].metrics[MEASURE] - stray.metrics[MEASURE]
        for stray in frames.strays
        if stray.trial in here and MEASURE in stray.metrics and MEASURE in here[stray.trial].metrics
    ]
    if len(moves) < 2:
        return ""
    return (
        f"Trained in another stratum too, which decides nothing here, were {len(moves)} of these "
        "trials: with the same split, start and order of data, rounded otherwise, they reach "
        f"another accuracy, by {100 * float(np.std(moves, ddof=1)):.2f} points (standard "
        f"deviation), {signed(100 * float(np.mean(moves)), 2)} in the mean."
    )
