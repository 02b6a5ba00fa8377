"""Which training examples a block sets aside, and examples that lie in memory.

Axes: N examples, C channels, H x W image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from overconv.training.recipe import Recipe
from overconv.training.streams import stream


def draw_split(block: int, num_examples: int, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Numbers of the examples that ``block`` trains on, and of those set aside; each ascends.

    Blocks with equal ``recipe.num_validation`` set the same examples aside, and train on the same
    ones or on some of them, whatever ``recipe.num_train``.

    Raises:
        ValueError: As :func:`num_trained`.
    """
    order = torch.from_numpy(stream(block, "split").permutation(num_examples))
    last = recipe.num_validation + num_trained(num_examples, recipe)
    return order[recipe.num_validation : last].sort()[0], order[: recipe.num_validation].sort()[0]


def num_trained(num_examples: int, recipe: Recipe) -> int:
    """How many of the ``num_examples`` of a training part are trained on.

    Raises:
        ValueError: ``recipe.num_validation`` leaves nothing, or less than ``recipe.num_train``.
    """
    if not 0 <= recipe.num_validation < num_examples:
        raise ValueError(
            f"num_validation={recipe.num_validation}; allowed: from 0 to {num_examples - 1}"
        )
    left = num_examples - recipe.num_validation
    if recipe.num_train > left:
        raise ValueError(
            f"num_train={recipe.num_train}, and num_validation={recipe.num_validation} leaves "
            f"{left} of the {num_examples} training examples; allowed: up to {left}, 0 for all"
        )
    return recipe.num_train or left


@dataclass(frozen=True)
class Split:
    """Examples, and their numbers in the part of the data set that they come from.

    Attributes:
        images: (N, C, H, W), uint8.
        labels: (N,), int64.
        numbers: (N,), int64: by them an example finds its draws of augmentation.
    """

    images: Tensor
    labels: Tensor
    numbers: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str | torch.device) -> "Split":
        """The split on ``device``."""
        return Split(*(t.to(device) for t in (self.images, self.labels, self.numbers)))

    def __getitem__(self, rows: slice) -> "Split":
        return Split(self.images[rows], self.labels[rows], self.numbers[rows])


@dataclass(frozen=True)
class Splits:
    """What a block trains on, what it may select on, and what it is tested on."""

    train: Split
    validation: Split
    test: Split
