"""From a network in memory to a version of a model folder."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import keras
import tensorflow as tf

from cnnkit._files import flush_folder, write_error
from cnnkit.data import Augmentation
from cnnkit.errors import RunError, UsageError
from cnnkit.export.classifier import ServedClassifier, prepare_classifier
from cnnkit.export.compare_outputs import compare_outputs
from cnnkit.export.graph_checks import ImageLimits
from cnnkit.export.isolated_model import NotLoaded, run_isolated
from cnnkit.export.model_card import Origin, describe_preprocessing, write_assets, write_card
from cnnkit.export.reference_outputs import ReferenceOutputs, reference_outputs
from cnnkit.export.signatures import ExportedModule, default_explain_layer, select_signatures
from cnnkit.export.warmup import check_record_count, write_warmup_records


def check_version_free(output: Path, version: int | None) -> None:
    """Makes sure that a version can appear in a model folder.

    Raises:
        UsageError: If the folder is a file, or the version is no number of one or exists.
    """
    if output.exists() and not output.is_dir():
        raise UsageError("The model folder is a file", expected="a folder", received=output)
    if version is not None and version < 1:
        raise UsageError("A version is a number", expected="1 or more", received=version)
    if version is not None and (output / str(version)).exists():
        raise _exists(output, version)


@contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """Yields a new folder beside the versions of a model folder, which is gone after the block.

    Raises:
        RunError: If something in the block cannot be written, for example because the disk is full.
    """
    existed = output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
        # Servers look only at folders whose name is a number. The name is a new one each time, so
        # that two exports do not write into each other's.
        aside = Path(tempfile.mkdtemp(prefix=".writing-", dir=output))
    except OSError as error:
        raise write_error(output, error) from error
    try:
        yield aside
    except OSError as error:
        raise write_error(output, error) from error
    except tf.errors.OpError as error:
        # TensorFlow has a class of its own for each reason, and its text names its operation first.
        raise RunError(
            f"{output} could not be written",
            received=error.message.splitlines()[0].rpartition(";")[2],
            hint="Make room there; what was written before is whole",
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if not existed:
            # Only where nothing has appeared in it.
            with suppress(OSError):
                output.rmdir()


def publish_version(saved: Path, output: Path, version: int | None) -> Path:
    """Flushes a finished folder to disk and renames it to a version, by default the next.

    Raises:
        UsageError: If the version has appeared meanwhile.
    """
    for file in saved.rglob("*"):
        if file.is_file():
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
        else:
            flush_folder(file)
    while True:
        number = version or _next(output)
        target = output / str(number)
        try:
            saved.rename(target)
        except OSError as error:
            if not target.exists():
                raise
            if version is not None:
                raise _exists(output, version) from error
            # Another export was first with this number: the next one is free.
            continue
        flush_folder(output)
        return target


def _next(output: Path) -> int:
    names = [path.name for path in output.iterdir()]
    return 1 + max((int(name) for name in names if name.isascii() and name.isdecimal()), default=0)


def _exists(output: Path, version: int) -> UsageError:
    return UsageError(
        f"Version {version} exists in {output}",
        hint="Take another --version, or leave it out for the next one",
    )


TOP = 5
# The files of the weights may be this much larger than the weights.
LARGEST_SHARE = 1.05
# Names and places of the weights in their files.
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
    origin: Origin | None = None,
) -> Path:
    """Writes a version of a model folder, `output/<integer>/`.

    The version is written aside, loaded again in a process without Keras, compared with the model
    in memory on photographs, and renamed into place: a server that watches the folder never finds
    half of it. Every weight is stored once. Signatures, all guarded against inputs of another
    shape, of another format and of too many pixels:

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
    | `explain_bytes_L`  | `image_bytes`                            | layer L's strongest unit:   |
    |                    |                                          | `projection`, `image`,      |
    |                    |                                          | `unit`, `activation` (n,),  |
    |                    |                                          | `position` (n, 2)           |

    Features are what the logits are made of, `fc7` or VGG's `fc2`, divided by their length. A
    projection is what in the image made the unit fire (Zeiler & Fergus 2013, section 2.1).

    Args:
        model: A classifier over square images of a fixed size.
        labels: Names of the classes; stored as `assets/labels.txt`.
        output: The model folder; its name is the model's name on the server.
        version: Number of the version; None is the next one.
        signatures: Which of the first six, beside `serving_default`, which is always there; None
            is all that the model allows.
        top: Classes that `classify_bytes` answers, at most all.
        explain_layers: The layers L.
        features_layer: A layer in place of the one before the logits.
        dtype: `"float32"` or `"bfloat16"`: half the bytes, and faster on processors that know it.
        fully_convolutional: Whether `images` may be larger than the model's: the dense layers
            become convolutions, `probabilities` and features are means over the positions, and
            `probability_map` (n, rows, columns, classes) is answered too.
        augmentation: How encoded images become the model's, as in evaluation; None takes the
            center after the shorter side is rescaled to the model's.
        warmup: Requests to each signature that a server sends itself while it loads the version.
        limits: What is refused; None is `Limits()`.
        origin: Where the model comes from, for the model card.

    Returns:
        The folder of the new version.

    Raises:
        UsageError: If the labels do not fit the model, the model does not allow what is asked for,
            `output` is a file, or the version exists.
        RunError: If the exported model answers otherwise than the one in memory, or it cannot be
            written.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.export import export
        >>> model = alexnet(input_shape=(64, 64, 3), classes=2)
        >>> export(model, ["cat", "dog"], "/tmp/pets")  # doctest: +SKIP
        PosixPath('/tmp/pets/1')
    """
    output, limits = Path(output), limits or ImageLimits()
    check_version_free(output, version)
    classes = model.output_shape[-1]
    if classes != len(labels):
        raise UsageError(
            "The labels do not fit the model",
            expected=f"{classes} labels",
            received=len(labels),
        )
    if top < 1:
        raise UsageError("A classification has classes", expected="top of 1 or more", received=top)
    network = prepare_classifier(
        model, dtype=dtype, fully_convolutional=fully_convolutional, features=features_layer
    )
    augmentation = _center(network, augmentation)
    names = select_signatures(network, signatures)
    top = min(top, len(labels))
    every = [*names, *map(default_explain_layer, explain_layers)]
    check_record_count(warmup, every)
    expected = reference_outputs(network, labels, augmentation, names, explain_layers, top)
    facts = describe_preprocessing(network, augmentation, limits)
    with staging_folder(output) as aside:
        assets = write_assets(aside, labels, facts)
        servable = ExportedModule(
            network, labels, augmentation, names, explain_layers, top, limits, assets
        )
        saved = aside / "model"
        tf.saved_model.save(servable, str(saved), signatures=dict(servable.endpoints))
        expected.write(saved)
        write_warmup_records(saved, output.name, every, warmup, expected)
        write_card(saved, output.name, network, labels, facts, servable, origin or Origin())
        _check_size(network, saved)
        _check_answers(network, saved, expected)
        return publish_version(saved, output, version)


def _center(network: ServedClassifier, augmentation: Augmentation | None) -> Augmentation:
    if augmentation is None:
        return Augmentation(network.side)
    if augmentation.image_size != network.side:
        raise UsageError(
            "Encoded images become what the network takes",
            expected=f"{network.side} pixels",
            received=augmentation.image_size,
        )
    # Nothing of a served network is drawn by chance.
    return dataclasses.replace(augmentation, crop="center", flip=False, color=None)


def _check_size(network: ServedClassifier, saved: Path) -> None:
    stored = sum(file.stat().st_size for file in (saved / "variables").iterdir())
    if stored > LARGEST_SHARE * network.weight_bytes + TABLE_BYTES:
        raise RunError(
            "The exported model is larger than its weights",
            expected=f"{network.weight_bytes} bytes",
            received=stored,
        )


def _check_answers(network: ServedClassifier, saved: Path, expected: ReferenceOutputs) -> None:
    """Loads the export in a process without Keras, and compares what it answers."""
    try:
        replies = run_isolated(saved, expected.questions())
    except NotLoaded as error:
        raise RunError("The exported model cannot be loaded again", received=error) from error
    for (name, outputs), reply in zip(expected.answers.items(), replies, strict=True):
        if reply.code != "OK":
            raise RunError(
                f"The exported signature {name} does not answer",
                received=f"{reply.code or 'the end of its process'}: {reply.text}",
            )
        found = compare_outputs(outputs, reply.outputs, network.dtype)
        if not found.near:
            raise RunError(
                f"The exported signature {name} answers otherwise than the model",
                received=found.text,
            )
