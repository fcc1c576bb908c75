import numpy as np
import pytest
import tensorflow as tf

from cnnkit.data import Augmentation, Split, batches
from cnnkit.data.boxes import center_and_size, corners, crop_boxes, image_boxes, overlap
from cnnkit.data.pipeline import cache_in_memory

pytestmark = pytest.mark.usefixtures("unoptimized")

HEIGHT, WIDTH = 60, 90
BOX = (24, 12, 60, 45)
SETTINGS = [
    Augmentation(40),
    Augmentation(40, scale=(44, 80), crop="random", flip=True),
    Augmentation(40, scale=(50, 50), crop="ten"),
    Augmentation(40, scale=(44, 80), crop="random", flip=True, central_square=True),
    Augmentation(24, scale=(28, 28), crop="random", flip=True, fast_decode=True),
]


def marked_split(count, in_files):
    """Images that are white within their box and black outside, of which each is one more."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    boxes = np.full((count, 2, 4), np.nan, np.float32)
    boxes[:, 0] = BOX
    labels, names = np.zeros(count, np.int32), [str(i) for i in range(count)]
    if in_files:
        data = tf.io.encode_png(image)
        split = Split.from_files(labels, names, lambda index: data)
    else:
        split = Split.from_pixels(labels, names, np.stack([image] * count))
    return Split(split.labels, split.names, split.load_image, split.load_bytes, split.pixels,
                 boxes=boxes)  # fmt: skip


def white_edges(image):
    """Left, top, right and bottom of what is white, where an edge lies within the image."""
    white = image.mean(axis=-1) > 127
    columns, rows = np.flatnonzero(white.any(axis=0)), np.flatnonzero(white.any(axis=1))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("in_files", [True, False])
def test_boxes_move_as_the_pixels_do(settings, in_files):
    size = settings.image_size
    split = marked_split(8, in_files)
    [batch] = batches(split, augmentation=settings, batch_size=8, seed=3, epoch=1)
    assert batch["boxes"].shape == (8, 2, 4)
    assert np.isnan(batch["boxes"][:, 1]).all()
    for image, box in zip(batch["images"].numpy(), batch["boxes"][:, 0].numpy(), strict=True):
        # The crop cuts the white part off; the box goes on beyond it.
        np.testing.assert_allclose(white_edges(image), np.clip(box, 0, 1) * size, atol=1.01)


def test_boxes_are_the_same_on_every_way_that_images_are_read():
    settings = SETTINGS[1]
    ways = [marked_split(4, True), marked_split(4, False), cache_in_memory(marked_split(4, True)),
            marked_split(6, True).subset(np.arange(4))]  # fmt: skip
    found = [next(iter(batches(way, augmentation=settings, batch_size=4)))["boxes"] for way in ways]
    for boxes in found[1:]:
        np.testing.assert_array_equal(boxes, found[0])


def test_boxes_of_the_center_crop_go_back_to_the_image():
    settings = Augmentation(40, scale=(50, 50))
    sides = tf.constant([HEIGHT, WIDTH])
    boxes = tf.constant([BOX, (0, 0, WIDTH, HEIGHT)], tf.float32)
    there = crop_boxes(boxes, sides, settings, {})
    np.testing.assert_allclose(image_boxes(there, sides, settings), boxes, atol=1e-4)


def test_center_and_size_and_corners_are_inverse():
    boxes = tf.constant([[1.0, 2.0, 5.0, 10.0]])
    np.testing.assert_allclose(center_and_size(boxes), [[3, 6, 4, 8]])
    np.testing.assert_allclose(corners(center_and_size(boxes)), boxes)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((0, 0, 4, 2), 1),
        ((2, 0, 4, 2), 0.5),
        ((3, 1, 7, 3), 1 / 15),
        ((4, 0, 8, 2), 0),
        ((5, 5, 6, 6), 0),
        ((2, 1, 2, 1), 0),
        ((3, 0, 1, 2), 0),
        ((np.nan,) * 4, 0),
    ],
)
def test_overlap_is_the_intersection_over_the_union(other, expected):
    first = tf.constant([0.0, 0.0, 4.0, 2.0])
    assert float(overlap(first, tf.constant(other, tf.float32))) == pytest.approx(expected)


def test_images_that_need_no_crop_have_boxes_too():
    image = np.zeros((1, 20, 20, 3), np.uint8)
    split = Split.from_pixels(np.zeros(1, np.int32), ["a"], image)
    split = Split(split.labels, split.names, split.load_image, pixels=split.pixels,
                  boxes=np.array([[[5, 0, 10, 20]]], np.float32))  # fmt: skip
    [batch] = batches(split, augmentation=Augmentation(20), batch_size=1)
    np.testing.assert_allclose(batch["boxes"], [[[0.25, 0, 0.5, 1]]])
