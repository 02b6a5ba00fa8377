"""Networks without values: shapes, types and a device, and no memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode


@contextmanager
def without_values() -> Iterator[None]:
    """Whatever is made inside has shapes and a device but no values, and takes no memory."""
    with FakeTensorMode(allow_non_fake_inputs=False):
        yield


def emptied(model: nn.Module, device: torch.device | str = "cpu") -> nn.Module:
    """A copy without values, for use inside :func:`without_values`; what is shared stays so.

    Args:
        model: Its tensors may be on the meta device; stays as it is.
        device: Where the tensors of the copy say they are.
    """
    substitutes: dict[int, Any] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        like = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
        if isinstance(tensor, nn.Parameter):
            like = nn.Parameter(like, tensor.requires_grad)
        substitutes[id(tensor)] = like
    return deepcopy(model, substitutes)
