"""An average of a network over the steps of its training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    r"""Exponential moving average of the parameters of ``model``.

    .. math:: a_0 = w_0, \qquad a_t = d \, a_{t-1} + (1 - d) \, w_t

    Buffers are not averaged: statistics of batches are averages already.

    Args:
        model: Whose parameters; it keeps them.
        decay: d, in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._weights = [parameter.detach() for parameter in model.parameters()]
        self.values = [weight.clone() for weight in self._weights]

    def update(self) -> None:
        """Take in the parameters after a step."""
        torch._foreach_lerp_(self.values, self._weights, 1 - self.decay)

    def load(self, values: list[Tensor]) -> None:
        """Go on from ``values``, as they were kept."""
        for own, value in zip(self.values, values, strict=True):
            own.copy_(value)

    def apply(self) -> None:
        """Make the averages the parameters of the model."""
        torch._foreach_copy_(self._weights, self.values)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within: the parameters of the model are the averages."""
        own = [weight.clone() for weight in self._weights]
        self.apply()
        try:
            yield
        finally:
            torch._foreach_copy_(self._weights, own)
