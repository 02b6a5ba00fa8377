"""From stored examples to what a network is given, without a loop over examples.

Axes: N examples, P places in a split, C channels, H x W image.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from overconv.training.splits import Split
from overconv.training.streams import stream


@dataclass(frozen=True)
class Augmentation:
    """Random crops and flips of one epoch: a row of draws for each example, by its number.

    Attributes:
        shifts: (N, 2), from 0 to twice the padding: where the crop begins in the padded image.
        flips: (N,), whether the image is mirrored, before the crop.
    """

    shifts: Tensor
    flips: Tensor

    @classmethod
    def draw(
        cls, block: int, epoch: int, num_examples: int, *, crop_padding: int, flip: bool
    ) -> "Augmentation":
        """The draws of an epoch of a block, for all ``num_examples`` of the training part."""
        shifts = stream(block, "augment", "shift", epoch).integers(
            0, 2 * crop_padding + 1, size=(num_examples, 2)
        )
        flips = stream(block, "augment", "flip", epoch).random(num_examples) < 0.5
        return cls(torch.from_numpy(shifts), torch.from_numpy(flips & flip))

    def to(self, device: str | torch.device) -> "Augmentation":
        """The draws on ``device``."""
        return Augmentation(self.shifts.to(device), self.flips.to(device))


# Batches that are cut at a time: a step evicts the code and data of cutting from the caches.
AHEAD = 8


class Feed:
    """A split, padded once by zeros, from which augmented batches are cut.

    Args:
        split: On any device.
        crop_padding: Pixels of zeros around each image.
    """

    def __init__(self, split: Split, crop_padding: int = 0) -> None:
        self.split, self.padding = split, crop_padding
        high, wide = split.images.shape[2:]
        padded = torch.nn.functional.pad(split.images, (crop_padding,) * 4)
        # (N, C, shifts down, shifts right, H, W): every crop of every image, as a view
        self.crops = padded.unfold(2, high, 1).unfold(3, wide, 1)
        # On the CPU numpy cuts the same bytes in a third of the time.
        self.crops_numpy = self.crops.numpy() if self.crops.device.type == "cpu" else None

    def batches(self, places: Tensor, draws: Augmentation, size: int) -> Iterator[Tensor]:
        """The examples at ``places`` of the split, augmented by their draws, ``size`` at a time.

        Examples that fill no batch are left out.

        Shape:
            places (P,) -> P // size times (size, C, H, W), uint8
        """
        places = places[: len(places) // size * size]
        numbers = self.split.numbers[places]
        mirrored = draws.flips[numbers]
        down, right = draws.shifts[numbers].unbind(1)
        # Mirroring a crop is cropping the mirrored image from the other side.
        right = torch.where(mirrored, 2 * self.padding - right, right)
        cut = self._cut if self.crops_numpy is None else self._cut_by_numpy
        if not len(places):
            return  # a split of nothing has one part
        several = (tensor.split(size * AHEAD) for tensor in (places, down, right, mirrored))
        for images in itertools.starmap(cut, zip(*several, strict=True)):
            yield from images.split(size)

    def _cut(self, places: Tensor, down: Tensor, right: Tensor, mirrored: Tensor) -> Tensor:
        images = self.crops[places, :, down, right]
        return torch.where(mirrored[:, None, None, None], images.flip(-1), images)

    def _cut_by_numpy(self, *chosen: Tensor) -> Tensor:
        assert self.crops_numpy is not None
        places, down, right, mirrored = (tensor.numpy() for tensor in chosen)
        images = self.crops_numpy[places, :, down, right]
        images[mirrored] = images[mirrored][..., ::-1]
        return torch.from_numpy(images)


@dataclass(frozen=True)
class Normalization:
    """Standardises each channel by a mean and a standard deviation, in units of a pixel's byte."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, images: Tensor) -> "Normalization":
        """That of ``images`` (N, C, H, W), uint8, exact: from integer sums."""
        values = torch.arange(256, dtype=torch.float64)
        means, stds = [], []
        for channel in images.unbind(1):
            counts = torch.bincount(channel.flatten(), minlength=256).double()
            mean = (counts * values).sum() / counts.sum()
            variance = (counts * (values - mean) ** 2).sum() / counts.sum()
            means.append(mean.item())
            stds.append(max(variance.sqrt().item(), 1.0))  # a constant channel stays finite
        return cls.given(means, stds)

    @classmethod
    def given(cls, mean: Sequence[float], std: Sequence[float]) -> "Normalization":
        """By a known mean and standard deviation of each channel."""
        shape = (1, -1, 1, 1)
        return cls(torch.tensor(mean).view(shape), torch.tensor(std).view(shape))

    def to(self, device: str | torch.device) -> "Normalization":
        """The same on ``device``."""
        return Normalization(self.mean.to(device), self.std.to(device))

    def apply(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """uint8 (B, C, H, W) -> float32 (B, C, H, W), into ``out`` if it is given."""
        return torch.sub(images, self.mean, out=out).div_(self.std)
