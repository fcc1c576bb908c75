"""ImageNet in the layout of its own archives.

    PATH/train/n01440764/*.JPEG ...    one folder per synset
    PATH/val/n01440764/*.JPEG ...      the same, or all files in PATH/val itself
    PATH/val_labels.txt                in the latter case, the synset of each validation image

The labels file has a line for every file of `PATH/val`, in one of four forms:

    n01751748                               the synset, in the order of the file names
    ILSVRC2012_val_00000001.JPEG n01751748  file and synset, in any order
    ILSVRC2012_val_00000001.JPEG 65         file and index into the sorted synsets, from 0 (Caffe)
    490                                     the development kit's own number, from 1, in the order
                                            of the file names; needs the kit's meta.mat next to it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cnnkit.data.dataset import MAX_UNREADABLE, Dataset
from cnnkit.data.sources.image_folder import (
    check_same_classes,
    class_folders,
    dataset_from_files,
    files_by_class,
    image_files,
    subfolders,
)
from cnnkit.errors import DataError, UsageError

DEVKIT = "ILSVRC2012_devkit_t12/data"
LABELS_FILES = (
    "val_labels.txt",
    "val.txt",
    "imagenet_2012_validation_synset_labels.txt",
    "ILSVRC2012_validation_ground_truth.txt",
    f"{DEVKIT}/ILSVRC2012_validation_ground_truth.txt",
)
META = "meta.mat"


def load_imagenet(root: str, seed: int, max_unreadable: float = MAX_UNREADABLE) -> Dataset:
    """Open ImageNet in its own layout; the validation images become the split `test`.

    Args:
        root: The folder.
        seed: Unused: ImageNet has a test split.
        max_unreadable: Largest fraction of the files, 0..1, that may be unreadable.

    Raises:
        UsageError: If there is no such folder.
        DataError: If the layout is different, or the labels file does not fit the images.
    """
    path = Path(root)
    if not path.is_dir():
        raise UsageError(f"No folder {root}", expected="imagenet:PATH of an existing folder")
    for folder in ("train", "val"):
        if not (path / folder).is_dir():
            raise DataError(
                f"{root} does not have the layout of ImageNet",
                expected="the folders train and val",
                received=f"no {folder}",
            )
    synsets = class_folders(path / "train")
    if subfolders(path / "val"):
        check_same_classes(path, "val", synsets)
        validation = files_by_class(path / "val", synsets)
    else:
        files = image_files(path / "val", 0)
        labels = _validation_labels(path, [Path(file.path).name for file in files], synsets)
        validation = [f._replace(label=label) for f, label in zip(files, labels, strict=True)]
    splits = {"train": files_by_class(path / "train", synsets), "test": validation}
    return dataset_from_files(f"imagenet:{root}", path, synsets, splits, seed, max_unreadable)


def _validation_labels(root: Path, names: Sequence[str], synsets: Sequence[str]) -> list[int]:
    """Read the labels file and return the class index of each validation image."""
    file = next((root / name for name in LABELS_FILES if (root / name).is_file()), None)
    if file is None:
        raise DataError(
            f"The classes of the images in {root / 'val'} are unknown",
            expected=f"a folder for each synset, or one of {', '.join(LABELS_FILES)} in {root}",
        )
    lines = [line.split() for line in file.read_text().splitlines() if line.strip()]
    word_counts = {len(line) for line in lines}
    if len(lines) != len(names) or len(word_counts) != 1 or not word_counts <= {1, 2}:
        raise DataError(
            f"{file} does not fit the images in {root / 'val'}",
            expected=f"{len(names)} lines of a class, or of a file name and a class",
            received=f"{len(lines)} lines",
        )
    index_of = {synset: index for index, synset in enumerate(synsets)}
    if word_counts == {2}:
        by_file = {Path(line[0]).name: line[1] for line in lines}
        missing = [name for name in names if name not in by_file]
        if missing:
            raise DataError(f"{file} lacks images of {root / 'val'}", received=missing[0])
        index_of |= {str(index): index for index in range(len(synsets))}
        words = [by_file[name] for name in names]
    else:
        words = [line[0] for line in lines]
        if all(word.isdigit() for word in words):
            index_of = _read_development_kit(file.parent / META, index_of)
    for word in words:
        if word not in index_of:
            raise DataError(f"{file} names a class that {root / 'train'} lacks", received=word)
    return [index_of[word] for word in words]


def _read_development_kit(meta: Path, index_of: Mapping[str, int]) -> dict[str, int]:
    """Return the class index by the number that the development kit gives to a synset."""
    if not meta.is_file():
        raise DataError(
            "The labels of the validation images in `PATH/val` are numbers of the development kit",
            expected=f"its {META} next to the labels file, {meta}",
            hint="Copy it there",
        )
    from scipy.io import loadmat

    table = loadmat(meta, squeeze_me=True, struct_as_record=True)["synsets"]
    numbers = {
        str(int(row["ILSVRC2012_ID"])): index_of.get(str(row["WNID"])) for row in table.ravel()
    }
    return {number: index for number, index in numbers.items() if index is not None}
