"""Slow definitions that the layers are compared with, and a count of the comparisons."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch import nn

TALLY = defaultdict(lambda: [0, 0.0])  # what was compared -> number of cases, worst error


def padded(x, amounts, mode):
    """``x`` padded by (left, right, top, bottom), one row and one column at a time."""
    left, right, top, bottom = amounts
    for axis, before, after in ((2, top, bottom), (3, left, right)):
        size, slices = x.shape[axis], []
        for position in range(-before, size + after):
            if mode == "zeros" and not 0 <= position < size:
                slices.append(torch.zeros_like(x.select(axis, 0)))
                continue
            if mode == "reflect":
                position = abs(position)
                position = position if position < size else 2 * (size - 1) - position
            elif mode == "replicate":
                position = min(max(position, 0), size - 1)
            slices.append(x.select(axis, position % size))
        x = torch.stack(slices, axis)
    return x


def convolved(x, weight, stride=(1, 1), dilation=(1, 1), groups=1):
    """Convolution without padding, tap by tap and group by group."""
    out_channels, per_group, rows, columns = weight.shape
    high = (x.shape[2] - dilation[0] * (rows - 1) - 1) // stride[0] + 1
    wide = (x.shape[3] - dilation[1] * (columns - 1) - 1) // stride[1] + 1
    outputs = []
    for group in range(groups):
        part = x[:, group * per_group : (group + 1) * per_group]
        kernel = weight[group * out_channels // groups : (group + 1) * out_channels // groups]
        total = 0
        for r in range(rows):
            for c in range(columns):
                top, left = r * dilation[0], c * dilation[1]
                seen = part[
                    :,
                    :,
                    top : top + stride[0] * (high - 1) + 1 : stride[0],
                    left : left + stride[1] * (wide - 1) + 1 : stride[1],
                ]
                total = total + (kernel[:, :, r, c] @ seen.flatten(2)).unflatten(2, (high, wide))
        outputs.append(total)
    return torch.cat(outputs, 1)


def pooled_gate(gate, x):
    """The gates of a PooledGate from its parameters, for each sample alone: one list a head."""
    if gate.when != "sample" and not gate.training:
        rows = [gate.running] * len(x)
    else:
        pooled = [
            torch.stack([sample[channel].mean() for channel in range(x.shape[1])]) for sample in x
        ]
        if gate.when == "batch":
            pooled = [sum(pooled) / len(x)] * len(x)
        if gate.squeeze is not None:
            pooled = [(gate.squeeze.weight @ p + gate.squeeze.bias).clamp_min(0) for p in pooled]
        rows = [gate.excite.weight @ p + gate.excite.bias for p in pooled]
    heads, start = [], 0
    for width in gate.widths:
        parts = [row[start : start + width] for row in rows]
        if gate.when == "sample" or gate.training:
            parts = [squashed(part, gate.squash) for part in parts]
        heads.append(torch.stack(parts))
        start += width
    return heads


def squashed(logits, squash):
    temperature = 1 if squash.temperature is None else squash.temperature
    powers = (logits / temperature).exp()
    if squash.kind == "softmax":
        return powers / powers.sum()
    return powers / (1 + powers) * (2 if squash.kind == "2sigmoid" else 1)


def normalised(x, norm):
    """Batch norm, channel by channel; by the running statistics where there is one value."""
    channels = []
    for channel, values in enumerate(x.unbind(1)):
        mean, variance = values.mean(), values.var(correction=0)
        if not norm.training or values.numel() == 1:
            mean, variance = norm.running_mean[channel], norm.running_var[channel]
        scaled = (values - mean) / (variance + norm.eps).sqrt()
        channels.append(scaled * norm.weight[channel] + norm.bias[channel])
    return torch.stack(channels, 1)


def chain(layer, x):
    """The definition of MDConv2d and MAConv2d: pad, then layer by layer, norm, gate."""
    gates = {}
    if layer.gate is not None:
        positions = []
        if "input" in layer.placement:
            positions.append(0)
        if "middle" in layer.placement:
            positions += range(1, layer.depth)
        if "output" in layer.placement:
            positions.append(layer.depth)
        gates = dict(zip(positions, pooled_gate(layer.gate, x), strict=True))
    y = padded(x, amounts(layer), layer.padding_mode)
    for index, weight in enumerate(layer.weights):
        if index in gates:
            y = y * gates[index][:, :, None, None]
        spatial = index == (0 if layer.spatial == "first" else layer.depth - 1)
        stride = layer.stride if spatial else (1, 1)
        y = convolved(y, weight, stride, layer.dilation if spatial else (1, 1), layer.groups)
        if layer.middle_norm and index < layer.depth - 1:
            y = normalised(y, layer.behind[index])
    if layer.depth in gates:
        y = y * gates[layer.depth][:, :, None, None]
    return y if layer.bias is None else y + layer.bias[None, :, None, None]


def mixture(layer, x):
    """The definition of CondConv2d and DyConv2d: each sample by its own sum of kernels."""
    (mixtures,) = pooled_gate(layer.gate, x)
    kernels = layer.weight.split(layer.out_channels)
    outputs = []
    for sample, shares in zip(x.split(1), mixtures, strict=True):
        weight = sum(share * kernel for share, kernel in zip(shares, kernels, strict=True))
        y = padded(sample, amounts(layer), layer.padding_mode)
        y = convolved(y, weight, layer.stride, layer.dilation, layer.groups)
        if layer.bias is not None:
            bias = sum(share * b for share, b in zip(shares, layer.bias, strict=True))
            y = y + bias[None, :, None, None]
        outputs.append(y)
    return torch.cat(outputs)


def amounts(layer):
    """Padding (left, right, top, bottom) that the arguments ask for."""
    if layer.padding == "valid":
        return 0, 0, 0, 0
    if layer.padding == "same":
        high, wide = (d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
        return wide // 2, wide - wide // 2, high // 2, high - high // 2
    return layer.padding[1], layer.padding[1], layer.padding[0], layer.padding[0]


def randomise(layer, seed=0):
    """Move every parameter and statistic off its neutral value; double precision."""
    generator = torch.Generator().manual_seed(seed)
    layer = layer.double()

    def normal(tensor, scale, shift=0.0):
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        tensor.copy_(shift + scale * noise)

    with torch.no_grad():
        for parameter in layer.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
            normal(parameter, 1.2 * max(fan_in, 1) ** -0.5)
        for module in layer.modules():
            if isinstance(module, nn.BatchNorm2d):
                normal(module.weight, 0.5, 1.0)
                normal(module.running_mean, 0.5)
                module.running_var.copy_(
                    0.5 + torch.rand(module.running_var.shape, generator=generator).double()
                )
            if getattr(module, "running", None) is not None:
                normal(module.running, 0.5, 0.7)
            if isinstance(getattr(module, "temperature", None), torch.Tensor):
                module.temperature.fill_(0.8)
    return layer


def gradients(layer, compute, x, cotangent_seed=1):
    """Output of ``compute(x)``, and the gradients by name of a random functional of it."""
    x = x.detach().requires_grad_()
    names, parameters = zip(*layer.named_parameters(), strict=True)
    y = compute(x)
    generator = torch.Generator().manual_seed(cotangent_seed)
    cotangent = torch.randn(y.shape, generator=generator, dtype=y.dtype)
    values = torch.autograd.grad((y * cotangent).sum(), (x, *parameters), allow_unused=True)
    return y.detach(), dict(zip(("input", *names), values, strict=True))


def error(ours, theirs):
    """Largest difference, relative where values exceed 1."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / max(1.0, float(theirs.abs().max())))


def compare(what, ours, theirs, tolerance=1e-10):
    """Assert equal outputs, or equal outputs and gradients, and count the case."""
    pairs = [(ours, theirs)]
    if isinstance(ours, tuple):
        pairs = [(ours[0], theirs[0])]
        assert ours[1].keys() == theirs[1].keys()
        for name, gradient in ours[1].items():
            if theirs[1][name] is None or gradient is None:  # not reached, or reached by zero
                for other in (theirs[1][name], gradient):
                    assert other is None or not other.any(), name
                continue
            pairs.append((gradient, theirs[1][name]))
    worst = max(error(a.detach(), b.detach()) for a, b in pairs)
    entry = TALLY[what]
    entry[0] += 1
    entry[1] = max(entry[1], worst)
    assert worst <= tolerance, f"{what}: differs by {worst:.2e}"


@pytest.fixture
def oracle():
    """The slow definitions and the means to compare with them."""
    return SimpleNamespace(
        amounts=amounts,
        chain=chain,
        compare=compare,
        convolved=convolved,
        gradients=gradients,
        mixture=mixture,
        normalised=normalised,
        padded=padded,
        pooled_gate=pooled_gate,
        randomise=randomise,
    )


def pytest_terminal_summary(terminalreporter):
    for what, (cases, worst) in sorted(TALLY.items()):
        terminalreporter.write_line(f"{what}: {cases} cases, worst error {worst:.1e}")
    if TALLY:
        counts, errors = zip(*TALLY.values(), strict=True)
        terminalreporter.write_line(f"all: {sum(counts)} cases, worst error {max(errors):.1e}")
