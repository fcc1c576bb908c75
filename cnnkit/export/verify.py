"""Verify that a version of a model folder is safe to serve."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from cnnkit._export_formats import LABELS, PREPROCESSING
from cnnkit._files import read_lines
from cnnkit._progress import Progress, no_progress
from cnnkit._untrusted.json_documents import JsonFields, read_json
from cnnkit.errors import DataError, RunError
from cnnkit.export.classifier import DTYPES
from cnnkit.export.compare_outputs import OTHER_PROCESSOR, compare_outputs
from cnnkit.export.export import MAX_SIZE_RATIO, TABLE_BYTES
from cnnkit.export.invalid_inputs import (
    equal_pictures,
    hostile_tensors,
    invalid_arrays,
    invalid_images,
)
from cnnkit.export.isolated_model import ModelLoadError, Request, Response, run_isolated
from cnnkit.export.reference_outputs import ReferenceOutputs
from cnnkit.export.signatures import DEFAULT
from cnnkit.export.warmup import read_warmup_records
from cnnkit.server import ServerLimits
from cnnkit.server.predict import read_inputs, read_outline
from cnnkit.server.servable import read_signature_definitions
from cnnkit.server.status_error import StatusError
from cnnkit.server.version_folders import check_version, newest_version
from cnnkit.server.warmup import MAX_WARMUP_RECORDS
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.tensors import decode_tensor

# TensorFlow stores the initialization of a model as a signature of this name, which clients cannot
# call.
PICTURES, INTERNAL = "serving_bytes", "__saved_model_init_op"


@dataclass(frozen=True)
class Check:
    """One check of a version.

    Attributes:
        name: Name of the check.
        passed: Whether it passed; None if there was nothing to check.
        detail: What was found.
    """

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class Verification:
    """The checks of a version.

    Attributes:
        folder: The version folder.
        checks: All checks, in order.
    """

    folder: Path
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.passed is not False for check in self.checks)


@dataclass(frozen=True)
class _Input:
    """Type and shape of a signature's input; a size of -1 is any size, None any number of axes."""

    dtype: int
    shape: tuple[int, ...] | None


def verify_export(folder: str | Path, *, progress: Progress | None = None) -> Verification:
    """Checks a version as a server and its clients would use it, and tries to crash it.

    Requests run in subprocesses without Keras; a request that crashes one of them would also crash
    a model server. The checks cover: signatures and their shapes, the outputs for the stored
    reference images, the refusal of inputs of wrong rank or shape, of pixels such as NaN, and of
    broken or too large images, the answers to palettes, transparency and EXIF orientation, the
    refusal of requests that claim more than they carry, the warm-up
    records, and the size of the files of weights.

    Args:
        folder: A version folder, or a model folder, whose newest version is checked.
        progress: Called with the number of requests, as `export` does; None for none.

    Returns:
        The checks. A failed check raises no error.

    Raises:
        UsageError: If `folder` holds no SavedModel, or links to files outside of it.

    Example:
        >>> from cnnkit.export import verify_export
        >>> verify_export("models/digits").passed  # doctest: +SKIP
        True
    """
    folder = newest_version(Path(folder))
    check_version(folder)
    try:
        signatures, shown = _read_signatures(folder)
    except (DecodeError, RunError) as error:
        return Verification(folder, (Check("SavedModel", False, f"cannot be read: {error}"),))
    checks = [_check_default(signatures), *shown, _check_labels(folder), _check_weights(folder)]
    checks += _check_hostile(folder, signatures)
    references = ReferenceOutputs.read(folder)
    preprocessing = _read_preprocessing(folder)
    invalid = list(_invalid_requests(signatures, preprocessing))
    pictures = list(_picture_requests(signatures, preprocessing))
    warmup, warmup_error = _read_warmup(folder, signatures)
    requests = [
        *([] if references is None else references.requests()),
        *(request for _, request in invalid),
        *(request for _, request in pictures),
        *warmup,
    ]
    try:
        responses = iter(
            run_isolated(folder, requests, skip_after_crash=True, progress=progress or no_progress)
        )
    except ModelLoadError as error:
        return Verification(folder, (*checks, Check("loading", False, str(error))))
    checks.append(Check("loading", True, "in a process without Keras"))
    checks += _check_outputs(references, preprocessing, responses)
    checks += _check_refusals(invalid, responses)
    checks += _check_pictures(pictures, preprocessing.get("dtype", DTYPES[0]), responses)
    checks.append(warmup_error or _check_warmup(warmup, responses))
    return Verification(folder, tuple(checks))


def _read_signatures(folder: Path) -> tuple[dict[str, dict[str, _Input]], list[Check]]:
    """Returns the inputs by signature, and a check that describes each signature."""
    definitions = read_signature_definitions(folder).signature_def
    found, checks = {}, []
    for name, signature in sorted(definitions.items()):
        if name == INTERNAL:
            continue
        found[name] = {key: _input(info) for key, info in signature.inputs.items()}
        inputs, outputs = (
            ", ".join(f"{key} {_describe(info)}" for key, info in sorted(infos.items()))
            for infos in (signature.inputs, signature.outputs)
        )
        checks.append(Check(f"signature {name}", True, f"{inputs} -> {outputs}"))
    return found, checks


def _input(info: pb.TensorInfo) -> _Input:
    shape = info.tensor_shape
    return _Input(info.dtype, None if shape.unknown_rank else tuple(dim.size for dim in shape.dim))


def _describe(info: pb.TensorInfo) -> str:
    sides = _input(info).shape
    name = tf.dtypes.as_dtype(info.dtype).name
    if sides is None:
        return f"{name} of any shape"
    return f"{name} ({', '.join('any' if side == -1 else str(side) for side in sides)})"


def _check_default(signatures: Mapping[str, object]) -> Check:
    found = DEFAULT in signatures
    return Check("default signature", found, f"{DEFAULT} is {'present' if found else 'missing'}")


def _check_labels(folder: Path) -> Check:
    file = folder / "assets" / LABELS
    if not file.is_file():
        return Check("labels", None, "none are stored")
    try:
        return Check("labels", True, f"{len(read_lines(file))} classes")
    except DataError as error:
        return Check("labels", False, str(error))


def _check_weights(folder: Path) -> Check:
    try:
        reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        needed = 0
        for name, shape in reader.get_variable_to_shape_map().items():
            dtype = reader.get_variable_to_dtype_map()[name]
            needed += 0 if dtype == tf.string else int(np.prod(shape)) * dtype.size
        stored = sum(file.stat().st_size for file in (folder / "variables").iterdir())
    except (tf.errors.OpError, ValueError, OSError) as error:
        return Check("weights", False, f"cannot be read: {type(error).__name__}")
    fits = stored <= MAX_SIZE_RATIO * needed + TABLE_BYTES
    return Check("weights", fits, f"{needed:,} bytes of weights in files of {stored:,}")


def _read_preprocessing(folder: Path) -> Mapping[str, Any]:
    file = folder / "assets" / PREPROCESSING
    try:
        facts = JsonFields(read_json(file), file)
        facts.text("dtype", default="")
        if "limits" in facts:
            facts.fields("limits").integer("pixels", default=None)
        return facts.document
    except DataError:
        return {}


def _invalid_requests(
    signatures: Mapping[str, Mapping[str, _Input]], preprocessing: Mapping[str, Any]
) -> Iterator[tuple[str, Request]]:
    """Yields a description and a request, for signatures that take one tensor."""
    pixels = preprocessing.get("limits", {}).get("pixels")
    for name, inputs in signatures.items():
        if len(inputs) != 1:
            continue
        [(key, given)] = inputs.items()
        if given.shape is None:
            continue
        if given.dtype == tf.string.as_datatype_enum:
            invalid = invalid_images(pixels)
        elif given.dtype == tf.float32.as_datatype_enum:
            invalid = invalid_arrays(given.shape)
        else:
            continue
        for description, values in invalid:
            yield description, Request(name, {key: values})


def _check_hostile(folder: Path, signatures: Iterable[str]) -> Iterator[Check]:
    """Yields a check of each signature: whether a server of cnnkit refuses hostile requests."""
    limits = ServerLimits()
    definitions = read_signature_definitions(folder).signature_def
    for name in signatures:
        expected = definitions[name].inputs
        if len(expected) != 1:
            continue
        [(key, info)] = expected.items()
        refused, accepted, begun = 0, None, time.perf_counter()
        for description, tensor in hostile_tensors(info.dtype):
            try:
                read_inputs(
                    read_outline(pb.PredictRequest(inputs={key: tensor}).SerializeToString()),
                    expected,
                    max_tensor_bytes=limits.max_request_bytes,
                    max_rows=limits.max_request_rows,
                )
            except StatusError:
                refused += 1
            else:
                accepted = accepted or f"{description}: is accepted"
        took = 1e3 * (time.perf_counter() - begun)
        detail = accepted or (
            f"{refused} hostile requests refused in {took:.0f} ms by `cnnkit serve`; TensorFlow "
            "Serving does not survive them: serving/README.md"
        )
        yield Check(f"requests to {name}", accepted is None, detail)


def _read_warmup(
    folder: Path, signatures: Mapping[str, object]
) -> tuple[list[Request], Check | None]:
    """Returns the warm-up requests, or none and a failed check if one of them is invalid."""
    requests = []
    try:
        for record in read_warmup_records(folder):
            name = record.model_spec.signature_name or DEFAULT
            if name not in signatures:
                return [], Check("warm-up", False, f"a record is for the signature {name!r}")
            inputs = {key: decode_tensor(value) for key, value in record.inputs.items()}
            if any(array.shape[:1] != (1,) for array in inputs.values()):
                return [], Check("warm-up", False, f"a record for {name} is not a batch of one")
            requests.append(Request(name, inputs))
    except ValueError as error:
        return [], Check("warm-up", False, str(error))
    if len(requests) > MAX_WARMUP_RECORDS:
        return [], Check(
            "warm-up", False, f"{len(requests)} records, a server takes {MAX_WARMUP_RECORDS}"
        )
    return requests, None


def _check_outputs(
    references: ReferenceOutputs | None,
    preprocessing: Mapping[str, Any],
    responses: Iterator[Response],
) -> Iterator[Check]:
    if references is None:
        yield Check("answers", None, "no reference answers are stored")
        return
    dtype = preprocessing.get("dtype", DTYPES[0])
    for name, expected in references.outputs.items():
        response = next(responses)
        if response.code != "OK":
            yield Check(f"answers of {name}", False, _describe_failure(response))
            continue
        found = compare_outputs(expected, response.outputs, dtype, OTHER_PROCESSOR)
        yield Check(f"answers of {name}", found.is_close, found.detail)


def _check_refusals(
    invalid: list[tuple[str, Request]], responses: Iterator[Response]
) -> Iterator[Check]:
    """Yields a check of each signature: the worst input that was not refused, or their number."""
    by_signature: dict[str, list[tuple[str, Response]]] = {}
    for description, request in invalid:
        by_signature.setdefault(request.signature, []).append((description, next(responses)))
    for name, tried in by_signature.items():
        failed = [pair for pair in tried if pair[1].code != "INVALID_ARGUMENT"]
        # Crashes of a server first.
        failed.sort(key=lambda pair: pair[1].code is not None)
        if failed:
            description, response = failed[0]
            detail = f"{description}: {_describe_failure(response)}"
            yield Check(f"guards of {name}", False, detail)
        else:
            yield Check(f"guards of {name}", True, f"{len(tried)} wrong inputs refused")


def _picture_requests(
    signatures: Mapping[str, Mapping[str, _Input]], preprocessing: Mapping[str, Any]
) -> Iterator[tuple[str, Request]]:
    """Yields a description and a request of two files of the same picture."""
    if preprocessing and PICTURES in signatures:
        for description, files in equal_pictures(preprocessing):
            given = dict.fromkeys(signatures[PICTURES], files)
            yield description, Request(PICTURES, given, keep_outputs=True)


def _check_pictures(
    pictures: list[tuple[str, Request]], dtype: str, responses: Iterator[Response]
) -> Iterator[Check]:
    """Yields a check of each special file: whether it is answered as a PNG file of its pixels."""
    for (description, _), response in zip(pictures, responses, strict=False):
        if response.code != "OK":
            yield Check(description, False, _describe_failure(response))
            continue
        special, plain = ({k: v[[row]] for k, v in response.outputs.items()} for row in range(2))
        same = compare_outputs(plain, special, dtype, OTHER_PROCESSOR).is_close
        yield Check(description, same, "its pixels" if same else "other pixels: export again")


def _check_warmup(requests: list[Request], responses: Iterator[Response]) -> Check:
    if not requests:
        return Check("warm-up", None, "no records")
    for request in requests:
        response = next(responses)
        if response.code != "OK":
            detail = f"a record for {request.signature}: {_describe_failure(response)}"
            return Check("warm-up", False, detail)
    return Check("warm-up", True, f"{len(requests)} records of batch 1 answered")


def _describe_failure(response: Response) -> str:
    if response.code is None:
        return f"crashes the server: {response.details}"
    if response.code == "OK":
        return "is accepted"
    lines = [line.strip() for line in response.details.splitlines() if line.strip()]
    return f"{response.code}, {lines[0] if lines else 'no text'}"
