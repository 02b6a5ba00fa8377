"""Inputs of examples that lie in memory, on the device, and are augmented there."""

from collections.abc import Iterator

from torch import Tensor

from overconv.training.augmentation import Augmentation, Feed, Normalization
from overconv.training.inputs import Batch, Finish, draw_order, rows_of_steps
from overconv.training.recipe import Recipe
from overconv.training.splits import Split, Splits
from overconv.training.world import ALONE, World

EVALUATION_BATCH = 500


class MemoryInputs:
    """Examples in memory. An :class:`overconv.training.inputs.Inputs`.

    Args:
        splits: Of the block.
        num_train: Examples of the training part, as many as there are draws of augmentation.
        normalization: Of the training part.
        num_classes: Of the data.
        recipe, block, device, world: As in :meth:`overconv.training.inputs.DataSource.inputs`.

    Raises:
        ValueError: The ranks do not divide the batch.
    """

    def __init__(
        self,
        splits: Splits,
        num_train: int,
        normalization: Normalization,
        num_classes: int,
        recipe: Recipe,
        block: int,
        device: str,
        world: World = ALONE,
    ) -> None:
        self.recipe, self.block, self.device, self.world = recipe, block, device, world
        self.num_train = num_train
        world.rows(recipe.batch_size)  # refuses ranks that do not divide it
        train = splits.train.to(device)
        self.labels = train.labels
        self.feed = Feed(train, recipe.crop_padding)
        self.finish = Finish(recipe, block, normalization.to(device), num_classes)
        self.steps = len(train) // recipe.batch_size
        self.num_validation, self.num_test = len(splits.validation), len(splits.test)
        self.validated = splits.validation[world.share(self.num_validation)].to(device)
        self.tested = splits.test[world.share(self.num_test)].to(device)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """As :meth:`overconv.training.inputs.Inputs.epoch`."""
        order = draw_order(self.block, epoch, len(self.labels)).to(self.device)
        places = rows_of_steps(order, self.recipe, self.world, first_step)
        draws = Augmentation.draw(
            self.block, epoch, self.num_train,
            crop_padding=self.recipe.crop_padding, flip=self.recipe.flip,
        ).to(self.device)  # fmt: skip
        cut = self.feed.batches(places.flatten(), draws, places.shape[1])
        for step, images, labels in zip(
            range(first_step, self.steps), cut, self.labels[places], strict=True
        ):
            yield self.finish.batch(images, labels, epoch, step)

    def validation(self) -> Iterator[tuple[Tensor, Tensor]]:
        """As :meth:`overconv.training.inputs.Inputs.validation`."""
        return self._evaluated(self.validated)

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """As :meth:`overconv.training.inputs.Inputs.test`."""
        return self._evaluated(self.tested)

    def _evaluated(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(split), EVALUATION_BATCH):
            part = split[start : start + EVALUATION_BATCH]
            yield self.finish.evaluated(part.images), part.labels
