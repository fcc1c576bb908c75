"""The layout of ImageNet, with labels in each of their forms."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.data import load_dataset
from cnnkit.errors import DataError, UsageError
from tests.helpers.images import noise_jpeg, write_files

pytestmark = pytest.mark.usefixtures("unoptimized")

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
    files = ("ILSVRC2012_validation_ground_truth.txt", "meta.mat")
    assert check_imagenet(imagenet).label_files == tuple(
        f"ILSVRC2012_devkit_t12/data/{name}" for name in files
    )


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
        (
            "n01440764\n" * 3,
            "does not fit the validation images.*Expected: 4 lines.*Received: 3 lines",
        ),
        (
            "n01440764\n" * 3 + "n09999999\n",
            "names a class that the folder train lacks. Received: n0999",
        ),
        ("n01440764\n" * 3 + "x.JPEG n01440764\n", "Expected: 4 lines of a class, or .*4 lines"),
        ("1\n" + "n01440764\n" * 3, "names a class that the folder train lacks. Received: 1"),
        ("x.JPEG 0\n" * 4, "lacks validation images. Received: ILSVRC2012_val_00000001.JPEG"),
    ],
)
def test_imagenet_with_wrong_labels(imagenet, text, message):
    if text:
        (imagenet / "val_labels.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        load_dataset(f"imagenet:{imagenet}")


def kaggle_lines(folder):
    """Returns the lines of LOC_val_solution.csv, in another order than the files."""
    lines = [
        f"{name.removesuffix('.JPEG')},{SYNSETS[label]} 1 2 30 40 {SYNSETS[label]} 5 6 70 80 "
        for name, label in zip(names_of(folder), SHOWN, strict=True)
    ]
    return ["ImageId,PredictionString", *lines[::-1]]


def test_imagenet_as_kaggle_unpacks_it(imagenet, tmp_path_factory):
    root = tmp_path_factory.mktemp("kaggle")
    images = root / "ILSVRC" / "Data" / "CLS-LOC"
    images.mkdir(parents=True)
    lines = kaggle_lines(imagenet)
    for split in ("train", "val"):
        (imagenet / split).rename(images / split)
    (root / "LOC_val_solution.csv").write_text("\n".join(lines))
    mapping = "".join(f"{synset} a name, another name\n" for synset in SYNSETS)
    (root / "LOC_synset_mapping.txt").write_text(f"{mapping}n09999999 of a class without images\n")
    write_files(root, ["ILSVRC/Data/CLS-LOC/test/1.JPEG", "ILSVRC/Annotations/1.xml"])
    source = check_imagenet(root)
    assert source.splits["test"].names[0] == "val/ILSVRC2012_val_00000001.JPEG"
    assert source.label_files == ("LOC_val_solution.csv", "LOC_synset_mapping.txt")
    assert source.left_out == {
        "outside the class folders": ("ILSVRC/Annotations/1.xml", "ILSVRC/Data/CLS-LOC/test/1.JPEG")
    }
    inner = check_imagenet(images)
    assert inner.fingerprint == source.fingerprint
    assert inner.label_files == ()
    (images / "train" / "backup").mkdir()
    with pytest.raises(DataError, match="folders that .*LOC_synset_mapping.txt does not name"):
        load_dataset(f"imagenet:{root}")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("ILSVRC2012_val_00000001,", "Line 2 of .* must name one class. Received: none"),
        ("1,n01440764 1 2 3 4 n01443537 1 2 3 4", "must name one class. .*n01440764, n01443537"),
        ("ILSVRC2012_val_00000009,n01440764 1 2 3 4", "lacks validation images"),
    ],
)
def test_wrong_labels_of_kaggle_are_named(imagenet, line, text):
    lines = kaggle_lines(imagenet)
    (imagenet / "LOC_val_solution.csv").write_text("\n".join([lines[0], line, *lines[2:]]))
    with pytest.raises(DataError, match=text):
        load_dataset(f"imagenet:{imagenet}")


def test_tiny_imagenet(tmp_path):
    for label, synset in enumerate(SYNSETS):
        folder = tmp_path / "train" / synset / "images"
        folder.mkdir(parents=True)
        for i in range(2 + label):
            (folder / f"{synset}_{i}.JPEG").write_bytes(noise_jpeg(70 * label, seed=i))
        (folder.parent / f"{synset}_boxes.txt").write_text(f"{synset}_0.JPEG\t0\t10\t63\t58\n")
    (tmp_path / "val" / "images").mkdir(parents=True)
    rows = []
    for i, label in enumerate(SHOWN):
        (tmp_path / "val" / "images" / f"val_{i}.JPEG").write_bytes(noise_jpeg(70 * label, seed=i))
        rows.append(f"val_{i}.JPEG\t{SYNSETS[label]}\t0\t32\t44\t62\n")
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(rows[::-1]))
    # In another order than the folders, as in the archive.
    (tmp_path / "wnids.txt").write_text("\n".join(SYNSETS[::-1]))
    write_files(tmp_path, ["test/images/test_0.JPEG", "words.txt"])
    source = check_imagenet(tmp_path)
    assert source.splits["test"].names == tuple(f"val/images/val_{i}.JPEG" for i in range(4))
    assert source.label_files == ("val/val_annotations.txt", "wnids.txt")
    assert source.left_out == {
        "of other types": tuple(f"train/{synset}/{synset}_boxes.txt" for synset in SYNSETS),
        "outside the class folders": ("test/images/test_0.JPEG", "words.txt"),
    }
    with pytest.raises(DataError, match="imagenet:.* reads this layout"):
        load_dataset(f"folder:{tmp_path}")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_imagenet_with_labels_in_other_encodings(imagenet, encoding):
    lines = [f"{name} {SYNSETS[n]}" for name, n in zip(names_of(imagenet), SHOWN, strict=True)]
    (imagenet / "val.txt").write_bytes("\r\n".join([*lines, "", ""]).encode(encoding))
    check_imagenet(imagenet)


def test_imagenet_keeps_its_order_and_fingerprint(imagenet):
    lines = [SYNSETS[label] for label in SHOWN]
    (imagenet / "val_labels.txt").write_text("\n".join(lines))
    (imagenet / "val" / ".DS_Store").write_text("")
    (imagenet / "val" / "readme.txt").write_text("")
    source = check_imagenet(imagenet)
    assert source.splits["test"].labels.tolist() == list(SHOWN)
    text = ""
    for split, labels in (("test", SHOWN), ("train", source.splits["train"].labels)):
        for name, label in zip(source.splits[split].names, labels, strict=True):
            text += f"{split}\t{name}\t{label}\t{(imagenet / name).stat().st_size}\n"
    assert source.fingerprint == hashlib.sha256(text.encode()).hexdigest()
    assert source.left_out == {"hidden": ("val/.DS_Store",), "of other types": ("val/readme.txt",)}


def test_other_layouts_are_refused(tmp_path):
    with pytest.raises(UsageError, match="No folder"):
        load_dataset(f"imagenet:{tmp_path / 'none'}")
    with pytest.raises(
        DataError, match="does not have the layout of ImageNet.*Received: no train and no val"
    ):
        load_dataset(f"imagenet:{tmp_path}")
