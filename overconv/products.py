"""Formulas that ``torch.utils.flop_counter`` lacks or has wrong.

In its form, for ``FlopCounterMode(custom_mapping=CORRECTIONS)``: shapes stand in the place of
tensors, and a multiply-accumulate is two floating-point operations.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils import flop_counter

aten = torch.ops.aten


def _convolution_backward(
    grad: Any,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    output_mask: Any,
    out_shape: Any = None,
) -> int:
    """As often the forward pass as there are gradients, of the input and of the kernel.

    Torch's own multiplies the gradient of the kernel by the number of groups.
    """
    positions = math.prod((x if transposed else grad)[2:])
    return 2 * x[0] * math.prod(weight) * positions * (output_mask[0] + output_mask[1])


def _inner(a: Any, b: Any, *rest: Any, out_shape: Any = None, **named: Any) -> int:
    """A matrix or a vector by a vector."""
    return 2 * math.prod(a)


def _added_inner(c: Any, a: Any, b: Any, *rest: Any, out_shape: Any = None, **named: Any) -> int:
    return 2 * math.prod(a)


def _added_batch(c: Any, a: Any, b: Any, *rest: Any, out_shape: Any = None, **named: Any) -> int:
    return 2 * math.prod(a) * b[-1]


def _attention(q: Any, k: Any, v: Any, *rest: Any, out_shape: Any = None, **named: Any) -> int:
    return flop_counter.sdpa_flop_count(q, k, v)


def _attention_backward(
    grad: Any, q: Any, k: Any, v: Any, *rest: Any, out_shape: Any = None, **named: Any
) -> int:
    return flop_counter.sdpa_backward_flop_count(grad, q, k, v)


#: What torch's registry lacks or has wrong, by operator; floating-point operations.
CORRECTIONS: Mapping[Any, Callable[..., int]] = {
    aten.convolution_backward: _convolution_backward,
    aten.mv: _inner,
    aten.addmv: _added_inner,
    aten.dot: _inner,
    aten.vdot: _inner,
    aten.addbmm: _added_batch,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
