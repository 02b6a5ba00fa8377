"""Whether an output is what it should be, before anything is timed."""

import math

import torch
from torch import Tensor

from overconv.bench.cases import WrongOutput

# Largest difference to exact arithmetic, relative to the largest value.
TOLERANCES = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}
_TF32 = 1e-2


def tolerance(dtype: torch.dtype, device: torch.device | str = "cpu") -> float:
    """Largest difference allowed between an output in ``dtype`` and exact arithmetic, relative to
    the largest value.

    Raises:
        ValueError: None is known for ``dtype``.
    """
    if dtype not in TOLERANCES:
        known = ", ".join(map(str, TOLERANCES))
        raise ValueError(f"dtype must be one of {known}, got {dtype}")
    if dtype == torch.float32 and torch.device(device).type == "cuda":
        return _TF32 if torch.backends.cudnn.allow_tf32 else TOLERANCES[dtype]
    return TOLERANCES[dtype]


def check_equal(name: str, found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Compare what ``name`` computes with what it should compute.

    Raises:
        WrongOutput: They differ by more than ``tolerance`` of the largest expected value, or in
            shape.
    """
    if found.shape != expected.shape:
        raise WrongOutput(
            f"{name} gives the shape {tuple(found.shape)}, not {tuple(expected.shape)}"
        )
    found, expected = found.detach().double(), expected.detach().double()
    size, difference = float(expected.abs().max()), float((found - expected).abs().max())
    if not difference <= tolerance * size or math.isinf(size):  # which NaN is not either
        raise WrongOutput(
            f"{name} computes something else than it should: off by {difference:.2g} where the"
            f" largest value is {size:.2g} (tolerance {tolerance:g} of it)"
        )
