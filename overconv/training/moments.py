"""Statistics of a batch that several processes share: batch norms, and means that gates take.

Axes: R ranks, C channels, n values a channel on each rank.
"""

import copyreg
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, SupportsIndex

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from overconv.training.world import World


class MeanOverRanks(torch.autograd.Function):
    r"""The mean over ranks of a statistic, each taken over as many images.

    Its gradient is the mean of what the ranks' losses, all of which depend on it, give to it.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, world: World) -> Tensor:
        ctx.world = world
        return world.stack(value).mean(0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        return ctx.world.stack(gradient).mean(0), None


class NormOverRanks(torch.autograd.Function):
    r"""Batch norm by the mean and variance of all ranks' values, through which gradients flow too.

    .. math:: y = \gamma \hat x + \beta, \qquad \hat x = (x - \mu) / \sqrt{v + \epsilon}

    With means over the values of all ranks, the gradient is

    .. math:: \bar x = \frac{\gamma}{\sqrt{v + \epsilon}}
              \bigl(\bar y - \mathrm{mean}(\bar y) - \hat x \, \mathrm{mean}(\bar y \hat x)\bigr)

    Shape:
        x (B, C, ...); weight, bias, mean and biased variance (C) -> y as x
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        world: World,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.world = eps, world
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        scale = (variance + ctx.eps).rsqrt()
        # This rank's sums of gradient * x_hat and of gradient, by torch's own kernel.
        _, *sums = torch.ops.aten.native_batch_norm_backward(
            gradient, x, torch.ones_like(mean), None, None, mean, scale, True, ctx.eps,
            [False, True, True],
        )  # fmt: skip
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            means = ctx.world.stack(torch.stack(sums)).mean(0) / (x.numel() // x.shape[1])
            scale = scale if weight is None else scale * weight
            slope, shift = -scale * means
            # the terms behind the first, then that one, without another image between
            to_x = F.batch_norm(x, mean, variance, slope, shift, False, 0.0, ctx.eps)
            to_x.addcmul_(gradient, scale.view(-1, *[1] * (x.dim() - 2)))
        if ctx.needs_input_grad[1]:
            to_weight = sums[0].to(weight.dtype)
        if ctx.needs_input_grad[2]:
            to_bias = sums[1].to(weight.dtype)
        return to_x, to_weight, to_bias, None, None, None, None


@torch.no_grad()
def shared_moments(world: World, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C) of all ranks' ``x`` (B, C, ...), in single precision or more."""
    # torch's own kernel: several times as fast as var_mean, and as exact
    kind = torch.promote_types(x.dtype, torch.float32)
    return pooled_moments(world, *torch.batch_norm_update_stats(x.to(kind), None, None, 0.0))


def pooled_moments(world: World, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    r"""Those of the whole, from those of each rank's part, all parts being equally large.

    .. math:: \mu = \tfrac1R \sum_r \mu_r, \qquad
              v = \tfrac1R \sum_r \bigl(v_r + (\mu_r - \mu)^2\bigr)
    """
    means, variances = world.stack(torch.stack((mean, variance))).unbind(1)
    mean = means.mean(0)
    return mean, (variances + (means - mean).square()).mean(0)


def batch_norm(
    world: World,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """:func:`torch.nn.functional.batch_norm` of a batch of which each rank has equally many rows.

    All ranks' running statistics become those of the whole batch, the variance unbiased by the
    number of all its values.
    """
    if not training or x.numel() == 0:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    mean, variance = shared_moments(world, x)
    n = world.size * (x.numel() // x.shape[1])
    if running_mean is not None:
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    if running_var is not None:
        running_var.lerp_((variance * (n / (n - 1))).to(running_var.dtype), momentum)
    y: Tensor = NormOverRanks.apply(x, weight, bias, mean, variance, eps, world)
    return y


class _NormsOverRanks(TorchFunctionMode):
    """Within: what a module does by torch's batch norm is done over all ranks.

    So whatever else a kind of batch norm does beside it, an activation or the choice of a momentum,
    stays its own.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.batch_norm:
            return batch_norm(self.world, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


# Modules.


def set_class(module: nn.Module, to: type[nn.Module]) -> None:
    """From here on ``module`` is of class ``to``, which has the same attributes."""
    module.__class__ = to


def _new(kind: type[nn.Module]) -> nn.Module:
    return kind.__new__(kind)


class Synchronised(nn.Module):
    """A module of class ``plain`` whose batch is shared by all ranks of ``world`` while it trains.

    A copy or a pickle of it is of the plain class.
    """

    plain: type[nn.Module]
    world: World

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        with self._as_plain():
            return deepcopy(self, memo)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        with self._as_plain():
            make, *rest = self.__reduce_ex__(protocol)
        # by another name, since pickle compares what copyreg's is given with the object's class
        is_default = make is copyreg.__newobj__  # type: ignore[attr-defined] # typeshed lacks it
        return _new if is_default else make, *rest

    @contextmanager
    def _as_plain(self) -> Iterator[None]:
        synchronised = type(self)
        set_class(self, self.plain)
        try:
            yield
        finally:
            set_class(self, synchronised)

    @property
    def _is_shared(self) -> bool:
        """Not in ``eval()``, and not in an export, which stands for itself."""
        return self.training and not torch.compiler.is_exporting()


class _SynchronisedNorm(Synchronised):
    def forward(self, x: Tensor) -> Tensor:
        if not self._is_shared:
            return super().forward(x)
        with _NormsOverRanks(self.world):
            return super().forward(x)

    def num_values(self, x: Tensor) -> int:
        """Values a channel in the whole batch, for those norms that ask."""
        alone: int = super().num_values(x)  # type: ignore[misc] # of the plain class
        return alone * self.world.size if self._is_shared else alone


class _SynchronisedMean(Synchronised):
    def batch_mean(self, values: Tensor) -> Tensor:
        """The mean over the rows of all ranks."""
        mean: Tensor = super().batch_mean(values)  # type: ignore[misc] # of the plain class
        return MeanOverRanks.apply(mean, self.world) if self._is_shared else mean


def synchronised_class(plain: type[nn.Module], world: World) -> type[Synchronised] | None:
    """The class that takes the batch statistics of ``plain`` over ``world``; None: it has none.

    Statistics are taken by a batch norm of torch's, or by the method ``batch_mean(values)``, which
    gives the mean (1, ...) over the rows of ``values`` (B, ...).
    """
    if issubclass(plain, _BatchNorm):
        kind: type[Synchronised] = _SynchronisedNorm
    elif callable(getattr(plain, "batch_mean", None)):
        kind = _SynchronisedMean
    else:
        return None
    own = {"plain": plain, "world": world, "__module__": __name__}
    return type(f"Synchronised{plain.__name__}", (kind, plain), own)
