"""Situations in which a layer or a network is timed: which mode, which state, which pass.

``inference`` is a forward pass in ``eval()`` under ``torch.inference_mode``; ``training`` records
for a backward pass. A state is what has been made of the module before.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from overconv.bench.cases import by_kernels
from overconv.bench.latency import Alternative
from overconv.bench.outputs import check_equal, tolerance
from overconv.forms import plan_forms
from overconv.operators.base import OverConv2d
from overconv.surgery import to_inference

MODES = ("inference", "training")
STATES = ("train", "eval", "folded", "planned", "compiled")
PASSES = ("forward", "backward", "step")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

# What the other passes and layers of a network add to the rounding of a single convolution.
_GRADIENT, _NETWORK, _MOST = 10, 20, 0.5


@dataclass(frozen=True)
class Situation:
    """How something is timed.

    Attributes:
        mode: ``"inference"`` or ``"training"``.
        state: ``"train"``, ``"eval"``: as it was built; ``"folded"``: deployed by
            :func:`overconv.surgery.to_inference`; ``"planned"``: deployed and planned by measured
            time, or in training planned for training; ``"compiled"``: ``torch.compile`` of the
            deployed one, or of the one that trains.
        step: ``"forward"``; ``"backward"``: the backward pass alone; ``"step"``: both and an update
            by plain SGD.
        batch, image: Number and side of the images.
        dtype, memory_format: Names in ``DTYPES`` and ``FORMATS``.
        device: As torch calls it.
        threads: Of torch.

    Raises:
        ValueError: It cannot be; the message says why.
    """

    mode: str = "inference"
    state: str = "planned"
    step: str = "forward"
    batch: int = 1
    image: int = 56
    dtype: str = "float32"
    memory_format: str = "contiguous"
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        for name, allowed in (
            ("mode", MODES),
            ("state", STATES),
            ("step", PASSES),
            ("dtype", DTYPES),
            ("memory_format", FORMATS),
        ):
            if getattr(self, name) not in allowed:
                listed = ", ".join(allowed)
                raise ValueError(f"{name}={getattr(self, name)!r}; allowed: {listed}")
        for name in ("batch", "image", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; allowed: whole numbers from 1")
        if reason := self._refusal():
            raise ValueError(f"{self.mode} of the {self.state} module, {self.step}: {reason}")

    def _refusal(self) -> str:
        if self.mode == "inference":
            if self.step != "forward":
                return "under inference nothing is recorded for a backward pass; use training"
            if self.state == "train":
                return "train() moves running statistics, which inference does not; use training"
            return ""
        if self.state == "folded":
            return "a folded module is deployed, not trained; use the state train or eval"
        if self.state == "compiled" and self.step == "backward":
            return (
                "compiled code gives its buffers away in the backward pass, so that this pass"
                " alone cannot be repeated; use the pass step"
            )
        return ""

    def __str__(self) -> str:
        return (
            f"{self.mode}, {self.state}, {self.step}, batch {self.batch}, image {self.image},"
            f" {self.dtype}, {self.memory_format}, {self.device}, {self.threads} threads"
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def images(self, channels: int) -> Tensor:
        """Standard normal, the same at each call; they take a gradient in training."""
        generator = torch.Generator().manual_seed(1)
        shape = (self.batch, channels, self.image, self.image)
        x = torch.randn(shape, generator=generator).to(self.device, DTYPES[self.dtype])
        x = x.contiguous(memory_format=FORMATS[self.memory_format])
        return x.requires_grad_(self.mode == "training")

    def placed(self, module: nn.Module) -> nn.Module:
        """``module`` itself, on the device, in the dtype and the memory format."""
        return module.to(self.device, DTYPES[self.dtype]).to(
            memory_format=FORMATS[self.memory_format]
        )


def in_state(module: nn.Module, situation: Situation, x: Tensor) -> nn.Module:
    """A module of the situation's state made from ``module``, not compiled yet."""
    x = x.detach()
    if situation.mode == "training":
        made = deepcopy(module).train(situation.state != "eval")
        return plan_forms(made, x, "latency") if situation.state == "planned" else made
    if situation.state == "eval":
        return deepcopy(module).eval()
    deployed = to_inference(module)
    return plan_forms(deployed, x, "latency") if situation.state == "planned" else deployed


def alternative(
    name: str,
    module: nn.Module,
    made: nn.Module,
    situation: Situation,
    x: Tensor,
    exact: nn.Module | None = None,
) -> Alternative:
    """What is timed of a module, with the check of what it computes.

    The output, and in a backward pass the gradient of the input, are compared with float64: with a
    layer's own kernels applied sample by sample, or with ``exact``.

    Args:
        name: For the message of a wrong output.
        module: As it was built and placed.
        made: What :func:`in_state` made of it.
        situation, x: How it runs.
        exact: A module that has to compute the same, such as the network before surgery; None:
            ``module`` itself.
    """
    running: Any = torch.compile(made) if situation.state == "compiled" else made
    call, outputs = _call(running, situation, x)
    network = exact is not None or not isinstance(module, OverConv2d | nn.Conv2d)
    bound = tolerance(x.dtype, x.device) * (_NETWORK if network else 1)

    # The forward pass behind a backward one alone was made at the first call; otherwise statistics
    # have moved since.
    first = deepcopy(made.state_dict()) if situation.step == "backward" else None

    def check() -> None:
        right = deepcopy(module if exact is None else exact)
        if situation.mode == "training":
            right.load_state_dict(first or made.state_dict())
        wanted = _expected(right, situation, x)
        for number, (found, expected) in enumerate(zip(outputs(), wanted, strict=True)):
            what = name if number == 0 else f"the gradient of {name}"
            scale = 1 if number == 0 else _GRADIENT
            check_equal(what, found, expected, min(_MOST, scale * bound))

    return Alternative(call, check)


def _call(
    module: nn.Module, situation: Situation, x: Tensor
) -> tuple[Callable[[], object], Callable[[], tuple[Tensor, ...]]]:
    """What is timed, and the same giving its output and what came back to its input."""
    if situation.mode == "inference":

        @torch.inference_mode()
        def infer() -> Tensor:
            return module(x)

        return infer, lambda: (infer(),)
    if situation.step == "forward":
        return lambda: module(x), lambda: (module(x),)
    wanted = [x, *(p for p in module.parameters() if p.requires_grad)]
    ahead: list[Tensor] = []  # the gradient that comes back; made at the first call, not timed

    def forward() -> Tensor:
        y = module(x)
        if not ahead:
            ahead.append(_ramp(y.shape, y.dtype, y.device))
        return y

    if situation.step == "backward":
        made: list[Tensor] = []  # the forward pass is that of the first call

        def backward() -> tuple[Tensor | None, ...]:
            if not made:
                made.append(forward())
            return torch.autograd.grad(
                made[0], wanted, ahead[0], retain_graph=True, allow_unused=True
            )

        return backward, lambda: (made[0], _of_input(backward()))
    # At a rate of zero, so that every call does the same work on the same values.
    optimiser = torch.optim.SGD(wanted[1:], lr=0.0)

    def step() -> None:
        y = forward()
        torch.autograd.backward(y, ahead[0])
        optimiser.step()
        optimiser.zero_grad()
        x.grad = None

    def outputs() -> tuple[Tensor, ...]:
        y = forward()
        return y, _of_input(torch.autograd.grad(y, wanted, ahead[0], allow_unused=True))

    return step, outputs


def _of_input(gradients: tuple[Tensor | None, ...]) -> Tensor:
    assert gradients[0] is not None, "the output does not depend on the input"
    return gradients[0]


def _ramp(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Values of which no two are equal."""
    return torch.linspace(-1, 1, shape.numel(), dtype=dtype, device=device).view(shape)


def _expected(module: nn.Module, situation: Situation, x: Tensor) -> tuple[Tensor, ...]:
    """Output and, with a backward pass, gradient of the input, in float64; changes ``module``."""
    double = module.double().train(situation.mode == "training")
    if situation.state == "eval":
        double.eval()
    image = x.detach().double().requires_grad_(situation.step != "forward")
    with torch.set_grad_enabled(situation.step != "forward"):
        by_definition = isinstance(double, OverConv2d) and not double.training
        y = by_kernels(double, image) if by_definition else double(image)
    if situation.step == "forward":
        return (y,)
    ahead = _ramp(y.shape, x.dtype, x.device).double()
    return y.detach(), _of_input(torch.autograd.grad(y, [image], ahead))
