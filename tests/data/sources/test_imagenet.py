"""The layout of ImageNet, with labels in each of their forms."""

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.data import load_dataset
from cnnkit.errors import DataError, UsageError
from tests.helpers.images import noise_jpeg

SYNSETS = ("n01440764", "n01443537", "n02084071")


# What the validation images show, in the order of their names.
SHOWN = (2, 0, 0, 1)


@pytest.fixture
def imagenet(tmp_path):
    for label, synset in enumerate(SYNSETS):
        folder = tmp_path / "train" / synset
        folder.mkdir(parents=True)
        for i in range(2 + label):
            (folder / f"{synset}_{i}.JPEG").write_bytes(noise_jpeg(70 * label, seed=i))
    (tmp_path / "val").mkdir()
    for i, label in enumerate(SHOWN, start=1):
        name = f"ILSVRC2012_val_{i:08d}.JPEG"
        (tmp_path / "val" / name).write_bytes(noise_jpeg(70 * label, seed=10 + i))
    return tmp_path


def names_of(folder):
    return sorted(file.name for file in (folder / "val").iterdir())


def check_imagenet(folder):
    source = load_dataset(f"imagenet:{folder}")
    assert source.class_names == SYNSETS
    assert source.splits["train"].labels.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2]
    test = source.splits["test"]
    assert sorted(test.labels) == sorted(SHOWN)
    for i, label in enumerate(test.labels):
        assert test.load_image(tf.constant(i, tf.int64)).numpy().mean() // 70 == label
    return source


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(
    ("file", "word"),
    [
        ("val.txt", lambda name, label: f"{name} {label}"),
        ("val_labels.txt", lambda name, label: f"val/{name} {SYNSETS[label]}"),
    ],
)
def test_imagenet_with_named_labels(imagenet, file, word, shuffled):
    lines = [word(*pair) for pair in zip(names_of(imagenet), SHOWN, strict=True)]
    (imagenet / file).write_text("\n".join(lines[::-1] if shuffled else lines) + "\n")
    check_imagenet(imagenet)


def test_imagenet_with_a_line_an_image(imagenet):
    lines = [SYNSETS[label] for label in SHOWN]
    (imagenet / "imagenet_2012_validation_synset_labels.txt").write_text("\n".join(lines))
    check_imagenet(imagenet)


def test_imagenet_with_the_development_kit(imagenet):
    from scipy.io import savemat

    kit = imagenet / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    numbers = {0: 3, 1: 1, 2: 2}
    truth = "\n".join(str(numbers[label]) for label in SHOWN)
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)
    with pytest.raises(DataError, match="numbers of the development kit.*meta.mat"):
        load_dataset(f"imagenet:{imagenet}")
    # As in the kit, there are synsets above the leaves, which have no images.
    table = np.array(
        [(number, SYNSETS[label]) for label, number in numbers.items()] + [(4, "n00000001")],
        dtype=[("ILSVRC2012_ID", object), ("WNID", object)],
    )
    savemat(kit / "meta.mat", {"synsets": table})
    check_imagenet(imagenet)


def test_imagenet_with_validation_folders(imagenet):
    for name, label in zip(names_of(imagenet), SHOWN, strict=True):
        folder = imagenet / "val" / SYNSETS[label]
        folder.mkdir(exist_ok=True)
        (imagenet / "val" / name).rename(folder / name)
    source = check_imagenet(imagenet)
    assert source.splits["test"].names[0].startswith("val/n01440764/")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "are unknown. Expected: a folder for each synset, or one of val_labels.txt"),
        ("n01440764\n" * 3, "does not fit the images.*Expected: 4 lines.*Received: 3 lines"),
        ("n01440764\n" * 3 + "n09999999\n", "names a class that .*train lacks. Received: n0999"),
        ("x.JPEG 0\n" * 4, "lacks images of .*Received: ILSVRC2012_val_00000001.JPEG"),
    ],
)
def test_imagenet_with_wrong_labels(imagenet, text, message):
    if text:
        (imagenet / "val_labels.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        load_dataset(f"imagenet:{imagenet}")


def test_other_layouts_are_refused(tmp_path):
    with pytest.raises(UsageError, match="No folder"):
        load_dataset(f"imagenet:{tmp_path / 'none'}")
    with pytest.raises(
        DataError, match="does not have the layout of ImageNet. Expected: .*Received: no train"
    ):
        load_dataset(f"imagenet:{tmp_path}")
