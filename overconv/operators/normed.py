"""Branches with a batch norm each, added up: the ground on which ACB, RepVGG and DBB stand.

Axes: B batch, I input and O output channels, K x L kernel, k x l a branch's smaller one, H x W
image, G groups.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from overconv.functional import fold_norm_after, identity_kernel
from overconv.operators.branches import BranchedConv2d, is_factor
from overconv.operators.macs import Macs


class Branch(nn.Module):
    """A kernel without a bias, and the batch norm behind it; who owns it knows the geometry.

    Attributes:
        weight: (O, I/G, k, l).
        norm: Of the O output channels.
    """

    def __init__(self, shape: tuple[int, ...], *, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.norm = nn.BatchNorm2d(shape[0], device=device, dtype=dtype)

    def fold(self) -> tuple[Tensor, Tensor]:
        """Kernel and bias with the norm folded in; see :func:`fold_norm_after` for errors."""
        return fold_norm_after(self.weight, None, self.norm)

    def extra_repr(self) -> str:
        return f"weight={tuple(self.weight.shape)}"


class NormedBranchesConv2d(BranchedConv2d):
    r"""Sum of convolutions with a batch norm each, and perhaps of the normalised input.

    .. math:: y = \sum_b norm_b(W_b * x) \; [+ \; norm_I(x)] + b

    A derived layer says which branches there are, by :meth:`add_branches`. With further terms it
    extends :meth:`terms`, :meth:`folded_terms` and :meth:`macs`.

    Attributes:
        branches: By name; each with a kernel (O, I/G, k, l) of its own size.
        identity: The norm of the branch that passes the input on, as a 1 x 1 identity kernel would;
            None without that branch.
        gamma: What the scales of all norms start at.
    """

    branches: Any  # a ModuleDict of Branch
    identity: nn.BatchNorm2d | None
    gamma = 1.0

    def add_branches(self, sizes: Mapping[str, tuple[int, int]], *, identity: bool) -> None:
        """Create the branches; ``identity`` asks for that branch where it is possible.

        It needs as many output as input channels, and stride 1.
        """
        shape = (self.out_channels, self.in_channels // self.groups)
        self.branches = nn.ModuleDict(
            {name: Branch((*shape, *size), **self._factory) for name, size in sizes.items()}
        )
        self.identity = None
        if identity and self.in_channels == self.out_channels and self.stride == (1, 1):
            self.identity = nn.BatchNorm2d(self.out_channels, **self._factory)

    def reset_parameters(self) -> None:
        """Draw each kernel as a :class:`torch.nn.Conv2d` does; norms start with scale ``gamma``."""
        for module in self.modules():
            if isinstance(module, Branch):
                nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5))
        self._reset_norms()
        self.reset_bias()

    def _reset_norms(self) -> list[nn.BatchNorm2d]:
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_parameters()
            nn.init.constant_(norm.weight, self.gamma)
        return norms

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """Branches as large as the kernel share what the others leave of it.

        If they are several, they start as equal shares plus random differences, as large as the
        shares, that cancel: equal branches would get equal gradients for ever. The norms are those
        of a fresh layer, with running statistics that make ``eval()`` scale by ``gamma`` alone.
        """
        for norm in self._reset_norms():
            norm.get_buffer("running_var").fill_(1 - norm.eps)
        sharing = [b.weight for b in self.branches.values() if b.weight.shape == weight.shape]
        for kernel in sharing:
            kernel.zero_()
        training = self.training
        rest = (weight - self.eval().fold()[0]) / self.gamma
        self.train(training)
        share = rest / len(sharing)
        noise = torch.zeros_like(share).expand(len(sharing), *share.shape)
        if len(sharing) > 1:
            size = share.square().mean().sqrt()
            size = torch.where(size > 0, size, (3 * share[0].numel()) ** -0.5)  # a fresh layer's
            noise = size * torch.randn_like(noise)
            noise = noise - noise.mean(0)
        for kernel, difference in zip(sharing, noise, strict=True):
            kernel.copy_(share + difference)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)

    # Evaluation.

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        y = None
        for term in self.terms(x, self.pad(x)):
            y = term if y is None else y + term.to(y.dtype)
        assert y is not None, "a layer has branches"
        return y if self.bias is None else y + self.bias.to(y.dtype)[:, None, None]

    def terms(self, x: Tensor, padded: Tensor) -> Iterator[Tensor]:
        """What each branch gives, (B, O, H', W'); see :meth:`convolve`."""
        for branch in self.branches.values():
            yield branch.norm(self.convolve(x, padded, branch.weight))
        if self.identity is not None:
            yield self.identity(self.passed(x, padded))

    # Conversion.

    def fold(self) -> tuple[Tensor, Tensor]:
        kernels, biases = zip(*self.folded_terms(), strict=True)
        first, *others = map(self.placed, kernels)
        kernel, bias = sum(others, start=first), sum(biases[1:], start=biases[0])
        return kernel, bias if self.bias is None else bias + self.bias

    def folded_terms(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Kernel (O, I/G, k, l) and bias (O) of each of :meth:`terms` in ``eval()``."""
        for branch in self.branches.values():
            yield branch.fold()
        if self.identity is not None:
            like = self.identity.weight
            kernel = identity_kernel(self.in_channels, 1, self.groups, like.dtype, like.device)
            yield fold_norm_after(kernel, None, self.identity)

    def macs(self, image: tuple[int, int]) -> Macs:
        """All branches are run, in ``train()`` and in ``eval()``; adding them is elementwise."""
        pixels = math.prod(self.output_size(image))
        additions = len(self.branches) - (self.identity is None)
        total = Macs(other=additions * self.out_channels * pixels)
        return sum((work(b.weight, pixels) for b in self.branches.values()), start=total)


def work(weight: Tensor, pixels: int) -> Macs:
    """Cost of a kernel at so many positions."""
    values = weight.numel() * pixels
    return Macs(other=values) if is_factor(weight) else Macs(convolution=values)
