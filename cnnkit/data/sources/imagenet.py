"""ImageNet in the layouts of its own archives, of Kaggle's and of Tiny ImageNet's.

    PATH/train/n01440764/*.JPEG ...    one folder per synset
    PATH/val/n01440764/*.JPEG ...      the same, or all files in PATH/val itself
    PATH/val_labels.txt                in the latter case, the synset of each validation image

Kaggle's archive has the folders `train` and `val` in PATH/ILSVRC/Data/CLS-LOC. Tiny ImageNet has
one more folder, `images`, above the files. The labels file has a line for every validation image,
in one of these forms:

    n01751748                               the synset, in the order of the file names
    ILSVRC2012_val_00000001.JPEG n01751748  file and synset, in any order
    ILSVRC2012_val_00000001.JPEG 65         file and index into the sorted synsets, from 0 (Caffe)
    490                                     the development kit's own number, from 1, in the order
                                            of the file names; needs the kit's meta.mat next to it
    ILSVRC2012_val_00000001,n01751748 ...   LOC_val_solution.csv: file, synset and boxes
    val_0.JPEG n03444034 0 32 44 62         val/val_annotations.txt: file, synset and a box

The classes are the synsets of the folders in `train`, in alphabetical order. LOC_synset_mapping.txt
or wnids.txt, if there is one, must name all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cnnkit._dataset_spec import KAGGLE, imagenet_base
from cnnkit._file_tree import printable_name
from cnnkit._files import read_lines
from cnnkit._untrusted.matlab_files import read_structures
from cnnkit.data.dataset import MAX_UNREADABLE, Dataset
from cnnkit.data.sources.image_files import dataset_from_files
from cnnkit.data.sources.sorted_files import FolderLayout, sort_files, subfolders
from cnnkit.errors import DataError

DEVKIT = "ILSVRC2012_devkit_t12/data"
KAGGLE_LABELS = "LOC_val_solution.csv"
TINY_LABELS = "val/val_annotations.txt"
LABELS_FILES = (
    "val_labels.txt",
    "val.txt",
    "imagenet_2012_validation_synset_labels.txt",
    "ILSVRC2012_validation_ground_truth.txt",
    f"{DEVKIT}/ILSVRC2012_validation_ground_truth.txt",
    KAGGLE_LABELS,
    TINY_LABELS,
)
META = "meta.mat"
# Files whose lines begin with the synset of a class.
SYNSET_FILES = ("LOC_synset_mapping.txt", "wnids.txt")


def load_imagenet(root: str, seed: int, max_unreadable: float = MAX_UNREADABLE) -> Dataset:
    """Open ImageNet in one of its layouts; the validation images become the split `test`.

    Args:
        root: The folder.
        seed: Unused: ImageNet has a test split.
        max_unreadable: Largest fraction of the images, 0..1, that may be unreadable.

    Raises:
        DataError: If the layout is different, or the labels file does not fit the images.
    """
    path = Path(root)
    base = imagenet_base(path)
    synsets = subfolders(path / base / "train")
    by_class = bool(set(synsets) & set(subfolders(path / base / "val")))
    labels_file = None if by_class else _find_labels(path, base)
    read = [
        labels_file,
        labels_file and labels_file.with_name(META),
        _find_synsets(path, base, synsets),
    ]
    layout = FolderLayout(
        path,
        {"train": "train", "test": "val"},
        base=f"{Path(base)}{os.sep}" if base else "",
        flat=() if by_class else ("test",),
        label_files=[
            str(file.relative_to(path))
            for file in read
            if file and path in file.parents and file.is_file()
        ],
    )
    files = sort_files(layout)
    if labels_file:
        # In the order of the names, because the lines of some labels files have none.
        files.images["test"].sort(key=lambda file: file.name)
        names = [Path(printable_name(file.name)).name for file in files.images["test"]]
        labels = _validation_labels(labels_file, names, synsets)
        files.images["test"] = [
            file._replace(class_name=synsets[label])
            for file, label in zip(files.images["test"], labels, strict=True)
        ]
    return dataset_from_files(f"imagenet:{root}", layout, files, seed, max_unreadable)


def _places(path: Path, base: str) -> list[Path]:
    """Return the folders in which files about the labels may be."""
    kaggle = Path(KAGGLE).parts
    above = [path.parents[len(kaggle) - 1]] if path.parts[-len(kaggle) :] == kaggle else []
    return list(dict.fromkeys([path, path / base, *above]))


def _find_synsets(path: Path, base: str, synsets: Sequence[str]) -> Path | None:
    """Return the list of all classes, if there is one, after a check that it names each folder.

    Raises:
        DataError: If one is not.
    """
    files = (place / name for name in SYNSET_FILES for place in _places(path, base))
    file = next((file for file in files if file.is_file()), None)
    if file is not None:
        known = {line.split()[0] for line in read_lines(file) if line.strip()}
        if unknown := [name for name in synsets if name not in known]:
            raise DataError(
                f"{path / base / 'train'} has folders that {file} does not name",
                expected=f"folders of its {len(known)} classes",
                received=", ".join(unknown[:3]),
                hint="Move them elsewhere",
            )
    return file


def _find_labels(path: Path, base: str) -> Path:
    files = (place / name for name in LABELS_FILES for place in _places(path, base))
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise DataError(
            f"The classes of the images in {path / base / 'val'} are unknown",
            expected=f"a folder for each synset, or one of {', '.join(LABELS_FILES)} in {path}",
        )
    return file


def _rows(file: Path) -> Iterator[list[str]]:
    """Yield a class, or the name of a file and its class, for each line of a labels file.

    Raises:
        DataError: If a line of Kaggle's file has no class, or several.
    """
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip():
            continue
        if file.name == KAGGLE_LABELS:
            name, _, boxes = line.partition(",")
            if name == "ImageId":
                continue
            # Each box is a synset and four coordinates.
            classes = set(boxes.split()[::5])
            if len(classes) != 1:
                raise DataError(
                    f"Line {number} of {file} must name one class",
                    received=", ".join(sorted(classes)) or "none",
                )
            yield [name, *classes]
        elif file.name == Path(TINY_LABELS).name:
            yield line.split()[:2]
        else:
            # Spaces can be part of the name of a file.
            yield line.rsplit(maxsplit=1)


def _validation_labels(file: Path, names: Sequence[str], synsets: Sequence[str]) -> list[int]:
    """Read the labels file and return the class index of each validation image."""
    rows = list(_rows(file))
    word_counts = {len(row) for row in rows}
    if len(rows) != len(names) or len(word_counts) != 1:
        raise DataError(
            f"{file} does not fit the validation images",
            expected=f"{len(names)} lines of a class, or of a file name and a class",
            received=f"{len(rows)} lines",
        )
    index_of = {synset: index for index, synset in enumerate(synsets)}
    if word_counts == {2}:
        by_file = {Path(row[0]).name: row[1] for row in rows}
        # Kaggle's names have no ending.
        keys = [Path(name).stem if file.name == KAGGLE_LABELS else name for name in names]
        missing = [name for name, key in zip(names, keys, strict=True) if key not in by_file]
        if missing:
            raise DataError(f"{file} lacks validation images", received=missing[0])
        index_of |= {str(index): index for index in range(len(synsets))}
        words = [by_file[key] for key in keys]
    else:
        words = [row[0] for row in rows]
        if all(word.isdigit() for word in words):
            index_of = _read_development_kit(file.parent / META, index_of)
    for word in words:
        if word not in index_of:
            raise DataError(f"{file} names a class that the folder train lacks", received=word)
    return [index_of[word] for word in words]


def _read_development_kit(meta: Path, index_of: Mapping[str, int]) -> dict[str, int]:
    """Return the class index by the number that the development kit gives to a synset."""
    if not meta.is_file():
        raise DataError(
            "The labels of the validation images in `PATH/val` are numbers of the development kit",
            expected=f"its {META} next to the labels file, {meta}",
            hint="Copy it there",
        )
    rows = read_structures(meta, "synsets", ("ILSVRC2012_ID", "WNID"))
    numbers = {f"{number:g}": index_of.get(str(synset)) for number, synset in rows}
    return {number: index for number, index in numbers.items() if index is not None}
