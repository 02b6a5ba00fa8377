"""Arms that form a grid: every combination of the levels of some factors, once."""

from collections.abc import Mapping, Sequence
from itertools import product

Factors = Mapping[str, Mapping[str, Sequence[str]]]


def grid(factors: Factors) -> dict[tuple[str, ...], str]:
    """The arm of each combination of levels, the factors in their order.

    Args:
        factors: Labels of the arms of a level, by level, by factor.

    Raises:
        ValueError: A factor has a single level, or a combination of levels not exactly one arm.

    >>> sorted(grid({"a": {"0": ["x", "y"], "1": ["z", "w"]}, "b": {"0": "xz", "1": "yw"}}).items())
    [(('0', '0'), 'x'), (('0', '1'), 'y'), (('1', '0'), 'z'), (('1', '1'), 'w')]
    """
    if not factors:
        return {}
    for name, levels in factors.items():
        if len(levels) < 2:
            raise ValueError(f"factor {name!r} has {len(levels)} levels; allowed: two or more")
    cells: dict[tuple[str, ...], str] = {}
    for place in product(*factors.values()):
        sets = [set(factors[name][level]) for name, level in zip(factors, place, strict=True)]
        arms = sorted(set.intersection(*sets))
        if len(arms) != 1:
            raise ValueError(
                f"factors: {' x '.join(place)} has the arms {arms}; allowed: one a combination"
            )
        cells[place] = arms[0]
    for name, levels in factors.items():
        for level, labels in levels.items():
            here = [
                arm
                for place, arm in cells.items()
                if dict(zip(factors, place, strict=True))[name] == level
            ]
            if sorted(here) != sorted(labels):
                raise ValueError(
                    f"factor {name!r}: level {level!r} lists {', '.join(sorted(labels))}, the "
                    f"grid has {', '.join(sorted(here))}; allowed: each arm at one level, once"
                )
    return cells
