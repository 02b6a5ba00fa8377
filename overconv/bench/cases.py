"""A case: one thing whose cost is watched, and how a call of it is made.

A file of cases is a Python file with a tuple ``CASES``. It is read by name in the process that
measures, so a case may hold functions of any kind.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from overconv.operators.base import OverConv2d

STEPS = ("inference", "training")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,=+-]*(/[A-Za-z0-9._,=+-]+)*")


@dataclass(frozen=True)
class Case:
    """One layer or network in one situation.

    Attributes:
        name: Of letters, digits and ``._,=+-``, with ``/`` between parts; no two are equal.
        build: Makes the module. Called after ``torch.manual_seed(0)``, so that two calls make
            equal ones.
        shape: Of the input, (B, C, H, W); its values are standard normal, drawn after
            ``torch.manual_seed(1)``.
        plain: Makes the plain counterpart, to whose time ratios are taken; None: there is none.
        step: ``"inference"``: a forward pass in ``eval()`` under ``torch.inference_mode``.
            ``"training"``: a forward pass in ``train()``, the backward pass of the outputs' mean
            square to the input and to all parameters, which hold no gradients before.
        expected: Computes from the module and the input what the module has to put out, in some
            other way than the module does; None: the output has to be finite, and is compared with
            nothing. :func:`by_kernels` serves for all layers of this library.
        tolerance: Largest difference allowed, relative to the largest expected value, below 1.
        limit: How many times slower than its base a case may be, above 1; beyond it the gate
            fails.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    plain: Callable[[], nn.Module] | None = None
    step: str = "inference"
    expected: Callable[[nn.Module, Tensor], Tensor] | None = None
    tolerance: float = 1e-4
    limit: float = 1.05

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(f"name={self.name!r}: letters, digits and ._,=+- with / between parts")
        if not callable(self.build):
            raise ValueError(f"build of case {self.name!r} must be callable, got {self.build!r}")
        for name in ("plain", "expected"):
            if not (getattr(self, name) is None or callable(getattr(self, name))):
                raise ValueError(
                    f"{name} of case {self.name!r} must be callable or None,"
                    f" got {getattr(self, name)!r}"
                )
        if self.step not in STEPS:
            raise ValueError(
                f"step of case {self.name!r} must be one of {STEPS}, got {self.step!r}"
            )
        sizes = self.shape if isinstance(self.shape, tuple) else ()
        if not sizes or any(type(size) is not int or size < 1 for size in sizes):
            raise ValueError(
                f"shape of case {self.name!r} must be a tuple of positive integers,"
                f" got {self.shape!r}"
            )
        if not 1 < self.limit < math.inf:
            raise ValueError(
                f"limit of case {self.name!r} must be above 1 and finite, got {self.limit!r}"
            )
        if not 0 < self.tolerance < 1:
            raise ValueError(
                f"tolerance of case {self.name!r} must lie between 0 and 1, got {self.tolerance!r}"
            )


class WrongOutput(Exception):
    """A module of a case puts out something else than it should."""


def checked(cases: Sequence[Case]) -> tuple[Case, ...]:
    """The cases, if there are any and no two have the same name.

    Raises:
        ValueError: There are none, something else is among them, or two have one name.
    """
    for case in cases:
        if not isinstance(case, Case):
            raise ValueError(f"a case must be an overconv.bench.cases.Case, got {case!r}")
    if not cases:
        raise ValueError("there are no cases: nothing would be watched")
    twice = [name for name, times in Counter(case.name for case in cases).items() if times > 1]
    if twice:
        raise ValueError(f"two cases have the name {twice[0]!r}")
    return tuple(cases)


def by_kernels(module: nn.Module, x: Tensor) -> Tensor:
    """What a layer of this library puts out, by its own ``kernels``, one sample at a time.

    Shape:
        (B, I, H, W) -> (B, O, H', W')

    Raises:
        ValueError: ``module`` is no layer of this library.
    """
    if not isinstance(module, OverConv2d):
        raise ValueError(
            f"by_kernels is for layers of this library, and {type(module).__name__} is none:"
            " give the case an expected of its own"
        )
    kernels, bias = module.kernels(x)
    padded, rows = module.pad_fully(x), []
    for index in range(x.shape[0]):
        own = kernels[index if kernels.shape[0] > 1 else 0]
        constant = bias
        if bias is not None and bias.dim() == 2:
            constant = bias[index if bias.shape[0] > 1 else 0]
        geometry = module.stride, 0, module.dilation, module.groups
        rows.append(nn.functional.conv2d(padded[index : index + 1], own, constant, *geometry))
    return torch.cat(rows)


def make(case: Case, *, plain: bool = False, device: torch.device | str = "cpu") -> nn.Module:
    """The module of a case, or its plain counterpart, in the mode of its step.

    Torch's global generator is as before afterwards.

    Raises:
        ValueError: What was built is no module.
    """
    build = case.plain if plain else case.build
    assert build is not None, f"{case.name} has no plain counterpart"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build()
    if not isinstance(module, nn.Module):
        raise ValueError(f"case {case.name!r} builds no torch.nn.Module but {module!r}")
    return module.to(device).train(case.step == "training")


def inputs(case: Case, *, device: torch.device | str = "cpu") -> Tensor:
    """The input of a case; it takes a gradient where the case trains."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(case.shape, generator=generator).to(device)
    return x.requires_grad_(case.step == "training")


def prepared(case: Case, module: nn.Module, x: Tensor) -> Callable[[], object]:
    """What is counted and timed: one call of the case's step.

    Returns:
        A function without arguments. In training it leaves no gradients behind, so that every
        call does the same work.
    """
    if case.step == "inference":

        @torch.inference_mode()
        def infer() -> Tensor:
            return module(x)

        return infer
    parameters = [p for p in module.parameters() if p.requires_grad]

    def train() -> tuple[Tensor | None, ...]:
        loss = module(x).square().mean()
        return torch.autograd.grad(loss, [x, *parameters], allow_unused=True)

    return train


@torch.no_grad()
def check_output(case: Case, module: nn.Module, x: Tensor, *, again: bool = False) -> None:
    """Compare the output with what is expected, in ``eval()``; without that, it has to be finite.

    Args:
        again: Whether the module has been called before, for the words of an error.

    Raises:
        WrongOutput: They differ by more than the tolerance, or in shape, or are not finite.
    """
    mode, name = module.training, f"{case.name}, called again," if again else case.name
    module.eval()
    try:
        found = module(x)
        expected = None if case.expected is None else case.expected(module, x)
    finally:
        module.train(mode)
    if expected is None:
        if isinstance(found, Tensor) and not found.isfinite().all():
            raise WrongOutput(f"{name} puts out values that are not finite")
        return
    if found.shape != expected.shape:
        raise WrongOutput(
            f"{name} puts out the shape {tuple(found.shape)}, not {tuple(expected.shape)}"
        )
    size = float(expected.abs().max())
    if not math.isfinite(size):
        raise WrongOutput(f"what {name} is expected to put out is not finite")
    difference = float((found - expected).abs().max())
    if not difference <= case.tolerance * size:  # which NaN is not either
        raise WrongOutput(
            f"{name} puts out something else than it should: off by {difference:.2g}"
            f" where the largest value is {size:.2g} (tolerance {case.tolerance:g} of it)"
        )
