"""Whether a version of a model folder is what a server can be trusted with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from cnnkit.errors import UsageError
from cnnkit.export.classifier import DTYPES
from cnnkit.export.compare_outputs import ELSEWHERE, compare_outputs
from cnnkit.export.export import LARGEST_SHARE, TABLE_BYTES
from cnnkit.export.invalid_inputs import invalid_arrays, invalid_images
from cnnkit.export.isolated_model import NotLoaded, Request, Response, run_isolated
from cnnkit.export.model_card import LABELS, PREPROCESSING
from cnnkit.export.reference_outputs import ReferenceOutputs
from cnnkit.export.signatures import DEFAULT
from cnnkit.export.warmup import MAX_RECORDS, read_warmup_records
from cnnkit.wire.tensors import decode_tensor

TAG = "serve"
# Keras and TensorFlow save signatures that are no endpoints under this name.
INTERNAL = "__saved_model_init_op"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        passed: Whether it is as it should be; None where there is nothing to look at.
        detail: What was found.
    """

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class Verification:
    """What was found in a version folder.

    Attributes:
        folder: The version folder.
        checks: Everything that was looked at.
    """

    folder: Path
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(check.passed is not False for check in self.checks)


@dataclass(frozen=True)
class _Input:
    """An input of a signature: its type, and its sizes, -1 for any; None for any number of axes."""

    dtype: int
    shape: tuple[int, ...] | None


def verify_export(folder: str | Path) -> Verification:
    """Looks at a version as a server and its clients would, and tries to break it.

    The version is asked in other processes, where Keras is out of reach; a process that dies of a
    question is what a model server would have died of. Looked at: signatures and their shapes,
    what they answer to the stored reference images, whether inputs of wrong rank, wrong shape and
    broken or too large images are refused, the warm-up records, the size of the weights' files.

    Args:
        folder: A version folder, or a model folder, whose newest version is taken.

    Raises:
        UsageError: If there is no SavedModel.

    Example:
        >>> from cnnkit.export import verify_export
        >>> verify_export("models/digits").passed  # doctest: +SKIP
        True
    """
    folder = _version(Path(folder))
    try:
        signatures, shown = _signatures(folder)
    except (DecodeError, UsageError) as error:
        return Verification(folder, (Check("SavedModel", False, f"cannot be read: {error}"),))
    checks = [_has_default(signatures), *shown, _labels(folder), _weights(folder)]
    kept = ReferenceOutputs.read(folder)
    facts = _facts(folder)
    hostile = list(_hostile(signatures, facts))
    records, broken = _records(folder, signatures)
    questions = [
        *([] if kept is None else kept.questions()),
        *(question for _, question in hostile),
        *records,
    ]
    try:
        replies = iter(run_isolated(folder, questions, give_up=True))
    except NotLoaded as error:
        return Verification(folder, (*checks, Check("loading", False, str(error))))
    checks.append(Check("loading", True, "in a process without Keras"))
    checks += _parity(kept, facts, replies)
    checks += _refusals(hostile, replies)
    checks.append(broken or _warm(records, replies))
    return Verification(folder, tuple(checks))


def _version(folder: Path) -> Path:
    if (folder / "saved_model.pb").is_file():
        return folder
    if not folder.is_dir():
        raise UsageError(f"No model folder {folder}", expected="what `cnnkit export` wrote")
    versions = [path for path in folder.iterdir() if path.name.isascii() and path.name.isdecimal()]
    if not versions:
        raise UsageError(
            f"{folder} holds no version",
            expected="what `cnnkit export` wrote, such as models/digits or models/digits/1",
        )
    newest = max(versions, key=lambda path: int(path.name))
    if not (newest / "saved_model.pb").is_file():
        raise UsageError(f"{newest} holds no saved_model.pb", hint="Export it again")
    return newest


def _signatures(folder: Path) -> tuple[dict[str, dict[str, _Input]], list[Check]]:
    """Returns the inputs by signature, and a check that shows each signature."""
    model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    graphs = [graph for graph in model.meta_graphs if TAG in graph.meta_info_def.tags]
    if len(graphs) != 1:
        raise UsageError("It was not made for serving", expected=f"one graph of the tag {TAG!r}")
    found, checks = {}, []
    for name, signature in sorted(graphs[0].signature_def.items()):
        if name == INTERNAL:
            continue
        found[name] = {key: _input(info) for key, info in signature.inputs.items()}
        takes = ", ".join(f"{key} {_shape(info)}" for key, info in sorted(signature.inputs.items()))
        gives = ", ".join(
            f"{key} {_shape(info)}" for key, info in sorted(signature.outputs.items())
        )
        checks.append(Check(f"signature {name}", True, f"{takes} -> {gives}"))
    return found, checks


def _input(info) -> _Input:
    shape = info.tensor_shape
    return _Input(info.dtype, None if shape.unknown_rank else tuple(dim.size for dim in shape.dim))


def _shape(info) -> str:
    sides = _input(info).shape
    name = tf.dtypes.as_dtype(info.dtype).name
    if sides is None:
        return f"{name} of any shape"
    return f"{name} ({', '.join('any' if side == -1 else str(side) for side in sides)})"


def _has_default(signatures: Mapping[str, object]) -> Check:
    return Check(
        "default signature",
        DEFAULT in signatures,
        f"{DEFAULT} is " + ("there" if DEFAULT in signatures else "missing"),
    )


def _labels(folder: Path) -> Check:
    file = folder / "assets" / LABELS
    if not file.is_file():
        return Check("labels", None, "none are stored")
    return Check("labels", True, f"{len(file.read_text().splitlines())} classes")


def _weights(folder: Path) -> Check:
    try:
        reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        needed = 0
        for name, shape in reader.get_variable_to_shape_map().items():
            dtype = reader.get_variable_to_dtype_map()[name]
            needed += 0 if dtype == tf.string else int(np.prod(shape)) * dtype.size
        stored = sum(file.stat().st_size for file in (folder / "variables").iterdir())
    except (tf.errors.OpError, ValueError, OSError) as error:
        return Check("weights", False, f"cannot be read: {type(error).__name__}")
    fits = stored <= LARGEST_SHARE * needed + TABLE_BYTES
    return Check("weights", fits, f"{needed:,} bytes of weights in files of {stored:,}")


def _facts(folder: Path) -> Mapping:
    file = folder / "assets" / PREPROCESSING
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return {}


def _hostile(
    signatures: Mapping[str, Mapping[str, _Input]], facts: Mapping
) -> Iterator[tuple[str, Request]]:
    """Yields what is wrong, and the question, for signatures that take one tensor."""
    pixels = facts.get("limits", {}).get("pixels")
    for name, inputs in signatures.items():
        if len(inputs) != 1:
            continue
        [(key, given)] = inputs.items()
        if given.shape is None:
            continue
        if given.dtype == tf.string.as_datatype_enum:
            wrong = invalid_images(pixels)
        elif given.dtype == tf.float32.as_datatype_enum:
            wrong = invalid_arrays(given.shape)
        else:
            continue
        for what, values in wrong:
            yield what, Request(name, {key: values})


def _records(folder: Path, signatures: Mapping[str, object]) -> tuple[list[Request], Check | None]:
    """Returns the warm-up records as questions, or a check that tells what is wrong with them."""
    questions = []
    try:
        for request in read_warmup_records(folder):
            name = request.model_spec.signature_name or DEFAULT
            if name not in signatures:
                return [], Check("warm-up", False, f"a record is for the signature {name!r}")
            inputs = {key: decode_tensor(value) for key, value in request.inputs.items()}
            if any(array.shape[:1] != (1,) for array in inputs.values()):
                return [], Check("warm-up", False, f"a record for {name} is no batch of one")
            questions.append(Request(name, inputs))
    except ValueError as error:
        return [], Check("warm-up", False, str(error))
    if len(questions) > MAX_RECORDS:
        return [], Check(
            "warm-up", False, f"{len(questions)} records, a server takes {MAX_RECORDS}"
        )
    return questions, None


def _parity(
    kept: ReferenceOutputs | None, facts: Mapping, replies: Iterator[Response]
) -> Iterator[Check]:
    if kept is None:
        yield Check("answers", None, "no reference answers are stored")
        return
    dtype = facts.get("dtype", DTYPES[0])
    for name, expected in kept.answers.items():
        reply = next(replies)
        if reply.code != "OK":
            yield Check(f"answers of {name}", False, _told(reply))
            continue
        found = compare_outputs(expected, reply.outputs, dtype, ELSEWHERE)
        yield Check(f"answers of {name}", found.near, found.text)


def _refusals(hostile: list[tuple[str, Request]], replies: Iterator[Response]) -> Iterator[Check]:
    """Yields a check for every signature: the first input that was not refused, or how many."""
    by_signature: dict[str, list[tuple[str, Response]]] = {}
    for what, question in hostile:
        by_signature.setdefault(question.signature, []).append((what, next(replies)))
    for name, tried in by_signature.items():
        wrong = [(what, reply) for what, reply in tried if reply.code != "INVALID_ARGUMENT"]
        # What kills a server comes first.
        wrong.sort(key=lambda pair: pair[1].code is not None)
        if wrong:
            what, reply = wrong[0]
            yield Check(f"guards of {name}", False, f"{what}: {_told(reply)}")
        else:
            yield Check(f"guards of {name}", True, f"{len(tried)} wrong inputs refused")


def _warm(records: list[Request], replies: Iterator[Response]) -> Check:
    if not records:
        return Check("warm-up", None, "no records")
    for question in records:
        reply = next(replies)
        if reply.code != "OK":
            return Check("warm-up", False, f"a record for {question.signature}: {_told(reply)}")
    return Check("warm-up", True, f"{len(records)} records of batch 1 answered")


def _told(reply: Response) -> str:
    if reply.code is None:
        return f"ends the server: {reply.text}"
    if reply.code == "OK":
        return "is accepted"
    lines = [line.strip() for line in reply.text.splitlines() if line.strip()]
    return f"{reply.code}, {lines[0] if lines else 'no text'}"
