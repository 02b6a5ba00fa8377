"""Gates at inference, where calls count.

Axes: B batch, I input channels, H x W image.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


class InferenceGate(nn.Module):
    """Pooled gates at inference, in as few calls as there are products.

    A layer at inference may take less time than the calls around it in Python, so nothing is
    called here for what a function does, and the division of pooling is part of the first product.

    Args:
        layers: Weight (F', F) and bias (F') of the linear layers, one or two, with a ReLU between.
        blocks: What turns the outputs of the last layer into gates: for each run of heads of one
            kind (see :class:`Squash`) the kind and their widths; heads under a softmax are
            normalised each by itself.

    Shape:
        (B, in_channels, H, W) -> for each head one (B, width)
    """

    when, per_sample, constant = "sample", True, False

    def __init__(
        self,
        layers: Sequence[tuple[Tensor, Tensor]],
        blocks: Sequence[tuple[str, Sequence[int]]],
    ) -> None:
        super().__init__()
        self.num_layers = len(layers)
        # a softmax is over one head
        self.blocks: list[tuple[str, list[int]]] = []
        for kind, widths in blocks:
            runs = [[width] for width in widths] if kind == "softmax" else [list(widths)]
            self.blocks += [(kind, run) for run in runs]
        self._note_single()
        self.sizes = [sum(widths) for _, widths in self.blocks]
        self.widths = [width for _, widths in self.blocks for width in widths]
        self.names: set[str] = set()
        for number, (weight, bias) in enumerate(layers):
            self.names |= {f"matrix{number}", f"bias{number}"}
            self.register_parameter(f"matrix{number}", nn.Parameter(_laid_out(weight.t())))
            self.register_parameter(f"bias{number}", nn.Parameter(_copied(bias)))
        self.train(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        own: Any = self._parameters  # a look-up of the module takes longer than some of the steps
        if not self.names <= own.keys():  # pruned, parametrised, a replica: what stands there
            own = {name: getattr(self, name) for name in self.names}
        matrix, bias = own["matrix0"], own["bias0"]
        device, dtype, (*_, high, wide) = x.device.type, x.dtype, x.shape
        autocast = device != "meta" and torch.is_autocast_enabled(device)
        if autocast or dtype.itemsize < 4 or dtype != matrix.dtype or high * wide == 0:
            logits = torch.addmm(bias, x.mean((2, 3)), matrix)
        else:  # narrow types would overflow in a sum
            logits = torch.addmm(bias, x.sum((2, 3)), matrix, alpha=1 / (high * wide))
        if self.num_layers > 1:
            logits = torch.addmm(own["bias1"], logits.relu_(), own["matrix1"])
        if self.single is not None:
            return (logits.sigmoid_() if self.single == "sigmoid" else logits.softmax(1),)
        # not split(), which is a function in Python and takes longer than what it calls
        single = len(self.blocks) == 1
        parts = (logits,) if single else logits.split_with_sizes(self.sizes, 1)
        gates: list[Tensor] = []
        for (kind, widths), part in zip(self.blocks, parts, strict=True):
            squashed = part.softmax(-1) if kind == "softmax" else part.sigmoid()
            if kind == "2sigmoid":
                squashed = squashed * 2
            gates += (squashed,) if len(widths) == 1 else squashed.split_with_sizes(widths, 1)
        return tuple(gates)

    def _note_single(self) -> None:
        """What makes the only head, if there is one and a single call makes it: the most common."""
        [(kind, widths), *more] = self.blocks
        alone = not more and len(widths) == 1 and kind != "2sigmoid"
        self.single = kind if alone else None

    def halve(self) -> list[bool]:
        """Leave out the factor of ``2sigmoid``, for a layer that takes it over.

        Returns:
            For each head whether it had one.
        """
        had = [kind == "2sigmoid" for kind, widths in self.blocks for _ in widths]
        self.blocks = [("sigmoid" if k == "2sigmoid" else k, widths) for k, widths in self.blocks]
        self._note_single()
        return had

    def to_inference(self) -> "InferenceGate":
        """A copy."""
        return deepcopy(self)

    def macs(self, image: tuple[int, int]) -> tuple[int, int]:
        """Multiply-accumulates of the linear layers and of the pooling."""
        matrices = [value for name, value in self.named_parameters() if "matrix" in name]
        return sum(m.numel() for m in matrices), matrices[0].shape[0] * image[0] * image[1]

    def macs_on_pooled(self) -> int:
        """Multiply-accumulates of the linear layer that reads the pooled features."""
        return self.get_parameter("matrix0").numel()

    def extra_repr(self) -> str:
        return f"blocks={self.blocks}"


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _laid_out(matrix: Tensor) -> Tensor:
    """A copy, (in, out), in memory along its longer side.

    One image is a product of a vector with it, which runs along the memory; by the short side it
    takes up to 1.6 times as long.
    """
    wide_in, wide_out = matrix.shape
    return _copied(matrix) if wide_out >= wide_in else _copied(matrix.t()).t()
