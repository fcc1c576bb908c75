"""ImageNet as its own archives unpack.

    PATH/train/n01440764/*.JPEG ...    one folder a synset
    PATH/val/n01440764/*.JPEG ...      the same, or all files in PATH/val itself
    PATH/val_labels.txt                then, which synset each of them shows

The labels file has a line for every file of `PATH/val`, in one of four forms:

    n01751748                               the synset, in the order of the files' names
    ILSVRC2012_val_00000001.JPEG n01751748  file and synset, in any order
    ILSVRC2012_val_00000001.JPEG 65         file and place among the sorted synsets, from 0 (Caffe)
    490                                     the development kit's own number, from 1, in the order
                                            of the files' names; needs the kit's meta.mat beside it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cnnkit.data.dataset import MAX_UNREADABLE_NAMED, Dataset
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


def load_imagenet(root: str, seed: int, most_unreadable: float = MAX_UNREADABLE_NAMED) -> Dataset:
    """Opens ImageNet's own layout; the validation images are the part `test`.

    Raises:
        UsageError: If there is no such folder.
        DataError: If the layout is another, or the labels file does not fit the validation images.
    """
    path = Path(root)
    if not path.is_dir():
        raise UsageError(f"No folder {root}", expected="imagenet:PATH of an existing folder")
    for part in ("train", "val"):
        if not (path / part).is_dir():
            raise DataError(
                f"{root} is no ImageNet",
                expected="the folders train and val",
                received=f"no {part}",
            )
    synsets = class_folders(path / "train")
    if subfolders(path / "val"):
        check_same_classes(path, "val", synsets)
        validation = files_by_class(path / "val", synsets)
    else:
        files = image_files(path / "val", 0)
        classes = _classes(path, [Path(file.path).name for file in files], synsets)
        validation = [f._replace(label=label) for f, label in zip(files, classes, strict=True)]
    parts = {"train": files_by_class(path / "train", synsets), "test": validation}
    return dataset_from_files(f"imagenet:{root}", path, synsets, parts, seed, most_unreadable)


def _classes(root: Path, names: Sequence[str], synsets: Sequence[str]) -> list[int]:
    """Returns the class of each validation file from the labels file."""
    file = next((root / name for name in LABELS_FILES if (root / name).is_file()), None)
    if file is None:
        raise DataError(
            f"The classes of the images in {root / 'val'} are unknown",
            expected=f"a folder for each synset, or one of {', '.join(LABELS_FILES)} in {root}",
        )
    lines = [line.split() for line in file.read_text().splitlines() if line.strip()]
    widths = {len(line) for line in lines}
    if len(lines) != len(names) or len(widths) != 1 or not widths <= {1, 2}:
        raise DataError(
            f"{file} does not fit the images in {root / 'val'}",
            expected=f"{len(names)} lines of a class, or of a file name and a class",
            received=f"{len(lines)} lines",
        )
    known = {synset: place for place, synset in enumerate(synsets)}
    if widths == {2}:
        by_file = {Path(line[0]).name: line[1] for line in lines}
        missing = [name for name in names if name not in by_file]
        if missing:
            raise DataError(f"{file} lacks images of {root / 'val'}", received=missing[0])
        known |= {str(place): place for place in range(len(synsets))}
        words = [by_file[name] for name in names]
    else:
        words = [line[0] for line in lines]
        if all(word.isdigit() for word in words):
            known = _development_kit(file.parent / META, known)
    for word in words:
        if word not in known:
            raise DataError(f"{file} names a class that {root / 'train'} lacks", received=word)
    return [known[word] for word in words]


def _development_kit(meta: Path, places: Mapping[str, int]) -> dict[str, int]:
    """Returns the place of each synset by the number that the development kit gives it."""
    if not meta.is_file():
        raise DataError(
            "The labels of the validation images are numbers of the development kit",
            expected=f"its {META} beside the labels file, {meta}",
            hint="Copy it there",
        )
    from scipy.io import loadmat

    table = loadmat(meta, squeeze_me=True, struct_as_record=True)["synsets"]
    numbers = {
        str(int(row["ILSVRC2012_ID"])): places.get(str(row["WNID"])) for row in table.ravel()
    }
    return {number: place for number, place in numbers.items() if place is not None}
