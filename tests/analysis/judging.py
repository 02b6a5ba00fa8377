"""Claims and accuracies to judge them by; not a test file: those of verdicts run it by its path."""

import numpy as np

from records.claim import Claim, Contrast

LABELS = ("plain", "gated-1", "gated-2", "linear-2")  # parameters: 19,562; 23,910; 27,962; 22,700


def claim(*contrasts, **changes):
    fields = {"name": "C", "wording": "?", "direction": "greater", "margin": 0.003}
    pairs = [Contrast(arm=arm, against=against) for arm, against in contrasts]
    return Claim(**{**fields, "contrasts": pairs, **changes})


def accuracies(n=10, seed=0, noise=0.002, **means):
    """Blocks that move together, arms around ``means`` above 0.85."""
    draw = np.random.default_rng(seed)
    shared = 0.85 + 0.01 * draw.standard_normal(n)
    return {
        label: (shared + means.get(label.replace("-", "_"), 0) + noise * draw.standard_normal(n))
        .round(6)
        .tolist()
        for label in LABELS
    }
