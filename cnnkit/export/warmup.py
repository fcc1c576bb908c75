"""Warm-up requests: what a server sends to a version before it calls the version available.

The first request of a graph takes several times as long as the others. TensorFlow Serving reads
assets.extra/tf_serving_warmup_requests, a TFRecord file of PredictionLog messages, and sends them
while it loads the version. A request that fails keeps the version from being served, so every
record is a batch of one, which no batching configuration refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError

from cnnkit.errors import UsageError
from cnnkit.export.reference_outputs import ReferenceOutputs
from cnnkit.server.warmup import MAX_WARMUP_RECORDS, WARMUP_FILE
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.tensors import to_tensor_proto


def check_record_count(count: int, signatures: Sequence[str]) -> None:
    """Raises an error if a server would refuse `count` warm-up records for each signature.

    Raises:
        UsageError: If the count is negative or too large.
    """
    if count < 0 or count * len(signatures) > MAX_WARMUP_RECORDS:
        raise UsageError(
            f"`warmup` must be in 0..{MAX_WARMUP_RECORDS // len(signatures)} for {len(signatures)}"
            " signatures",
            expected=f"at most {MAX_WARMUP_RECORDS} records in all, as TensorFlow Serving allows",
            received=count,
        )


def write_warmup_records(
    folder: Path, name: str, signatures: Sequence[str], count: int, references: ReferenceOutputs
) -> None:
    """Writes `count` requests to each signature into a version folder; no file if it is 0.

    Args:
        folder: The version folder.
        name: The model's name on the server.
        signatures: Names of the signatures.
        count: Number of records of each signature.
        references: The images of the requests, in turn.
    """
    if not count:
        return
    file = folder / WARMUP_FILE
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for i in range(count):
            row = i % len(references.files)
            for signature in signatures:
                record = pb.PredictionLog()
                request = record.predict_log.request
                request.model_spec.name = name
                request.model_spec.signature_name = signature
                for key, values in references.inputs(signature, slice(row, row + 1)).items():
                    request.inputs[key].CopyFrom(to_tensor_proto(values))
                writer.write(record.SerializeToString())


def read_warmup_records(folder: Path) -> Iterator[pb.PredictRequest]:
    """Yields the warm-up requests of a version folder; none if it has no file of them.

    Raises:
        UsageError: If the file is truncated or corrupt, or a record is not a Predict request.
    """
    file = folder / WARMUP_FILE
    if not file.is_file():
        return
    try:
        for data in tf.data.TFRecordDataset(str(file)):
            record = pb.PredictionLog.FromString(data.numpy())
            if not record.HasField("predict_log"):
                raise UsageError(f"{file} must hold nothing but Predict requests")
            yield record.predict_log.request
    except (tf.errors.OpError, DecodeError) as error:
        raise UsageError(
            f"{file} is truncated or corrupt", received=type(error).__name__
        ) from error
