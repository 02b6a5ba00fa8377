"""Decoded images: cropped by draws of their own, scored in their centre, whole or refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from overconv.training.decoding import Box, Decoder, Example, centre, cut, decode, draw_box
from overconv.training.image_files import list_images
from overconv.training.streams import stream


def picture(high: int, wide: int) -> Image.Image:
    """Red grows downwards, green to the right, each by 2 a pixel."""
    rows, columns = np.mgrid[:high, :wide]
    return Image.fromarray(np.stack([2 * rows, 2 * columns, 0 * rows], -1).astype(np.uint8))


@pytest.fixture
def files(tmp_path):
    """Five images of one class, of different sizes and formats."""
    folder = tmp_path / "train" / "one"
    folder.mkdir(parents=True)
    for index, (high, wide) in enumerate([(40, 60), (60, 40), (48, 48), (100, 30), (20, 90)]):
        picture(high, wide).save(folder / f"{index}.{'png' if index % 2 else 'JPEG'}")
    return list_images(tmp_path / "train", ["one"])


# Boxes.


@pytest.mark.parametrize("least", [0.08, 0.3])
def test_boxes_are_of_the_area_and_aspect_asked_for(least):
    """Of uniform area and logarithm of the aspect: means and extremes of many."""
    boxes = [draw_box(stream(0, "box", n), 400, 500, least) for n in range(4000)]
    areas = np.array([box.high * box.wide / 200_000 for box in boxes])
    ratios = np.log([box.wide / box.high for box in boxes])
    assert least - 0.01 < areas.min() < least + 0.02 and areas.max() <= 1
    assert abs(ratios).max() < np.log(4 / 3) + 0.02
    inner = areas < 0.58  # of larger ones the higher fit less often
    assert abs(ratios[inner].mean()) < 0.02
    assert ratios[inner].std() == pytest.approx(np.log(16 / 9) / np.sqrt(12), rel=0.05)
    assert all(0 <= b.top <= 400 - b.high and 0 <= b.left <= 500 - b.wide for b in boxes)
    tops = np.array([b.top / (400 - b.high) for b in boxes if b.high < 350])
    lefts = np.array([b.left / (500 - b.wide) for b in boxes if b.wide < 450])
    for place in (tops, lefts):
        assert place.min() == 0 and place.max() == 1
        assert place.mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("high", "wide", "box"),
    [
        (10, 1000, Box(0, 493, 10, 13)),  # 4/3 of the height, in the centre
        (1000, 10, Box(493, 0, 13, 10)),
    ],
)
def test_where_no_box_fits_it_is_the_largest_in_the_centre(high, wide, box):
    assert draw_box(stream(0, "box"), high, wide, 0.9) == box


def test_a_cut_is_the_box():
    found = np.array(cut(picture(50, 60), Box(7, 11, 20, 30)))
    assert found.shape == (20, 30, 3)
    assert found[0, 0].tolist() == [14, 22, 0]
    assert found[19, 29].tolist() == [2 * 26, 2 * 40, 0]


# Scored.


@pytest.mark.parametrize(("high", "wide"), [(100, 100), (120, 90), (64, 110)])
def test_the_centre_is_what_torchvision_takes(high, wide):
    transforms = pytest.importorskip("torchvision.transforms.functional")
    image = picture(high, wide)
    theirs = transforms.center_crop(transforms.resize(image, 64), [56, 56])
    assert np.array_equal(np.array(centre(image, 56)), np.array(theirs))


def test_the_centre_is_seven_eighths_of_the_shorter_side():
    """Of a picture of 64 lines nothing is scaled, and 4 are left out on each side."""
    found = np.array(centre(picture(64, 100), 56))
    assert found.shape == (56, 56, 3)
    assert found[0, 0].tolist() == [8, 44, 0]
    assert found[-1, -1].tolist() == [2 * 59, 2 * 77, 0]


def test_scored_images_are_the_centre(files):
    decoder = Decoder({"test": files}, 0, 28, resized_crop=0.08, flip=True)
    for number in range(5):
        pixels, label = decoder[Example("test", number, None)]
        expected = np.array(centre(decode(files, number), 28)).transpose(2, 0, 1)
        assert np.array_equal(pixels.numpy(), expected)
        assert label == 0 and pixels.dtype == torch.uint8


# Augmented.


def test_a_crop_is_its_box_scaled_and_mirrored(files):
    """By torchvision's own crop of the same box, drawn here again."""
    transforms = pytest.importorskip("torchvision.transforms.functional")
    decoder = Decoder({"train": files}, 5, 24, resized_crop=0.3, flip=True)
    flips = []
    for number in range(5):
        for epoch in range(3):
            draws = stream(5, "augment", "image", epoch, number)
            flips.append(draws.random() < 0.5)
            image = decode(files, number)
            box = draw_box(draws, image.height, image.width, 0.3)
            theirs = transforms.resized_crop(image, *box, [24, 24])
            theirs = transforms.hflip(theirs) if flips[-1] else theirs
            ours, _ = decoder[Example("train", number, epoch)]
            assert np.array_equal(ours.numpy(), np.array(theirs).transpose(2, 0, 1))
    assert 3 < sum(flips) < 12


def test_an_option_does_not_move_the_others_draws(files):
    both = Decoder({"train": files}, 1, 24, resized_crop=0.3, flip=True)
    crop = Decoder({"train": files}, 1, 24, resized_crop=0.3, flip=False)
    flip = Decoder({"train": files}, 1, 24, resized_crop=0.0, flip=True)
    for number in range(5):
        wanted = Example("train", number, 0)
        mirrored = stream(1, "augment", "image", 0, number).random() < 0.5
        expected = crop[wanted][0].flip(-1) if mirrored else crop[wanted][0]
        assert torch.equal(both[wanted][0], expected)
        scored = flip[wanted._replace(epoch=None)][0]
        assert torch.equal(flip[wanted][0], scored.flip(-1) if mirrored else scored)


def test_blocks_epochs_and_examples_differ(files):
    def crop(block, epoch):
        decoder = Decoder({"train": files}, block, 24, resized_crop=0.3, flip=True)
        return decoder[Example("train", 0, epoch)][0]

    assert torch.equal(crop(0, 0), crop(0, 0))
    assert not torch.equal(crop(0, 0), crop(0, 1))
    assert not torch.equal(crop(0, 0), crop(1, 0))


# Files.


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "1"])
def test_every_image_has_three_colours(mode, tmp_path):
    (tmp_path / "one").mkdir()
    name = "x.jpg" if mode in ("L", "CMYK") else "x.png"
    picture(20, 30).convert(mode).save(tmp_path / "one" / name)
    image = decode(list_images(tmp_path, ["one"]), 0)
    assert image.mode == "RGB" and image.size == (30, 20)


def test_a_format_under_another_name_is_decoded(tmp_path):
    """ImageNet has a PNG that is called JPEG."""
    (tmp_path / "one").mkdir()
    picture(20, 30).save(tmp_path / "one" / "x.JPEG", format="PNG")
    assert np.array_equal(np.array(decode(list_images(tmp_path, ["one"]), 0)), picture(20, 30))


def test_a_cameras_orientation_is_not_heeded(tmp_path):
    (tmp_path / "one").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned
    picture(20, 30).save(tmp_path / "one" / "x.png", exif=exif)
    assert decode(list_images(tmp_path, ["one"]), 0).size == (30, 20)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "gone", "png"])
def test_a_file_that_is_no_image_is_named(damage, files):
    path = files.path(1 if damage == "png" else 0)
    whole = path.read_bytes()
    damaged = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"<html>not found</html>",
        "png": whole[:45] + b"\x00" * 20 + whole[65:],
    }
    path.unlink() if damage == "gone" else path.write_bytes(damaged[damage])
    decoder = Decoder({"train": files}, 0, 24, resized_crop=0.3, flip=True)
    with pytest.raises(ValueError, match=rf"{path} is missing, cut short or corrupt"):
        decoder[Example("train", 1 if damage == "png" else 0, 0)]
