"""Networks without values: no memory, and the same tensors shared."""

import torch
from torch import nn

from overconv.valueless import emptied, without_values


def test_an_emptied_model_takes_no_memory_and_shares_what_was_shared():
    for device in ("cpu", "meta"):
        with torch.device(device):
            model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4))
        model[1].weight = model[0].weight
        model[0].bias.requires_grad_(False)
        huge = nn.Linear(10**6, 10**6, device="meta")
        with without_values():
            empty = emptied(model)
            assert empty[0].weight is empty[1].weight
            assert not empty[0].bias.requires_grad
            assert empty[0].weight.device.type == "cpu"
            assert emptied(huge)(torch.empty(1, 10**6)).shape == (1, 10**6)
        assert not model[1].bias.is_meta or device == "meta"


def test_what_torch_keeps_private_is_still_there():
    """If this fails after a new release of torch, ``overconv/valueless.py`` has to follow it."""
    from torch._subclasses import fake_tensor

    assert hasattr(fake_tensor, "FakeTensorMode"), "without_values() needs another way"
