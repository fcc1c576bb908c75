"""Values of options: argparse types that check them before anything slow begins.

An error completes the sentence "ARG ...": it is raised as `argparse.ArgumentTypeError` with a text
such as "must be an existing file, received x.png", and the parser names the argument.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from cnnkit._dataset_spec import DATASET_SPECS, VOC_SPEC, check_dataset_spec
from cnnkit._file_tree import STAGES_FILE, is_exported, why_no_weights
from cnnkit._networks import IMAGENET, PAPERS
from cnnkit._staging import staging_folder
from cnnkit._untrusted.images import IMAGE_STARTS, check_image_file
from cnnkit.config_fields import Option
from cnnkit.errors import CnnkitError, RunError, near_names
from cnnkit.run_folder import MODEL, RunFolder, names_imagenet

RANDOM = "random"
# File of a classifier that `cnnkit transfer --save` wrote.
_PIPELINE = "pipeline.skops"


class Number:
    """A finite number within a range.

    Args:
        minimum: Smallest accepted number, or None.
        maximum: Largest accepted number, or None.
        above: Number that the value must exceed, or None.
        below: Number that the value must stay below, or None.

    Example:
        >>> Number(minimum=0, below=1)("0.5")
        0.5
    """

    what = "a finite number"
    kind: type = float

    def __init__(
        self,
        *,
        minimum: float | None = None,
        maximum: float | None = None,
        above: float | None = None,
        below: float | None = None,
    ) -> None:
        self.range = Option("", minimum=minimum, maximum=maximum, above=above, below=below)

    def __repr__(self) -> str:
        return f"{self.what} {self.range.range}".rstrip()

    def __call__(self, text: str) -> Any:
        """Return the number that a text holds."""
        try:
            number = self.kind(text)
        except ValueError:
            number = None
        if number is None or not self.range.accepts(number):
            range_ = f" of {self.range.range}" if self.range.range else ""
            raise argparse.ArgumentTypeError(f"must be {self.what}{range_}, received {text}")
        return number


class Whole(Number):
    """A whole number within a range.

    Example:
        >>> Whole(minimum=1)("32")
        32
    """

    what = "a whole number"
    kind = int


class WholeNumbers:
    """Whole numbers with commas between them, such as "256,384", each within a range."""

    def __init__(self, **bounds: float | None) -> None:
        self.number = Whole(**bounds)

    def __repr__(self) -> str:
        return f"whole numbers with commas {self.number.range.range}".rstrip()

    def __call__(self, text: str) -> tuple[int, ...]:
        """Return the numbers that a text holds."""
        try:
            return tuple(self.number(part) for part in text.split(","))
        except argparse.ArgumentTypeError:
            range_ = self.number.range.range
            raise argparse.ArgumentTypeError(
                "must be whole numbers with commas"
                f"{f', each of {range_}' if range_ else ''}, received {text}"
            ) from None


class DatasetSpec:
    """The name of a dataset, whose folder must exist; the dataset is not read.

    Args:
        voc: Whether `voc:PATH` is one of them.
    """

    def __init__(self, *, voc: bool = False) -> None:
        self.known = (*DATASET_SPECS, VOC_SPEC) if voc else DATASET_SPECS

    def __repr__(self) -> str:
        return f"one of {', '.join(self.known)}"

    def __call__(self, text: str) -> str:
        """Return the name as it is."""
        _checked(lambda: check_dataset_spec(text, self.known))
        return text


class OutputFile:
    """A file to write: it need not exist, and its folder is one that can be written.

    Args:
        *suffixes: Endings of the names, such as ".png"; none for any name.
    """

    def __init__(self, *suffixes: str) -> None:
        self.suffixes = suffixes

    def __repr__(self) -> str:
        return f"a file to write {' '.join(self.suffixes)}".rstrip()

    def __call__(self, text: str) -> str:
        """Return the path as it is."""
        if self.suffixes and Path(text).suffix.lower() not in self.suffixes:
            names = " or ".join(f"NAME{suffix}" for suffix in self.suffixes)
            raise argparse.ArgumentTypeError(f"must be {names}, received {text}")
        if Path(text).is_dir():
            raise argparse.ArgumentTypeError(f"must be a file, received the folder {text}")
        _check_writable(text, Path(text).parent)
        return text


COUNT = Whole(minimum=1)
# Of units, images and processes, counted from 0.
INDEX = Whole(minimum=0)
SEED = Whole(minimum=0, maximum=2**32 - 1)
LEVEL = Number(minimum=0, maximum=255)
SECONDS = Number(above=0)


def output_folder(text: str) -> str:
    """Return the path of a folder to write, which need not exist.

    Raises:
        argparse.ArgumentTypeError: If it is a file, or no folder can be created there.
    """
    if Path(text).exists() and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"must be a folder, received the file {text}")
    _check_writable(text, Path(text))
    return text


def new_folder(text: str) -> str:
    """Return the path of a folder to write, where nothing is yet.

    Raises:
        argparse.ArgumentTypeError: If something is there, or no folder can be created there.
    """
    if os.path.lexists(text):
        raise argparse.ArgumentTypeError(f"must be a new folder, received {text}, which exists")
    return output_folder(text)


def _check_writable(text: str, folder: Path) -> None:
    """Check that a folder can be written, or created in the nearest one above it that exists."""
    folder = folder.absolute()
    above = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
    if not above.is_dir():
        raise argparse.ArgumentTypeError(
            f"must be in a folder, received {text}, where {above.name} is no folder"
        )
    try:
        with staging_folder(above):
            pass
    except RunError as error:
        raise argparse.ArgumentTypeError(
            f"must be in a folder that can be written, received {text}: {error.received}"
        ) from error


def input_file(text: str) -> str:
    """Return the path of a file.

    Raises:
        argparse.ArgumentTypeError: If there is no such file, or it is no regular one.
    """
    path = Path(text)
    if not path.is_file():
        if path.is_dir():
            raise argparse.ArgumentTypeError(f"must be a file, received the folder {text}")
        kind = "a regular file" if path.exists() else "an existing file"
        raise argparse.ArgumentTypeError(f"must be {kind}, received {text}")
    _check_readable(path)
    return text


def input_folder(text: str) -> str:
    """Return the path of a folder.

    Raises:
        argparse.ArgumentTypeError: If there is no such folder.
    """
    if not Path(text).is_dir():
        what = f"the file {text}" if Path(text).exists() else text
        raise argparse.ArgumentTypeError(f"must be an existing folder, received {what}")
    return text


def image_file(text: str) -> str:
    """Return the path of an image file; its size is checked, but it is not decoded.

    Raises:
        argparse.ArgumentTypeError: If there is no such file, it is no image, or it is too large.
    """
    path = Path(text)
    if path.is_dir():
        kind = "the run folder" if RunFolder(path).exists() else "the folder"
        raise argparse.ArgumentTypeError(f"must be an image file, received {kind} {text}")
    if not path.exists() and _names_dataset(text):
        raise argparse.ArgumentTypeError(f"must be an image file, received the dataset {text}")
    if not path.exists():
        raise argparse.ArgumentTypeError(f"must be an existing image file, received {text}")
    input_file(text)
    if not is_image(path):
        raise argparse.ArgumentTypeError(
            f"must be an image file (JPEG, PNG, GIF, BMP or WebP), received {text}"
        )
    _checked(lambda: check_image_file(path))
    return text


def is_image(path: Path) -> bool:
    """Return whether a file begins as image files do."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            return file.read(max(map(len, IMAGE_STARTS))).startswith(IMAGE_STARTS)
    except OSError:
        return False


def network_path(text: str) -> str:
    """Return the path of a run folder, a model or a weights file, or the word for new weights.

    Raises:
        argparse.ArgumentTypeError: If there is no such file or folder, or it is something else.
    """
    return text if text in (RANDOM, IMAGENET) else network_file(text)


def classifier_path(text: str) -> str:
    """Return the path of a network as `network_path`, or of a folder of `cnnkit export`.

    Raises:
        argparse.ArgumentTypeError: If there is no such file or folder, or it is something else.
    """
    if is_exported(Path(text)):
        return text
    if Path(text, _PIPELINE).is_file():
        raise argparse.ArgumentTypeError(
            f"must be a network, received the classifier of features {text}. Classify with:"
            f" cnnkit transfer predict {text} IMAGE"
        )
    return network_path(text)


def pretrained_network(text: str) -> str:
    """Return the path of trained weights, checked as by `network_file`, or the word `imagenet`."""
    return text if names_imagenet(text) else network_file(text)


def network_file(text: str) -> str:
    """Return the path of a run folder, a model or a weights file.

    Raises:
        argparse.ArgumentTypeError: If there is no such file or folder, or it is something else.
    """
    path = Path(text)
    if not path.exists():
        received = f"the dataset {text}" if _names_dataset(text) else text
        raise argparse.ArgumentTypeError(
            f"must be an existing run folder, model or weights file, received {received}"
        )
    if path.is_file() and is_image(path):
        raise argparse.ArgumentTypeError(
            f"must be a run folder, a model or a weights file, received the image {text}"
        )
    if path.is_dir():
        return text if (path / MODEL).is_file() else run_folder(text)
    input_file(text)
    if what := why_no_weights(path):
        raise argparse.ArgumentTypeError(
            f"must be a run folder, a model or a weights file, received the {what} file {text}"
        )
    return text


def run_folder(text: str) -> str:
    """Return the path of a run folder, or of a folder of several stages.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    path = Path(text)
    if not (RunFolder(path).exists() or (path / STAGES_FILE).is_file()):
        raise argparse.ArgumentTypeError(
            f"must be a folder that `cnnkit train` wrote. No run folder {text}"
        )
    return text


def network_name(text: str) -> str:
    """Return the name of a network that `cnnkit models` lists.

    Raises:
        argparse.ArgumentTypeError: If there is none of this name.
    """
    # A program may have added builders of its own.
    registry = sys.modules.get("cnnkit.models.registry")
    known: Iterable[str] = PAPERS if registry is None else registry.BUILDERS
    if text not in known:
        raise argparse.ArgumentTypeError(not_one_of(text, known))
    return text


def network_names(text: str) -> str:
    """Return the names of networks with commas between them, each one that is known."""
    for name in text.split(","):
        network_name(name)
    return text


def not_one_of(value: object, known: Iterable[object]) -> str:
    """Return the end of the error for a value that is none of some names, nearest first."""
    names = list(map(str, known))
    near = near_names(value, names)
    question = f". Did you mean {' or '.join(near)}?" if near else ""
    return f"must be one of {', '.join(names)}, received {value}{question}"


def _names_dataset(text: str) -> bool:
    kinds = {spec.partition(":")[0] for spec in (*DATASET_SPECS, VOC_SPEC)}
    kind, colon, _ = text.partition(":")
    return kind in kinds and (bool(colon) or text in DATASET_SPECS)


def _check_readable(path: Path) -> None:
    if not os.access(path, os.R_OK):
        raise argparse.ArgumentTypeError(f"must be a file that may be read, received {path}")


def _checked(check: Callable[[], object]) -> None:
    """Run a check, and raise its error as one of argparse's."""
    try:
        check()
    except CnnkitError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


FILE_TYPES: Sequence[Any] = (
    input_file, image_file, classifier_path, network_path, pretrained_network, network_file
)  # fmt: skip
FOLDER_TYPES: Sequence[Any] = (input_folder, output_folder, new_folder, run_folder)
