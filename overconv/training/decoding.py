"""From image files to equal squares of bytes: what a process that loads images does.

Every draw of an example is of a stream of its own, so that no process needs another's.
"""

import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from overconv.training.image_files import ImageFiles
from overconv.training.streams import stream

# Of the inner square to the shorter side when an image is scored, 224 / 256 in all of ImageNet's
# literature since A. Krizhevsky et al., NIPS 2012.
CENTRE = 0.875
# C. Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 6.
ASPECTS = (3 / 4, 4 / 3)
ATTEMPTS = 10  # at a box that lies inside the image; then the largest in its centre


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    high: int
    wide: int


class Example(NamedTuple):
    """File ``number`` of a part; augmented by the draws of an epoch, or scored if that is None."""

    part: str
    number: int
    epoch: int | None


@dataclass(frozen=True)
class Decoder:
    """Examples by name: what a data loader copies into its processes.

    Attributes:
        parts: The files, by the name of their part.
        block: Names the streams.
        image_size: Edge of the square, in pixels.
        resized_crop: Least share of the area in a random resized crop; 0: the centre, as scored.
        flip: Whether half of the images are mirrored.
    """

    parts: dict[str, ImageFiles]
    block: int
    image_size: int
    resized_crop: float
    flip: bool

    def __getitem__(self, example: Example) -> tuple[Tensor, int]:
        """The image (3, image_size, image_size), uint8, and its label.

        Raises:
            ValueError: The file is missing, cut short or corrupt; names it.
        """
        files = self.parts[example.part]
        image = decode(files, example.number)
        if example.epoch is None:
            image = centre(image, self.image_size)
        else:
            image = self._augment(image, example)
        # A copy, since torch keeps no memory that it may not write.
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return pixels, int(files.labels[example.number])

    def _augment(self, image: Image.Image, example: Example) -> Image.Image:
        assert example.epoch is not None
        generator = stream(self.block, "augment", "image", example.epoch, example.number)
        mirrored = generator.random() < 0.5  # drawn in any case: no option moves another's draws
        if self.resized_crop:
            wide, high = image.size
            box = draw_box(generator, high, wide, self.resized_crop)
            image = resize(cut(image, box), self.image_size, self.image_size)
        else:
            image = centre(image, self.image_size)
        if mirrored and self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image


def decode(files: ImageFiles, number: int) -> Image.Image:
    """An image of red, green and blue, as stored: a camera's orientation is not heeded."""
    path = files.path(number)
    try:
        with warnings.catch_warnings():
            # Of what a camera noted, which is not used.
            warnings.filterwarnings("ignore", "(?i).*corrupt EXIF", UserWarning)
            with Image.open(path) as image:
                return image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        # SyntaxError is what Pillow raises of a broken PNG.
        raise ValueError(f"{path} is missing, cut short or corrupt: {error}") from None


def draw_box(generator: np.random.Generator, high: int, wide: int, least: float) -> Box:
    """A box of ``least`` to all of an image's area, of an aspect from 3/4 to 4/3, anywhere in it.

    Area and logarithm of the aspect are uniform. If none of ten fits, the largest box of an
    allowed aspect, in the centre.
    """
    for _ in range(ATTEMPTS):
        area = high * wide * generator.uniform(least, 1.0)
        aspect = math.exp(generator.uniform(math.log(ASPECTS[0]), math.log(ASPECTS[1])))
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < h <= high and 0 < w <= wide:
            top, left = generator.integers(0, high - h + 1), generator.integers(0, wide - w + 1)
            return Box(int(top), int(left), h, w)
    h = min(high, round(wide / ASPECTS[0]))
    w = min(wide, round(high * ASPECTS[1]))
    return Box((high - h) // 2, (wide - w) // 2, h, w)


def cut(image: Image.Image, box: Box) -> Image.Image:
    """The part of ``image`` in ``box``."""
    return image.crop((box.left, box.top, box.left + box.wide, box.top + box.high))


def resize(image: Image.Image, high: int, wide: int) -> Image.Image:
    """Bilinear, over as many pixels as one of the result covers."""
    return image.resize((wide, high), Image.Resampling.BILINEAR)


def centre(image: Image.Image, size: int) -> Image.Image:
    """The shorter side scaled to ``round(size / 0.875)``, then the square in the centre."""
    wide, high = image.size
    shorter = round(size / CENTRE)
    if high <= wide:
        high, wide = shorter, int(shorter * wide / high)
    else:
        high, wide = int(shorter * high / wide), shorter
    box = Box(round((high - size) / 2), round((wide - size) / 2), size, size)
    return cut(resize(image, high, wide), box)
