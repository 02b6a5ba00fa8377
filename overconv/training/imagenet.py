"""ImageNet: folders of image files, too large for memory, of images that vary in size."""

from dataclasses import dataclass
from pathlib import Path

import PIL
import PIL.features

from overconv.training.augmentation import Normalization
from overconv.training.file_inputs import FileInputs
from overconv.training.image_files import ImageFiles, class_names, fingerprint, list_images
from overconv.training.inputs import Shape, check_enough, input_shape
from overconv.training.places import Root, bases, find
from overconv.training.recipe import Recipe
from overconv.training.world import ALONE, World

# Of ImageNet's training part, in units of a pixel's byte: the usual values, of shares 0.485,
# 0.456, 0.406 and 0.229, 0.224, 0.225, which torchvision's weights were trained with too.
MEAN = tuple(255 * share for share in (0.485, 0.456, 0.406))
STD = tuple(255 * share for share in (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class ImageFolders:
    """A data set of image files. A :class:`overconv.training.inputs.DataSource`.

    Attributes:
        name: Of the data set.
        train, test: The files.
        num_classes: Folders of each part.
        fingerprint: Digest of the files' names and sizes.
    """

    name: str
    train: ImageFiles
    test: ImageFiles
    num_classes: int
    fingerprint: str

    @property
    def num_train(self) -> int:
        """Examples of the training part, those that a block sets aside included."""
        return len(self.train)

    @property
    def num_test(self) -> int:
        """Examples of the test part."""
        return len(self.test)

    @property
    def image_shape(self) -> Shape:
        """(3, 0, 0): the images vary in size."""
        return 3, 0, 0

    @property
    def decoder(self) -> str:
        """What decodes the files, whose bits the fingerprint does not speak of."""
        return f"Pillow {PIL.__version__}, libjpeg {PIL.features.version('jpg')}"

    def input_shape(self, recipe: Recipe) -> Shape:
        """As :meth:`overconv.training.inputs.DataSource.input_shape`."""
        return input_shape(self.name, self.image_shape, recipe)

    def inputs(
        self,
        recipe: Recipe,
        block: int,
        device: str,
        world: World = ALONE,
        *,
        loaders: int | None = None,
    ) -> FileInputs:
        """As :meth:`overconv.training.inputs.DataSource.inputs`, by so many loaders."""
        shape = self.input_shape(recipe)
        made = FileInputs(
            self.train, self.test, Normalization.given(MEAN, STD), self.num_classes, shape,
            recipe, block, device, world, loaders=loaders,
        )  # fmt: skip
        check_enough(self.name, len(made.trained), recipe)
        return made


def read_imagenet(root: Root) -> ImageFolders:
    """1,281,167 and 50,000 photographs in 1,000 classes; ``val`` is the test part.

    Looked for are ``train/<class>/<image>`` and ``val/<class>/<image>``, as torchvision's
    ``ImageFolder`` has them; of any classes.

    Source: O. Russakovsky et al., "ImageNet large scale visual recognition challenge", IJCV 2015.

    Raises:
        MissingData: There is no such folder.
        ValueError: The parts have other classes than each other; a class holds no image, or
            something else.
    """

    def holds(folder: Path) -> bool:
        return (folder / "train").is_dir() and (folder / "val").is_dir()

    def how(folder: Path) -> str:
        return (
            "ask for an account at https://image-net.org/download, and unpack ILSVRC2012 as "
            f"{folder / 'imagenet'}/train/<class>/<image> and val/<class>/<image>; "
            "torchvision.datasets.ImageNet does so from the archives"
        )

    below = ("", "imagenet", "ImageNet", "ILSVRC2012", "imagenet-1k")
    folder = find("imagenet", bases(root), below, holds, how)
    classes = class_names(folder / "train")
    if other := sorted(set(classes) ^ set(class_names(folder / "val"))):
        raise ValueError(f"{folder}: class {other[0]!r} is in one of train and val, not in both")
    if not classes:
        raise ValueError(f"{folder / 'train'} holds no class, a folder each")
    parts = [list_images(folder / part, classes) for part in ("train", "val")]
    return ImageFolders(
        name="imagenet",
        train=parts[0],
        test=parts[1],
        num_classes=len(classes),
        fingerprint=fingerprint(classes, *parts),
    )
