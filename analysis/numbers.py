"""Numbers for people: as many digits as the uncertainty leaves worth reading."""

import math
from collections.abc import Iterable

NOTHING = "-"
_UNITS = {"epochs_to_target": " epochs", "seconds_to_target": " s"}


def scale_of(measure: str) -> float:
    """What a value of ``measure`` is multiplied by for people: accuracies are shown in percent."""
    return 100.0 if measure.endswith("accuracy") else 1.0


def unit_of(measure: str) -> str:
    """The unit that differences of ``measure`` are shown in, with a blank before it."""
    return " points" if scale_of(measure) == 100 else _UNITS.get(measure, "")


def cost_words(cost: str) -> str:
    """
    >>> cost_words("macs_deployed"), cost_words("parameters_training")
    ('MACs deployed', 'parameters training')
    """
    return cost.replace("_", " ").replace("macs", "MACs").replace("flops", "FLOPs")


def axis_words(measure: str) -> str:
    """``measure`` with the unit of its values, for an axis.

    >>> axis_words("test_accuracy"), axis_words("seconds_to_target"), axis_words("train_loss")
    ('test accuracy, %', 'seconds to target, s', 'train loss')
    """
    unit = ", %" if scale_of(measure) == 100 else unit_of(measure) and f",{unit_of(measure)}"
    return f"{measure.replace('_', ' ')}{unit}"


def decimals(uncertainties: Iterable[float | None], scale: float = 100.0) -> int:
    """Decimals that show two digits of the middle one of ``uncertainties``: one or two in percent.

    Never none: a difference whose own interval is narrow, or missing, would read as 0.

    >>> decimals([0.0123]), decimals([0.0012]), decimals([]), decimals([0.123])
    (1, 2, 1, 1)
    """
    found = sorted(u * scale for u in uncertainties if u)
    if not found:
        return 1
    digits = 1 - math.floor(math.log10(found[len(found) // 2]))
    return min(max(digits, 1), 2) if scale > 1 else min(max(digits, 0), 4)


def signed(value: float, digits: int) -> str:
    """``value`` with its sign; one that rounds to zero has none.

    >>> signed(0.26, 1), signed(-0.26, 1), signed(-0.04, 1)
    ('+0.3', '-0.3', '0.0')
    """
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def count(value: float | None) -> str:
    """A count for people: all digits up to a million, then three.

    >>> count(27000), count(1234567), count(None)
    ('27,000', '1.23 M', '-')
    """
    if value is None:
        return NOTHING
    if value < 1e6:
        return f"{value:,.0f}"
    unit, name = (1e6, "M") if value < 1e9 else (1e9, "G")
    return f"{value / unit:,.{max(0, 2 - int(math.log10(value / unit)))}f} {name}"
