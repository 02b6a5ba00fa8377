"""What others count of a network: the second figure beside ours, where the two differ.

Each takes a network on the meta device and its cost as we count it, and returns one number. None
is a fit to a single row: each serves all rows of its source.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from overconv.costs import Cost, count_costs
from overconv.operators.condconv import CondConv2d
from overconv.operators.odconv import ODConv2d
from overconv.operators.se import SEConv2d
from overconv.surgery import replace_convs

SIDE = 224
EXAMPLE = torch.empty(1, 3, SIDE, SIDE, device="meta")

Counter = Callable[[nn.Module, Cost], int]


@dataclass(frozen=True)
class Why:
    """An explanation of a difference.

    Attributes:
        words: What the other counter does.
        count: What it gives.
    """

    words: str
    count: Counter


@dataclass(frozen=True)
class Call:
    """One call of a module: its input's and its output's shape, of one image."""

    module: nn.Module
    taken: tuple[int, ...]
    given: tuple[int, ...]


@torch.no_grad()
def calls(network: nn.Module, *kinds: type[nn.Module]) -> list[Call]:
    """All calls of modules of ``kinds``, for one image; nothing is computed."""
    found: list[Call] = []

    def seen(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(Call(module, tuple(inputs[0].shape[1:]), tuple(output.shape[1:])))

    hooks = [m.register_forward_hook(seen) for m in network.modules() if isinstance(m, kinds)]
    training = network.training
    network.eval()(EXAMPLE)
    network.train(training)
    for hook in hooks:
        hook.remove()
    return found


def without_norms(network: nn.Module, cost: Cost) -> int:
    """Parameters without those of the batch norms."""
    norms = (module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    return cost.parameters - sum(p.numel() for norm in norms for p in norm.parameters())


def one_router_a_block(network: nn.Module, cost: Cost) -> int:
    """Parameters with CondConv's router on a block's first convolution alone, as the authors'."""
    spared = 0
    for name, layer in network.named_modules():
        if isinstance(layer, CondConv2d) and not name.endswith("conv_pw"):
            spared += sum(parameter.numel() for parameter in layer.gate.parameters())
    return cost.parameters - spared


def squeezing_counted(network: nn.Module, cost: Cost) -> int:
    """MACs with one for each value that an SE block of EfficientNet pools, and that it scales."""
    return cost.macs.total + sum(2 * math.prod(c.taken) for c in calls(network, SqueezeExcite))


def norms_and_relus_counted(network: nn.Module, cost: Cost) -> int:
    """MACs as OpenMMLab's counter has them.

    Convolutions and linear layers; two for each value of a batch norm, one for each of a ReLU and
    for each that a pooling module reads. A product with a gate is no module, and not counted.
    """
    norms = sum(2 * math.prod(call.taken) for call in calls(network, nn.BatchNorm2d))
    relus = sum(math.prod(call.given) for call in calls(network, nn.ReLU))
    pools = calls(network, nn.MaxPool2d, nn.AdaptiveAvgPool2d)
    read = sum(math.prod(call.taken) for call in pools)
    read += sum(math.prod(call.given) for call in calls(network, SEConv2d))  # by its gate
    return cost.macs.convolution + cost.macs.gate + norms + relus + read


def stride_first(network: nn.Module) -> nn.Module:
    """A copy whose ResNet bottlenecks have their stride in the first 1 x 1, not in the 3 x 3."""
    network = deepcopy(network)
    for block in network.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return network


def with_stride_first(network: nn.Module, cost: Cost) -> int:
    """MACs of the ResNet whose bottlenecks have their stride in the first 1 x 1."""
    return count_costs(stride_first(network), EXAMPLE).training.macs.total


def gates_on_kernels(network: nn.Module, cost: Cost) -> int:
    """MACs of ODConv with all four gates on its kernels, and in a ResNet's shortcuts too.

    For each weight K multiplications and K - 1 additions to mix K kernels, if there are several,
    and two multiplications by the gates; pooling at the size of the output; the linear layers.
    Bottlenecks have their stride in the first 1 x 1.
    """
    network = stride_first(network)
    (kernels,) = {m.num_kernels for m in network.modules() if isinstance(m, ODConv2d)}
    if any(type(m) is nn.Conv2d and _in_shortcut(name) for name, m in network.named_modules()):
        layer = partial(ODConv2d, num_kernels=kernels)
        with torch.device("meta"):
            network = replace_convs(network, layer, lambda name, conv: _in_shortcut(name))
    macs = count_costs(network, EXAMPLE).training.macs
    total = macs.convolution + macs.gate
    mixing = 2 * kernels - 1 if kernels > 1 else 0
    for call in calls(network, ODConv2d):
        weights = call.module.get_parameter("weight").numel() // kernels
        total += (mixing + 2) * weights + call.taken[0] * math.prod(call.given[1:])
    return total


def _in_shortcut(name: str) -> bool:
    return "downsample" in name
