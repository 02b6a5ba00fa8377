"""fvcore's count of a forward pass: on a traced graph, in multiply-accumulates.

Replaced are its formulas that read numpy's rounded text or misread a vector, and added are those
that it lacks.
"""

import logging
import math
import warnings
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


def _shapes(values: Any) -> list[list[int]]:
    return [list(v.type().sizes() or ()) for v in values if v.isCompleteTensor()]


def _einsum(inputs: Any, outputs: Any) -> int:
    """Each combination of all letters once, for two operands."""
    letters = inputs[0].toIValue().replace(" ", "").split("->")[0].split(",")
    shapes = _shapes(inputs[1].node().inputs())
    if len(letters) < 2:
        return 0
    if len(letters) > 2:
        raise ValueError(f"an einsum of {len(letters)} tensors has more than one order")
    sizes: dict[str, int] = {}
    for term, shape in zip(letters, shapes, strict=True):
        head, dots, tail = term.partition("...")
        for place in range(len(shape) - len(head) - len(tail) if dots else 0):
            key = f".{len(shape) - len(head) - len(tail) - place}"
            sizes[key] = max(sizes.get(key, 1), shape[len(head) + place])
        for letter, size in zip(head, shape, strict=False):
            sizes[letter] = max(sizes.get(letter, 1), size)
        for letter, size in zip(reversed(tail), reversed(shape), strict=False):
            sizes[letter] = max(sizes.get(letter, 1), size)
    return math.prod(sizes.values())


def _matmul(inputs: Any, outputs: Any) -> int:
    """Each value of the result once for each of the dimension that is summed."""
    left = _shapes(inputs[:1])[0]
    return math.prod(_shapes(outputs)[0]) * left[-1]


def _added_matmul(inputs: Any, outputs: Any) -> int:
    return _matmul(inputs[1:], outputs)


def _attention(inputs: Any, outputs: Any) -> int:
    query, key, value = _shapes(inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _nothing(inputs: Any, outputs: Any) -> int:
    return 0


_PRODUCTS = {
    "aten::einsum": _einsum,
    "aten::matmul": _matmul,
    "aten::mm": _matmul,
    "aten::bmm": _matmul,
    "aten::mv": _matmul,
    "aten::baddbmm": _added_matmul,
    "aten::scaled_dot_product_attention": _attention,
}
# Counted by fvcore too, but no products. (Its ``None`` for "ignored" does not reach what it has a
# formula for.)
_NO_PRODUCTS = (
    "aten::batch_norm",
    "aten::group_norm",
    "aten::layer_norm",
    "aten::instance_norm",
    "aten::adaptive_avg_pool2d",
    "aten::upsample_nearest2d",
    "aten::upsample_bilinear2d",
    "aten::grid_sampler",
)


def count_by_fvcore(model: nn.Module, example_input: Tensor) -> tuple[int, dict[str, str]]:
    """Multiply-accumulates of the forward pass, and what was not seen."""
    logger = logging.getLogger("fvcore")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad():
            warnings.simplefilter("ignore")  # its own, and those of tracing
            from fvcore.nn import FlopCountAnalysis  # loads much

            analysis = FlopCountAnalysis(deepcopy(model), example_input.detach().clone())
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            analysis.tracer_warnings("none")
            handles: dict[str, Any] = {**_PRODUCTS, **dict.fromkeys(_NO_PRODUCTS, _nothing)}
            analysis.set_op_handle(**handles)
            total = int(analysis.total())
            missed = {
                name: f"{times} times" for name, times in sorted(analysis.unsupported_ops().items())
            }
            for name in sorted(analysis.uncalled_modules()):
                missed[name] = "a module that the traced graph does not call"
    finally:
        logger.setLevel(level)
    return total, missed
