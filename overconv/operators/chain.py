"""A convolution as a chain of linear layers, the ground on which MDConv and MAConv stand.

Axes: B batch, I input, M middle and O output channels, K x L kernel, H x W image, G groups.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from overconv.functional import (
    compose,
    constant_through,
    conv2d_per_sample,
    fold_norm_after,
    gate_features,
    scale_input,
    scale_output,
)
from overconv.inference_gate import InferenceGate
from overconv.operators.chain_layers import ChainLayers
from overconv.operators.order import IMAGE, Order, Step, expanding, is_gate, steps

Gates = Mapping[str, Tensor]


class ChannelShift(nn.Module):
    """Adds a constant to each channel: what is left of a batch norm whose scale was folded."""

    bias: Tensor

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(shift)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias[:, None, None]


class ChainConv2d(ChainLayers):
    """A chain that can be multiplied in any order, and folded; a derived layer chooses the order.

    The arguments are those of :class:`overconv.operators.chain_layers.ChainLayers`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.order = expanding(self.product)

    # Evaluation.

    def gates(self, x: Tensor) -> Gates:
        """The gates by name: (B, width), or (1, width) if shared."""
        gate = self.own("gate")
        return {} if gate is None else dict(zip(self._gated, gate(x), strict=True))

    @property
    def order(self) -> Order:
        """In which the chain is multiplied; see :mod:`overconv.operators.order`."""
        return self._order

    @order.setter
    def order(self, order: Order) -> None:
        # all that follows from it is worked out here, not in each forward pass
        self._order, self._padded = order, self.pads_first(order)
        self._gated = tuple(f"D{position}" for position in self.gated)
        self._num_middle = len(self.behind)
        self._steps = steps(order, f"A{self.spatial_index + 1}")
        self._short, self._layers = self._shortened(), {str(layer) for layer in range(self.depth)}

    def pads_first(self, order: Order) -> bool:
        """Whether the input is padded ahead of the chain rather than ahead of its spatial layer.

        Then what a middle norm adds is padded by its own image of zero, as a composed kernel has
        it. Without a norm, or where nothing runs before the spatial layer, both are the same, and
        the later is cheaper.
        """
        if self.spatial_index == 0 or len(self.behind) == 0:
            return False
        kernels = [step for step in steps(order, f"A{self.depth}") if step.gate is None]
        return not kernels[0].spatial

    def _shortened(self) -> tuple[tuple[str | None, str, bool], ...]:
        """The steps of a chain that is nothing but layers and gates.

        The gate's name, or None and the layer's, and whether it is the spatial one. Empty where
        there is more to do between them.
        """
        single = all(step.gate is not None or step.layer is not None for step in self._steps)
        if not single or len(self.behind) > 0 or not self._native:
            return ()
        return tuple((step.gate, str(step.layer), step.spatial) for step in self._steps)

    def run(self, x: Tensor) -> Tensor:
        """The chain on an image, multiplied in the order :attr:`order`."""
        if self._short and not torch.is_grad_enabled():
            weights = self.own("weights")._parameters
            if self._layers <= weights.keys():  # neither pruned, nor parametrised, nor a replica
                return self._run_short(x, self.gates(x), weights)
        return self._run(x, self.gates(x))

    def _run_short(self, x: Tensor, gates: Gates, weights: Any) -> Tensor:
        """:meth:`run` without gradients, in few steps of Python.

        Their time is felt beside that of a small convolution.
        """
        bias, last = self.own("bias"), self._short[-1]
        fresh = False  # straight from a convolution: nobody else has them
        pointwise = () if self.groups == 1 else (1, 0, 1, self.groups)
        for step in self._short:
            gate, layer, spatial = step
            if gate is None:
                geometry = self.geometry if spatial else pointwise
                x = F.conv2d(x, weights[layer], bias if step is last else None, *geometry)
                fresh = True
            else:
                x = gate_features(x, gates[gate], in_place=fresh)
        return x if bias is None or last[0] is None else x + bias.to(x.dtype)[:, None, None]

    def _run(self, x: Tensor, gates: Gates) -> Tensor:
        if self._padded:
            x = self.pad_fully(x)
        bias, last, own = self.own("bias"), self._steps[-1], self.own("weights")._parameters
        in_place, fresh = not torch.is_grad_enabled(), False  # fresh: as in the shorter way
        for step in self._steps:
            if step.gate is not None:
                x = gate_features(x, gates[step.gate], in_place=in_place and fresh)
                continue
            weight, shift, norm = None, None, None
            if step.layer is None:
                weight, shift = self.compose(step.kernel, gates)
            else:
                weight = own.get(str(step.layer))
                if weight is None:  # parametrised, or a replica: what stands in its place
                    weight = getattr(self.weights, str(step.layer))
                if step.layer < self._num_middle:  # the norm of a single layer runs on features
                    module = self.behind[step.layer]
                    if isinstance(module, ChannelShift):
                        shift = module.bias
                    else:
                        norm = module
            if step is last and bias is not None:  # a convolution adds it by itself
                shift, bias = (bias if shift is None else bias + shift), None
            x, fresh = self._convolve(step, x, weight, shift), norm is None
            if norm is not None:
                x = norm(x)
        return x if bias is None else x + bias.to(x.dtype)[:, None, None]

    def _convolve(self, step: Step, x: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
        """Convolve by the kernel of a step, which is one for all or has a batch in front."""
        convolve = F.conv2d if weight.dim() == 4 else conv2d_per_sample
        if not step.spatial:
            return convolve(x, weight, bias, 1, 0, 1, self.groups)
        if self._padded:
            return convolve(x, weight, bias, self.stride, 0, self.dilation, self.groups)
        return convolve(self.pad(x), weight, bias, *self.geometry)

    def compose(self, order: Order, gates: Gates) -> tuple[Tensor, Tensor | None]:
        """Kernel of a run of layers and gates, multiplied in the given order, and its constant.

        Raises:
            ValueError: A middle norm is training: it depends on the features of the whole batch.

        Shape:
            -> (O, I/G, K, L) or, with gates inside, (B or 1, O, I/G, K, L); (O) or (B or 1, O), or
            None where nothing is added
        """
        if isinstance(order, str):
            return self._folded_layer(int(order[1:]) - 1)
        left, right = order
        if is_gate(right):
            kernel, shift = self.compose(left, gates)
            return scale_input(kernel, _gate(right, gates), self.groups), shift
        kernel, shift = self.compose(right, gates)
        if is_gate(left):
            gate = _gate(left, gates)
            return scale_output(kernel, gate), None if shift is None else shift * gate
        after, constant = self.compose(left, gates)
        if shift is not None:
            through = constant_through(shift, after, self.groups)
            constant = through if constant is None else through + constant
        return compose(kernel, after, self.groups), constant

    def kernels(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        order = expanding(self.product)  # with the image's place taken by the first layer
        kernel, shift = self.compose(_without_image(order), self.gates(x))
        bias = self.bias if shift is None else shift if self.bias is None else shift + self.bias
        return (kernel if kernel.dim() == 5 else kernel[None]), bias

    def _folded_layer(self, index: int) -> tuple[Tensor, Tensor | None]:
        """A layer's weight and the constant behind it, its norm folded in."""
        weight = self.weights[index]
        if index >= len(self.behind):
            return weight, None
        module = self.behind[index]
        if isinstance(module, ChannelShift):
            return weight, module.bias
        assert isinstance(module, _BatchNorm)
        if module.training:
            raise ValueError(
                "a chain with middle_norm=True cannot be composed while training, since it"
                " normalises by the batch: use form='expanding', or eval()"
            )
        return fold_norm_after(weight, None, module)

    # Conversion.

    def folded(self) -> nn.Conv2d | Self:
        """A copy in ``eval()`` with its norms folded; a convolution if no gate reads the input.

        Layers between which nothing is gated become a single one, unless they cost less apart.
        """
        copy = deepcopy(self).eval()
        if isinstance(copy.gate, InferenceGate):
            return copy
        with torch.no_grad():
            if copy.gate is None or copy.gate.constant:
                kernel, bias = copy.kernels(self.weights[0])
                return copy.as_conv2d(kernel[0], None if bias is None else bias.flatten())
            copy.gate = copy.gate.to_inference()
            layers = [copy._folded_layer(index) for index in range(self.depth)]
            for position, halved in zip(self.gated, copy.gate.halve(), strict=True):
                if halved:  # a layer takes over the factor
                    index = min(position, self.depth - 1)
                    weight, shift = layers[index]
                    layers[index] = 2 * weight, shift  # a gated output has no norm before it
            if "middle" not in copy.placement and copy.depth > 1:
                whole = _composed(layers, self.groups)
                if whole[0].numel() <= sum(weight.numel() for weight, _ in layers):
                    layers = [whole]
            copy.depth, copy.middle_norm = len(layers), False
            copy.weights = nn.ParameterList(weight.detach().clone() for weight, _ in layers)
            copy.behind = nn.ModuleList()
            if any(shift is not None for _, shift in layers):
                copy.behind.extend(
                    ChannelShift(
                        weight.new_zeros(weight.shape[0])
                        if shift is None
                        else shift.detach().clone()
                    )
                    for weight, shift in layers
                )
            copy.order = expanding(copy.product)
        return copy.eval()  # what is new in it too

    def absorb_affine(self, scale: Tensor, shift: Tensor) -> bool:
        last = self.weights[-1]
        last.mul_(scale[:, None, None, None])
        if len(self.behind) == self.depth:
            constant = self.behind[-1]
            assert isinstance(constant, ChannelShift), "no norm follows the last layer"
            constant.bias.mul_(scale)
        bias = shift if self.bias is None else self.bias * scale + shift
        self.bias = nn.Parameter(bias.to(last.dtype))
        return True


def _gate(name: Order, gates: Gates) -> Tensor:
    return gates[str(name)]


def _composed(
    layers: Sequence[tuple[Tensor, Tensor | None]], groups: int
) -> tuple[Tensor, Tensor | None]:
    """Layers without gates as one: its kernel and the constant behind it."""
    kernel, constant = layers[0]
    for weight, shift in layers[1:]:
        if constant is not None:
            through = constant_through(constant, weight, groups)
            shift = through if shift is None else through + shift
        kernel, constant = compose(kernel, weight, groups), shift
    return kernel, constant


def _without_image(order: Order) -> Order:
    """An order of the layers alone, left as it was but for the image at its end."""
    assert isinstance(order, tuple), "it ends with the image"
    left, right = order
    return left if right == IMAGE else (left, _without_image(right))
