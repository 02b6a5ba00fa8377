"""What an epoch trains on, whatever holds the examples: batches of a block, on a device.

Axes: B examples of a batch, C channels, H x W image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from overconv.training import mixup
from overconv.training.augmentation import Normalization
from overconv.training.recipe import Recipe
from overconv.training.streams import stream
from overconv.training.world import ALONE, World

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Batch:
    """What a step trains on.

    Attributes:
        images: (B, C, H, W), float32, normalised; under mixup, mixtures. Overwritten by the next
            batch.
        labels: (B,), int64.
        targets: What the loss is to be taken of: ``labels``, or under mixup the probabilities
            (B, num_classes).
    """

    images: Tensor
    labels: Tensor
    targets: Tensor


class Inputs(Protocol):
    """A data set under a recipe, in one block, on one device: what one rank sees of it.

    Attributes:
        steps: Of an epoch.
        num_validation, num_test: Examples of all ranks together.
    """

    @property
    def steps(self) -> int: ...

    @property
    def num_validation(self) -> int: ...

    @property
    def num_test(self) -> int: ...

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from a step on: the same bits as the end of the whole epoch.

        Of each batch, this rank's rows.
        """

    def validation(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images and labels of this rank's share of what is set aside, in order."""

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The same of the test part."""


class DataSource(Protocol):
    """A data set, as a training and a plan see it.

    Attributes:
        name: Of the data set.
        fingerprint: Part of every trial's identity.
        num_classes: Labels lie in [0, num_classes).
        num_train, num_test: Examples; the training part includes what a block sets aside.
        image_shape: (C, H, W) of an image; H and W are 0 where images vary in size.
        decoder: What decodes the files where the fingerprint does not speak of decoded values, and
            empty otherwise; it decides trained bits, and belongs to the stratum.
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def num_train(self) -> int: ...

    @property
    def num_test(self) -> int: ...

    @property
    def image_shape(self) -> Shape: ...

    @property
    def decoder(self) -> str: ...

    def input_shape(self, recipe: Recipe) -> Shape:
        """(C, H, W) of what a network is given.

        Raises:
            ValueError: ``recipe`` asks of the images what they do not allow.
        """

    def inputs(self, recipe: Recipe, block: int, device: str, world: World = ALONE) -> Inputs:
        """What rank ``world`` trains on and is tested on.

        Raises:
            ValueError: As :meth:`input_shape`; the training part does not fill a batch.
        """


def input_shape(name: str, image_shape: Shape, recipe: Recipe) -> Shape:
    """(C, H, W) of what a network is given of images of ``image_shape``.

    Raises:
        ValueError: ``recipe`` asks of the images what they do not allow.
    """
    channels, *sides = image_shape
    varied, size = not any(sides), recipe.image_size
    if varied and size is None:
        raise ValueError(
            f"image_size=None, and the images of {name} vary in size; allowed: whole numbers from 1"
        )
    if varied and recipe.crop_padding:
        raise ValueError(
            f"crop_padding={recipe.crop_padding}, and the images of {name} vary in size; allowed: "
            "0, with resized_crop"
        )
    for field, value in (("image_size", size), ("resized_crop", recipe.resized_crop)):
        if not varied and value:
            raise ValueError(
                f"{field}={value!r}, and all images of {name} have {sides[0]} x {sides[1]} "
                "pixels; allowed with data sets whose images vary in size"
            )
    return (channels, size, size) if varied and size is not None else image_shape


def check_enough(name: str, num_examples: int, recipe: Recipe) -> None:
    """Raise a ValueError unless the training examples of a block fill a batch."""
    if num_examples < recipe.batch_size:
        raise ValueError(
            f"batch_size={recipe.batch_size} is more than the {num_examples} training examples "
            f"of {name}"
        )


def draw_order(block: int, epoch: int, num_examples: int) -> Tensor:
    """The places of a block's training examples in the order of an epoch."""
    return torch.from_numpy(stream(block, "order", epoch).permutation(num_examples))


def rows_of_steps(order: Tensor, recipe: Recipe, world: World, first_step: int = 0) -> Tensor:
    """What this rank loads at each step from ``first_step`` on: its rows of the whole batch.

    Under mixup the row before them comes first, the partner of this rank's first; before the first
    row of a batch that is the last.

    Shape:
        order (N,) -> (steps, rows)
    """
    size = recipe.batch_size
    steps, own = len(order) // size, world.rows(size)
    assert 0 <= first_step <= steps, (first_step, steps)
    columns = torch.arange(own.start - (recipe.mixup > 0), own.stop) % size
    return order[: steps * size].view(steps, size)[first_step:, columns.to(order.device)]


class Finish:
    """The last step from images to a batch: normalised, in the recipe's memory format, mixed.

    Args:
        recipe, block: Of the training.
        normalization: On the device of the images.
        num_classes: Of the data.
    """

    def __init__(
        self, recipe: Recipe, block: int, normalization: Normalization, num_classes: int
    ) -> None:
        self.recipe, self.block, self.num_classes = recipe, block, num_classes
        self.normalization = normalization
        # One for all steps: pages once faulted in.
        self.normalized, self.mixed = torch.empty(0), torch.empty(0)

    @property
    def format(self) -> torch.memory_format:
        """Of the images, in memory."""
        return torch.channels_last if self.recipe.channels_last else torch.contiguous_format

    def batch(self, images: Tensor, labels: Tensor, epoch: int, step: int) -> Batch:
        """The batch of the rows of :func:`rows_of_steps`, uint8."""
        self.normalized = self._room(self.normalized, images)
        images = self.normalization.apply(images, out=self.normalized)
        if not self.recipe.mixup:
            return Batch(images, labels, labels)
        self.mixed = self._room(self.mixed, images[1:])
        share = mixup.draw_share(self.recipe.mixup, self.block, epoch, step)
        images, targets = mixup.mix(images, labels, share, self.num_classes, out=self.mixed)
        return Batch(images, labels[1:], targets)

    def evaluated(self, images: Tensor) -> Tensor:
        """Images as a network is scored on them."""
        room = self._room(torch.empty(0), images)
        return self.normalization.apply(images, out=room)

    def _room(self, held: Tensor, images: Tensor) -> Tensor:
        if held.shape == images.shape and held.device == images.device:
            return held
        return torch.empty(images.shape, device=images.device, memory_format=self.format)
