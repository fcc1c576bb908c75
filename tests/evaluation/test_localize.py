import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import cnnkit
from cnnkit.data import Decoding, Split
from cnnkit.errors import DataError, UsageError
from cnnkit.evaluation import Localizer, localize, measure_localization
from cnnkit.evaluation.localize import mean_box_size
from tests.helpers.boxes import square_finder, square_image

CLASSES = ("nothing", "square")


@pytest.fixture(scope="module")
def network():
    return square_finder()


def test_files_are_localized_in_order(network, tmp_path):
    for name, left in (("b.png", 4), ("a.png", 8)):
        data = tf.io.encode_png(square_image(16, 16, left, 4)).numpy()
        (tmp_path / name).write_bytes(data)
    done = []
    found = localize(network, tmp_path, top=2, progress=done.append)
    assert [one.name for one in found] == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert [one.label for one in found[0].objects] == ["square", "nothing"]
    assert [round(one.objects[0].box[0]) for one in found] == [8, 4]
    assert found[0].image.shape == (16, 16, 3) and sum(done) == 2
    (tmp_path / "c.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"c\.png must be an image"):
        localize(network, tmp_path)
    *rest, last = cnnkit.localize(network, tmp_path, errors="keep")
    assert len(rest) == 2 and "must be an image" in last.error and last.objects == ()
    for options, message in (({"errors": "skip"}, "value of `errors`"), ({"top": 0}, "`top`")):
        with pytest.raises(UsageError, match=message):
            localize(network, tmp_path / "a.png", **options)


def labeled(rows):
    """A split of images with a square at (4, 4, 8, 8), the labels and boxes of `rows`."""
    pixels = np.stack([square_image(16, 16, 4, 4)] * len(rows))
    split = Split.from_pixels(
        np.array([label for label, _ in rows], np.int32), [f"{i}" for i in range(len(rows))], pixels
    )
    boxes = np.full((len(rows), 2, 4), np.nan, np.float32)
    for row, (_, given) in zip(boxes, rows, strict=True):
        row[: len(given)] = given
    return Split(split.labels, split.names, split.load_image, pixels=split.pixels, boxes=boxes)


def test_errors_by_hand(network):
    split = labeled(
        [
            (1, [(4, 4, 8, 8)]),  # Right.
            (1, [(4, 4, 8, 6)]),  # Half of the box: right.
            (1, [(4, 4, 8, 5.9)]),  # Less than half: wrong.
            (1, [(0, 0, 16, 16), (4, 4, 8, 8)]),  # One of two objects: right.
            (0, [(4, 4, 8, 8)]),  # The class is the second one.
            (1, [(9, 9, 12, 12)]),  # No overlap.
            (0, [(9, 9, 12, 12)]),  # Neither.
            (1, [(4, 4, 8, 8)]),
        ]
    )
    result = measure_localization(Localizer(network), split, CLASSES)
    assert (result.method, result.images) == ("crop", 8)
    np.testing.assert_allclose(result.overlaps, [1, 0.5, 0.475, 1, 1, 0, 0, 1], atol=1e-4)
    assert result.top1_error == 4 / 8
    assert result.top5_error == 3 / 8
    assert result.box_error == 3 / 8
    assert result.class_error == 2 / 8
    assert result.mean_overlap == pytest.approx(4.975 / 8, abs=1e-4)
    low, high = result.box_interval
    assert 0 < low < 3 / 8 < high < 1
    assert result.to_dict() == {
        "method": "crop", "images": 8, "top1_error": 4 / 8, "top5_error": 3 / 8,
        "box_error": 3 / 8, "class_error": 2 / 8, "mean_overlap": result.mean_overlap,
        "box_interval": [low, high],
    }  # fmt: skip


class Known:
    """A localizer of eight classes, the first the most probable, whose boxes are right."""

    method, class_names = "known", tuple("abcdefgh")

    class network:
        decoding = Decoding()

    def probabilities(self, image, name):
        return np.arange(8, 0, -1) / 36

    def boxes(self, image, classes):
        return [(4.0, 4.0, 8.0, 8.0)] * len(classes)


def test_the_fifth_class_counts_and_the_sixth_does_not():
    split, counted = labeled([(label, [(4, 4, 8, 8)]) for label in (0, 1, 4, 5)]), []
    result = measure_localization(Known(), split, tuple("abcdefgh"), progress=counted.append)
    assert (result.top1_error, result.top5_error) == (3 / 4, 1 / 4)
    assert (result.class_error, result.box_error) == (3 / 4, 0)
    assert counted == [1] * 4


def test_an_image_that_cannot_be_decoded_is_named():
    rows = labeled([(1, [(4, 4, 8, 8)])])
    data = tf.constant([b"no image"])
    broken = Split.from_files(rows.labels, ("a.png",), lambda index: tf.gather(data, index))
    with pytest.raises(DataError, match=r"a\.png cannot be decoded"):
        measure_localization(
            Known(), dataclasses.replace(broken, boxes=rows.boxes), Known.class_names
        )


def test_what_cannot_be_measured(network):
    split = labeled([(1, [(4, 4, 8, 8)])])
    with pytest.raises(UsageError, match="must be the classes of the network"):
        measure_localization(Localizer(network), split, ("square", "nothing"))
    bare = Split.from_pixels(split.labels, split.names, split.pixels)
    with pytest.raises(UsageError, match="must have boxes"):
        measure_localization(Localizer(network), bare, CLASSES)
    with pytest.raises(UsageError, match="must have boxes"):
        mean_box_size(bare)


def test_the_mean_size_of_boxes():
    split = labeled([(1, [(0, 0, 4, 8)]), (1, [(0, 0, 16, 4), (0, 0, 1, 1)])])
    assert mean_box_size(split) == pytest.approx((0.625, 0.375))
