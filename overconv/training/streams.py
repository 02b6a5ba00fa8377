"""Random streams as counters: a draw depends on what it is for, never on what came before."""

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from overconv.training.world import ALONE, World


def stream(block: int, purpose: str, *index: int | str) -> np.random.Generator:
    """The generator of one purpose in one block.

    Counter-based (Philox) with a key of 128 bits hashed from the arguments, so streams of
    different purposes, epochs or steps do not overlap, and none has a state to be kept.
    """
    key = hashlib.sha256(json.dumps([block, purpose, *index]).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))


@contextmanager
def seeded(block: int, purpose: str, *index: int | str) -> Iterator[None]:
    """Within: torch's global CPU generator stands at the start of this stream; restored after.

    For initialisation, which draws from the global generator. That one keeps 32 bits of a seed,
    so of some 65,000 streams two may be expected to be equal; a network has a few dozen. The
    generators of other devices are left alone: build on the CPU, then move.
    """
    seed = int(stream(block, purpose, *index).integers(2**32))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def no_global_draws(device: str | torch.device) -> Iterator[None]:
    """Within: nothing draws from the global generators of torch, numpy and Python.

    Raises:
        RuntimeError: Something did. It is noticed at the end, so that nothing has to wait.
    """
    before = _global_state(device)
    yield
    if _global_state(device) != before:
        raise RuntimeError(
            "the model drew from a global generator of torch, numpy or Python: its draws could be "
            "neither repeated nor shared by the arms of a block; use modules (nn.Dropout) that "
            "the loop can key"
        )


def _global_state(device: str | torch.device) -> list[object]:
    states: list[object] = [torch.get_rng_state().tolist(), random.getstate()]
    states.append(str(np.random.get_state(legacy=False)))  # noqa: NPY002
    if torch.device(device).type == "cuda":
        states.append(torch.cuda.get_rng_state(device).tolist())
    return states


class KeyedDropout(nn.Module):
    r"""Dropout whose mask is a function of block, module, step and place in the batch.

    .. math:: y = x \odot m / (1 - p), \qquad m \sim \mathrm{Bernoulli}(1 - p)

    The mask is drawn on the CPU for the whole batch, of which each rank takes its rows, so it is
    the same on every device and for any number of processes.

    Args:
        p: Probability of zero.
        block, name: Name the stream.
        whole_channels: Whether the mask has one value a sample and channel, or one a value.
        world: The processes that share the batch, all with as many rows.

    Shape:
        (B, C, ...) -> the same
    """

    def __init__(
        self, p: float, block: int, name: str, *, whole_channels: bool, world: World = ALONE
    ) -> None:
        super().__init__()
        self.p, self.block, self.name, self.whole_channels = p, block, name, whole_channels
        self.world = world
        self.step = self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        shape = x.shape[:2] + (1,) * (x.dim() - 2) if self.whole_channels else x.shape
        whole = (len(x) * self.world.size, *shape[1:])
        generator = stream(self.block, "dropout", self.name, self.step, self.calls)
        self.calls += 1  # a module that is shared draws anew at each of its places
        draws = generator.random(whole, dtype=np.float32)[self.world.rows(whole[0])]
        kept = torch.from_numpy(draws >= self.p)
        if x.is_cuda:  # from pinned memory the copy need not wait for the device
            kept = kept.pin_memory().to(x.device, non_blocking=True)
        return x * (kept.to(x.dtype) / max(1 - self.p, 1e-12))

    def extra_repr(self) -> str:
        return f"p={self.p}, whole_channels={self.whole_channels}"


_DROPOUTS = {
    nn.Dropout: False,
    nn.Dropout1d: True,
    nn.Dropout2d: True,
    nn.Dropout3d: True,
}


def key_dropout(model: nn.Module, block: int, world: World = ALONE) -> list[KeyedDropout]:
    """Put a :class:`KeyedDropout` in the place of every dropout of ``model``, in place.

    Those of an earlier training are keyed anew, for ``block`` and ``world``.

    Raises:
        ValueError: ``model`` has a dropout of another kind, which would draw from the global
            generator, or is itself a dropout; the message names it. ``model`` is as it was then.
    """
    if type(model) in _DROPOUTS:
        raise ValueError("the model is itself a dropout; allowed: a network that holds one")
    keyed: dict[nn.Module, KeyedDropout] = {}
    for name, module in model.named_modules():
        if isinstance(module, KeyedDropout):
            p, whole = module.p, module.whole_channels
        elif type(module) in _DROPOUTS:
            p, whole = module.p, _DROPOUTS[type(module)]
        elif isinstance(module, nn.modules.dropout._DropoutNd):
            allowed = ", ".join(kind.__name__ for kind in _DROPOUTS)
            raise ValueError(f"{name!r} is a {type(module).__name__}; allowed: {allowed}")
        else:
            continue
        dropout = KeyedDropout(p, block, name, whole_channels=whole, world=world)
        keyed[module] = dropout.train(module.training)
    for module in list(model.modules()):
        for name, child in module._modules.items():  # a shared child under all of its names
            if child is not None and child in keyed:
                setattr(module, name, keyed[child])
    return list(keyed.values())
