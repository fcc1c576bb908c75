"""The requests that a server sends to a version itself before it calls it available.

The first request of a graph takes several times as long as the others. TensorFlow Serving reads
assets.extra/tf_serving_warmup_requests, a TFRecord file of PredictionLog messages, and sends them
while the version is loading. One that fails keeps the version from being served, so every record is
a batch of one, which no batching configuration refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError

from cnnkit.errors import UsageError
from cnnkit.export.reference_outputs import ReferenceOutputs
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.tensors import to_tensor_proto

FILE = Path("assets.extra") / "tf_serving_warmup_requests"
# TensorFlow Serving refuses a version with more.
MAX_RECORDS = 1000


def check_record_count(count: int, signatures: Sequence[str]) -> None:
    """Makes sure that a server will take so many records for each signature.

    Raises:
        UsageError: If it will not.
    """
    if count < 0 or count * len(signatures) > MAX_RECORDS:
        raise UsageError(
            "A server takes only so many warm-up records",
            expected=f"0 to {MAX_RECORDS // len(signatures)} for each of {len(signatures)} signatures",
            received=count,
        )


def write_warmup_records(
    folder: Path, name: str, signatures: Sequence[str], count: int, photographs: ReferenceOutputs
) -> None:
    """Writes `count` requests to each signature into a version folder; none for a count of 0.

    Args:
        folder: The version folder.
        name: The model's name on the server.
        signatures: Names of the signatures.
        count: Records for each.
        photographs: What is asked about, in turn.
    """
    if not count:
        return
    file = folder / FILE
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for i in range(count):
            row = i % len(photographs.files)
            for signature in signatures:
                record = pb.PredictionLog()
                request = record.predict_log.request
                request.model_spec.name = name
                request.model_spec.signature_name = signature
                for key, values in photographs.inputs(signature, slice(row, row + 1)).items():
                    request.inputs[key].CopyFrom(to_tensor_proto(values))
                writer.write(record.SerializeToString())


def read_warmup_records(folder: Path) -> Iterator[pb.PredictRequest]:
    """Yields the requests of a version folder; none where it has no records.

    Raises:
        UsageError: If the file is torn, or holds something else.
    """
    file = folder / FILE
    if not file.is_file():
        return
    try:
        for data in tf.data.TFRecordDataset(str(file)):
            record = pb.PredictionLog.FromString(data.numpy())
            if not record.HasField("predict_log"):
                raise UsageError(f"{file} holds a record that is no Predict request")
            yield record.predict_log.request
    except (tf.errors.OpError, DecodeError) as error:
        raise UsageError(f"{file} is not whole", received=type(error).__name__) from error
