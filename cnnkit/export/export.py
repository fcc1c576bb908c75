"""Export a model to a version folder that a server can load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import keras
import tensorflow as tf

from cnnkit._file_tree import check_version_free, version_exists
from cnnkit._progress import Progress, no_progress
from cnnkit._staging import flush_files, flush_folder, staging_folder, write_errors
from cnnkit.data import Augmentation, Decoding
from cnnkit.errors import RunError, UsageError
from cnnkit.export.classifier import (
    ServedClassifier,
    center_crop,
    check_label_count,
    prepare_classifier,
)
from cnnkit.export.compare_outputs import compare_outputs
from cnnkit.export.image_header import ImageLimits
from cnnkit.export.isolated_model import ModelLoadError, run_isolated
from cnnkit.export.model_card import Origin, describe_preprocessing, write_assets, write_card
from cnnkit.export.reference_outputs import ReferenceOutputs, reference_outputs
from cnnkit.export.signatures import ExportedModule, explain_signature_name, select_signatures
from cnnkit.export.warmup import check_record_count, write_warmup_records


@contextmanager
def _staged_version(output: Path) -> Iterator[Path]:
    """Yields a new folder inside a model folder and removes it after the block.

    Servers load only folders whose name is a number.

    Raises:
        RunError: If the block cannot write a file, for example because the disk is full.
    """
    existed = output.exists()
    with write_errors(output):
        output.mkdir(parents=True, exist_ok=True)
    try:
        with staging_folder(output) as staging:
            yield staging
    except tf.errors.OpError as error:
        # The text of TensorFlow's errors begins with the name of the operation.
        raise RunError(
            f"{output} could not be written",
            received=error.message.splitlines()[0].rpartition(";")[2],
            hint="Make room there; what was written before is whole",
        ) from error
    finally:
        if not existed:
            # Fails if another export has added a version.
            with suppress(OSError):
                output.rmdir()


def publish_version(saved: Path, output: Path, version: int | None) -> Path:
    """Flushes a finished folder to disk and renames it to a version, by default the next one.

    Args:
        saved: The finished folder, on the same disk as `output`.
        output: The model folder.
        version: Number of the version; None for the next one.

    Returns:
        The version folder.

    Raises:
        UsageError: If another process has written the version in the meantime.
    """
    flush_files(saved)
    while True:
        number = version or _next_version(output)
        target = output / str(number)
        try:
            saved.rename(target)
        except OSError as error:
            if not target.exists():
                raise
            if version is not None:
                raise version_exists(output, version) from error
            # Another export has taken this number: try the next one.
            continue
        flush_folder(output)
        return target


def _next_version(output: Path) -> int:
    names = [path.name for path in output.iterdir()]
    return 1 + max((int(name) for name in names if name.isascii() and name.isdecimal()), default=0)


TOP = 5
# Largest size of the files of weights, as a multiple of the weights: each is stored once.
MAX_SIZE_RATIO = 1.05
# Bytes of the table of names and offsets in these files.
TABLE_BYTES = 64 << 10


def export(
    model: keras.Model,
    labels: Sequence[str],
    output: str | Path,
    *,
    version: int | None = None,
    signatures: Sequence[str] | None = None,
    top: int = TOP,
    explain_layers: Sequence[str] = (),
    features_layer: str | None = None,
    dtype: str = "float32",
    fully_convolutional: bool = False,
    augmentation: Augmentation | None = None,
    warmup: int = 1,
    limits: ImageLimits | None = None,
    decoding: Decoding | None = None,
    origin: Origin | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes a version of a model folder, `output/<integer>/`.

    The version is written to a temporary folder, loaded in a process without Keras, compared with
    the model in memory on photographs, and renamed into place: a server that watches the folder
    never finds an incomplete version. Every weight is stored once. All signatures refuse inputs of
    another shape, of another format and of too many pixels:

    | signature          | input                                    | outputs                     |
    |--------------------|------------------------------------------|-----------------------------|
    | `serving_default`  | `images` float32 (n, h, w, 3) RGB 0..255 | `probabilities` (n, classes)|
    | `serving_bytes`    | `image_bytes` string (n,), encoded files | `probabilities` (n, classes)|
    | `classify_bytes`   | `image_bytes`                            | `labels`, `scores` (n, top) |
    | `features`         | `images`                                 | `features` (n, units)       |
    | `features_bytes`   | `image_bytes`                            | `features` (n, units)       |
    | `explain_bytes`    | `image_bytes`                            | the winning class: `labels`,|
    |                    |                                          | `scores` (n,), its deconvnet|
    |                    |                                          | `projection` (n, h, w, 3),  |
    |                    |                                          | and the `image` that the    |
    |                    |                                          | network saw, uint8          |
    | `localize_bytes`   | `image_bytes`                            | `labels`, `scores` (n, top),|
    |                    |                                          | and the `boxes` (n, top, 4) |
    |                    |                                          | of a network with boxes:    |
    |                    |                                          | left, top, right and bottom |
    |                    |                                          | in pixels of the image sent |
    | `explain_bytes_L`  | `image_bytes`                            | layer L's strongest unit:   |
    |                    |                                          | `projection`, `image`,      |
    |                    |                                          | `unit`, `activation` (n,),  |
    |                    |                                          | `position` (n, 2)           |

    Features are the inputs of the logits, `fc7` or VGG's `fc2`, divided by their length. A
    projection shows the pixels that made the unit fire (Zeiler & Fergus 2013, section 2.1).

    Args:
        model: A classifier of square images of a fixed size.
        labels: Names of the classes; stored as `assets/labels.txt`.
        output: The model folder; its name is the model's name on the server.
        version: Number of the version; None for the next one.
        signatures: Names out of the first seven; `serving_default` is always added. None for all
            that the model can have.
        top: Number of classes that `classify_bytes` and `localize_bytes` return, at most all.
        explain_layers: Layers L that have a signature `explain_bytes_L`.
        features_layer: Layer of the features; None for the one before the logits.
        dtype: `"float32"` or `"bfloat16"`: half the bytes, and faster on processors that support
            it.
        fully_convolutional: Whether `images` may be larger than the model's: the dense layers
            become convolutions, `probabilities` and features are means over the positions, and
            `serving_default` also returns `probability_map` (n, rows, columns, classes).
        augmentation: Rescaling and crop of encoded images, as in evaluation; None rescales the
            shorter side to the model's image size and takes the center.
        warmup: Number of requests to each signature that a server runs while it loads the version.
        limits: Sizes that are refused; None for `ImageLimits()`.
        decoding: Background and EXIF orientation of encoded images, as in training; None for
            `cnnkit.data.Decoding()`.
        origin: Where the model comes from, for the model card.
        progress: Called with the number of signatures and the name of the work before the version
            is checked, which takes seconds for each; returns a context that yields a function of
            the number that are done. None for none.

    Returns:
        The folder of the new version.

    Raises:
        UsageError: If the labels do not fit the model, the model does not support an option,
            `output` is a file, or the version exists.
        RunError: If the outputs of the exported model differ from those of the model in memory, or
            a file cannot be written.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.export import export
        >>> model = alexnet(input_shape=(64, 64, 3), classes=2)
        >>> export(model, ["cat", "dog"], "/tmp/pets")  # doctest: +SKIP
        PosixPath('/tmp/pets/1')
    """
    output, limits, decoding = Path(output), limits or ImageLimits(), decoding or Decoding()
    check_version_free(output, version)
    check_label_count(model, labels)
    if top < 1:
        raise UsageError("`top` must be 1 or more", received=top)
    network = prepare_classifier(
        model,
        dtype=dtype,
        fully_convolutional=fully_convolutional,
        features_layer=features_layer,
    )
    augmentation = center_crop(network, augmentation)
    top = min(top, len(labels))
    names = [
        *select_signatures(network, signatures),
        *map(explain_signature_name, explain_layers),
    ]
    check_record_count(warmup, names)
    references = reference_outputs(network, labels, augmentation, names, top, decoding)
    preprocessing = describe_preprocessing(network, augmentation, limits, decoding)
    with _staged_version(output) as staging:
        assets = write_assets(staging, labels, preprocessing)
        module = ExportedModule(network, labels, augmentation, names, top, limits, decoding, assets)
        functions = dict(module.concrete_functions)
        saved = staging / "model"
        tf.saved_model.save(module, str(saved), signatures=functions)
        references.write(saved)
        write_warmup_records(saved, output.name, names, warmup, references)
        write_card(
            saved, output.name, network, labels, preprocessing, functions, origin or Origin()
        )
        _check_size(network, saved)
        _check_outputs(network, saved, references, progress or no_progress)
        return publish_version(saved, output, version)


def _check_size(network: ServedClassifier, saved: Path) -> None:
    stored = sum(file.stat().st_size for file in (saved / "variables").iterdir())
    if stored > MAX_SIZE_RATIO * network.weight_bytes + TABLE_BYTES:
        raise RunError(
            f"The files in {saved.name}/variables are larger than the model's weights",
            expected=f"{network.weight_bytes} bytes",
            received=stored,
        )


def _check_outputs(
    network: ServedClassifier, saved: Path, references: ReferenceOutputs, progress: Progress
) -> None:
    """Compares the outputs of the saved model, in a process without Keras, with the references."""
    try:
        responses = run_isolated(saved, references.requests(), progress=progress)
    except ModelLoadError as error:
        raise RunError(
            f"The exported model {network.model.name!r} cannot be loaded", received=error
        ) from error
    for (name, outputs), response in zip(references.outputs.items(), responses, strict=True):
        if response.code != "OK":
            raise RunError(
                f"The exported signature {name} fails",
                received=f"{response.code or 'a crash of its process'}: {response.details}",
            )
        found = compare_outputs(outputs, response.outputs, network.dtype)
        if not found.is_close:
            raise RunError(
                f"The outputs of the exported signature {name} differ from the model's",
                received=found.detail,
            )
